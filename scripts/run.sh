#!/usr/bin/env bash
# Starts holdfast behind nginx on loopback, with the files of examples/nginx, and says what to try. Ctrl-C stops it all.
#
#   scripts/run.sh                       with a dev tenant in place of Auth0
#   scripts/run.sh ISSUER AUDIENCE       with a real tenant
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/parts.sh
. scripts/parts.sh

issuer="${1:-}" audience="${2:-}"
if [ -n "$issuer" ] || [ -n "$audience" ]; then
    [ -n "$issuer" ] && [ -n "$audience" ] || fail "ISSUER and AUDIENCE go together"
    # They become part of a TOML string, by way of sed.
    case "$issuer$audience" in *[\"\\\|\&[:space:][:cntrl:]]*)
        fail "ISSUER and AUDIENCE may not hold blanks, quotes, '\\', '|' or '&'" ;;
    esac
fi

# expect STATUS CURL-ARGUMENT...: what is printed below must be true.
expect() {
    local status="$1" got
    shift
    got="$(curl -s -o /dev/null -w '%{http_code}' "$@")"
    [ "$got" = "$status" ] || fail "expected $status, got $got from: curl $*"
}

build
prepare
# With a real tenant, only the echo backend of this is in use; nobody asks, or trusts, the tenant in it.
start_tenant
start_holdfast "${issuer:-http://127.0.0.1:$tenant_port/}" "${audience:-https://api.example.com}"
start_nginx

url="http://127.0.0.1:$unix_port/"
echo
echo "holdfast is up: nginx at $url, metrics at http://127.0.0.1:$admin_port/metrics,"
echo "what happens in $dir/*.log. Ctrl-C stops it."
echo
if [ -z "$issuer" ]; then
    mint="http://127.0.0.1:$tenant_port/dev/token?email=direct"
    expect 200 "$url" -H "Authorization: Bearer $(curl -s "$mint")"
    expect 401 "$url"
    expect 401 "$url" -H "Authorization: Bearer $(curl -s "$mint&expires_in=-3600")"
    echo "# a good token: 200, and the page shows what the backend was told (look for X-User-Email)"
    echo "curl -i $url -H \"Authorization: Bearer \$(curl -s '$mint')\""
    echo
    echo "# no token: 401"
    echo "curl -i $url"
    echo
    echo "# an expired token: 401"
    echo "curl -i $url -H \"Authorization: Bearer \$(curl -s '$mint&expires_in=-3600')\""
else
    expect 401 "$url"
    echo "# a token of $issuer for $audience: 200, and the page shows what the backend was told"
    echo "curl -i $url -H \"Authorization: Bearer \$TOKEN\""
    echo
    echo "# no token: 401"
    echo "curl -i $url"
fi
echo

wait -n || true
name_the_dead
