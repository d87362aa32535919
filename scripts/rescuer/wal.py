"""WAL of one segment from whole objects, parts, partials and tails, and the way of a recovery along its branches (FORMAT.md section 5)."""

from collections import defaultdict
from dataclasses import dataclass, field

from blake3 import blake3

from .cluster import Piece
from .errors import Damaged, Diverged, Failure, Missing
from .names import branch_timeline, lsn_text, parse_lsn, segment_name, segment_start


@dataclass
class Segment:
    """The pieces of one segment on one branch, and the chain that a reader takes from them."""

    branch: str
    begin: int
    size: int
    pieces: list
    lost: list = field(default_factory=list)  # Pieces that were left out because they are damaged.

    @property
    def chain(self):
        """`[(piece, from)]`: each begins at or before the end of the one before, so few objects as possible."""
        taken, at = [], self.begin
        while at < self.begin + self.size:
            best = max((p for p in self.pieces if p.start <= at < p.end), key=lambda p: p.end, default=None)
            if best is None:
                break
            taken.append((best, at))
            at = best.end
        return taken

    @property
    def end(self):
        """The LSN up to which bytes are there without a hole; `begin` when there are none."""
        chain = self.chain
        return chain[-1][0].end if chain else self.begin

    @property
    def claimed_end(self):
        """The highest LSN that any object of the segment claims, be it damaged or not reachable."""
        return max((p.end for p in self.pieces + self.lost), default=self.begin)

    @property
    def file_name(self):
        return segment_name(branch_timeline(self.branch), self.begin, self.size)


def load_segment(cluster, branch, begin):
    """The segment's pieces. Damaged partials are warned about and left out.

    A branch that began inside this segment may hold it from the switch on only; the bytes before are its parent's.
    """
    size = cluster.segment_size
    segment = Segment(branch, begin, size, [])
    for name in cluster.wal().get(branch, {}).get(begin, []):
        try:
            segment.pieces.append(cluster.piece(name))
        except Damaged as error:
            cluster.warn(f"left out: {error}")
            # A partial that cannot be read may have held anything up to the end of its segment.
            segment.lost.append(Piece(name, begin, begin + size))
    starts = [p.start for p in segment.pieces]
    if starts and min(starts) > begin and cluster.identities:
        way = cluster.known_paths().get(branch, [])
        if len(way) > 1 and begin < way[-2][1] < begin + size:
            parent, switch = way[-2]
            head = load_segment(cluster, parent, begin)
            segment.pieces += [Piece(p.name, p.start, min(p.end, switch)) for p in head.pieces if p.start < switch]
    return segment


class _Digest:
    """The keyed digest of a segment from its start on, compared at every position for which an object gives one."""

    def __init__(self, cluster, segment):
        self.key, self.key_id = cluster.compare_key()
        self.warn = cluster.warn
        self.hasher = blake3(key=self.key)
        self.marks = defaultdict(list)
        self.at = segment.begin

    def expect(self, found, until):
        """Notes the digests of an object; `until` is where its bytes stop to count for this branch."""
        wal = found.wal
        if wal.compare_key != self.key_id:
            self.warn(
                f"{found.name}: its digests are of compare key {wal.compare_key}, not of the repository's {self.key_id}: not compared"
            )
            return
        self.marks[wal.start].append((wal.digest_start, found.name))
        if wal.end <= until:
            self.marks[wal.end].append((wal.digest_end, found.name))

    def check_here(self):
        for digest, name in self.marks.pop(self.at, ()):
            if digest != self.hasher.hexdigest():
                raise Diverged(
                    f"{name}: the WAL before {lsn_text(self.at)} is not the one for which it gives a digest: two histories under one name"
                )

    def update(self, data):
        data = memoryview(data)
        self.check_here()
        while data:
            here = min((m - self.at for m in self.marks if m > self.at), default=len(data))
            step = min(here, len(data))
            self.hasher.update(bytes(data[:step]))
            self.at += step
            data = data[step:]
            self.check_here()


