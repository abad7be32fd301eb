#!/bin/sh
# Compiles RocksDB once for this machine and tells cargo where it is.
#
# The crate `librocksdb-sys` compiles each of RocksDB's 340 files alone, and most of that time goes into reading the
# same headers. RocksDB's own CMake build can compile 16 files as one ("unity build"), which takes a quarter of the
# time. The sources are the crate's; the library stays in ${XDG_CACHE_HOME:-~/.cache}/holdfast and serves every clone.
#
# Cargo finds it by `.cargo/config.toml`, which git ignores. A ROCKSDB_LIB_DIR of your own in the environment, for
# example of a system's librocksdb of the same version, wins. Without this script cargo compiles RocksDB by itself.
set -eu
cd "$(dirname "$0")/.."

say() { echo "rocksdb: $*" >&2; }
fail() { say "$*"; exit 1; }

[ -z "${ROCKSDB_LIB_DIR:-}" ] || exit 0

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast"
host="$(rustc -vV | sed -n 's/^host: //p')"
crate="$(cargo metadata --locked --quiet --format-version 1 --filter-platform "$host" |
    sed -n 's/.*"manifest_path":"\([^"]*librocksdb-sys[^"]*\)\/Cargo\.toml".*/\1/p')"
[ -d "$crate/rocksdb" ] || fail "the sources of librocksdb-sys are not where cargo says: '$crate'."
version="$(basename "$crate")"
library="$CACHE/rocksdb/$version"

if [ ! -e "$library/librocksdb.a" ]; then
    say "compiling RocksDB into $library; this takes about three minutes on two cores"
    mkdir -p "$CACHE/rocksdb"
    # A directory of its own, moved when it is complete: two clones may do this at the same time.
    work="$(mktemp -d "$CACHE/rocksdb/.build.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    CC=clang CXX=clang++ cmake -S "$crate/rocksdb" -B "$work/build" \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=16 \
        -DPORTABLE=1 -DUSE_RTTI=0 -DFAIL_ON_WARNINGS=OFF -DROCKSDB_BUILD_SHARED=OFF \
        -DWITH_GFLAGS=OFF -DWITH_LIBURING=OFF -DWITH_NUMA=OFF -DWITH_TESTS=OFF -DWITH_ALL_TESTS=OFF \
        -DWITH_TOOLS=OFF -DWITH_CORE_TOOLS=OFF -DWITH_TRACE_TOOLS=OFF -DWITH_BENCHMARK_TOOLS=OFF \
        >"$work/log" 2>&1 &&
        cmake --build "$work/build" --target rocksdb --parallel "$(nproc)" >>"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        fail "RocksDB could not be compiled. 'cargo build' without this script compiles it in another way."
    }
    mkdir "$work/done"
    mv "$work/build/librocksdb.a" "$work/done/"
    [ -e "$library/librocksdb.a" ] || { rm -rf "$library" && mv "$work/done" "$library"; }
fi

config=.cargo/config.toml
first="# Written by scripts/rocksdb.sh, and again when it changes. Remove this line to keep your own version."
if [ -e "$config" ] && [ "$(head -n 1 "$config")" != "$first" ]; then
    grep -q ROCKSDB_LIB_DIR "$config" || say "$config is yours. Add to it:
[env]
ROCKSDB_LIB_DIR = \"$library\"
ROCKSDB_STATIC = \"1\""
    exit 0
fi
wanted="$first
[env]
ROCKSDB_LIB_DIR = \"$library\"
ROCKSDB_STATIC = \"1\""
[ "$(cat "$config" 2>/dev/null)" = "$wanted" ] || { mkdir -p .cargo && echo "$wanted" >"$config"; }
