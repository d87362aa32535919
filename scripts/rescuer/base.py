"""Base backups: labels, lists of files, and building a data directory from them (FORMAT.md section 6)."""

import os
import re
from collections import OrderedDict
from pathlib import Path

from blake3 import blake3

from .errors import Damaged, Failure
from .names import lsn_text, parse_lsn, parse_name
from .object import base64_member, file_digest, member, parse_json

BLOCK = 8192  # Bytes of a block of a layer.
OPEN_OBJECTS = 4  # Data objects held open at a time: their lists of frames are all that stays in memory.


class Label:
    """A base backup's label, checked."""

    def __init__(self, cluster, base_id):
        name = parse_name(f"base/{base_id}/label")
        if name is None or not cluster.path(name.text).exists():
            raise Failure(f"there is no base backup {base_id}; 'list' shows those that exist")
        with cluster.open(name) as found:
            body = self.body = found.body
        try:
            self.id = member(body, "id", str, "label")
            if self.id != base_id:
                raise Damaged(f"its body says that it is the label of {self.id}")
            if member(body, "type", str, "label") not in ("full", "incremental"):
                raise Damaged(f"its type {body['type']!r} is not known: a newer walseal is needed")
            self.branch = member(body, "branch", str, "label")
            self.start, self.stop = (parse_lsn(member(body, key, str, "label")) for key in ("start", "stop"))
            self.suspect = member(body, "suspect", int, "label")
            self.native = body.get("native") is True
            self.manifest = self._references(cluster, "manifest")
            self.objects = self._references(cluster, "data", "objects")
        except Damaged as error:
            raise Damaged(f"{name.text}: {error}") from None

    def _references(self, cluster, kind, key=None):
        found = []
        for element in member(self.body, key or kind, list, "label"):
            if not isinstance(element, dict):
                raise Damaged(f"an element of {key or kind!r} is not a JSON object")
            name = parse_name(member(element, "name", str, kind))
            if name is None or name.kind != kind or name.conflict:
                raise Damaged(f"it names {element['name']!r}, which is no {kind} object")
            found.append((name, member(element, "size", int, kind), member(element, "digest", str, kind)))
        return found


def check_reference(cluster, reference):
    """`Damaged` unless the object is there with the size and digest that the label tells."""
    name, size, digest = reference
    try:
        found = file_digest(cluster.path(name.text))
    except FileNotFoundError:
        raise Damaged(f"{name.text}: the object is missing") from None
    except OSError as error:
        raise Failure(f"cannot read {cluster.path(name.text)}: {error.strerror}") from None
    if found != (size, digest):
        raise Damaged(
            f"{name.text}: it is not the object of {size} bytes that the label refers to, but another of {found[0]} bytes"
        )


def manifest_entries(cluster, label):
    """The entries of the list of files, page by page."""
    count = 0
    for reference in label.manifest:
        check_reference(cluster, reference)
        name = reference[0]
        with cluster.open(name, unlock=True) as page:
            try:
                content = b"".join(page.plain_frames())
                if content and not content.endswith(b"\n"):
                    raise Damaged("the page does not end with a line's end")
                for line in content.splitlines():
                    count += 1
                    yield parse_json(line, f"entry {count}")
            except Damaged as error:
                raise Damaged(f"{name.text}: {error}") from None


def entry_path(entry):
    """The entry's path as bytes, relative to the data directory. `Damaged` for one that would lead out of it."""
    if ("path" in entry) == ("path_hex" in entry):
        raise Damaged("an entry has not exactly one of path and path_hex")
    if "path" in entry:
        try:
            path = member(entry, "path", str, "entry").encode()
        except UnicodeEncodeError:
            raise Damaged("a path is not UTF-8") from None
    else:
        try:
            path = bytes.fromhex(member(entry, "path_hex", str, "entry"))
        except ValueError:
            raise Damaged("path_hex is not hexadecimal") from None
    if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise Damaged(f"the path {path!r} does not lie in the data directory")
    return path


def entry_mode(entry):
    mode = member(entry, "mode", int, "entry")
    if mode > 0o7777:
        raise Damaged(f"the mode {mode} has more than permission bits")
    return mode


class Nowhere:
    """A file that keeps nothing, for those who only want to see whether the content is sound."""

    def write(self, data):
        pass

    seek = truncate = write


