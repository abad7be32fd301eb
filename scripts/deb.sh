#!/bin/sh
# Makes a Debian package of the binary that cargo has built: scripts/deb.sh FILE [FLAG...]
#
# What is in it stands in Cargo.toml, [package.metadata.deb]. Flags are for cargo-deb.
set -eu
cd "$(dirname "$0")/.."

to="$1"
shift
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast"
target="${CARGO_TARGET_DIR:-target}"

# Beside the other build results: manual pages and completions, which the binary itself writes.
made="target/debian/made"
rm -rf "$made"
mkdir -p "$made/man"
"$target/release/holdfast" man --to "$made/man"
gzip -9n "$made"/man/*
for shell in bash zsh fish; do
    "$target/release/holdfast" completions "$shell" >"$made/$shell"
done
"$CACHE/cargo-deb/bin/cargo-deb" --quiet --no-build --locked --output "$to" "$@"
