#!/bin/sh
# Installs what building, testing and trying holdfast needs, and only what is missing.
#
#   scripts/setup.sh run      what `make run` needs
#   scripts/setup.sh test     what `make test` needs, too
#   scripts/setup.sh deb      what `make deb` needs
#   scripts/setup.sh bench    what `make bench` and `make bench-proxies` need
#   scripts/setup.sh          all of it
#
# Made for Debian 12 with Rust on it. Packages come from apt, as root or by sudo; what comes from PyPI and npm goes to
# ${XDG_CACHE_HOME:-~/.cache}/holdfast and touches nothing else. On another system it says what is missing.
set -eu
cd "$(dirname "$0")/.."

PATH="$PATH:$HOME/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin" # Debian keeps nginx where only root looks
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast"

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- Debian packages ---------------------------------------------------------------------------------------------

missing=""

# need PACKAGE COMMAND...: the package is missing if the command fails. A command rather than dpkg, since Node, say, may
# well be there without a package.
need() {
    package="$1"
    shift
    case "$missing " in *" $package "*) return ;; esac
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    for library in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib/libclang*.so*; do
        [ -e "$library" ] && return
    done
    return 1
}
has_nginx() { nginx -V 2>&1 | grep -q http_auth_request_module; }
has_node() { [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]; }
# The first Python that can make a virtual environment; the one on the PATH may be somebody's own.
find_python() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && return
    done
    return 1
}

need_to_run() {
    need curl has curl
    need make has make
    need build-essential has c++ # RocksDB
    need pkg-config has pkg-config
    need libssl-dev pkg-config --exists openssl # josekit
    need libclang-dev has_libclang              # RocksDB's bindings
    need clang has clang
    need cmake has cmake
    need nginx-light has_nginx
}

need_to_test() {
    need_to_run
    need redis-server has redis-server
    need haproxy has haproxy
    need prometheus has promtool
    need chromium has chromium
    need systemd has systemd-analyze
    need strace has strace
    need valgrind has valgrind # callgrind counts instructions
    need fakeroot has fakeroot
    need nodejs has_node
    need npm has npm
    need python3-venv find_python
}

need_to_bench() {
    need_to_run
    need wrk has wrk
    need valgrind has valgrind
    need python3-venv find_python # Traefik
}

# Debian starts and enables services as it installs them. They are wanted here as programs: a freshly installed one must
# neither run nor start at boot. One that was there before is somebody's own and is left alone.
install_missing() {
    has apt-get || fail "missing:$missing (the names are Debian's). Please install them, then try again."
    if [ "$(id -u)" = 0 ]; then
        as_root=""
    elif has sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        fail "missing:$missing. Run 'apt-get install$missing' as root, then try again."
    fi
    say "installing$missing"
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '$as_root rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086 # the packages are words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >&2
    for package in $missing; do
        case "$package" in
        nginx-light) disable nginx ;;
        redis-server) disable redis-server ;;
        haproxy) disable haproxy ;;
        prometheus) disable prometheus ;;
        esac
    done
}

disable() {
    if has systemctl; then
        $as_root systemctl --quiet disable "$1" 2>/dev/null || true
    else
        $as_root update-rc.d "$1" disable 2>/dev/null || true
    fi
}

# --- Rust, Python and npm ----------------------------------------------------------------------------------------

need_rust() {
    has cargo || fail "cargo is missing. Install Rust from https://rustup.rs, then try again."
}

need_rust_tools() {
    cargo fmt --version >/dev/null 2>&1 || fail "rustfmt is missing. Run 'rustup component add rustfmt'."
    cargo clippy --version >/dev/null 2>&1 || fail "clippy is missing. Run 'rustup component add clippy'."
}

# stamp FILE...: what a directory was made from; it is made again if that changes, or if it was never finished.
stamp() { cat scripts/setup.sh "$@" | sha256sum | cut -d' ' -f1; }
is_current() { [ "$(cat "$1/.stamp" 2>/dev/null)" = "$2" ]; }

install_python_tools() {
    venv="$CACHE/venv"
    wanted="$(stamp scripts/requirements.txt tests/jose/requirements.txt)"
    # A virtual environment is only as good as the Python that it was made with.
    is_current "$venv" "$wanted" && "$venv/bin/python3" -c 'import jwcrypto' 2>/dev/null && return
    find_python || fail "no Python can make a virtual environment; on Debian, install python3-venv."
    say "installing Python packages into $venv"
    rm -rf "$venv"
    mkdir -p "$CACHE"
    "$python" -m venv "$venv"
    pip="$venv/bin/python3 -m pip --quiet --disable-pip-version-check install --no-deps --only-binary :all:"
    $pip --require-hashes -r scripts/requirements.txt
    $pip -r tests/jose/requirements.txt
    echo "$wanted" >"$venv/.stamp"
}

# install_node_packages FROM DIRECTORY: those that FROM names, into that directory of the cache.
install_node_packages() {
    node="$CACHE/$2"
    wanted="$(stamp "$1/package.json" "$1/package-lock.json")"
    is_current "$node" "$wanted" && return
    say "installing npm packages into $node"
    rm -rf "$node"
    mkdir -p "$node"
    cp "$1/package.json" "$1/package-lock.json" "$node/"
    (cd "$node" && npm ci --silent --ignore-scripts --no-audit --no-fund --no-update-notifier) ||
        fail "npm could not install the packages of $1."
    echo "$wanted" >"$node/.stamp"
}

install_cargo_deb() {
    version=3.8.0
    deb="$CACHE/cargo-deb"
    is_current "$deb" "$version" && return
    say "compiling cargo-deb into $deb"
    cargo install --quiet --locked --root "$deb" "cargo-deb@$version" || fail "cargo-deb could not be installed."
    echo "$version" >"$deb/.stamp"
}

# -----------------------------------------------------------------------------------------------------------------

what="${1:-all}"
case "$what" in
run) need_to_run ;;
test) need_to_test ;;
deb) need_to_run ;;
bench) need_to_bench ;;
all) need_to_test && need_to_bench ;;
*) fail "'$what' is not run, test, deb or bench." ;;
esac
need_rust
if [ -n "$missing" ]; then
    install_missing
fi
scripts/rocksdb.sh
case "$what" in
test | all)
    need_rust_tools
    install_python_tools
    install_node_packages tests/jose node
    install_node_packages tests/manifests manifests
    install_node_packages examples/mcp mcp
    install_node_packages tests/monitoring monitoring
    install_node_packages tests/oidc_provider oidc_provider
    install_node_packages tests/status_page status_page
    install_cargo_deb
    ;;
deb) install_cargo_deb ;;
bench) install_python_tools ;;
esac
