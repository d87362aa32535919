#!/usr/bin/env python3
"""Reads a walseal repository without walseal: lists, verifies, gets WAL files, restores base backups.

You need a directory copy of the bucket (the folder that holds the clusters' folders), for example:
  aws s3 sync s3://BUCKET/PREFIX /rescue/copy          (--endpoint-url URL for other stores)
  rclone copy REMOTE:BUCKET/PREFIX /rescue/copy
the identity file (walseal-secret-identity1…), and the public key of the writer (walsealw1…). Then:
  python3 -m venv venv && venv/bin/pip install -r rescue-requirements.txt
  venv/bin/python rescue.py --repository /rescue/copy --identity FILE --writer walsealw1… list

The copy is only read. Exit status: 0 done; 1 'verify' found problems, or 'wal' does not have the file and WAL may end
there; 200 for everything else, which PostgreSQL's restore_command takes as a reason to stop instead of as the end of WAL.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

FAILED = 200

try:
    from rescuer.base import Label, Restore, describe, newest_base
    from rescuer.cluster import Cluster, find_clusters
    from rescuer.errors import Damaged, Failure, Missing
    from rescuer.keys import Writers, read_identities
    from rescuer.names import branch_timeline, lsn_text, segment_start
    from rescuer.object import SealedObject
    from rescuer.verify import Verification
    from rescuer.wal import choose_path, fetch, load_segment, plan_way, why_it_counts
except ModuleNotFoundError as error:
    requirements = Path(__file__).resolve().parent / "rescue-requirements.txt"
    command = f"{sys.executable} -m pip install -r {requirements}"
    print(f"rescue: the Python module {error.name!r} is missing; run: {command}", file=sys.stderr)
    sys.exit(FAILED)


def warn(text):
    print(f"rescue: warning: {text}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """argparse ends with 2 on a wrong command line, which PostgreSQL would take for the end of WAL."""

    def error(self, message):
        self.print_usage(sys.stderr)
        print(f"rescue: {message}", file=sys.stderr)
        sys.exit(FAILED)


def tablespace_mapping(text):
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return old, new


def arguments():
    parser = Parser(prog="rescue.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", metavar="DIR", help="directory copy of the bucket")
    parser.add_argument("--cluster", metavar="ID", help="system identifier; needed when there are several")
    parser.add_argument("--identity", metavar="FILE", help="identity file")
    parser.add_argument(
        "--writer",
        metavar="KEY",
        action="append",
        default=[],
        help="public key of a writer to trust; wal=KEY or base=KEY trusts it for that role only; may be repeated",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="clusters, base backups, branches, WAL and its holes")
    verify = commands.add_parser("verify", help="check every object")
    verify.add_argument("--no-identity", action="store_true", help="check signatures and digests only; open nothing")
    wal = commands.add_parser("wal", help="get one WAL segment or history file, as restore_command wants it")
    wal.add_argument("name", metavar="NAME", help="for example 000000010000000000000003 or 00000002.history (%%f)")
    wal.add_argument("out", metavar="OUT", help="file to write (%%p)")
    wal.add_argument("--branch", help="the branch that recovery follows; files of the branches before it are served too")
    wal.add_argument("--incomplete", action="store_true", help="fill with zeros even where WAL is known to be missing")
    restore = commands.add_parser("restore", help="rebuild a data directory")
    restore.add_argument("base", metavar="BASE_ID", help="id of a base backup, or latest")
    restore.add_argument("target", metavar="TARGET_DIR", help="new or empty directory")
    restore.add_argument("--wal", action="store_true", help="put all WAL that follows into TARGET_DIR/pg_wal")
    restore.add_argument("--wal-into", metavar="DIR", help="put all WAL that follows into this new or empty directory instead")
    restore.add_argument("--branch", help="the branch that recovery follows")
    restore.add_argument(
        "--tablespace",
        metavar="OLD=NEW",
        action="append",
        default=[],
        type=tablespace_mapping,
        help="put a tablespace elsewhere; may be repeated",
    )
    show = commands.add_parser("show", help="header and trailer of one object file as JSON; trusts its writer")
    show.add_argument("file", metavar="FILE")
    return parser.parse_args()


def open_clusters(options, one=False):
    if not options.repository:
        raise Failure("give --repository DIR, a directory copy of the bucket")
    if not options.writer:
        raise Failure("give --writer walsealw1…, the public key of the writer to trust; without it anybody's objects would pass")
    found = find_clusters(options.repository, options.cluster)
    if one and len(found) > 1:
        raise Failure(f"the repository holds several clusters: choose with --cluster {' or '.join(found)}")
    identities = read_identities(options.identity) if options.identity else []
    return [Cluster(options.repository, identifier, Writers(options.writer), identities, warn) for identifier in found]


def run_list(options):
    status = 0
    for cluster in open_clusters(options):
        try:
            body = cluster.identity_body()
            print(
                f"cluster {cluster.identifier}: PostgreSQL {body.get('postgres_major')}, segments of {cluster.segment_size} bytes, predecessor {body.get('predecessor')}"
            )
            for base_id in cluster.base_ids():
                try:
                    print(f"  base {describe(Label(cluster, base_id))}")
                except Failure as error:
                    status = FAILED
                    print(f"  base {base_id}: cannot be read: {error}")
            list_branches(cluster)
        except Failure as error:
            status = FAILED
            print(f"rescue: cluster {cluster.identifier}: {error}", file=sys.stderr)
    return status


def list_branches(cluster):
    paths = cluster.known_paths() if cluster.identities else {}
    for branch in cluster.branches():
        way = paths.get(branch, [])
        origin = f", left {way[-2][0]} at {lsn_text(way[-2][1])}" if len(way) > 1 else ""
        print(f"  branch {branch}: timeline {branch_timeline(branch)}{origin}")
        before = None
        for start, end, tails in wal_ranges(cluster, branch):
            if before is not None:
                counts, _ = why_it_counts(cluster, branch, before)
                worth = "" if counts else ", and nothing shows that what follows was ever confirmed"
                print(f"    HOLE {lsn_text(before)} - {lsn_text(start)}{worth}")
            elif len(way) > 1 and start > way[-2][1]:
                print(f"    HOLE {lsn_text(way[-2][1])} - {lsn_text(start)}")
            print(f"    wal {lsn_text(start)} - {lsn_text(end)}{f', from {tails} on in tails' if tails else ''}")
            before = end
    if not cluster.identities:
        print("  (give --identity to see where branches began)")


def wal_ranges(cluster, branch):
    """`[(start, end, where tails alone begin or None)]` of a branch, from names alone but for partials."""
    ranges = []
    segments = cluster.wal().get(branch, {})
    for begin in sorted(segments):
        pieces = []
        for name in segments[begin]:
            try:
                pieces.append(cluster.piece(name))
            except Failure as error:
                warn(f"left out: {error}")
        for piece in sorted(pieces, key=lambda p: (p.start, -p.end)):
            tail = piece.name.kind == "tail"
            if ranges and piece.start <= ranges[-1][1]:
                start, end, tails = ranges[-1]
                if piece.end > end:
                    ranges[-1] = (start, piece.end, (tails or lsn_text(end)) if tail else None)
            else:
                ranges.append((piece.start, piece.end, lsn_text(piece.start) if tail else None))
    return ranges


def run_verify(options):
    if options.no_identity:
        options.identity = None
    elif not options.identity:
        raise Failure("give --identity FILE, or --no-identity to check without opening anything")
    problems = objects = 0

    def problem(text):
        nonlocal problems
        problems += 1
        print(f"PROBLEM {cluster.identifier}: {text}", flush=True)

    for cluster in open_clusters(options):
        verification = Verification(cluster, problem, lambda text: print(f"note {cluster.identifier}: {text}"))
        verification.run()
        objects += verification.objects
    print(f"{objects} objects checked{'' if options.identity else ', none opened'}, {problems} problems")
    return 1 if problems else 0


def run_wal(options):
    (cluster,) = open_clusters(options, one=True)
    cluster.need_identity("reading WAL")
    if options.name.endswith(".history") and len(options.name) == 16:
        timeline = options.name[:8]
    elif len(options.name) == 24:
        timeline = options.name[:8]
    else:
        raise Missing(f"{options.name} is neither a WAL segment nor a history file: the repository holds nothing else")
    if set(options.name.removesuffix(".history")) - set("0123456789ABCDEF"):
        raise Missing(f"{options.name} is not a name that PostgreSQL gives to WAL")
    begin = None if options.name.endswith(".history") else segment_start(options.name, cluster.segment_size)
    branches = sorted({cluster.origin(b) for b in cluster.branches() if b[:8] == timeline})
    if options.branch:
        if options.branch not in cluster.branches():
            raise Failure(f"branch {options.branch} is not in the repository; it has {', '.join(cluster.branches())}")
        way = [(b, switch) for b, switch in cluster.path_to(options.branch) if b[:8] == timeline]
        # Two branches of one timeline follow each other where two servers wrote it: the first byte tells.
        branches = [b for b, switch in way if begin is None or switch is None or begin < switch][:1] or [b for b, _ in way[-1:]]
    elif begin is not None and len(branches) == 1:
        branches = [cluster.branch_at(branches[0], begin)]
    if not branches:
        raise Missing(
            f"{options.name} is not in the repository: {'the way to ' + options.branch if options.branch else 'it'} has no timeline {int(timeline, 16)}"
        )
    if len(branches) > 1:
        raise Failure(f"timeline {int(timeline, 16)} is there more than once: choose with --branch {' or '.join(branches)}")
    if options.name.endswith(".history"):
        content = cluster.history_content(branches[0])
        write_new(options.out, lambda file: file.write(content))
    else:
        write_new(options.out, lambda file: fetch(cluster, branches[0], begin, file, options.incomplete))
    return 0


def write_new(path, fill):
    """Writes a file under another name first: a file of the right name is always whole."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        handle, temporary = tempfile.mkstemp(prefix=".rescue-", dir=folder)
    except OSError as error:
        raise Failure(f"cannot write into {folder}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w+b") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise Failure(f"cannot write {path}: {error.strerror}") from None
    except BaseException:
        os.unlink(temporary)
        raise


