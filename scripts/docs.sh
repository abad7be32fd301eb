#!/bin/sh
# Builds the manual as a book into target/manual/book, with mdBook of exactly this version. One that is on the PATH is
# used; else it is compiled once, into ${XDG_CACHE_HOME:-~/.cache}/holdfast, as `make docs` says.
set -eu
cd "$(dirname "$0")/.."

VERSION=0.5.4
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast"
PATH="$CACHE/mdbook/bin:$PATH"

if [ "$(mdbook --version 2>/dev/null)" != "mdbook v$VERSION" ]; then
    echo "docs: mdbook $VERSION is missing; compiling it into $CACHE/mdbook (needs crates.io)" >&2
    # Outside the repository, whose own profile and flags are not meant for it.
    (cd "$HOME" && CARGO_TARGET_DIR="$CACHE/mdbook/target" cargo install mdbook --version "$VERSION" --locked --quiet \
        --no-default-features --features search --root "$CACHE/mdbook") || {
        echo "docs: it could not be compiled. Install mdbook $VERSION by hand: https://github.com/rust-lang/mdBook" >&2
        exit 1
    }
    rm -rf "$CACHE/mdbook/target"
fi

# The pages lie as in the repository, so that their links hold. SUMMARY.md alone moves to the root, where mdBook wants it.
pages=target/manual/pages
rm -rf target/manual
mkdir -p "$pages"
cp -R ./*.md LICENSE-* docs examples deploy "$pages"
rm "$pages/docs/SUMMARY.md"
mkdir "$pages/benches"
cp benches/RESULTS.md "$pages/benches"
summary() { sed -e 's|](\([^.]\)|](docs/\1|' -e 's|](\.\./|](|' docs/SUMMARY.md; }
# The decision records follow their index.
decisions() {
    for page in docs/decisions/[0-9]*.md; do
        printf -- '    - [%s](%s)\n' "$(sed -n '1s/^# *//p' "$page")" "$page"
    done
}
summary | while IFS= read -r line; do
    printf '%s\n' "$line"
    case "$line" in *'(docs/decisions/README.md)') decisions ;; esac
done >"$pages/SUMMARY.md"
mdbook build
echo "docs: target/manual/book/index.html"
