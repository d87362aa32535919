"""Keys as text (FORMAT.md section 2), and opening what is sealed for a recipient (section 3: HPKE, RFC 9180)."""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

import nacl.bindings as sodium
import nacl.exceptions
from blake3 import blake3

from .errors import Damaged, Failure

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3

RECIPIENT, IDENTITY = "walseal", "walseal-secret-identity"
WRITER, WRITER_SECRET, COMPARE_SECRET = "walsealw", "walseal-secret-writer", "walseal-secret-compare"


def _polymod(values):
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _expand(part):
    return [ord(c) >> 5 for c in part] + [0] + [ord(c) & 31 for c in part]


def encode_key(part, data):
    """Bech32m (BIP-350) without its length limit."""
    bits = int.from_bytes(data, "big") << -len(data) * 8 % 5
    count = (len(data) * 8 + 4) // 5
    values = [bits >> 5 * (count - 1 - i) & 31 for i in range(count)]
    checksum = _polymod(_expand(part) + values + [0] * 6) ^ BECH32M
    values += [checksum >> 5 * (5 - i) & 31 for i in range(6)]
    return part + "1" + "".join(ALPHABET[v] for v in values)


def decode_key(text, part):
    """The 32 bytes of a key. `Failure` says nothing of the text itself: it may be a secret."""
    if text != text.lower() and text != text.upper():
        raise Failure(f"this is not a {part}1… key: it mixes upper and lower case; copy it again")
    found, _, data = text.lower().rpartition("1")
    if found != part:
        shown = found if found in (RECIPIENT, IDENTITY, WRITER, WRITER_SECRET, COMPARE_SECRET) else "something else"
        raise Failure(f"expected a key that begins with {part}1, and this is {shown}; give the other key")
    if len(data) < 6 or any(c not in ALPHABET for c in data):
        raise Failure(f"this {part}1… key has characters that do not belong to it, or too few; copy it again")
    values = [ALPHABET.index(c) for c in data]
    if _polymod(_expand(found) + values) != BECH32M:
        raise Failure(f"the checksum of this {part}1… key is wrong: a character was lost or changed; copy it again")
    values = values[:-6]
    bits = 0
    for value in values:
        bits = bits << 5 | value
    spare = len(values) * 5 - 256
    if not 0 <= spare < 5 or bits & (1 << spare) - 1:
        raise Failure(f"this {part}1… key does not hold 32 bytes; copy it again")
    return (bits >> spare).to_bytes(32, "big")


def key_id(purpose, data):
    return blake3(data, derive_key_context=f"walseal 2026-11 {purpose} id").digest()[:8].hex()


@dataclass
class Identity:
    """A secret key that opens what is sealed for its recipient. Never printed."""

    secret: bytes = field(repr=False)

    def __post_init__(self):
        self.public = sodium.crypto_scalarmult_base(self.secret)
        self.id = key_id("recipient", self.public)


def read_identities(path):
    """All identities of an identity file."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the identity file {path}: {error}") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            found.append(Identity(decode_key(line, IDENTITY)))
        except Failure as error:
            raise Failure(f"{path}, line {number}: {error}") from None
    if not found:
        raise Failure(f"{path} holds no identity: a line that begins with {IDENTITY}1 is needed")
    return found


class Writers:
    """Which writers are trusted for which role: `walsealw1…` for both, `wal=walsealw1…` or `base=walsealw1…` for one."""

    def __init__(self, texts):
        self.roles = {"wal": set(), "base": set()}
        for text in texts:
            role, equals, key = text.rpartition("=")
            if equals and role not in self.roles:
                raise Failure(f"--writer {text}: the role before '=' is wal or base")
            for name in [role] if equals else self.roles:
                self.roles[name].add(decode_key(key, WRITER))

    def trusts(self, key, kind):
        if kind in ("identity", "ledger", "evidence"):
            return any(key in keys for keys in self.roles.values())
        of_wal = ("wal", "partial", "tail", "history", "frontier", "catalog", "summary", "adopt")
        role = "wal" if kind in of_wal else "base"
        return key in self.roles[role]

    def names(self, text):
        """Whether a writer, as its public key is written, is trusted for anything."""
        try:
            return self.trusts(decode_key(text, WRITER), "ledger")
        except Failure:
            return False


# HPKE in base mode: DHKEM(X25519, HKDF-SHA256) = 0x0020, HKDF-SHA256 = 0x0001, ChaCha20Poly1305 = 0x0003.
_KEM = b"KEM\x00\x20"
_SUITE = b"HPKE\x00\x20\x00\x01\x00\x03"


def _extract(suite, salt, label, material):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def _expand_label(suite, key, label, info, length):
    # One block of HKDF-Expand is enough: no output here is longer than 32 bytes.
    block = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info + b"\x01"
    return hmac.digest(key, block, hashlib.sha256)[:length]


def hpke_key_and_nonce(shared, enc, public, info):
    """RFC 9180 sections 4.1 and 5.1: from the Diffie-Hellman result to the key and nonce of the first message."""
    secret = _extract(_KEM, b"", b"eae_prk", shared)
    secret = _expand_label(_KEM, secret, b"shared_secret", enc + public, 32)
    context = b"\x00" + _extract(_SUITE, b"", b"psk_id_hash", b"") + _extract(_SUITE, b"", b"info_hash", info)
    secret = _extract(_SUITE, secret, b"secret", b"")
    return _expand_label(_SUITE, secret, b"key", context, 32), _expand_label(_SUITE, secret, b"base_nonce", context, 12)


def hpke_open(identity, enc, sealed, info, aad):
    """What was sealed for `identity`. `Damaged` when it was not, or not with this info and associated data."""
    try:
        shared = sodium.crypto_scalarmult(identity.secret, enc)
        key, nonce = hpke_key_and_nonce(shared, enc, identity.public, info)
        return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
    except (nacl.exceptions.CryptoError, RuntimeError):
        raise Damaged("its data key does not open with the identity: the sealed key was changed or moved here") from None