def run_restore(options):
    (cluster,) = open_clusters(options, one=True)
    cluster.need_identity("restoring")
    label = newest_base(cluster) if options.base == "latest" else Label(cluster, options.base)
    print(f"base backup {describe(label)}")
    path = choose_path(cluster, label.branch, label.stop, options.branch)
    way = plan_way(cluster, path, label.start)
    if way.end < label.stop:
        raise Failure(
            f"base backup {label.id} is consistent only from {lsn_text(label.stop)} on, and WAL ends at {lsn_text(way.end)}"
            f"{' (' + way.hole + ')' if way.hole else ''}: choose another base backup, or branch"
        )
    target = Path(options.target)
    wal_folder = Path(options.wal_into) if options.wal_into else target / "pg_wal" if options.wal else None
    if options.wal_into and wal_folder.exists() and (not wal_folder.is_dir() or any(wal_folder.iterdir())):
        raise Failure(f"{wal_folder} is not an empty directory: give an empty or a new one")
    restore = Restore(cluster, label, target, options.tablespace)
    restore.run()
    print(f"{restore.files} files, {restore.bytes} bytes restored into {target}")
    if wal_folder:
        put_wal(cluster, way, wal_folder)
    if way.hole:
        warn(f"WAL has a hole at {lsn_text(way.end)} ({way.hole}): recovery cannot go beyond it")
    tell_next(options, cluster, label, way, wal_folder)
    return 0