class Files:
    """Reads the contents of files from the data objects of one label, few objects open at a time."""

    def __init__(self, cluster, label):
        self.cluster, self.label = cluster, label
        self.opened = OrderedDict()
        self.checked = set()

    def close(self):
        while self.opened:
            self.opened.popitem()[1].close()

    def _object(self, number):
        if number in self.opened:
            self.opened.move_to_end(number)
            return self.opened[number]
        if number >= len(self.label.objects):
            raise Damaged(f"an extent refers to object {number}; the label has {len(self.label.objects)}")
        if number not in self.checked:
            check_reference(self.cluster, self.label.objects[number])
            self.checked.add(number)
        while len(self.opened) >= OPEN_OBJECTS:
            self.opened.popitem(last=False)[1].close()
        self.opened[number] = found = self.cluster.open(self.label.objects[number][0], unlock=True)
        return found

    def write(self, file, entry):
        """Writes the file's content into an empty file, frame by frame, each checked."""
        size = member(entry, "size", int, "entry")
        if entry.get("layers") is None:
            for data in self._frames(entry, size):
                file.write(data)
            return
        layers = member(entry, "layers", list, "entry")
        if not layers or any(entry.get(name) is not None for name in ("extents", "digests")):
            raise Damaged("it has not either extents and digests, or layers")
        for number, layer in enumerate(layers):
            if not isinstance(layer, dict):
                raise Damaged("a layer is not a JSON object")
            length = member(layer, "length", int, "layer")
            runs = [(0, length)] if number == 0 else self._runs(layer, length)
            if number == 0 and layer.get("blocks") is not None:
                raise Damaged("the oldest layer has blocks")
            file.truncate(length)
            self._write_runs(file, runs, self._frames(layer, sum(count for _, count in runs)))
        if length != size:
            raise Damaged(f"its newest layer has {length} bytes, the list of files says {size}")

    @staticmethod
    def _runs(layer, length):
        """Where a layer's blocks lie in the file: begin and size of each run, in bytes."""
        runs, end = [], 0
        for run in member(layer, "blocks", list, "layer"):
            if not isinstance(run, list) or len(run) != 2 or any(type(n) is not int or n < 0 for n in run):
                raise Damaged("a run of blocks is not [first, count]")
            first, count = run[0] * BLOCK, run[1] * BLOCK
            if first < end or not count or first + count > length:
                raise Damaged(f"the run of blocks {run} is out of order or out of the file")
            end = first + count
            runs.append((first, count))
        return runs

    @staticmethod
    def _write_runs(file, runs, frames):
        rest = b""
        for at, left in runs:
            file.seek(at)
            while left:
                rest = rest or next(frames, b"")
                if not rest:
                    break  # Too few frames: what they are counted by says so.
                file.write(rest[:left])
                rest, left = rest[left:], left - len(rest[:left])
        for _ in frames:
            pass  # The last step checks that there were as many bytes as there should be.

    def _frames(self, holder, size):
        """The plaintext of frames whose bytes are `size` in sum, each checked; the sum is checked at the end."""
        digests = base64_member(holder, "digests", None, "entry")
        at, seen = 0, 0
        for extent in member(holder, "extents", list, "entry"):
            if not isinstance(extent, list) or len(extent) != 3 or any(type(n) is not int or n < 0 for n in extent):
                raise Damaged("an extent is not [object, frame, count]")
            number, first, count = extent
            for frame in range(first, first + count):
                found = self._object(number)
                if frame >= found.frame_count:
                    raise Damaged(f"{found.name}: an extent refers to frame {frame}; it has {found.frame_count}")
                try:
                    data = found.plain_frame(frame)
                except Damaged as error:
                    raise Damaged(f"{found.name}: {error}") from None
                if blake3(data).digest()[:16] != digests[16 * seen : 16 * seen + 16]:
                    raise Damaged(f"{found.name}: frame {frame} is not the one that the list of files means")
                seen, at = seen + 1, at + len(data)
                if at > size:
                    raise Damaged(f"the frames hold more than its {size} bytes")
                yield data
        if at != size or len(digests) != 16 * seen:
            raise Damaged(f"the frames hold {at} bytes, the list of files says {size}")


