"""One cluster's folder in a directory copy of the repository: its names, its branches, its base backups."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from .errors import Damaged, Failure
from .keys import key_id
from .names import PART, branch_name, branch_timeline, parse_history, parse_lsn, parse_name, segment_start
from .object import SealedObject, member


def find_clusters(repository, wanted=None):
    """The folders of the clusters, by system identifier."""
    repository = Path(repository)
    try:
        found = sorted(entry.name for entry in os.scandir(repository) if entry.name.isdecimal() and entry.is_dir())
    except OSError as error:
        raise Failure(f"cannot read the repository {repository}: {error.strerror}") from None
    if not found:
        hint = (
            f"; {repository} looks like the folder of one cluster: give the folder above it"
            if (repository / "identity").exists()
            else ""
        )
        raise Failure(f"{repository} has no folder named by a system identifier, so it holds no cluster{hint}")
    if wanted is not None:
        if wanted not in found:
            raise Failure(f"cluster {wanted} is not in {repository}; it holds {', '.join(found)}")
        return [wanted]
    return found


@dataclass(frozen=True)
class Adoption:
    """From `start` on, the WAL of the living one of two servers that wrote `branch` lies on branch `to` (FORMAT.md section 12)."""

    name: str
    branch: str
    number: int
    start: int
    to: str
    writer: str
    apart: frozenset


@dataclass(frozen=True)
class Piece:
    """A run of WAL that one object claims to hold: by its name, or by its signed header for `partial`."""

    name: object
    start: int
    end: int


class Cluster:
    """Opens objects with the checks that every reader owes: right name, right cluster, trusted writer."""

    def __init__(self, repository, identifier, writers, identities, warn):
        self.folder = Path(repository) / identifier
        self.identifier, self.writers, self.identities, self.warn = identifier, writers, identities, warn
        self.names, self.unknown = [], []
        self._scan(self.folder, "")
        self._identity = self._compare_key = self._histories = self._wal = self._frontiers = self._adoptions = None

    def _scan(self, folder, prefix):
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            for entry in entries:
                if entry.is_dir():
                    self._scan(entry.path, f"{prefix}{entry.name}/")
                elif name := parse_name(prefix + entry.name):
                    self.names.append(name)
                else:
                    self.unknown.append(prefix + entry.name)
        except OSError as error:
            raise Failure(f"cannot read {folder}: {error.strerror}") from None

    def path(self, text):
        return self.folder / text

    def open(self, name, unlock=False):
        """The object of this name, checked; `Damaged` and `Failure` say which object."""
        try:
            found = SealedObject(
                self.path(name.conflict or name.text),
                name=name,
                cluster=self.identifier,
                writers=self.writers,
                also_named=name.conflict,
            )
            if unlock:
                try:
                    found.unlock(self.identities)
                except Failure:
                    found.close()
                    raise
            return found
        except Damaged as error:
            raise Damaged(f"{name.conflict or name.text}: {error}") from None

    def need_identity(self, purpose):
        if not self.identities:
            raise Failure(f"{purpose} needs the identity: give --identity FILE")

    def identity_body(self):
        """The body of the `identity` object."""
        if self._identity is None:
            if not self.path("identity").exists():
                raise Failure(f"the object 'identity' of cluster {self.identifier} is missing: copy the bucket again, whole")
            with self.open(parse_name("identity")) as found:
                self._identity = found.body
        return self._identity

    @property
    def segment_size(self):
        size = member(self.identity_body(), "segment_size", int, "identity")
        if not 1 << 20 <= size <= 1 << 30 or size & size - 1:
            raise Damaged(f"identity: its segment size {size} is not a power of two between 1 MiB and 1 GiB")
        return size

    def compare_key(self):
        """The key of the WAL digests, and its id."""
        if self._compare_key is None:
            self.need_identity("checking WAL digests")
            with self.open(parse_name("identity"), unlock=True) as found:
                try:
                    frames = list(found.plain_frames())
                except Damaged as error:
                    raise Damaged(f"identity: {error}") from None
            if len(frames) != 1 or len(frames[0]) != 32:
                raise Damaged("identity: its frame does not hold a compare key of 32 bytes")
            self._compare_key = frames[0], key_id("compare key", frames[0])
        return self._compare_key

    # Branches.

    def branches(self):
        """All branches that own an object, by timeline and name."""
        found = {name.branch for name in self.names if name.branch and not name.conflict}
        return sorted(found, key=lambda branch: (branch_timeline(branch), branch))

    def adoptions(self):
        """`{branch: [adoptions]}` in the order of their numbers. `Damaged` for one that cannot be used: WAL would be looked for elsewhere."""
        if self._adoptions is None:
            found, reached = defaultdict(list), {}
            for name in sorted((n for n in self.names if n.kind == "adopt" and not n.conflict), key=lambda n: n.text):
                with self.open(name) as opened:
                    body = opened.body
                branch, to = member(body, "branch", str, name.text), member(body, "to", str, name.text)
                one = Adoption(
                    name.text,
                    branch,
                    int(name.number),
                    parse_lsn(member(body, "from", str, name.text)),
                    to,
                    member(body, "writer", str, name.text),
                    frozenset(body.get("apart") or []),
                )
                if branch != name.branch:
                    raise Damaged(f"{name.text}: it is about branch {branch}")
                if to[:8] != branch[:8] or to == branch or to in reached:
                    raise Damaged(f"{name.text}: it leads to branch {to}, where no adoption of {branch} can lead")
                at = branch
                while at in reached:
                    at = reached[at].branch
                if at == to:
                    raise Damaged(f"{name.text}: it leads to branch {to}, from which it comes")
                reached[to] = one
                found[branch].append(one)
            self._adoptions = (dict(found), reached)
        return self._adoptions[0]

    def lineage(self, branch):
        """The adoptions by which WAL came to a branch, oldest first."""
        self.adoptions()
        lineage = []
        while branch in self._adoptions[1]:
            lineage.append(self._adoptions[1][branch])
            branch = lineage[-1].branch
        return lineage[::-1]

    def origin(self, branch):
        """The branch by its history alone from which a branch was adopted."""
        lineage = self.lineage(branch)
        return lineage[0].branch if lineage else branch

    def branch_at(self, origin, lsn):
        """The branch on which a byte of the timeline lies whose branch by its history is `origin`."""
        branch = origin
        while (all_of_it := self.adoptions().get(branch)) and all_of_it[-1].start <= lsn:
            branch = all_of_it[-1].to
        return branch

    def is_abandoned(self, way):
        """Whether a way goes along a branch beyond the place where its WAL was adopted to another."""
        return any(
            switch is None or switch > adoption.start for branch, switch in way for adoption in self.adoptions().get(branch, ())
        )

    def history_content(self, branch):
        """The history file of a branch, checked against the branch's name. `Failure` when the repository has none."""
        self.need_identity("reading a history file")
        branch = self.origin(branch)
        name = parse_name(f"history/{branch}")
        if not self.path(name.text).exists():
            raise Failure(f"history/{branch} is missing: the way to branch {branch} is not known")
        with self.open(name, unlock=True) as found:
            try:
                content = b"".join(found.plain_frames())
                if branch_name(self.identifier, branch_timeline(branch), parse_history(content)) != branch:
                    raise Damaged("its entries are not those of the branch that its name tells")
            except Damaged as error:
                raise Damaged(f"history/{branch}: {error}") from None
        return content

    def entries(self, branch):
        """The switches on the way to a branch, oldest first."""
        branch = self.origin(branch)
        if branch_name(self.identifier, branch_timeline(branch), []) == branch:
            return []
        return parse_history(self.history_content(branch))

    def path_to(self, branch):
        """`[(branch, switch)]` from the first branch to this one; `switch` is where it was left, None for the last."""
        entries = self.entries(branch)
        origins = [branch_name(self.identifier, e.timeline, entries[:i]) for i, e in enumerate(entries)] + [self.origin(branch)]
        way, began = [], 0
        for at, switch, child in zip(origins, [e.lsn for e in entries] + [None], origins[1:] + [None]):
            lineage = iter(self.lineage(branch)) if child is None else None
            while adoption := next(lineage, None) if lineage else self._leaving(at, switch, child):
                began = max(began, adoption.start)
                way.append((at, began))
                at = adoption.to
            way.append((at, switch))
            began = switch
        return way

    def _leaving(self, branch, switch, child):
        """The adoption that counts for a timeline that left `branch` at `switch`."""
        for adoption in reversed(self.adoptions().get(branch, ())):
            if adoption.start < switch and child not in adoption.apart:
                return adoption
        return None

    def known_paths(self):
        """The paths of all branches whose history can be read; the others are warned about once. Empty without an identity."""
        if self._histories is None:
            self._histories = {}
            for branch in self.branches() if self.identities else ():
                try:
                    self._histories[branch] = self.path_to(branch)
                except Failure as error:
                    self.warn(f"the history of branch {branch} cannot be used: {error}")
        return self._histories

    # WAL by name.

    def wal(self):
        """`{branch: {segment's first LSN: [names]}}`, from names alone."""
        if self._wal is None:
            self._wal = defaultdict(lambda: defaultdict(list))
            for name in self.names:
                if name.kind in ("wal", "partial", "tail") and not name.conflict:
                    try:
                        begin = segment_start(name.segment, self.segment_size)
                        if int(name.segment[:8], 16) != branch_timeline(name.branch):
                            raise Damaged("its segment is of another timeline than its branch")
                    except Damaged as error:
                        self.warn(f"{name.text} is left out: {error}")
                        continue
                    self._wal[name.branch][begin].append(name)
        return self._wal

    def piece(self, name):
        """What an object of WAL claims to hold. A `partial` tells only in its header, which is opened and checked."""
        begin = segment_start(name.segment, self.segment_size)
        if name.kind == "partial":
            with self.open(name) as found:
                return Piece(name, found.wal.start, found.wal.end)
        if name.kind == "tail":
            return Piece(name, name.first, name.last)
        if name.part is not None:
            return Piece(name, begin + name.part * PART, begin + (name.part + 1) * PART)
        return Piece(name, begin, begin + self.segment_size)

    # Frontiers.

    def frontiers(self):
        """`{branch: (LSN, name)}`: up to where the newest sound word of each writer says that WAL was durable."""
        if self._frontiers is None:
            self._frontiers, told = {}, set()
            for name in sorted((n for n in self.names if n.kind == "frontier" and not n.conflict), key=lambda n: (n.writer, n.count)):
                if name.writer in told:
                    continue
                try:
                    with self.open(name) as found:
                        if found.header.get("writer") != name.writer:
                            raise Damaged(f"{name.text}: it was signed by another writer than its name tells")
                        body = found.body
                    for one in [body, *(body.get("earlier") or [])]:
                        branch, lsn = member(one, "branch", str, name.text), parse_lsn(member(one, "frontier", str, name.text))
                        if lsn > self._frontiers.get(branch, (0, None))[0]:
                            self._frontiers[branch] = (lsn, name.text)
                except Failure as error:
                    self.warn(f"left out: {error}")
                    continue
                told.add(name.writer)
        return self._frontiers

    # Base backups.

    def base_ids(self):
        """Ids of the base backups that exist, that is, have a label; oldest first."""
        return sorted({name.base for name in self.names if name.kind == "label" and not name.conflict})