def put_wal(cluster, way, folder):
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for branch in way.branches:
        if cluster.entries(branch):
            content = cluster.history_content(branch)
            write_new(folder / f"{branch[:8]}.history", lambda file: file.write(content))
    for branch, begin in way.segments:
        write_new(
            folder / load_segment(cluster, branch, begin).file_name,
            lambda file: fetch(cluster, branch, begin, file, incomplete=True),
        )
    print(f"{len(way.segments)} WAL segments put into {folder}, up to {lsn_text(way.end)}")


def tell_next(options, cluster, label, way, wal_folder):
    target = Path(options.target).resolve()
    if wal_folder is None:
        command = [sys.executable, str(Path(__file__).resolve()), "--repository", str(Path(options.repository).resolve())]
        command += ["--cluster", cluster.identifier, "--identity", str(Path(options.identity).resolve())]
        for writer in options.writer:
            command += ["--writer", writer]
        fetcher = shlex.join(command + ["wal", "--branch", way.branches[-1]]).replace("%", "%%") + ' %f "%p"'
    elif options.wal_into:
        fetcher = "cp " + shlex.quote(str(wal_folder.resolve())).replace("%", "%%") + '/%f "%p"'
    else:
        fetcher = "false"  # Recovery looks into pg_wal after restore_command has failed.
    major = str(cluster.identity_body().get("postgres_major"))
    quoted = fetcher.replace("\\", "\\\\").replace("'", "''")
    # A timeline without a history file of its own can only be followed as the one that the backup is on.
    timeline = branch_timeline(way.branches[-1]) if len(way.branches) > 1 else "current"
    print(f"""
Next, with PostgreSQL {major} (the same major version):
1. Add to {target}/postgresql.auto.conf:
     restore_command = '{quoted}'
     recovery_target_timeline = '{timeline}'
     recovery_target_action = 'promote'
   and, to stop before the end ({lsn_text(way.end)}): recovery_target_time = 'YYYY-MM-DD HH:MM:SS+00'
2. touch {shlex.quote(str(target / "recovery.signal"))}
3. chown -R postgres: {shlex.quote(str(target))}    (and the tablespaces' directories; whoever runs the server)
4. pg_ctl -D {shlex.quote(str(target))} -w -t 86400 start""")
    if wal_folder is None:
        print(
            "The user who runs the server must be able to read the copy and the identity file, and to run this Python; else use --wal."
        )
    if not (target / "postgresql.conf").exists():
        print(
            "The backup has no postgresql.conf: the server kept its configuration elsewhere; write one before step 4, and a pg_hba.conf."
        )
    print("Before you use the server: archive_command and archiving of the restored copy must not write where the lost one did.")


def run_show(options):
    with SealedObject(options.file) as found:
        trailer = dict(found.trailer)
        if found.frame_count:
            frames = (found.frame(number) for number in range(found.frame_count))
            trailer["frames"] = [{"stored": stored, "plain": plain, "digest": digest.hex()} for stored, plain, digest in frames]
        print(json.dumps({"header": found.header, "trailer": trailer}, indent=2, ensure_ascii=False))
    return 0


def main():
    # Names and reasons in a repository may hold what a terminal's encoding has not.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    options = arguments()
    commands = {"list": run_list, "verify": run_verify, "wal": run_wal, "restore": run_restore, "show": run_show}
    try:
        return commands[options.command](options)
    except Missing as error:
        print(f"rescue: {error}", file=sys.stderr)
        return 1
    except Failure as error:
        print(
            f"rescue: {options.file + ': ' if options.command == 'show' and isinstance(error, Damaged) else ''}{error}",
            file=sys.stderr,
        )
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"rescue: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("rescue: interrupted; what was being written is not complete", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
