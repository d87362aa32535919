"""Checks every object of a cluster, and that what they say of each other holds."""

from blake3 import blake3

from .base import Files, Label, Nowhere, check_reference, entry_mode, entry_path, manifest_entries
from .errors import Damaged, Diverged, Failure
from .names import branch_name, branch_timeline, lsn_text, parse_history, segment_start
from .object import member
from .wal import load_segment, plan_way, read_segment


class Verification:
    """`problem` is called with each fault, `note` with what a person may want to know."""

    def __init__(self, cluster, problem, note):
        self.cluster, self.problem, self.note = cluster, problem, note
        self.deep = bool(cluster.identities)
        self.objects = 0

    def run(self):
        for text in self.cluster.unknown:
            self.note(f"{text}: not a name of this format; not read")
        for name in self.cluster.names:
            if name.writer and not self.cluster.writers.names(name.writer):
                self.note(f"{name.text}: of a writer that --writer does not name; not read")
                continue
            self.objects += 1
            if name.conflict:
                self.note(f"{name.conflict}: bytes that were refused because {name.text} was taken by others")
            self._try(name.conflict or name.text, self._object, name)
        if not any(name.kind == "identity" and not name.conflict for name in self.cluster.names):
            self.problem("identity: the object is missing")
            return
        self._try("identity", self._branches)
        self._bases()

    def _try(self, where, check, *arguments):
        """A fault in one object never hides those of the others."""
        try:
            check(*arguments)
        except Failure as error:
            text = str(error)
            self.problem(text if text.startswith(where) else f"{where}: {text}")

    def _object(self, name):
        # What an archiver keeps for itself no identity opens, and no restore needs.
        deep = self.deep and name.kind != "resume"
        with self.cluster.open(name, unlock=deep) as found:
            digest = None
            if self.deep and found.wal and not name.conflict:
                key, key_id = self.cluster.compare_key()
                if found.wal.segment_size != self.cluster.segment_size:
                    raise Damaged(
                        f"its segment size is {found.wal.segment_size}, that of the repository {self.cluster.segment_size}"
                    )
                if found.wal.compare_key != key_id:
                    raise Damaged(f"its digests are of compare key {found.wal.compare_key}, the repository's is {key_id}")
                if found.wal.start == segment_start(name.segment, found.wal.segment_size):
                    digest = blake3(key=key)
                    if digest.hexdigest() != found.wal.digest_start:
                        raise Damaged("its digest_start is not that of no bytes, and it begins with its segment")
            content = []
            for number in range(found.frame_count):
                if not deep:
                    found.stored_frame(number)
                    continue
                data = found.plain_frame(number)
                if digest:
                    digest.update(data)
                if found.kind == "history":
                    content.append(data)
            if digest and digest.hexdigest() != found.wal.digest_end:
                raise Damaged("its digest_end is not that of its bytes")
            if found.kind == "history" and self.deep:
                if (
                    branch_name(self.cluster.identifier, branch_timeline(name.branch), parse_history(b"".join(content)))
                    != name.branch
                ):
                    raise Damaged("its entries are not those of the branch that its name tells")
            if found.kind == "identity":
                self._identity(found.body)
        if found.kind == "identity" and self.deep:
            self.cluster.compare_key()

    def _identity(self, body):
        if member(body, "format", int, "identity") != 1:
            raise Damaged(f"its body says format {body['format']}")
        if member(body, "cluster", str, "identity") != self.cluster.identifier:
            raise Damaged(f"its body says cluster {body['cluster']}")
        member(body, "segment_size", int, "identity")

    def _branches(self):
        wal = self.cluster.wal()
        self.cluster.adoptions()
        for branch in self.cluster.branches():
            first = branch_name(self.cluster.identifier, branch_timeline(branch), [])
            if (origin := self.cluster.origin(branch)) != branch:
                if origin != first and not self.cluster.path(f"history/{origin}").exists():
                    self.problem(f"history/{origin}: the object is missing, and WAL of its timeline was adopted to branch {branch}")
            elif branch != first and not self.cluster.path(f"history/{branch}").exists():
                self.problem(f"history/{branch}: the object is missing, and branch {branch} has other objects")
            if self.deep:
                for begin in sorted(wal.get(branch, {})):
                    self._try(f"wal of {branch}", self._segment, branch, begin)

    def _segment(self, branch, begin):
        segment = load_segment(self.cluster, branch, begin)
        if all(piece.start == begin for piece in segment.pieces):
            return  # Each was compared with its own digests already.
        while True:
            try:
                read_segment(self.cluster, segment, lambda data: None)
                break
            except Diverged:
                raise
            except Damaged as error:
                # Reported when the object itself was read; what others hold is still worth comparing.
                if not hasattr(error, "piece"):
                    raise
                segment.pieces.remove(error.piece)
        for piece in segment.pieces:
            if piece.start > segment.end:
                self.note(
                    f"{piece.name.text}: the WAL from {lsn_text(segment.end)} to {lsn_text(piece.start)} is not there, so its digests were not compared"
                )

    def _bases(self):
        used = set()
        for base_id in self.cluster.base_ids():
            self._try(f"base/{base_id}/label", self._base, base_id, used)
        labelled = set(self.cluster.base_ids())
        for base_id in sorted({n.base for n in self.cluster.names if n.base and not n.conflict} - labelled):
            self.note(f"base/{base_id}: has no label: a base backup that was not finished or is being removed")
        for name in self.cluster.names:
            if name.kind in ("manifest", "data") and not name.conflict and name.base in labelled and name.text not in used:
                self.note(f"{name.text}: no label refers to it")

    def _base(self, base_id, used):
        label = Label(self.cluster, base_id)
        if label.suspect:
            self.note(f"base/{base_id}: suspect: the server saw {label.suspect} damaged pages")
        sound = True
        stored = 0
        for reference in label.manifest + label.objects:
            used.add(reference[0].text)
            if reference[0].kind == "data" and reference[0].base == base_id:
                stored += reference[1]
            try:
                check_reference(self.cluster, reference)
            except Failure as error:
                sound = False
                self.problem(f"base backup {base_id} needs {error}")
        if stored != member(label.body, "stored_size", int, "label"):
            self.problem(f"base/{base_id}/label: its stored_size is not the {stored} bytes of its data objects")
        way = plan_way(self.cluster, [(label.branch, None)], label.start, label.stop)
        if way.end < label.stop:
            self.problem(
                f"base backup {base_id} needs WAL from {lsn_text(way.end)} to {lsn_text(label.stop)} on branch {label.branch}: it is not there"
            )
        if self.deep and sound:
            self._files(label)

    def _files(self, label):
        files, size, tablespaces, seen = Files(self.cluster, label), 0, 0, set()
        try:
            for entry in manifest_entries(self.cluster, label):
                kind = member(entry, "type", str, "entry")
                if kind == "tablespace":
                    tablespaces += 1
                    continue
                path = entry_path(entry)
                entry_mode(entry)
                if kind == "file":
                    size += member(entry, "size", int, "entry")
                    try:
                        files.write(Nowhere(), entry)
                    except Damaged as error:
                        self.problem(f"base backup {label.id}, file {path!r}: {error}")
                elif kind != "directory":
                    self.problem(f"base backup {label.id}: an entry has the unknown type {kind!r}")
                if path in seen:
                    self.problem(f"base backup {label.id}: the list of files names {path!r} twice")
                seen.add(path)
        finally:
            files.close()
        if size != member(label.body, "cluster_size", int, "label"):
            self.problem(f"base/{label.id}/label: its cluster_size is not the {size} bytes of its files")
        if tablespaces != member(label.body, "tablespaces", int, "label"):
            self.problem(
                f"base/{label.id}/label: it counts {label.body['tablespaces']} tablespaces, the list of files {tablespaces}"
            )