def read_segment(cluster, segment, write):
    """Passes the bytes of the segment's chain to `write`. The attribute `piece` of a `Damaged` tells which piece is at fault."""
    digest = _Digest(cluster, segment)
    for piece in segment.pieces:
        try:
            with cluster.open(piece.name) as found:
                digest.expect(found, piece.end)
        except Damaged as error:
            error.piece = piece
            raise
    for piece, start in segment.chain:
        try:
            with cluster.open(piece.name, unlock=True) as found:
                at = piece.start
                for number in range(found.frame_count):
                    plain = found.frame(number)[1]
                    if at + plain > start and at < piece.end:
                        try:
                            data = found.plain_frame(number)
                        except Damaged as error:
                            raise Damaged(f"{piece.name.text}: {error}") from None
                        data = memoryview(data)[max(0, start - at) : piece.end - at]
                        digest.update(data)
                        write(data)
                    at += plain
        except Damaged as error:
            error.piece = piece
            raise


def assemble(cluster, segment, file):
    """Writes the segment to `file` (seekable), leaving out damaged objects where others hold the same bytes. Does not fill with zeros."""
    while True:
        file.seek(0)
        file.truncate()
        try:
            read_segment(cluster, segment, file.write)
            return
        except Damaged as error:
            piece = getattr(error, "piece", None)
            if piece is None:
                raise
            segment.pieces.remove(piece)
            segment.lost.append(piece)
            end = segment.end
            if end == segment.begin or any(end < lost.end for lost in segment.lost):
                raise Damaged(f"{error}; no other object holds the same WAL") from None
            cluster.warn(f"left out, other objects hold the same WAL: {error}")


def zero_fill(segment, file):
    file.seek(0, 2)
    missing = segment.begin + segment.size - segment.end
    while missing:
        step = min(missing, 1 << 20)
        file.write(bytes(step))
        missing -= step


def why_it_counts(cluster, branch, end):
    """Why WAL of the branch beyond a hole at `end` shows that there was more, or None; and the highest LSN that it claims.

    Pieces are stored several at a time: where server and archiver were lost together, a later one may be there without an earlier one.
    Such WAL does not count when each object beyond says that nothing after `end` had been confirmed when it was made.
    """
    highest = None
    for begin, names in sorted(cluster.wal().get(branch, {}).items(), reverse=True):
        if begin + cluster.segment_size <= end:
            break
        for name in names:
            try:
                if cluster.piece(name).end <= end:
                    continue
                with cluster.open(name) as found:
                    durable, last = found.wal.durable, found.wal.end
            except Failure as error:
                return f"an object beyond it cannot be read ({error})", highest
            if durable is None:
                return f"{name.text} is there, and does not say whether what is missing was ever confirmed", highest
            if durable > end:
                return f"{name.text} is there, and was made when WAL up to {lsn_text(durable)} was durable", highest
            highest = max(highest or last, last)
    return None, highest


def why_not_the_end(cluster, segment):
    """Why the WAL of this branch is known to go on after the segment's chain, or None when it may have ended there."""
    end = segment.end
    if any(lost.end > end for lost in segment.lost):
        return f"an object holds WAL up to {lsn_text(segment.claimed_end)}"
    recorded, name = cluster.frontiers().get(segment.branch, (0, None))
    if recorded > end:
        return f"{name} says that WAL was durable up to {lsn_text(recorded)}"
    for page in cluster.names:
        if page.kind == "catalog" and page.branch == segment.branch and not page.conflict:
            durable = segment_start(page.until, cluster.segment_size) + cluster.segment_size
            if durable > end:
                try:
                    cluster.open(page).close()
                    return f"{page.text} says that WAL was durable up to {lsn_text(durable)}"
                except Damaged as error:
                    cluster.warn(f"left out: {error}")
    reason, beyond = why_it_counts(cluster, segment.branch, end)
    if reason:
        return reason
    for base in cluster.base_ids():
        try:
            with cluster.open(next(n for n in cluster.names if n.kind == "label" and n.base == base and not n.conflict)) as label:
                if label.body.get("branch") == segment.branch and parse_lsn(label.body.get("stop")) > end:
                    return f"the base backup {base} stopped at {label.body['stop']}"
        except Damaged as error:
            if beyond:
                return f"base backup {base} may have stopped beyond it: {error}"
    for child, way in cluster.known_paths().items():
        for branch, switch in way:
            if branch == segment.branch and switch is not None and switch > end:
                return f"branch {child} left it at {lsn_text(switch)}"
    if beyond:
        cluster.warn(
            f"objects of branch {segment.branch} hold WAL up to {lsn_text(beyond)}, without what lies before it from {lsn_text(end)} on;"
            " none shows that any of it was ever confirmed: WAL ends there"
        )
    return None


