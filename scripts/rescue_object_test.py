"""Tests of reading single objects, keys and names. Run as rescue_test.py says."""

import dataclasses
import json
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import nacl.bindings as sodium  # noqa: E402
from blake3 import blake3  # noqa: E402

from rescue_test_writer import MIB, Repository  # noqa: E402
from rescuer.errors import Damaged, Failure  # noqa: E402
from rescuer.keys import COMPARE_SECRET, IDENTITY, WRITER, WRITER_SECRET, Identity, Writers  # noqa: E402
from rescuer.keys import decode_key, encode_key, hpke_open, key_id, read_identities  # noqa: E402
from rescuer.names import Switch, branch_name, parse_history, parse_lsn, parse_name  # noqa: E402
from rescuer.object import SealedObject  # noqa: E402

BASE = "20261121T060000Z-0a1b2c3d"


class Keys(unittest.TestCase):
    def test_bech32m_of_bip_350_is_read(self):
        # BIP-350's valid string "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx" holds the values 31 down to 0: 20 bytes, so not a key.
        with self.assertRaisesRegex(Failure, "32 bytes"):
            decode_key("abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx", "abcdef")
        with self.assertRaisesRegex(Failure, "checksum"):
            decode_key("abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3rya", "abcdef")

    def test_keys_survive_the_way_to_text_and_back(self):
        for part in (WRITER, IDENTITY):
            key = os.urandom(32)
            self.assertEqual(decode_key(encode_key(part, key), part), key)
            self.assertEqual(decode_key(encode_key(part, key).upper(), part), key)

    def test_a_recipient_is_not_taken_for_a_writer(self):
        with self.assertRaisesRegex(Failure, "begins with walsealw1"):
            decode_key(encode_key("walseal", bytes(32)), WRITER)

    def test_hpke_opens_the_vector_of_rfc_9180_appendix_a_2_1(self):
        identity = Identity(bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"))
        enc = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
        sealed = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
        info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
        self.assertEqual(hpke_open(identity, enc, sealed, info, b"Count-0"), b"Beauty is truth, truth beauty")
        with self.assertRaises(Damaged):
            hpke_open(identity, enc, sealed, info, b"Count-1")

    def test_a_secret_is_never_in_a_message(self):
        secret = encode_key(IDENTITY, os.urandom(32))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "identity"
            path.write_text(secret[:-1] + ("q" if secret[-1] != "q" else "p"))
            with self.assertRaises(Failure) as raised:
                read_identities(path)
        self.assertNotIn(secret[30:50], str(raised.exception))
        self.assertNotIn("secret=", repr(Identity(os.urandom(32))))


class Names(unittest.TestCase):
    def test_every_kind_of_the_format_is_known_by_its_name(self):
        branch, segment = "00000001-0011aabb", "000000010000000000000003"
        for text, kind in (
            ("identity", "identity"),
            (f"wal/{branch}/{segment}", "wal"),
            (f"wal/{branch}/{segment}/00", "wal"),
            (f"wal/{branch}/{segment}.partial", "partial"),
            (f"tail/{branch}/{segment}/0000000003000000-0000000003000100", "tail"),
            (f"history/{branch}", "history"),
            (f"base/{BASE}/label", "label"),
            (f"base/{BASE}/manifest/00000000", "manifest"),
            (f"base/{BASE}/data/00000000", "data"),
            ("ledger/walsealw1qqqq/00112233aabbccdd/00000017", "ledger"),
            (f"conflict/wal/{branch}/{segment}/abc", "wal"),
        ):
            self.assertEqual(parse_name(text).kind, kind)
        for text in (
            "probe/1",
            "lease/x",
            f"wal/{branch.upper()}/{segment}",
            f"wal/{branch}/{segment}/0",
            f"{segment}",
            "identity\n",
        ):
            self.assertIsNone(parse_name(text))

    def test_histories_are_read_as_postgresql_reads_them(self):
        entries = parse_history(b"# comment\n1\t0/3000060\tno recovery target specified\n\n2\t1/A0\t  before 2026 \n")
        self.assertEqual(entries, [Switch(1, 0x3000060, b"no recovery target specified"), Switch(2, 0x1000000A0, b"before 2026")])
        self.assertNotEqual(branch_name("1", 3, entries), branch_name("1", 3, entries[:1]))
        for damaged in (b"x\t0/1\tr", b"1\t0\tr", b"2\t0/1\tr\n1\t0/2\tr"):
            with self.assertRaises(Damaged):
                parse_history(damaged)


class Tampering(Repository):
    """Whatever is changed in an object is refused."""

    def setUp(self):
        super().setUp()
        self.name = self.writer.put("data", f"base/{BASE}/data/00000000", [bytes(MIB), b"b" * MIB, b"c" * 100])["name"]
        self.path = self.writer.path(self.name)
        self.content = self.path.read_bytes()
        self.identity = Identity(self.writer.identity)

    def read(self, name=None, cluster=None, writers=None, identity=None):
        writers = Writers(writers or [self.writer.writer_text])
        with SealedObject(
            self.path, name=parse_name(name or self.name), cluster=cluster or self.writer.cluster, writers=writers
        ) as found:
            found.unlock([identity or self.identity])
            return b"".join(found.plain_frames())

    def refused(self, content, message=""):
        self.path.write_bytes(content)
        with self.assertRaisesRegex(Damaged, message):
            self.read()

    def flipped(self, at):
        return self.content[:at] + bytes([self.content[at] ^ 1]) + self.content[at + 1 :]

    def test_an_untouched_object_is_read(self):
        self.assertEqual(self.read(), bytes(MIB) + b"b" * MIB + b"c" * 100)

    def test_a_flipped_bit_in_any_byte_is_refused(self):
        for at in range(len(self.content)):
            with self.subTest(at=at):
                self.refused(self.flipped(at))

    def test_truncations_are_refused(self):
        for length in list(range(0, len(self.content), 37)) + [len(self.content) - 1]:
            with self.subTest(length=length):
                self.refused(self.content[:length])

    def test_added_bytes_are_refused(self):
        at = 16 + int.from_bytes(self.content[12:16], "little") + 64
        self.refused(self.content + b"\0", "WALSEND")
        self.refused(b"\0" + self.content, "WALSEAL")
        self.refused(self.content[:at] + bytes(8) + self.content[at:], "bytes were put in")
        self.refused(self.content + self.content)

    def test_swapped_frames_are_refused_though_they_are_signed(self):
        self.writer.put("data", self.name, [b"a" * 99, b"b" * 99, b"c"], cut=lambda s: [s[1], s[0], s[2]])
        with self.assertRaisesRegex(Damaged, "does not open"):
            self.read()

    def test_a_last_frame_that_was_cut_off_is_refused_though_it_is_signed(self):
        self.writer.put("data", self.name, [b"a" * 99, b"b" * 99], cut=lambda s: s[:1], trailer={"plain_size": 99})
        with self.assertRaisesRegex(Damaged, "does not open"):
            self.read()

    def test_frames_of_another_object_are_refused(self):
        other = self.writer.put("data", f"base/{BASE}/data/00000001", [bytes(MIB), b"b" * MIB, b"c" * 100])["name"]
        content = self.writer.path(other).read_bytes()
        at, end = 80 + int.from_bytes(content[12:16], "little"), -80 - int.from_bytes(content[-16:-12], "little")
        self.refused(self.content[:at] + content[at:end] + self.content[end:], "not the one that was signed")

    def test_a_trailer_of_another_object_is_refused(self):
        other = self.writer.put("data", f"base/{BASE}/data/00000001", [bytes(MIB), b"b" * MIB, b"c" * 100])["name"]
        content = self.writer.path(other).read_bytes()
        end = -80 - int.from_bytes(content[-16:-12], "little")
        self.refused(self.content[:end] + content[end:], "signature of its trailer")

    def test_another_name_cluster_or_kind_is_refused(self):
        with self.assertRaisesRegex(Damaged, "moved"):
            self.read(name=f"base/{BASE}/data/00000001")
        with self.assertRaisesRegex(Damaged, "belongs to cluster"):
            self.read(cluster="1")
        self.writer.put("manifest", self.name, [b"x"])
        with self.assertRaisesRegex(Damaged, "kind is manifest"):
            self.read()

    def test_a_data_key_sealed_for_another_name_is_refused(self):
        self.writer.put("data", self.name, [b"x"], sealed={"recipients": [self.writer.seal(os.urandom(32), "other")]})
        with self.assertRaisesRegex(Damaged, "data key does not open"):
            self.read()

    def test_untrusted_writers_and_writers_of_another_role_are_refused(self):
        stranger = encode_key(WRITER, sodium.crypto_sign_seed_keypair(os.urandom(32))[0])
        with self.assertRaisesRegex(Damaged, "--writer does not name"):
            self.read(writers=[stranger])
        with self.assertRaisesRegex(Damaged, "--writer does not name"):
            self.read(writers=["wal=" + self.writer.writer_text])
        self.assertEqual(len(self.read(writers=[stranger, "base=" + self.writer.writer_text])), 2 * MIB + 100)

    def test_a_wrong_identity_is_refused(self):
        with self.assertRaisesRegex(Damaged, "is sealed for"):
            self.read(identity=Identity(os.urandom(32)))

    def test_a_small_order_writer_is_refused(self):
        self.writer.writer = b"\x01" + bytes(31)
        self.writer.sign = lambda message: b"\x01" + bytes(63)
        self.writer.put("data", self.name, [b"x"])
        with self.assertRaisesRegex(Damaged, "signature of its header"):
            self.read()

    def test_wrong_headers_and_trailers_are_refused_though_they_are_signed(self):
        for header in ({"kind": "lease"}, {"cluster": 1}, {"created": None}):
            self.writer.put("data", self.name, [b"x"], header=header)
            with self.subTest(header=header), self.assertRaises(Damaged):
                self.read()
        for sealed in (
            {"codec": "none"},
            {"frame_size": 1},
            {"frame_size": 2 * MIB},
            {"nonce": ""},
            {"nonce": "A" * 19 + "="},
            {"recipients": []},
        ):
            self.writer.put("data", self.name, [b"x"], sealed=sealed)
            with self.subTest(sealed=sealed), self.assertRaises(Damaged):
                self.read()
        for trailer in ({"plain_size": 2}, {"plain_size": True}, {"frames": ""}, {"frames": "AAAA"}):
            self.writer.put("data", self.name, [b"x"], trailer=trailer)
            with self.subTest(trailer=trailer), self.assertRaises(Damaged):
                self.read()
        self.writer.put("data", self.name)
        with self.assertRaisesRegex(Damaged, "no 'sealed'"):
            self.read()

    def test_more_than_16_mib_in_an_object_are_refused(self):
        self.writer.put("data", self.name, [bytes(MIB)] * 16 + [b"x"])
        with self.assertRaisesRegex(Damaged, "more than 16 MiB"):
            self.read()


class Vectors(unittest.TestCase):
    """What walseal itself wrote. Without a folder of vectors these tests fail."""

    FOLDER = HERE.parent / "common/tests/vectors"
    CLUSTER = "7437123456789012345"

    def setUp(self):
        lines = (self.FOLDER / "writer.key").read_text().splitlines()
        writer = next(line for line in lines if line.startswith(WRITER_SECRET))
        self.compare = decode_key(next(line for line in lines if line.startswith(COMPARE_SECRET)), COMPARE_SECRET)
        self.writers = Writers([encode_key(WRITER, sodium.crypto_sign_seed_keypair(decode_key(writer, WRITER_SECRET))[0])])
        resume = blake3(decode_key(writer, WRITER_SECRET), derive_key_context="walseal 2026-11 resume identity").digest()
        self.identities = [*read_identities(self.FOLDER / "identity.key"), Identity(resume)]

    def objects(self):
        """File and object name, as the table in the folder's README pairs them; every file must be in the table."""
        table = re.findall(r"^\| `([a-z0-9_.-]+\.object)` \| `([^`]+)` \|", (self.FOLDER / "README.md").read_text(), re.MULTILINE)
        self.assertTrue(table, "the README of the vectors names no object")
        self.assertEqual({file for file, _ in table}, {path.name for path in self.FOLDER.glob("*.object")})
        return table

    def read(self, file, name):
        with SealedObject(self.FOLDER / file, name=parse_name(name), cluster=self.CLUSTER, writers=self.writers) as found:
            found.unlock(self.identities)
            return found, list(found.plain_frames())

    @staticmethod
    def pattern(count):
        return bytes((i // 3 ^ i // 256) & 255 for i in range(count))

    def test_every_vector_is_read(self):
        for file, name in self.objects():
            with self.subTest(file=file):
                self.assertEqual(self.read(file, name)[0].name, name)

    def test_the_vectors_hold_what_their_readme_says(self):
        names = dict(self.objects())
        found, frames = self.read("data.object", names["data.object"])
        self.assertEqual([len(frame) for frame in frames], [65536, 65536, 150000 - 131072])
        self.assertEqual((b"".join(frames), found.frame_size), (self.pattern(150000), 65536))
        self.assertEqual(self.read("empty.object", names["empty.object"])[1], [b""])
        self.assertEqual(
            self.read("label.object", names["label.object"])[0].body, {"id": "20261121T023000Z-0000002a", "type": "full"}
        )
        lines = b"".join(self.read("resume.object", names["resume.object"])[1]).splitlines()
        found, file = (json.loads(line) for line in lines)
        data = (self.FOLDER / "data.object").read_bytes()
        told = (found["type"], found["name"], found["size"], found["digest"], found["plain_size"])
        self.assertEqual(told, ("object", names["data.object"], len(data), blake3(data).hexdigest(), 150000))
        self.assertEqual((file["type"], file["path"], file["extents"]), ("file", "base/1/1259", [[0, 0, 3]]))
        entry = self.read("ledger.object", names["ledger.object"])[0].body
        self.assertEqual((entry["act"], entry["sequence"], entry["heads"]), ("daemon-started", 0, []))
        adoption = self.read("adopt.object", names["adopt.object"])[0].body
        way = [(parse_lsn(adoption["from"]), 0, adoption["writer"])]
        named = [branch_name(self.CLUSTER, 1, [], adopted) for adopted in ([], way)]
        self.assertEqual(named, [adoption["branch"], adoption["to"]])

    def test_an_entry_of_the_ledger_in_another_folder_is_refused(self):
        name = dict(self.objects())["ledger.object"]
        other = dataclasses.replace(parse_name(name), writer="walsealw1other")
        with self.assertRaisesRegex(Damaged, "in another writer's folder"):
            SealedObject(self.FOLDER / "ledger.object", name=other, cluster=self.CLUSTER, writers=self.writers)

    def test_the_digests_of_the_tail_are_those_of_its_segment(self):
        found, frames = self.read("tail.object", dict(self.objects())["tail.object"])
        content = self.pattern(3000)
        self.assertEqual(b"".join(frames), content[100:])
        self.assertEqual(found.wal.compare_key, key_id("compare key", self.compare))
        self.assertEqual(found.wal.digest_start, blake3(content[:100], key=self.compare).hexdigest())
        self.assertEqual(found.wal.digest_end, blake3(content, key=self.compare).hexdigest())
        self.assertEqual(found.wal.branch, branch_name(self.CLUSTER, 1, []))

    def test_a_flipped_bit_in_any_byte_of_a_vector_is_refused(self):
        for file, name in self.objects():
            content = (self.FOLDER / file).read_bytes()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / file
                for at in range(0, len(content), max(1, len(content) // 500)):
                    path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
                    with self.subTest(file=file, at=at), self.assertRaises(Damaged):
                        with SealedObject(path, name=parse_name(name), cluster=self.CLUSTER, writers=self.writers) as found:
                            found.unlock(self.identities)
                            list(found.plain_frames())


if __name__ == "__main__":
    unittest.main()
