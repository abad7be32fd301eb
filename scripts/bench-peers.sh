#!/usr/bin/env bash
# Measures holdfast beside oauth2-proxy and beside an nginx that says 200 to everything, in turns in one run: asked
# directly, and by an nginx with auth_request. Each is asked about the same RS256 token of the dev tenant, again and
# again. The servers run on the first core and wrk on the last, if there are two; the nginx in front takes both.
#
# Only the ratios say something about other machines. oauth2-proxy checks the signature on each request, while holdfast
# remembers its answer until something says otherwise; that is the difference which is measured.
#
#   SECONDS_EACH=3 ROUNDS=5 CONNECTIONS=32 scripts/bench-peers.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/parts.sh
. scripts/parts.sh
PATH="$PATH:/usr/local/go/bin"
version=v7.15.6
peer="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/go/bin/oauth2-proxy"
rounds="${ROUNDS:-5}"
SECONDS_EACH="${SECONDS_EACH:-3}"
audience="https://api.example.com"

# Builds oauth2-proxy from its module, once.
build_peer() {
    if [ -x "$peer" ]; then return; fi
    command -v go >/dev/null || fail "Go is missing, which compiles oauth2-proxy: install it from https://go.dev/dl, then try again."
    echo "bench-peers: compiling oauth2-proxy $version" >&2
    GOBIN="$(dirname "$peer")" GOFLAGS=-modcacherw go install "github.com/oauth2-proxy/oauth2-proxy/v7@$version" ||
        fail "oauth2-proxy $version cannot be built"
}

# on CORES COMMAND...: the command on these cores, if there are as many.
on() {
    local cores="$1"
    shift
    if [ "$(nproc)" -lt 2 ]; then "$@"; else taskset -c "$cores" "$@"; fi
}

# start_nginx_with NAME PORT LOCATIONS: an nginx on that port, with one worker.
start_nginx_with() {
    local name="$1" as=""
    if [ "$(id -u)" = 0 ]; then as="user root;"; fi
    mkdir "$dir/$name"
    cat >"$dir/$name/nginx.conf" <<END
pid nginx.pid;
events {}
http {
    access_log off;
    keepalive_requests 1000000;
    server {
        listen 127.0.0.1:$2;
        $3
    }
}
END
    start "$name" on "${cores:-0}" nginx -e stderr -p "$dir/$name" -c nginx.conf -g "daemon off; $as"
    until_ok "$name answers" curl -s "http://127.0.0.1:$2/"
}

# start_front NAME AUTH_URL: an nginx that asks AUTH_URL about each request, and passes what is allowed to a constant.
# Sets $front_port.
start_front() {
    local address="${2#http://}"
    free_port 8180 && front_port="$port"
    cores=0,1 start_nginx_with "$1" "$front_port" "
        location / { auth_request /_auth; try_files /none @page; }
        location @page { return 200; }
        location = /_auth {
            internal;
            proxy_pass http://auth_$1/${address#*/};
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_pass_request_body off;
            proxy_set_header Content-Length '';
        }
    }
    upstream auth_$1 { server ${address%%/*}; keepalive 32;"
}

build_peer
build
prepare
start_tenant
TOKIO_WORKER_THREADS=1 start_holdfast "http://127.0.0.1:$tenant_port/" "$audience"
if [ "$(nproc)" -gt 1 ]; then taskset -acp 0 "${pids[-1]}" >/dev/null; fi
free_port 4280 && constant_port="$port"
start_nginx_with constant "$constant_port" "location / { return 200; }"
free_port 4380 && peer_port="$port"
start oauth2-proxy env GOMAXPROCS=1 OAUTH2_PROXY_COOKIE_SECRET=0123456789abcdef0123456789abcdef \
    OAUTH2_PROXY_CLIENT_SECRET=unused "$peer" --http-address="127.0.0.1:$peer_port" --provider=oidc \
    --oidc-issuer-url="http://127.0.0.1:$tenant_port/" --client-id="$audience" --email-domain='*' \
    --skip-jwt-bearer-tokens=true --set-xauthrequest=true --upstream=static://202 \
    --request-logging=false --auth-logging=false --standard-logging=false
if [ "$(nproc)" -gt 1 ]; then taskset -acp 0 "${pids[-1]}" >/dev/null; fi
token="$(curl -s "http://127.0.0.1:$tenant_port/dev/token?email=direct")"
declare -A urls=(
    [constant]="http://127.0.0.1:$constant_port/auth"
    [holdfast]="http://127.0.0.1:$auth_port/auth"
    [oauth2-proxy]="http://127.0.0.1:$peer_port/oauth2/auth"
)
until_ok "oauth2-proxy accepts the token" curl -sf -H "Authorization: Bearer $token" "${urls[oauth2-proxy]}"
! curl -sf "${urls[oauth2-proxy]}" >/dev/null || fail "oauth2-proxy accepts a request without a token"
for name in constant holdfast oauth2-proxy; do
    start_front "front-$name" "${urls[$name]}"
    urls[front-$name]="http://127.0.0.1:$front_port/page"
done
for front in "" front-; do
    for ((round = 0; round < rounds; round++)); do
        for name in constant holdfast oauth2-proxy; do one_round "$front$name" "${urls[$front$name]}" on 1; done
    done
    echo "${front:+through nginx, }requests a second and 99th percentile, beside an nginx that says 200:"
    read -r floor floor_slow <<<"$(median "${front}constant")"
    for name in constant holdfast oauth2-proxy; do
        read -r rate slow <<<"$(median "$front$name")"
        awk -v name="$name" -v rate="$rate" -v slow="$slow" -v floor="$floor" -v floor_slow="$floor_slow" 'BEGIN {
            printf "  %-14s %9.0f/s  %8.2f ms   ratios %.3f and %.2f\n", name, rate, slow, rate / floor, slow / floor_slow
        }'
    done
done