def fetch(cluster, branch, begin, file, incomplete=False):
    """One segment of one branch as restore_command wants it: whole, zeros after the end of WAL.

    `Missing` when no object of it exists and none should; `Failure` for a hole, because PostgreSQL would take `Missing` for the end of WAL.
    """
    segment = load_segment(cluster, branch, begin)
    if segment.end == begin:
        reason = why_not_the_end(cluster, segment)
        if reason is None:
            raise Missing(f"{segment.file_name} is not in the repository: the WAL of branch {branch} ends before it")
        raise Failure(f"{segment.file_name} is missing on branch {branch}, and yet {reason}: there is a hole in the WAL")
    assemble(cluster, segment, file)
    if segment.end < begin + segment.size:
        reason = why_not_the_end(cluster, segment)
        if reason and not incomplete:
            raise Failure(
                f"{segment.file_name} ends at {lsn_text(segment.end)} on branch {branch}, and yet {reason}: there is a hole in the WAL; "
                "--incomplete gives what is there"
            )
        cluster.warn(
            f"{segment.file_name} ends at {lsn_text(segment.end)}{' (' + reason + ')' if reason else ''}; the rest is zeros"
        )
        zero_fill(segment, file)
    return segment


@dataclass
class Way:
    """The WAL that a recovery from one LSN on will read: decided before anything is written."""

    branches: list
    segments: list  # (branch, first LSN of the segment), in the order of replay.
    end: int  # Replay can reach this LSN.
    hole: str | None  # Why it cannot go further, though there is more.


def plan_way(cluster, path, start, until=None):
    """`path` as from `Cluster.path_to`, from the base backup's branch on; `start` is where replay begins; `until` is far enough."""
    size = cluster.segment_size
    segments, at, joined = [], start, start  # `joined`: where the way comes onto the branch.
    for branch, switch in path:
        begin = joined // size * size
        while (switch is None or begin < switch) and (until is None or at < until):
            segment = load_segment(cluster, branch, begin)
            if segment.end > begin:
                segments.append((branch, begin))
                reached = min(segment.end, switch) if switch is not None else segment.end
                at = max(at, reached)
            forks_here = switch is not None and switch < begin + size
            if segment.end < begin + size and not forks_here:
                hole = why_not_the_end(cluster, segment)
                if at < joined:
                    hole = f"branch {branch} was begun at {lsn_text(joined)}"
                return Way([b for b, _ in path], segments, at, hole)
            begin += size
        joined = switch
    return Way([b for b, _ in path], segments, at, None)


def choose_path(cluster, base_branch, stop, wanted=None):
    """The path that a recovery of this base backup follows, from the backup's branch on."""
    paths = {}
    for branch, way in cluster.known_paths().items():
        for number, (found, switch) in enumerate(way):
            # A branch that was left before the backup was consistent cannot be reached from it.
            if found == base_branch and (switch is None or switch >= stop):
                paths[branch] = way[number:]
    if wanted is not None:
        if wanted not in paths:
            raise Failure(
                f"branch {wanted} cannot be reached from this base backup; those that can: {', '.join(paths) or 'none'}"
            )
        return paths[wanted]
    inner = {branch for way in paths.values() for branch, _ in way[:-1]}
    leaves = [branch for branch in paths if branch not in inner]
    # Where two servers wrote a timeline, the living one's is followed.
    leaves = [branch for branch in leaves if not cluster.is_abandoned(cluster.path_to(branch))] or leaves
    if not leaves:
        return [(base_branch, None)]
    if len(leaves) > 1:
        raise Failure(f"from this base backup recovery can follow {' or '.join(leaves)}: choose with --branch")
    return paths[leaves[0]]
