#!/usr/bin/env bash
# Measures answers a second on this machine: wrk against holdfast itself, and through nginx. All parts share its cores,
# so compare figures only with others of the same machine.
#
#   SECONDS_EACH=10 CONNECTIONS=32 scripts/bench.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/parts.sh
. scripts/parts.sh

build
prepare
start_tenant
start_holdfast "http://127.0.0.1:$tenant_port/" "https://api.example.com"
start_nginx
token="$(curl -s "http://127.0.0.1:$tenant_port/dev/token?email=direct")"

# measure WHAT URL [HEADER]
measure() {
    wrk -t 1 -c "${CONNECTIONS:-32}" -d "${SECONDS_EACH:-5}s" --latency ${3:+-H "$3"} "$2" >"$dir/wrk.out"
    awk -v what="$1" '
        /Requests\/sec/ { rate = $2 }
        $1 == "50%" { median = $2 }
        $1 == "99%" { slow = $2 }
        /Non-2xx/ { refused = "  (not 2xx: " $NF ")" }
        END { printf "%-42s %9.0f requests/s   median %-9s 99%% %-9s%s\n", what, rate, median, slow, refused }
    ' "$dir/wrk.out"
}

auth="http://127.0.0.1:$auth_port/auth"
measure "holdfast, from memory" "$auth" "Authorization: Bearer $token"
measure "holdfast, no token" "$auth"
measure "holdfast, forged token" "$auth" "Authorization: Bearer ${token%????}AAAA"
measure "nginx, holdfast over a unix socket" "http://127.0.0.1:$unix_port/" "Authorization: Bearer $token"
measure "nginx, holdfast over TCP" "http://127.0.0.1:$tcp_port/" "Authorization: Bearer $token"
measure "nginx, no holdfast" "http://127.0.0.1:$unix_port/public/"
