"""A small writer of repositories for the tests of rescue.py, written from docs/FORMAT.md. It can also write what the format forbids."""

import base64
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

import nacl.bindings as sodium
import zstandard
from blake3 import blake3

from rescuer.keys import COMPARE_SECRET, IDENTITY, WRITER, encode_key, hpke_key_and_nonce, key_id
from rescuer.names import branch_name, lsn_text, segment_name, segment_start

MIB = 1 << 20
PROGRAM = Path(__file__).resolve().parent / "rescue.py"


def b64(data):
    return base64.b64encode(data).decode()


def pieces(data, size=MIB):
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


class RepositoryWriter:
    """Writes objects of one cluster below `folder`."""

    def __init__(self, folder, cluster="7412345678901234567", segment_size=MIB):
        self.folder, self.cluster, self.segment_size = Path(folder), cluster, segment_size
        self.identity, self.compare, self.seed = os.urandom(32), os.urandom(32), os.urandom(32)
        self.writer, self.signing = sodium.crypto_sign_seed_keypair(self.seed)
        self.branch = branch_name(cluster, 1, [])

    @property
    def writer_text(self):
        return encode_key(WRITER, self.writer)

    @property
    def identity_text(self):
        return f"# owner\n\n{encode_key(IDENTITY, self.identity)}\n"

    @property
    def compare_text(self):
        return encode_key(COMPARE_SECRET, self.compare)

    def path(self, name):
        return self.folder / self.cluster / name

    def sign(self, message):
        return sodium.crypto_sign(message, self.signing)[:64]

    def seal(self, data_key, name):
        public = sodium.crypto_scalarmult_base(self.identity)
        ephemeral = os.urandom(32)
        enc = sodium.crypto_scalarmult_base(ephemeral)
        key, nonce = hpke_key_and_nonce(sodium.crypto_scalarmult(ephemeral, public), enc, public, b"walseal data key 1")
        sealed = sodium.crypto_aead_chacha20poly1305_ietf_encrypt(data_key, f"{self.cluster}\n{name}".encode(), nonce, key)
        return {"id": key_id("recipient", public), "enc": b64(enc), "key": b64(sealed)}

    def put(self, kind, name, frames=None, wal=None, body=None, header=None, trailer=None, sealed=None, cut=None):
        """Writes one object; `header`, `trailer` and `sealed` overwrite members, `cut` changes the list of stored frames."""
        head = {
            "kind": kind,
            "cluster": self.cluster,
            "name": name,
            "writer": self.writer_text,
            "created": "2026-11-21T06:00:00Z",
            "later": 1,
        }
        if wal is not None:
            head["wal"] = wal
        if frames is not None:
            key, nonce = os.urandom(32), os.urandom(15)
            head["sealed"] = {"codec": "zstd", "frame_size": MIB, "nonce": b64(nonce), "recipients": [self.seal(key, name)]} | (
                sealed or {}
            )
        head |= header or {}
        text = json.dumps(head).encode()
        start = b"WALSEAL\0" + struct.pack("<HHI", 1, 0, len(text)) + text
        digest = blake3(start).digest()
        end = {}
        stored = []
        if frames is not None:
            for number, plain in enumerate(frames):
                whole = nonce + number.to_bytes(8, "big") + bytes([number == len(frames) - 1])
                packed = zstandard.ZstdCompressor(write_content_size=number % 2 == 0).compress(plain)
                stored.append(sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(packed, digest, whole, key))
            if cut:
                stored = cut(stored)
            entries = b"".join(struct.pack("<II", len(s), len(p)) + blake3(s).digest()[:16] for s, p in zip(stored, frames))
            end = {"frames": b64(entries), "plain_size": sum(map(len, frames))}
        if body is not None:
            end["body"] = body
        end |= trailer or {}
        end = json.dumps(end).encode()
        last = end + self.sign(b"walseal trailer 1\0" + digest + end)
        content = start + self.sign(b"walseal header 1\0" + start)
        content += b"".join(struct.pack("<II", len(s), zlib.crc32(s)) + s for s in stored)
        content += last + struct.pack("<II", len(end), zlib.crc32(last)) + b"WALSEND\0"
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"name": name, "size": len(content), "digest": blake3(content).hexdigest()}

    def put_identity(self):
        body = {
            "format": 1,
            "cluster": self.cluster,
            "postgres_major": 15,
            "segment_size": self.segment_size,
            "predecessor": None,
            "capabilities": {},
        }
        return self.put("identity", "identity", [self.compare], body=body)

    def put_history(self, timeline, entries, content):
        branch = branch_name(self.cluster, timeline, entries)
        self.put("history", f"history/{branch}", [content])
        return branch

    def put_wal(self, kind, name, branch, segment, content, start=None, end=None, wal=None, **more):
        """`content` is the whole segment; `start` and `end` say which of it goes into the object."""
        begin = segment_start(segment, self.segment_size)
        start, end = start if start is not None else begin, end if end is not None else begin + self.segment_size
        digest = lambda upto: blake3(content[: upto - begin], key=self.compare).hexdigest()
        member = {
            "branch": branch,
            "segment": segment,
            "segment_size": self.segment_size,
            "start": lsn_text(start),
            "end": lsn_text(end),
        }
        member |= {"compare_key": key_id("compare key", self.compare), "digest_start": digest(start), "digest_end": digest(end)}
        member |= {"transactions": {"count": 0}, "leading_unread": False} | (wal or {})
        self.put(kind, name, pieces(content[start - begin : end - begin]), wal=member, **more)
        return name

    def put_whole(self, branch, lsn, content, **more):
        segment = segment_name(int(branch[:8], 16), lsn, self.segment_size)
        return self.put_wal("wal", f"wal/{branch}/{segment}", branch, segment, content, **more)

    def put_tail(self, branch, start, end, content, **more):
        segment = segment_name(int(branch[:8], 16), start, self.segment_size)
        return self.put_wal(
            "tail", f"tail/{branch}/{segment}/{start:016X}-{end:016X}", branch, segment, content, start, end, **more
        )

    def put_partial(self, branch, start, end, content, **more):
        segment = segment_name(int(branch[:8], 16), start, self.segment_size)
        return self.put_wal("partial", f"wal/{branch}/{segment}.partial", branch, segment, content, start, end, **more)

    def put_base(self, base_id, tree, start, stop, tablespaces=(), directories=(), branch=None, body=None, entries=(), layers=None):
        """`tree` is `{path: content}`; each file begins a new frame, and each data object takes three frames. `layers` gives
        for some of the paths a list of `(blocks or None, length, content)`, which makes up the file."""
        frames, lines = (
            [],
            [{"type": "tablespace", "oid": oid, "location": location} for oid, location in tablespaces],
        )
        lines += [{"type": "directory", "path": path, "mode": mode} for path, mode in directories]

        def stored(content):
            extents, parts = [], pieces(content, 64 << 10) if content else []
            for part in parts:
                at, frame = divmod(len(frames), 3)
                if extents and extents[-1][0] == at:
                    extents[-1][2] += 1
                else:
                    extents.append([at, frame, 1])
                frames.append(part)
            return {"extents": extents, "digests": b64(b"".join(blake3(part).digest()[:16] for part in parts))}

        for path, content in tree.items():
            found = [
                stored(data) | ({} if blocks is None else {"blocks": blocks}) | {"length": length}
                for blocks, length, data in (layers or {}).get(path, ())
            ]
            name = {"path": path} if isinstance(path, str) else {"path_hex": path.hex()}
            lines.append(
                {
                    "type": "file",
                    **name,
                    "mode": 0o600,
                    "mtime": 1700000000,
                    "size": len(content),
                    **({"layers": found} if found else stored(content)),
                }
            )
        lines += entries
        objects = [self.put("data", f"base/{base_id}/data/{i // 3:08}", frames[i : i + 3]) for i in range(0, len(frames), 3)]
        half = len(lines) // 2
        pages = ["".join(json.dumps(line) + "\n" for line in part).encode() for part in (lines[:half], lines[half:])]
        manifest = [self.put("manifest", f"base/{base_id}/manifest/{i:08}", [page]) for i, page in enumerate(pages)]
        label = {
            "id": base_id,
            "type": "full",
            "parent": None,
            "branch": branch or self.branch,
            "start": lsn_text(start),
            "stop": lsn_text(stop),
        }
        label |= {
            "start_time": "2026-11-21T06:00:00Z",
            "stop_time": "2026-11-21T06:01:00Z",
            "highest_time": None,
            "postgres_version": 150018,
        }
        label |= {
            "segment_size": self.segment_size,
            "cluster_size": sum(map(len, tree.values())),
            "stored_size": sum(o["size"] for o in objects),
        }
        label |= {"tablespaces": len(tablespaces), "suspect": 0, "manifest": manifest, "objects": objects} | (body or {})
        self.put("label", f"base/{base_id}/label", body=label)
        return label


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
        command = [
            sys.executable,
            str(PROGRAM),
            "--repository",
            str(self.folder / "copy"),
            "--writer",
            writer or self.writer.writer_text,
        ]
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
