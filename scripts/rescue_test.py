"""Tests of rescue.py. Run: python3 -m unittest scripts/rescue_test.py (with what rescue-requirements.txt names)."""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import nacl.bindings as sodium  # noqa: E402

from rescue_test_writer import MIB, RepositoryWriter  # noqa: E402
from rescuer.errors import Damaged, Failure  # noqa: E402
from rescuer.keys import IDENTITY, WRITER, Identity, Writers, decode_key, encode_key, hpke_open, read_identities  # noqa: E402
from rescuer.names import Switch, branch_name, parse_history, parse_name  # noqa: E402
from rescuer.object import SealedObject  # noqa: E402

BASE = "20261121T060000Z-0a1b2c3d"


def wal_bytes(seed, size=MIB):
    return random.Random(seed).randbytes(size)


class Repository(unittest.TestCase):
    """A repository with its `identity` object in a folder of its own, and the program to read it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="rescue-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.writer = RepositoryWriter(self.folder / "copy")
        self.writer.put_identity()
        (self.folder / "identity").write_text(self.writer.identity_text)

    def run_rescue(self, *arguments, writer=None, status=0, identity=True):
        command = [sys.executable, str(HERE / "rescue.py"), "--repository", str(self.folder / "copy"), "--writer", writer or self.writer.writer_text]
        command += ["--identity", str(self.folder / "identity")] if identity else []
        done = subprocess.run(command + [str(a) for a in arguments], capture_output=True, text=True)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def wal(self, name, *more, status=0):
        said = self.run_rescue("wal", name, self.folder / "out", *more, status=status)
        if status:
            self.assertFalse((self.folder / "out").exists())
            return said
        return (self.folder / "out").read_bytes()


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
            (f"conflict/wal/{branch}/{segment}/abc", "wal"),
        ):
            self.assertEqual(parse_name(text).kind, kind)
        for text in ("probe/1", "lease/x", f"wal/{branch.upper()}/{segment}", f"wal/{branch}/{segment}/0", f"{segment}", "identity\n"):
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
        with SealedObject(self.path, name=parse_name(name or self.name), cluster=cluster or self.writer.cluster, writers=writers) as found:
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

    def test_every_flipped_bit_is_refused(self):
        for at in range(len(self.content)):
            with self.subTest(at=at):
                self.refused(self.flipped(at))

    def test_every_truncation_is_refused(self):
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
        for sealed in ({"codec": "none"}, {"frame_size": 1}, {"frame_size": 2 * MIB}, {"nonce": ""}, {"nonce": "A" * 19 + "="}, {"recipients": []}):
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


class WalFiles(Repository):
    def setUp(self):
        super().setUp()
        self.branch = self.writer.branch
        self.at = 3 * MIB
        self.content = wal_bytes(1)
        self.name = "000000010000000000000003"

    def verify(self, status=0, *more):
        return self.run_rescue("verify", *more, status=status)

    def test_a_whole_segment_comes_back_byte_for_byte(self):
        self.writer.put_whole(self.branch, self.at, self.content)
        self.assertEqual(self.wal(self.name), self.content)
        self.assertIn("2 objects checked, 0 problems", self.verify())
        self.assertIn("none opened", self.run_rescue("verify", "--no-identity", identity=False))

    def test_a_segment_in_parts_comes_back_only_whole(self):
        self.writer.segment_size = 32 * MIB
        self.writer.put_identity()
        content = wal_bytes(2, 32 * MIB)
        segment = "000000010000000000000001"
        for part in (0, 1):
            start = 32 * MIB + part * 16 * MIB
            self.writer.put_wal("wal", f"wal/{self.branch}/{segment}/{part:02}", self.branch, segment, content, start, start + 16 * MIB)
        self.verify()
        self.assertEqual(self.wal(segment), content)
        (self.folder / "out").unlink()
        self.writer.path(f"wal/{self.branch}/{segment}/00").unlink()
        self.wal(segment, status=200)

    def test_overlapping_tails_become_a_segment_filled_with_zeros(self):
        self.writer.put_tail(self.branch, self.at, self.at + 5000, self.content)
        self.writer.put_tail(self.branch, self.at + 4000, self.at + 9000, self.content)
        self.writer.put_tail(self.branch, self.at + 9000, self.at + 9001, self.content)
        self.assertEqual(self.wal(self.name), self.content[:9001] + bytes(MIB - 9001))
        self.verify()
        self.assertIn("wal 0/300000 - 0/302329, from 0/300000 on in tails", self.run_rescue("list"))

    def test_a_partial_and_tails_make_one_chain(self):
        self.writer.put_partial(self.branch, self.at, self.at + 700, self.content)
        self.writer.put_tail(self.branch, self.at + 600, self.at + 800, self.content)
        self.assertEqual(self.wal(self.name), self.content[:800] + bytes(MIB - 800))

    def test_a_gap_between_tails_is_a_hole_and_not_the_end_of_wal(self):
        self.writer.put_tail(self.branch, self.at, self.at + 500, self.content)
        self.writer.put_tail(self.branch, self.at + 501, self.at + 900, self.content)
        self.assertIn("hole", self.wal(self.name, status=200))
        self.assertIn("HOLE 0/3001F4 - 0/3001F5", self.run_rescue("list"))
        self.assertEqual(self.wal(self.name, "--incomplete"), self.content[:500] + bytes(MIB - 500))

    def test_a_missing_segment_before_others_is_a_hole_and_after_them_the_end(self):
        self.writer.put_whole(self.branch, self.at, self.content)
        self.assertIn("hole", self.wal("000000010000000000000002", status=200))
        self.wal("000000010000000000000004", status=1)
        self.wal("00000002.history", status=1)
        self.wal("nonsense", status=1)

    def test_tails_of_another_history_are_refused(self):
        self.writer.put_tail(self.branch, self.at, self.at + 500, self.content)
        self.writer.put_tail(self.branch, self.at + 500, self.at + 900, wal_bytes(7))
        self.assertIn("two histories", self.wal(self.name, status=200))
        self.assertIn("two histories", self.verify(1))

    def test_a_damaged_tail_is_left_out_when_the_whole_segment_is_there(self):
        tail = self.writer.path(self.writer.put_tail(self.branch, self.at, self.at + 500, self.content))
        tail.write_bytes(tail.read_bytes()[:-1])
        self.writer.put_whole(self.branch, self.at, self.content)
        self.assertEqual(self.wal(self.name), self.content)
        self.assertIn("PROBLEM", self.verify(1))

    def test_a_damaged_segment_is_made_from_its_tails_or_refused_but_never_filled_with_zeros(self):
        whole = self.writer.path(self.writer.put_whole(self.branch, self.at, self.content))
        damaged = bytearray(whole.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        whole.write_bytes(damaged)
        self.writer.put_tail(self.branch, self.at, self.at + 600000, self.content)
        self.assertIn("no other object holds", self.wal(self.name, status=200))
        self.writer.put_tail(self.branch, self.at + 600000, self.at + MIB, self.content)
        self.assertEqual(self.wal(self.name), self.content)

    def test_wrong_members_of_wal_are_refused_though_they_are_signed(self):
        for wal in (
            {"segment_size": 2 * MIB}, {"segment_size": 3}, {"segment": "000000010000000000000004"}, {"branch": "00000001-00000000"},
            {"start": "0/300001"}, {"end": "0/400001"}, {"end": "0/3FFFFF"}, {"start": "x"}, {"digest_end": "0" * 64}, {"digest_start": "0" * 64},
        ):
            self.writer.put_whole(self.branch, self.at, self.content, wal=wal)
            with self.subTest(wal=wal):
                self.assertIn("PROBLEM", self.verify(1))
                self.wal(self.name, status=200)

    def test_histories_lead_from_branch_to_branch(self):
        switch = self.at + 2000
        history = b"1\t0/3007D0\tno recovery target specified\n"
        child = self.writer.put_history(2, parse_history(history), history)
        self.writer.put_tail(self.branch, self.at, switch, self.content)
        new = self.content[:2000] + wal_bytes(3, MIB - 2000)
        # The child's first tail begins at the switch: what is before it in the segment is the parent's.
        self.writer.put_tail(child, switch, self.at + 5000, new)
        self.assertEqual(self.wal("00000002.history"), history)
        self.assertEqual(self.wal("000000020000000000000003"), new[:5000] + bytes(MIB - 5000))
        self.assertEqual(self.wal(self.name, "--branch", child), self.content[:2000] + bytes(MIB - 2000))
        self.assertIn(f"left {self.branch} at 0/3007D0", self.run_rescue("list"))
        self.verify()
        # Another branch of the same timeline: nobody can say which is meant.
        other = b"1\t0/3000C8\tno recovery target specified\n"
        self.writer.put_history(2, parse_history(other), other)
        (self.folder / "out").unlink()
        self.assertIn("choose with --branch", self.wal("00000002.history", status=200))

    def test_a_history_under_the_name_of_another_branch_is_refused(self):
        self.writer.put("history", "history/00000002-00000000", [b"1\t0/3000C8\tx\n"])
        self.assertIn("not those of the branch", self.verify(1))
        self.assertIn("not those of the branch", self.wal("00000002.history", status=200))


class Bases(Repository):
    START, STOP = 3 * MIB + 40, 3 * MIB + 900

    def setUp(self):
        super().setUp()
        self.tree = {
            "PG_VERSION": b"15\n",
            "base/1/1259": wal_bytes(10, 300000),
            "base/1/empty": b"",
            b"base/1/\xff\xfe": b"not UTF-8",
            "global/pg_control": wal_bytes(11, 8192),
            "backup_label": b"START WAL LOCATION\n",
            "pg_tblspc/16384/PG_15_202209061/5/16385": wal_bytes(12, 9000),
            "pg_tblspc/16390/PG_15_202209061/5/16391": b"in place",
        }
        self.place = self.folder / "old-tablespace"
        self.tablespaces = [("16384", str(self.place)), ("16390", None)]
        self.tree["tablespace_map"] = f"16384 {self.place}\n".encode()
        self.directories = [("base", 0o700), ("base/1", 0o700), ("global", 0o700), ("pg_wal", 0o700), ("pg_replslot", 0o700)]
        self.content = wal_bytes(1)
        self.put()
        self.writer.put_tail(self.writer.branch, 3 * MIB, 3 * MIB + 1000, self.content)
        self.target = self.folder / "restored"

    def put(self, **more):
        return self.writer.put_base(BASE, self.tree, self.START, self.STOP, self.tablespaces, self.directories, **more)

    def restored(self, path):
        return (self.target / os.fsdecode(path)).read_bytes()

    def test_a_data_directory_comes_back_as_it_was(self):
        said = self.run_rescue("restore", "latest", self.target, "--wal")
        for path, content in self.tree.items():
            self.assertEqual(self.restored(path), content)
        self.assertEqual(os.readlink(self.target / "pg_tblspc/16384"), str(self.place))
        self.assertFalse((self.target / "pg_tblspc/16390").is_symlink())
        self.assertTrue((self.target / "pg_replslot").is_dir())
        self.assertEqual((self.target / "PG_VERSION").stat().st_mode & 0o7777, 0o600)
        self.assertEqual((self.target / "PG_VERSION").stat().st_mtime, 1700000000)
        self.assertEqual(self.target.stat().st_mode & 0o7777, 0o700)
        self.assertEqual(self.restored("pg_wal/000000010000000000000003"), self.content[:1000] + bytes(MIB - 1000))
        self.assertIn("restore_command = 'false'", said)
        self.assertIn("recovery.signal", said)
        self.assertIn("0 problems", self.run_rescue("verify"))
        self.assertIn("0/300028 - 0/300384", self.run_rescue("list", identity=False))

    def test_a_tablespace_goes_where_it_is_told_and_postgresql_is_told_too(self):
        new = self.folder / "new-tablespace"
        self.run_rescue("restore", BASE, self.target, "--tablespace", f"{self.place}={new}", "--wal-into", self.folder / "wal")
        self.assertEqual((new / "PG_15_202209061/5/16385").read_bytes(), self.tree["pg_tblspc/16384/PG_15_202209061/5/16385"])
        self.assertEqual(self.restored("tablespace_map"), f"16384 {new}\n".encode())
        self.assertFalse(self.place.exists())
        self.assertTrue((self.folder / "wal/000000010000000000000003").exists())

    def test_without_wal_the_restore_command_is_this_program(self):
        said = self.run_rescue("restore", BASE, self.target)
        command = said.split("restore_command = '")[1].split("'\n")[0].replace("''", "'")
        command = command.replace("%f", "000000010000000000000003").replace("%p", str(self.folder / "fetched"))
        subprocess.run(command, shell=True, check=True, stderr=subprocess.DEVNULL)
        self.assertEqual((self.folder / "fetched").read_bytes()[:1000], self.content[:1000])

    def test_a_target_or_tablespace_that_is_not_empty_is_refused(self):
        self.target.mkdir()
        (self.target / "x").touch()
        self.assertIn("not an empty directory", self.run_rescue("restore", BASE, self.target, status=200))
        (self.target / "x").unlink()
        self.place.mkdir()
        (self.place / "x").touch()
        self.assertIn("--tablespace", self.run_rescue("restore", BASE, self.target, status=200))

    def test_a_damaged_data_object_is_refused_and_leaves_no_pg_control(self):
        path = self.writer.path(f"base/{BASE}/data/00000000")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        self.assertIn("not complete", self.run_rescue("restore", BASE, self.target, status=200))
        self.assertFalse((self.target / "global/pg_control").exists())
        said = self.run_rescue("verify", status=1)
        self.assertIn(f"base/{BASE}/data/00000000: the CRC-32 of frame", said)
        self.assertIn(f"base backup {BASE} needs base/{BASE}/data/00000000", said)

    def test_another_sound_object_under_a_name_of_the_label_is_refused(self):
        self.writer.put("data", f"base/{BASE}/data/00000000", [b"x"])
        self.assertIn("not the object", self.run_rescue("restore", BASE, self.target, status=200))
        self.assertIn("PROBLEM", self.run_rescue("verify", "--no-identity", status=1, identity=False))

    def test_a_missing_object_is_told(self):
        self.writer.path(f"base/{BASE}/manifest/00000001").unlink()
        self.assertIn("missing", self.run_rescue("verify", status=1))
        self.assertIn("missing", self.run_rescue("restore", BASE, self.target, status=200))

    def test_paths_never_lead_out_of_the_data_directory(self):
        for path in ("../x", "/etc/x", "base/../../x", "", ".", "base//x", "x\0y"):
            self.put(entries=[{"type": "directory", "path": path, "mode": 0o700}])
            with self.subTest(path=path):
                self.assertIn("does not lie in", self.run_rescue("restore", BASE, self.target, "--tablespace", f"{self.place}={self.folder / 'ts'}", status=200))
                self.assertIn("PROBLEM", self.run_rescue("verify", status=1))
                subprocess.run(["rm", "-r", self.target, self.folder / "ts"], check=True)

    def test_wrong_entries_are_refused(self):
        file = {"type": "file", "path": "f", "mode": 384, "mtime": 1, "size": 3, "extents": [[0, 0, 1]], "digests": "A" * 22 + "=="}
        for change in ({}, {"extents": [[99, 0, 1]]}, {"extents": [[0, 99, 1]]}, {"extents": [[0, 0]]}, {"size": 2}, {"extents": []}, {"mode": 1 << 20}, {"type": "link"}):
            self.put(entries=[file | change])
            with self.subTest(change=change):
                self.assertIn("PROBLEM", self.run_rescue("verify", status=1))

    def test_a_backup_without_the_wal_to_its_stop_is_refused(self):
        self.put(body={"stop": "0/300FFF"})
        self.assertIn("consistent only from", self.run_rescue("restore", BASE, self.target, status=200))
        self.assertFalse(self.target.exists())
        self.assertIn("needs WAL", self.run_rescue("verify", status=1))

    def test_the_newest_sound_backup_is_the_latest(self):
        self.put(body={"suspect": 2})
        self.assertIn("no sound base backup", self.run_rescue("restore", "latest", self.target, status=200))
        older = "20261120T060000Z-00000000"
        self.writer.put_base(older, {"global/pg_control": b"older"}, self.START, self.STOP)
        self.assertIn("is newer, but", self.run_rescue("restore", "latest", self.target))
        self.assertEqual(self.restored("global/pg_control"), b"older")

    def test_recovery_follows_the_only_way_or_asks(self):
        history = b"1\t0/300388\tx\n"
        child = self.writer.put_history(2, parse_history(history), history)
        new = self.content[:904] + wal_bytes(5, MIB - 904)
        self.writer.put_whole(child, 3 * MIB, new)
        self.writer.put_tail(child, 4 * MIB, 4 * MIB + 10, wal_bytes(6))
        said = self.run_rescue("restore", BASE, self.target, "--wal")
        self.assertIn("recovery_target_timeline = '2'", said)
        self.assertEqual(self.restored("pg_wal/00000002.history"), history)
        self.assertEqual(self.restored("pg_wal/000000020000000000000003"), new)
        self.assertEqual(self.restored("pg_wal/000000020000000000000004")[:10], wal_bytes(6)[:10])
        subprocess.run(["rm", "-r", self.target, self.place], check=True)
        other = b"1\t0/300389\ty\n"
        sibling = self.writer.put_history(2, parse_history(other), other)
        self.assertIn("choose with --branch", self.run_rescue("restore", BASE, self.target, status=200))
        self.run_rescue("restore", BASE, self.target, "--branch", child)
        # A branch that was left before the backup was consistent cannot be reached.
        early = b"1\t0/300100\tz\n"
        branch = self.writer.put_history(3, parse_history(early), early)
        self.assertIn("cannot be reached", self.run_rescue("restore", BASE, self.folder / "second", "--branch", branch, status=200))
        self.assertNotEqual(sibling, child)


class CommandLine(Repository):
    def test_show_tells_header_and_trailer(self):
        shown = json.loads(self.run_rescue("show", self.writer.path("identity")))
        self.assertEqual(shown["header"]["kind"], "identity")
        self.assertEqual(shown["trailer"]["frames"][0]["plain"], 32)
        self.run_rescue("show", self.folder / "identity", status=200)
        self.run_rescue("show", self.folder, status=200)

    def test_wrong_command_lines_are_never_taken_for_the_end_of_wal(self):
        for arguments in (["wal"], ["nonsense"], [], ["restore", "latest", "x", "--tablespace", "x"]):
            self.run_rescue(*arguments, status=200)
        self.run_rescue("list", writer="walsealw1qqqq", status=200)
        self.run_rescue("--cluster", "12", "list", status=200)
        self.run_rescue("verify", identity=False, status=200)
        self.run_rescue("wal", "000000010000000000000003", "x", identity=False, status=200)

    def test_several_clusters_are_listed_and_never_mixed(self):
        second = RepositoryWriter(self.folder / "copy", cluster="99")
        second.seed, second.writer, second.signing = self.writer.seed, self.writer.writer, self.writer.signing
        second.identity = self.writer.identity
        second.put_identity()
        self.assertEqual(self.run_rescue("list").count("cluster "), 2)
        self.assertIn("choose with --cluster", self.run_rescue("restore", "latest", self.folder / "t", status=200))
        second.path("identity").write_bytes(self.writer.path("identity").read_bytes())
        self.assertIn("belongs to cluster", self.run_rescue("verify", status=1))

    def test_verify_names_each_problem_on_its_line(self):
        for number in range(3):
            name = self.writer.put("data", f"base/{BASE}/data/{number:08}", [b"x" * 100])["name"]
            path = self.writer.path(name)
            path.write_bytes(path.read_bytes()[:-1])
        self.writer.path("lease").mkdir()
        (self.writer.path("lease") / "a").write_bytes(b"?")
        said = self.run_rescue("verify", status=1)
        self.assertEqual(len([line for line in said.splitlines() if line.startswith("PROBLEM")]), 3)
        self.assertIn("lease/a: not a name of this format", said)


if __name__ == "__main__":
    unittest.main()
