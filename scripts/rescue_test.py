"""Tests of rescue.py as a program. With what rescue-requirements.txt names:

python3 -m unittest discover -s scripts -p 'rescue*_test.py'
"""

import base64
import json
import os
import random
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blake3 import blake3  # noqa: E402

from rescue_test_writer import MIB, Repository, RepositoryWriter  # noqa: E402
from rescuer.names import branch_name, lsn_text, parse_history  # noqa: E402

BASE = "20261121T060000Z-0a1b2c3d"


def wal_bytes(seed, size=MIB):
    return random.Random(seed).randbytes(size)


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
            self.writer.put_wal(
                "wal", f"wal/{self.branch}/{segment}/{part:02}", self.branch, segment, content, start, start + 16 * MIB
            )
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

    def test_wal_beyond_a_hole_counts_unless_every_object_says_that_nothing_there_was_confirmed(self):
        durable = lambda lsn: {"durable": f"0/{lsn:X}"}
        end = self.at + 500
        self.writer.put_tail(self.branch, self.at, end, self.content)
        self.writer.put_tail(self.branch, self.at + 900, self.at + 1000, self.content, wal=durable(end))
        self.writer.put_whole(self.branch, self.at + 2 * MIB, wal_bytes(2), wal=durable(self.at))
        self.assertEqual(self.wal(self.name), self.content[:500] + bytes(MIB - 500))
        (self.folder / "out").unlink()
        self.wal("000000010000000000000006", status=1)
        said = self.run_rescue("list")
        self.assertIn("HOLE 0/3001F4 - 0/300384, and nothing shows", said)
        self.verify()
        # What was durable once and is gone.
        self.assertIn("was made when WAL up to 0/300000 was durable", self.wal("000000010000000000000002", status=200))
        for wal in (durable(end + 1), {"durable": None}, {}):
            self.writer.put_whole(self.branch, self.at + 2 * MIB, wal_bytes(2), wal=wal)
            with self.subTest(wal=wal):
                self.assertIn("hole", self.wal(self.name, status=200))
        tail = self.writer.path(self.writer.put_whole(self.branch, self.at + 2 * MIB, wal_bytes(2), wal=durable(end)))
        tail.write_bytes(tail.read_bytes()[:-1])
        self.assertIn("cannot be read", self.wal(self.name, status=200))

    def test_what_a_writer_said_was_durable_is_a_hole_where_it_is_not_there(self):
        end = self.at + 500
        self.writer.put_tail(self.branch, self.at, end, self.content)
        name = lambda count: f"frontier/{self.writer.writer_text}/{count}"
        body = lambda lsn: {"branch": self.branch, "frontier": f"0/{lsn:X}", "server_end": f"0/{lsn:X}", "highest_time": None}
        self.writer.put("frontier", name(9999999999), body=body(end))
        self.assertEqual(self.wal(self.name), self.content[:500] + bytes(MIB - 500))
        self.verify()
        elsewhere = body(end) | {"branch": "00000002-00000000", "earlier": [body(end + 1)]}
        self.writer.put("frontier", name(9999999998), body=elsewhere)
        (self.folder / "out").unlink()
        said = self.wal(self.name, status=200)
        self.assertIn(f"{name(9999999998)} says that WAL was durable up to 0/3001F5", said)
        # So does a page of segments, of which nothing is there.
        page = f"catalog/{self.branch}/000000010000000000000000-0000000100000000000000FF"
        self.writer.put("catalog", page, body={"segments": []})
        self.assertIn(f"{page} says that WAL was durable up to 0/10000000", self.wal("000000010000000000000007", status=200))
        self.writer.path(page).unlink()
        # The newest sound one counts.
        path = self.writer.path(name(9999999998))
        path.write_bytes(path.read_bytes()[:-1])
        (self.folder / "out").unlink(missing_ok=True)
        self.assertEqual(self.wal(self.name), self.content[:500] + bytes(MIB - 500))

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
            {"segment_size": 2 * MIB},
            {"segment_size": 3},
            {"segment": "000000010000000000000004"},
            {"branch": "00000001-00000000"},
            {"start": "0/300001"},
            {"end": "0/400001"},
            {"end": "0/3FFFFF"},
            {"start": "x"},
            {"digest_end": "0" * 64},
            {"digest_start": "0" * 64},
            {"durable": 7},
            {"durable": "x"},
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

    def adopt(self, old, start, **more):
        """Writes that WAL from `start` on lies elsewhere, and says where."""
        to = branch_name(self.writer.cluster, 1, [], [(start, 0, self.writer.writer_text)])
        body = {"branch": old, "from": lsn_text(start), "to": to, "writer": self.writer.writer_text, "found": "2026-11-21T06:00:00Z"}
        self.writer.put("adopt", f"adopt/{old}/00000000", body=body | more)
        return to

    def test_wal_of_the_living_server_is_taken_from_the_branch_to_which_it_was_adopted(self):
        after, start = wal_bytes(2), self.at + MIB
        self.writer.put_whole(self.branch, self.at, self.content)
        self.writer.put_whole(self.branch, start, wal_bytes(7))
        to = self.adopt(self.branch, start)
        self.writer.put_whole(to, start, after)
        self.verify()
        self.assertEqual(self.wal(self.name), self.content)
        self.assertEqual(self.wal("000000010000000000000004"), after)
        self.assertEqual(self.wal("000000010000000000000004", "--branch", to), after)
        self.assertEqual(self.wal(self.name, "--branch", to), self.content)
        self.assertEqual(self.wal("000000010000000000000004", "--branch", self.branch), wal_bytes(7))
        self.assertIn(f"left {self.branch} at {lsn_text(start)}", self.run_rescue("list"))
        # A timeline that was made afterwards comes from the living one; one that stands apart does not.
        history = f"1\t{lsn_text(start + 500)}\tx\n".encode()
        child = self.writer.put_history(2, parse_history(history), history)
        self.assertEqual(self.wal("000000010000000000000004", "--branch", child), after)
        self.adopt(self.branch, start, apart=[child])
        self.assertEqual(self.wal("000000010000000000000004", "--branch", child), wal_bytes(7))

    def test_an_adoption_that_cannot_be_used_is_never_passed_over(self):
        self.writer.put_whole(self.branch, self.at, self.content)
        for more in ({"to": self.branch}, {"to": "00000002-00000000"}, {"branch": "00000001-00000000"}):
            self.adopt(self.branch, self.at, **more)
            self.assertIn("adopt/", self.wal(self.name, status=200))
            self.assertIn("adopt/", self.verify(1))

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

    def test_a_file_of_layers_is_made_of_the_newest_blocks_and_zeros(self):
        block = lambda seed, count=1: wal_bytes(seed, 8192 * count)
        old, new = block(20, 20), block(21, 9)
        # Cut to nine blocks and grown to sixteen: what was there beyond the ninth does not come back.
        layers = [
            (None, len(old) + 100, old + bytes(100)),
            ([[1, 2], [4, 5]], 9 * 8192, new[: 7 * 8192]),
            ([[8, 1], [14, 1]], 16 * 8192, new[7 * 8192 :]),
            ([], 15 * 8192, b""),
        ]
        part = lambda data, first, count=1: data[8192 * first : 8192 * (first + count)]
        content = part(old, 0) + part(new, 0, 2) + part(old, 3) + part(new, 2, 4) + part(new, 7) + bytes(5 * 8192) + part(new, 8)
        self.tree["base/1/1260"] = content
        self.tree["backup_manifest"] = b"of what changed"
        more = {"native": True}
        self.put(layers={"base/1/1260": layers}, body=more)
        self.assertIn("0 problems", self.run_rescue("verify"))
        said = self.run_rescue("restore", "latest", self.target)
        self.assertEqual(self.restored("base/1/1260"), content)
        self.assertFalse((self.target / "backup_manifest").exists())
        self.assertIn("backup_manifest", said)
        for what, broken in [
            ("another length", layers[:3]),
            ("out of order", [layers[0], ([[4, 1], [1, 1]], 15 * 8192, new[:16384])]),
            ("out of order", [layers[0], ([[15, 1]], 15 * 8192, new[:8192])]),
            ("frames hold", [layers[0], ([[1, 2]], 15 * 8192, new[:8192])]),
            ("frames hold", [layers[0], ([[1, 1]], 15 * 8192, new[:16384])]),
            ("oldest layer has blocks", [([[0, 15]], 15 * 8192, content)]),
        ]:
            with self.subTest(what=what):
                self.put(layers={"base/1/1260": broken}, body=more)
                self.assertIn(what if what != "another length" else "newest layer has", self.run_rescue("verify", status=1))

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
                self.assertIn(
                    "does not lie in",
                    self.run_rescue(
                        "restore", BASE, self.target, "--tablespace", f"{self.place}={self.folder / 'ts'}", status=200
                    ),
                )
                self.assertIn("PROBLEM", self.run_rescue("verify", status=1))
                subprocess.run(["rm", "-r", self.target, self.folder / "ts"], check=True)

    def test_wrong_entries_are_refused(self):
        content = self.tree["PG_VERSION"]
        digest = base64.b64encode(blake3(content).digest()[:16]).decode()
        file = {"type": "file", "path": "f", "mode": 384, "mtime": 1, "size": 3, "extents": [[0, 0, 1]], "digests": digest}
        size = sum(map(len, self.tree.values())) + 3
        self.put(entries=[file], body={"cluster_size": size})
        self.run_rescue("verify")
        for change, message in (
            ({"digests": "A" * 22 + "=="}, "is not the one that the list of files means"),
            ({"digests": base64.b64encode(blake3(content).digest()[:16] * 2).decode()}, "the frames hold 3 bytes"),
            ({"extents": [[99, 0, 1]]}, "refers to object 99"),
            ({"extents": [[0, 99, 1]]}, "refers to frame 99"),
            ({"extents": [[0, 0]]}, "an extent is not"),
            ({"extents": []}, "the frames hold 0 bytes"),
            ({"size": 2}, "more than its 2 bytes"),
            ({"size": 4}, "the frames hold 3 bytes"),
            ({"mode": 1 << 20}, "more than permission bits"),
            ({"type": "link"}, "unknown type"),
            ({"path": "PG_VERSION"}, "twice"),
        ):
            changed = file | change
            counted = size - 3 + (changed["size"] if changed["type"] == "file" else 0)
            self.put(entries=[changed], body={"cluster_size": counted})
            with self.subTest(change=change):
                said = self.run_rescue("verify", status=1)
                self.assertIn(message, said)
                self.assertIn("1 problems", said)

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

    def test_recovery_follows_the_living_one_of_two_servers(self):
        start, after = 4 * MIB, wal_bytes(8)
        to = branch_name(self.writer.cluster, 1, [], [(start, 0, self.writer.writer_text)])
        body = {"branch": self.writer.branch, "from": lsn_text(start), "to": to, "writer": self.writer.writer_text}
        self.writer.put("adopt", f"adopt/{self.writer.branch}/00000000", body=body)
        self.writer.put_whole(self.writer.branch, 3 * MIB, self.content)
        self.writer.put_whole(self.writer.branch, start, wal_bytes(9))
        self.writer.put_whole(to, start, after)
        said = self.run_rescue("restore", BASE, self.target, "--wal")
        self.assertIn("recovery_target_timeline = '1'", said)
        self.assertEqual(self.restored("pg_wal/000000010000000000000004"), after)
        subprocess.run(["rm", "-r", self.target, self.place], check=True)
        self.run_rescue("restore", BASE, self.target, "--wal", "--branch", self.writer.branch)
        self.assertEqual(self.restored("pg_wal/000000010000000000000004"), wal_bytes(9))

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
        self.assertIn(
            "cannot be reached", self.run_rescue("restore", BASE, self.folder / "second", "--branch", branch, status=200)
        )
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
