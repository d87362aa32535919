# Running commands, and ending what was started. Sourced by scripts/quickstart.
# shellcheck shell=bash disable=SC2154

# attend COMMAND...: runs it and waits. In a process group of its own, so that a signal is heard here at once, and ends the
# command with all its children.
attend() {
    local status=0
    set -m
    "$@" </dev/null &
    job=$!
    set +m
    wait "$job" || status=$?
    job=''
    return "$status"
}

# presented COMMAND...: its output indented, and kept in log/last.
presented() { "$@" 2>&1 | tee "$folder/log/last" | present; }

present() {
    # Not by redirecting all of it: a trap that comes meanwhile would speak into the log, too.
    if [ -n "${quiet:-}" ]; then cat >>"$folder/log/commands"; else sed -u 's/^/     /'; fi
}

# show COMMAND...: a command as one would type it.
show() {
    local word line=''
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./:=+,@%-]* | '') word="'$word'" ;; esac
        line+=" $word"
    done
    say "   \$$line"
}

# enter COMMAND...: shows a command and runs it in the folder as the server's user.
enter() {
    show "$@"
    attend presented timeout --foreground -k 10 "$patience" "${runner[@]}" "$@" || failed $?
}

# quietly COMMAND...: the same, with what it says in a log.
quietly() {
    local quiet=yes
    enter "$@"
}

failed() {
    if [ -n "${quiet:-}" ]; then sed 's/^/     /' log/last; fi
    [ "$1" -ne 124 ] || fail "the last command took longer than $patience s"
    fail "the last command failed with exit code $1"
}

# ask PORT STATEMENT: on the cluster (5432) or the restored one (5433). sql STATEMENT: on the cluster.
ask() { timeout -k 10 "$patience" "${runner[@]}" psql -XAtq -v ON_ERROR_STOP=1 --port="$1" -d shop -c "$2"; }
sql() { ask 5432 "$1"; }

# await WHAT STATEMENT: until the statement on the primary says t, for a bounded time, and only while the archiver runs.
await() {
    local end=$((SECONDS + patience))
    until [ "$(sql "$2")" = t ]; do
        runs "$folder/archiver/pid" || fail "the archiver ended while this waited for $1"
        [ "$SECONDS" -lt "$end" ] || fail "waited $patience s for $1"
        sleep 0.1
    done
}

# Start time of a process, in clock ticks since boot, so that a reused pid is not taken for ours.
started_at() { sed -n 's/.*) //; /^Z/!p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# Whether the process that a file names by pid and start time runs.
runs() {
    local pid started
    [ -s "$1" ] && read -r pid started <"$1" && [ -n "$started" ] && [ "$(started_at "$pid")" = "$started" ]
}

# gone SECONDS TEST...: waits until the test fails.
gone() {
    local end=$((SECONDS + $1))
    shift
    while "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Whether a PostgreSQL runs on a data directory.
serves() {
    local pid
    pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) && [ -n "$pid" ] &&
        [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$1" ]
}

# Ends a PostgreSQL by its pid: fast, then immediate.
end_server() {
    serves "$1" || return 0
    kill -INT "$(head -n 1 "$1/postmaster.pid")" && gone 30 serves "$1" && return 0
    say "   the server on $1 did not end within 30 s; ending it the hard way"
    kill -QUIT "$(head -n 1 "$1/postmaster.pid")" && gone 30 serves "$1"
}

end_archiver() {
    local pid
    runs "$folder/archiver/pid" || return 0
    read -r pid _ <"$folder/archiver/pid"
    kill -TERM "$pid" && gone 30 runs "$folder/archiver/pid" && return 0
    say "   the archiver did not end within 30 s; killing it"
    kill -KILL "$pid" && gone 30 runs "$folder/archiver/pid" && return 1
}

# Ends everything that was started in the folder, and nothing else. (In a trap `return` without a number would give the
# status from before the trap.)
end_everything() {
    local status=0
    # The archiver first: it ships the last WAL while the server still answers.
    end_archiver || status=1
    end_server "$folder/restored" || status=1
    end_server "$folder/cluster" || status=1
    if [ -d "$folder/s3" ]; then "$repo/scripts/s3-server" stop "$folder/s3" || status=1; fi
    return "$status"
}

remove_folder() {
    cd /
    case $folder in */walseal-quickstart-??????) rm -rf "$folder" ;; esac
}
