"""Rows that compress as real tables do, about 3 to 1; and noise, which does not shrink at all."""
import datetime
import os
import random

# As large as a COPY's input is read: long enough that no window of a compressor sees a repetition.
CHUNK = 48 << 20

ROWS = """(customer integer, created timestamptz, changed timestamptz, status text, currency text, country text, email text,
 amount numeric(12,2), address text, note text, payload jsonb)"""
NOISE = "(content bytea)"


def columns(kind):
    return ROWS if kind == "rows" else NOISE


def write(kind, path):
    """Writes a file for COPY: the same each time."""
    rng = random.Random(20261121)
    line = rows(rng) if kind == "rows" else noise(rng)
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < CHUNK:
            written += file.write(next(line))
    os.chmod(path, 0o644)


def words(rng, count):
    """Words of an invented language, some far more usual than others."""
    onset, vowel, coda = "b d f g k l m n p r s t v z st tr pl".split(), "aeiou", ["", "", "n", "r", "s", "l", "m"]
    made = ["".join(rng.choice(onset) + rng.choice(vowel) + rng.choice(coda) for _ in range(rng.randint(1, 4)))
            for _ in range(count)]
    return made, [1 / (rank + 3) for rank in range(count)]


def rows(rng):
    vocabulary, weights = words(rng, 6000)
    text = iter(())
    created = 1_700_000_000.0

    def take(count):
        nonlocal text
        taken = []
        while len(taken) < count:
            word = next(text, None)
            if word is None:
                text = iter(rng.choices(vocabulary, weights, k=100_000))
                continue
            taken.append(word)
        return taken

    status = ["paid", "shipped", "open", "returned", "cancelled"]
    while True:
        created += rng.expovariate(3)
        first, last, street, city = take(4)
        payload = f'{{"channel": "{rng.choice(["web", "app", "shop"])}", "items": {rng.randint(1, 9)}, "session": "{rng.getrandbits(40):x}"}}'
        yield "\t".join([
            str(rng.randint(1, 400_000)), stamp(created), stamp(created), rng.choices(status, [60, 25, 10, 3, 2])[0],
            rng.choice(["EUR", "EUR", "USD"]), rng.choice(["Germany", "France", "United States"]),
            f"{first}.{last}@{rng.choice(vocabulary[:40])}.example", f"{rng.lognormvariate(3, 1):.2f}",
            f"{street.title()} {rng.randint(1, 200)}, {city.title()}",
            " ".join(take(rng.choices([0, 8, 25], [40, 45, 15])[0])), payload]) + "\n"


def stamp(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")


def noise(rng):
    while True:
        yield f"\\\\x{rng.randbytes(1960).hex()}\n"