class Restore:
    """Builds a data directory. `global/pg_control` comes last: a directory that was not finished cannot be started."""

    def __init__(self, cluster, label, target, tablespaces):
        self.cluster, self.label, self.target, self.mapping = cluster, label, Path(target), dict(tablespaces)
        self.moved, self.modes, self.group_access = {}, [], False
        self.files = self.bytes = 0

    def run(self):
        _make_empty(self.target, "the target directory")
        os.chmod(self.target, 0o700)
        files, control, begun = Files(self.cluster, self.label), None, False
        try:
            for entry in manifest_entries(self.cluster, self.label):
                kind = member(entry, "type", str, "entry")
                if kind == "tablespace":
                    if begun:
                        raise Damaged("a tablespace comes after files")
                    self._tablespace(entry)
                    continue
                begun = True
                path = entry_path(entry)
                if kind == "directory":
                    self._directory(path, entry_mode(entry))
                elif kind != "file":
                    raise Damaged(f"an entry has the unknown type {kind!r}")
                elif path == b"global/pg_control":
                    control = entry
                elif path == b"backup_manifest" and self.label.native:
                    self.cluster.warn("the server's backup_manifest lists what changed only, so it is left out")
                else:
                    self._file(files, path, entry)
            if unused := self.mapping.keys() - self.moved.keys():
                raise Failure(f"--tablespace {', '.join(sorted(unused))}: the base backup has no tablespace there")
            self._rewrite_map()
            if control is None:
                raise Damaged("the list of files has no global/pg_control")
            # Everything is on disk before the file that makes the directory a cluster.
            os.sync()
            self._file(files, b"global/pg_control", control)
            for path, mode in reversed(self.modes):
                os.chmod(path, mode)
            # The data directory has no entry of its own: group access (initdb -g) shows in the directories below.
            os.chmod(self.target, 0o750 if self.group_access else 0o700)
            os.sync()
        except OSError as error:
            raise Failure(
                f"cannot write {_shown(error.filename) or self.target}: {error.strerror}; {self.target} is not complete"
            ) from None
        except (Damaged, Failure) as error:
            raise type(error)(f"{error}; {self.target} is not complete and has no pg_control") from None
        finally:
            files.close()

    def _at(self, path):
        return os.path.join(os.fsencode(self.target), path)

    def _tablespace(self, entry):
        oid = entry.get("oid")
        if isinstance(oid, int) and not isinstance(oid, bool):
            oid = str(oid)
        if not isinstance(oid, str) or not oid.isdecimal():
            raise Damaged(f"the tablespace {oid!r} has no oid")
        link = self._at(f"pg_tblspc/{oid}".encode())
        os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
        location = entry.get("location")
        if location is None:
            os.makedirs(link, mode=0o700, exist_ok=True)
            return
        location = member(entry, "location", str, "tablespace")
        place = Path(self.mapping.get(location, location))
        if not place.is_absolute():
            raise Failure(f"the tablespace {oid} would lie in {place}: give an absolute path with --tablespace {location}=NEW")
        _make_empty(place, f"the place of tablespace {oid} (choose another with --tablespace {location}=NEW)")
        os.chmod(place, 0o700)
        os.symlink(place, link)
        if location in self.mapping:
            self.moved[location] = oid

    def _directory(self, path, mode):
        place = self._at(path)
        os.makedirs(place, mode=0o700, exist_ok=True)
        self.modes.append((place, mode))
        self.group_access |= mode & 0o050 == 0o050

    def _file(self, files, path, entry):
        place = self._at(path)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        try:
            with open(place, "xb") as file:
                files.write(file, entry)
        except FileExistsError:
            raise Damaged(f"the list of files names {path!r} twice") from None
        except Damaged as error:
            raise Damaged(f"{_shown(path)}: {error}") from None
        os.chmod(place, entry_mode(entry))
        mtime = member(entry, "mtime", int, "entry")
        if mtime >> 40:
            raise Damaged(f"{_shown(path)}: its mtime {mtime} cannot be")
        os.utime(place, (mtime, mtime))
        self.files, self.bytes = self.files + 1, self.bytes + entry["size"]

    def _rewrite_map(self):
        """PostgreSQL makes the links anew from `tablespace_map`, so that file must know the new places (xlogrecovery.c, read_tablespace_map)."""
        place = self._at(b"tablespace_map")
        if not self.moved or not os.path.exists(place):
            return
        with open(place, "rb") as file:
            # A backslash takes the special meaning from the character after it, line ends included.
            lines = re.findall(rb"(?:\\.|[^\\\n])*\n|(?:\\.|[^\\\n])+$", file.read(), re.DOTALL)
        new = {oid.encode(): os.fsencode(self.mapping[location]) for location, oid in self.moved.items()}
        for number, line in enumerate(lines):
            oid = line.partition(b" ")[0]
            if oid in new:
                escaped = new[oid].replace(b"\\", b"\\\\").replace(b"\n", b"\\\n").replace(b"\r", b"\\\r")
                lines[number] = oid + b" " + escaped + b"\n"
        with open(place, "wb") as file:
            file.write(b"".join(lines))


def _make_empty(path, what):
    try:
        if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
            raise Failure(f"{what}, {path}, is not an empty directory: give an empty or a new one")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot make {what}, {path}: {error.strerror}") from None


def _shown(path):
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode() if path else None


def newest_base(cluster):
    """The newest base backup without checksum failures; `Failure` when there is none."""
    skipped = []
    for base_id in reversed(cluster.base_ids()):
        try:
            label = Label(cluster, base_id)
        except Damaged as error:
            cluster.warn(f"left out: {error}")
            continue
        if not label.suspect:
            for other in skipped:
                cluster.warn(f"base backup {other} is newer, but the server saw damaged pages in it")
            return label
        skipped.append(base_id)
    raise Failure(
        f"there is no sound base backup{': ' + ', '.join(skipped) + ' had damaged pages; name one to use it' if skipped else ''}"
    )


def describe(label):
    """One line for people."""
    body = label.body
    suspect = f"  SUSPECT: {label.suspect} damaged pages" if label.suspect else ""
    return (
        f"{label.id}  {lsn_text(label.start)} - {lsn_text(label.stop)}  branch {label.branch}  "
        f"{body.get('start_time')} - {body.get('stop_time')}  {body.get('cluster_size')} bytes, {body.get('stored_size')} stored{suspect}"
    )
