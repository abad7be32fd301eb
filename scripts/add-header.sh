#!/bin/sh
# Adds a response header to the examples and to the README, after X-Auth-Source: each proxy is told by name which headers
# it takes over. DIRECTORY is a copy of both.
#
#     scripts/add-header.sh X-Auth-Colour [DIRECTORY]
set -eu
name=${1:?"give the name of the header, such as X-Auth-Colour"}
lower=$(printf %s "$name" | tr '[:upper:]' '[:lower:]')
snake=$(printf %s "$lower" | tr - _)
cd "${2:-"$(dirname "$0")/.."}"
{ grep -rliE --exclude=README.md 'x.auth.source' examples; echo README.md; } | while read -r file; do
    # In a list on one line, the name is added to the list; otherwise the line is repeated with the new name.
    sed -i -E "
        s/(X-Auth-Age)([^[:alpha:]]+)X-Auth-Source/&\\2$name/
        s/(x-auth-age)([^[:alpha:]]+)x-auth-source/&\\2$lower/
        t
        /x.auth.source/I {
            p
            s/X-Auth-Source/$name/
            s/x-auth-source/$lower/
            s/x_auth_source/$snake/
            s/holdfast_source/holdfast_${snake#x_auth_}/
        }
    " "$file"
done
