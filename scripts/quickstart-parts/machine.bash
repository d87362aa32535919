# What has to be on the machine: packages, a server, both programs. Sourced by scripts/quickstart.
# shellcheck shell=bash disable=SC2034,SC2154

# install WHAT PACKAGE...: Debian packages; fails with the command to type where this user may not.
install() {
    local what=$1 as=()
    shift
    command -v apt-get >/dev/null || fail "$what is missing, and this is not Debian: install what these packages hold: $*"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "$what is missing; as root: apt-get install --no-install-recommends $*"
        as=(sudo)
    fi
    say "   $what is missing: installing $*"
    # With a stale list or without a network, what the installation says explains more than what this says.
    "${as[@]}" apt-get update -qq >"$target/quickstart-apt.log" 2>&1 || say "   apt-get update failed; trying with the lists that are there"
    # Not by `attend`: sudo may ask, and an installation is better not cut short.
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
        --no-install-recommends "$@" >>"$target/quickstart-apt.log" 2>&1 && return
    tail -n 20 "$target/quickstart-apt.log" >&2
    fail "apt-get could not install $*; all that it said is in $target/quickstart-apt.log"
}

# Debian's server, without the "main" cluster that its package makes and starts.
install_postgres() {
    local as=()
    [ "$(id -u)" -eq 0 ] || as=(sudo)
    install PostgreSQL postgresql-common
    drop_in=/etc/postgresql-common/createcluster.d/walseal-quickstart-$$.conf
    "${as[@]}" mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' | "${as[@]}" tee "$drop_in" >/dev/null
    install PostgreSQL postgresql
    end_drop_in
}

# Only this installation goes without: who installs another major later gets what Debian does.
end_drop_in() {
    local as=()
    [ -n "$drop_in" ] || return 0
    [ "$(id -u)" -eq 0 ] || as=(sudo)
    "${as[@]}" rm -f "$drop_in"
    drop_in=''
}

# Sets `bin` to the folder of a server's programs, 14 or later.
find_postgres() {
    local folder program version
    for folder in ${1:+"$1"} $([ -n "$1" ] || { printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV; pg_config --bindir 2>/dev/null; }); do
        for program in initdb pg_ctl postgres psql pgbench; do
            [ -x "$folder/$program" ] || continue 2
        done
        version=$("$folder/postgres" --version)
        version=${version##*PostgreSQL) }
        version=${version%%[!0-9]*}
        [ "${version:-0}" -ge 14 ] || continue
        bin=$folder
        return
    done
    return 1
}

prepare_machine() {
    step "What this machine needs"
    mkdir -p "$target"
    # Two at once: one installs, the other finds it done.
    exec 8>"$target/.quickstart-install"
    flock 8
    PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null ||
        fail "cargo is not in PATH. Install Rust from https://rustup.rs; if only your own user has it, run this without sudo."
    command -v cc >/dev/null || install "A C compiler" build-essential
    if [ "$s3" = yes ]; then
        python3 -m pip --version >/dev/null 2>&1 || install "pip (it fetches the S3 server)" python3 python3-pip
    fi
    if ! find_postgres "$pg_bin"; then
        [ -z "$pg_bin" ] || fail "$pg_bin does not hold initdb, pg_ctl, postgres, psql and pgbench of PostgreSQL 14 or later"
        install_postgres
        find_postgres "" || fail "the packages are installed, but no PostgreSQL 14 or later is in /usr/lib/postgresql/*/bin"
    fi
    exec 8>&-
    if [ "$(id -u)" -eq 0 ]; then
        id postgres >/dev/null 2>&1 || fail "PostgreSQL refuses to run as root, and there is no user postgres. Make one: useradd --system postgres"
    fi
    say "   $("$bin/postgres" --version), in $bin"

    step "Building both programs (the first time takes minutes)"
    local flags=(--release)
    [ "$profile" = release ] || flags=(--profile "$profile")
    say "   \$ cargo build ${flags[*]}"
    attend cargo build --manifest-path "$repo/Cargo.toml" "${flags[@]}" --bins -p walseal-archiver -p walseal-restorer ||
        fail "the build failed; what the compiler said is above"
    built=$SECONDS
}
