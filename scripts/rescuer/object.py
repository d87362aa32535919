"""One object: structure, signatures, digests, frames (FORMAT.md sections 3 to 5)."""

import base64
import binascii
import json
import os
import struct
import zlib
from array import array
from itertools import accumulate

import nacl.bindings as sodium
import nacl.exceptions
import zstandard
from blake3 import blake3

from .errors import Damaged, Failure
from .keys import WRITER, decode_key, hpke_open
from .names import KINDS, PART, WAL_KINDS, branch_timeline, parse_lsn, segment_start

MAGIC, END = b"WALSEAL\0", b"WALSEND\0"
MAX_HEADER, MAX_TRAILER, MAX_PLAIN = 1 << 20, 256 << 20, 16 << 20
_ENTRY = struct.Struct("<II16s")
# These do without frames: what they say stands in their body.
_MAY_BE_OPEN = frozenset(("label", "ledger", "frontier", "catalog", "lease", "adopt", "snapshot"))


def _no_duplicates(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _no_constant(text):
    raise ValueError(f"{text} is not JSON")


def parse_json(content, what):
    """A JSON object, strictly: UTF-8, no member twice, no NaN."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its {what} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise Damaged(f"its {what} is not a JSON object")
    return value


def member(value, name, kind, what):
    """A member that must be there. `bool` is not taken for a number, negative numbers never occur in the format."""
    found = value.get(name)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise Damaged(f"{what} has no member {name!r} of the right type")
    if kind is int and found < 0:
        raise Damaged(f"{what}: {name!r} is negative")
    return found


def base64_member(value, name, length, what):
    text = member(value, name, str, what)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Damaged(f"{what}: {name!r} is not Base64") from None
    if (length is not None and len(data) != length) or base64.b64encode(data).decode() != text:
        raise Damaged(f"{what}: {name!r} is not Base64 of {length} bytes")
    return data


def file_digest(path):
    """Size and digest of all bytes of an object, as labels refer to it."""
    hasher, size = blake3(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
            size += len(block)
    return size, hasher.hexdigest()


class SealedObject:
    """An object whose structure and both signatures hold. `Damaged` is raised for anything else.

    Without `writers` only the signature by the key that the header itself names is checked: enough to show an object, not to trust it.
    """

    def __init__(self, path, *, name=None, cluster=None, writers=None, also_named=None):
        self.path = path
        try:
            self.file = open(path, "rb")
        except OSError as error:
            raise Failure(f"cannot open {path}: {error.strerror}") from None
        try:
            self._open(name, cluster, writers, also_named)
        except OSError as error:
            self.file.close()
            raise Failure(f"cannot read {path}: {error.strerror}") from None
        except BaseException:
            self.file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()

    def _read(self, at, length, what):
        if at < 0 or length < 0 or at + length > self.size:
            raise Damaged(f"it ends before its {what}: truncated")
        data = b""
        while len(data) < length:
            block = os.pread(self.file.fileno(), length - len(data), at + len(data))
            if not block:
                raise Damaged(f"it ends before its {what}: truncated while it was read")
            data += block
        return data

    def _open(self, name, cluster, writers, also_named):
        self.size = os.fstat(self.file.fileno()).st_size
        start = self._read(0, 16, "header")
        magic, version, zero, header_length = struct.unpack("<8sHHI", start)
        if magic != MAGIC:
            raise Damaged("it does not begin with WALSEAL: not an object of walseal")
        if version != 1:
            raise Damaged(f"its format version is {version}; this program knows version 1")
        if zero:
            raise Damaged("bytes 10 and 11 are not zero")
        if header_length > MAX_HEADER:
            raise Damaged(f"its header claims {header_length} bytes, more than 1 MiB")
        signed = start + self._read(16, header_length, "header")
        header = self.header = parse_json(signed[16:], "header")
        self.header_digest = blake3(signed).digest()
        self._check_writer(signed, self._read(16 + header_length, 64, "header's signature"))
        self._check_header(name, cluster, writers, also_named)

        trailer_length, checksum, end = struct.unpack("<II8s", self._read(self.size - 16, 16, "end"))
        if end != END:
            raise Damaged("it does not end with WALSEND: truncated, or something was appended")
        if trailer_length > MAX_TRAILER:
            raise Damaged(f"its trailer claims {trailer_length} bytes, more than 256 MiB")
        self.frames_at = 80 + header_length
        self.frames_end = self.size - 80 - trailer_length
        if self.frames_end < self.frames_at:
            raise Damaged("its trailer would overlap its header")
        trailer = self._read(self.frames_end, trailer_length + 64, "trailer")
        if zlib.crc32(trailer) != checksum:
            raise Damaged("the CRC-32 of its trailer is wrong: bytes were changed")
        trailer, signature = trailer[:-64], trailer[-64:]
        self._verify(signature, b"walseal trailer 1\0" + self.header_digest + trailer, "trailer")
        self.trailer = parse_json(trailer, "trailer")
        self._check_trailer(header)

    def _check_writer(self, signed, signature):
        try:
            self.writer = decode_key(member(self.header, "writer", str, "header"), WRITER)
        except Damaged:
            raise
        except Failure as error:
            raise Damaged(f"the writer in its header is no key: {error}") from None
        self._verify(signature, b"walseal header 1\0" + signed, "header")

    def _verify(self, signature, message, what):
        # libsodium refuses small-order keys, and encodings of keys and signatures that are not canonical.
        try:
            sodium.crypto_sign_open(signature + message, self.writer)
        except (nacl.exceptions.CryptoError, ValueError):
            raise Damaged(f"the signature of its {what} is wrong: bytes were changed, or another wrote it") from None

    def _check_header(self, name, cluster, writers, also_named):
        header = self.header
        self.kind = member(header, "kind", str, "header")
        self.name = member(header, "name", str, "header")
        self.cluster = member(header, "cluster", str, "header")
        member(header, "created", str, "header")
        if self.kind not in KINDS:
            raise Damaged(f"its kind {self.kind!r} is not known")
        if cluster is not None and self.cluster != cluster:
            raise Damaged(f"it belongs to cluster {self.cluster}, not to {cluster}")
        if name is not None:
            if self.name not in (name.text, also_named):
                raise Damaged(f"it was written as {self.name}: someone moved it here")
            if self.kind != name.kind:
                raise Damaged(f"its kind is {self.kind}; its name is that of a {name.kind} object")
        if writers is not None and not writers.trusts(self.writer, self.kind):
            raise Damaged(f"it was written by {header['writer']}, which --writer does not name for kind {self.kind}")
        if name is not None and name.writer not in (None, header["writer"]):
            raise Damaged(f"it was written by {header['writer']}, in another writer's folder")
        self.wal = None
        if self.kind in WAL_KINDS:
            self.wal = Wal(member(header, "wal", dict, "header"))
            if name is not None:
                self.wal.check_name(name)
        self.sealed = None
        self.data_key = None
        if "sealed" not in header:
            if self.kind not in _MAY_BE_OPEN:
                raise Damaged(f"its header has no 'sealed', which kind {self.kind} needs")
            return
        sealed = self.sealed = member(header, "sealed", dict, "header")
        if member(sealed, "codec", str, "sealed") != "zstd":
            raise Damaged(f"its codec {sealed['codec']!r} is not known")
        self.frame_size = member(sealed, "frame_size", int, "sealed")
        if not 64 << 10 <= self.frame_size <= 1 << 20:
            raise Damaged(f"its frame size {self.frame_size} is not between 64 KiB and 1 MiB")
        self.nonce = base64_member(sealed, "nonce", 15, "sealed")
        self.recipients = []
        for recipient in member(sealed, "recipients", list, "sealed"):
            if not isinstance(recipient, dict):
                raise Damaged("a recipient is not a JSON object")
            enc, key = base64_member(recipient, "enc", 32, "recipient"), base64_member(recipient, "key", 48, "recipient")
            self.recipients.append((member(recipient, "id", str, "recipient"), enc, key))
        if not self.recipients:
            raise Damaged("it is sealed for no recipient: nobody can open it")

    def _check_trailer(self, header):
        if self.sealed is None:
            if self.frames_end != self.frames_at or "frames" in self.trailer or self.trailer.get("plain_size", 0) != 0:
                raise Damaged("it has frames, though its header has no 'sealed'")
            self.entries, self.frame_count, self.plain_size = b"", 0, 0
            return
        self.entries = base64_member(self.trailer, "frames", None, "trailer")
        self.frame_count, rest = divmod(len(self.entries), _ENTRY.size)
        if rest or not self.frame_count:
            raise Damaged("the list of frames in its trailer is empty or cut")
        plain_size, largest = 0, self.frame_size + self.frame_size // 128 + 1024
        for stored, plain, _ in _ENTRY.iter_unpack(self.entries):
            if plain > self.frame_size or not 16 < stored <= largest:
                raise Damaged("a frame claims a size that cannot be")
            plain_size += plain
        sizes = (8 + entry[0] for entry in _ENTRY.iter_unpack(self.entries))
        self.offsets = array("Q", accumulate(sizes, initial=self.frames_at))
        if self.offsets[-1] != self.frames_end:
            raise Damaged("its frames do not fill the space between header and trailer: cut, or bytes were put in")
        self.plain_size = member(self.trailer, "plain_size", int, "trailer")
        if self.plain_size != plain_size:
            raise Damaged(f"its trailer says {self.plain_size} bytes of plaintext, its frames {plain_size}")
        if plain_size > MAX_PLAIN:
            raise Damaged(f"it holds {plain_size} bytes of plaintext, more than 16 MiB")
        if self.wal is not None:
            self.wal.check_frames(plain_size, [entry[1] for entry in _ENTRY.iter_unpack(self.entries)])

    @property
    def body(self):
        return member(self.trailer, "body", dict, "trailer")

    def frame(self, number):
        """Stored size, plaintext size and digest of a frame, as the trailer has them."""
        return _ENTRY.unpack_from(self.entries, number * _ENTRY.size)

    def stored_frame(self, number):
        """The ciphertext of a frame, checked as a reader without keys can check it."""
        stored, _, digest = self.frame(number)
        data = self._read(self.offsets[number], 8 + stored, f"frame {number}")
        length, checksum = struct.unpack_from("<II", data)
        data = data[8:]
        if length != stored:
            raise Damaged(f"frame {number} says {length} bytes, the trailer {stored}")
        if zlib.crc32(data) != checksum:
            raise Damaged(f"the CRC-32 of frame {number} is wrong: bytes were changed")
        if blake3(data).digest()[:16] != digest:
            raise Damaged(f"frame {number} is not the one that was signed")
        return data

    def unlock(self, identities):
        """Finds the data key. `Failure` when none of the identities is among the recipients."""
        if self.data_key or self.sealed is None:
            return
        for identity in identities:
            for recipient, enc, key in self.recipients:
                if recipient == identity.id:
                    aad = f"{self.cluster}\n{self.name}".encode()
                    self.data_key = hpke_open(identity, enc, key, b"walseal data key 1", aad)
                    return
        known, sought = ", ".join(i.id for i in identities), ", ".join(r[0] for r in self.recipients)
        raise Damaged(f"it is sealed for {sought}, and the identity file holds {known}: give the identity of that recipient")

    def plain_frame(self, number):
        """The plaintext of a frame. `unlock` comes first."""
        _, plain, _ = self.frame(number)
        last = 1 if number == self.frame_count - 1 else 0
        nonce = self.nonce + number.to_bytes(8, "big") + bytes([last])
        stored = self.stored_frame(number)
        try:
            packed = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(stored, self.header_digest, nonce, self.data_key)
        except nacl.exceptions.CryptoError:
            raise Damaged(f"frame {number} does not open with the object's data key") from None
        return _unpack(packed, plain, number)

    def plain_frames(self):
        for number in range(self.frame_count):
            yield self.plain_frame(number)


def _unpack(packed, plain, number):
    """One Zstandard frame of exactly `plain` bytes; no more than that is ever allocated."""
    try:
        size = zstandard.frame_content_size(packed)
        if size == -1:
            # The frame does not tell its size: find out without trusting it.
            reader = zstandard.ZstdDecompressor().stream_reader(packed)
            data = reader.read(plain + 1)
            while len(data) <= plain and (more := reader.read(plain + 1 - len(data))):
                data += more
            size = len(data)
        if size != plain:
            raise Damaged(f"frame {number} holds another number of bytes than the {plain} that its trailer says")
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        data = decompressor.decompress(packed)
    except zstandard.ZstdError as error:
        raise Damaged(f"frame {number} does not decompress ({error})") from None
    if not decompressor.eof or decompressor.unused_data or len(data) != plain:
        raise Damaged(f"frame {number} is not exactly one Zstandard frame of {plain} bytes")
    return data


class Wal:
    """The member `wal` of a header (section 5). LSNs in bytes; `end` does not belong to the object."""

    def __init__(self, value):
        self.branch = member(value, "branch", str, "wal")
        self.segment = member(value, "segment", str, "wal")
        self.segment_size = member(value, "segment_size", int, "wal")
        self.start = parse_lsn(member(value, "start", str, "wal"))
        self.end = parse_lsn(member(value, "end", str, "wal"))
        self.compare_key = member(value, "compare_key", str, "wal")
        self.digest_start = member(value, "digest_start", str, "wal")
        self.digest_end = member(value, "digest_end", str, "wal")
        # May be missing: then the writer does not say what had been confirmed.
        self.durable = parse_lsn(member(value, "durable", str, "wal")) if value.get("durable") is not None else None
        # `transactions` and `leading_unread` help to find a point in time; no byte depends on them, so they are not read here.

    def check_name(self, name):
        size = self.segment_size
        if not 1 << 20 <= size <= 1 << 30 or size & size - 1:
            raise Damaged(f"its segment size {size} is not a power of two between 1 MiB and 1 GiB")
        if (self.branch, self.segment) != (name.branch, name.segment):
            raise Damaged(f"its 'wal' says {self.branch}/{self.segment}, which its name does not")
        if int(self.segment[:8], 16) != branch_timeline(self.branch):
            raise Damaged("its segment is of another timeline than its branch")
        begin = segment_start(self.segment, size)
        bounds = None
        if name.kind == "tail":
            bounds = (name.first, name.last)
        elif name.kind == "wal" and name.part is None:
            if size > PART:
                raise Damaged(f"a segment of {size} bytes comes in parts of 16 MiB")
            bounds = (begin, begin + size)
        elif name.kind == "wal":
            if size <= PART:
                raise Damaged(f"a segment of {size} bytes has no parts")
            bounds = (begin + name.part * PART, begin + (name.part + 1) * PART)
        if bounds is not None and bounds != (self.start, self.end):
            raise Damaged("its 'start' and 'end' are not what its name says")
        if not begin <= self.start < self.end <= begin + size:
            raise Damaged("its bytes do not lie in its segment")

    def check_frames(self, plain_size, sizes):
        if plain_size != self.end - self.start:
            raise Damaged(f"it holds {plain_size} bytes for {self.end - self.start} bytes of WAL")
        if any(size != 1 << 20 for size in sizes[:-1]) or not sizes[-1]:
            raise Damaged("its frames do not hold 1 MiB each")
