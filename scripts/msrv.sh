#!/bin/sh
# Compiles everything with the oldest Rust that Cargo.toml promises, in a directory of its own: another compiler would
# replace what the usual one has built.
set -eu
cd "$(dirname "$0")/.."

msrv="$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)"
if ! cargo "+$msrv" --version >/dev/null 2>&1; then
    echo "msrv: NOTHING WAS CHECKED: Rust $msrv is not installed, or there is no rustup." >&2
    echo "msrv: rustup toolchain install $msrv --profile minimal" >&2
    exit 1
fi
CARGO_TARGET_DIR=target/msrv exec cargo "+$msrv" check --release --locked --workspace --all-targets
