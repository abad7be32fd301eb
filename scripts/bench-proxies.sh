#!/usr/bin/env bash
# What holdfast costs behind a proxy: requests a second and the 99th percentile through nginx and through Traefik, with the
# files of examples/, in one run: without an auth server, with a bare one that says 200 to everybody (an nginx that only
# returns), and with holdfast. The rounds take turns, so that whatever else the machine does hits all alike; the median
# counts.
#
#   SECONDS_EACH=5 ROUNDS=5 CONNECTIONS=32 scripts/bench-proxies.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/parts.sh
. scripts/parts.sh
PATH="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/venv/bin:$PATH"
rounds="${ROUNDS:-5}"

# start_bare: sets $bare_port.
start_bare() {
    free_port 4280 && bare_port="$port"
    mkdir "$dir/bare"
    cat >"$dir/bare/nginx.conf" <<EOF
pid nginx.pid;
events {}
http {
    access_log off;
    keepalive_requests 1000000;
    server {
        listen 127.0.0.1:$bare_port;
        location / {
            add_header X-User-Email alice@example.com;
            add_header X-User-Id "auth0|alice";
            add_header X-User-Email-Encoding none;
            add_header X-Auth-Tier primary;
            add_header X-Auth-Age 0;
            add_header X-Auth-Source claims;
            return 200;
        }
    }
}
EOF
    start bare nginx -e stderr -p "$dir/bare" -c nginx.conf -g "daemon off; $as"
    until_ok "the bare auth server answers" curl -sf "http://127.0.0.1:$bare_port/auth"
}

# start_front PROXY NAME AUTH_PORT: the example's files in $dir/NAME; sets $front_port.
start_front() {
    local proxy="$1" name="$2" auth="$3" unused
    free_port 8180 && front_port="$port"
    mkdir "$dir/$name"
    cp -r "examples/$proxy/." "$dir/$name/"
    case "$proxy" in
    nginx)
        free_port $((front_port + 1)) && unused="$port"
        sed -i -e "s|127.0.0.1:8080|127.0.0.1:$unused|" -e "s|127.0.0.1:8081|127.0.0.1:$front_port|" "$dir/$name/nginx.conf"
        set -- nginx -e stderr -p "$dir/$name" -c nginx.conf -g "daemon off; $as"
        ;;
    traefik)
        sed -i -e "s|127.0.0.1:8080|127.0.0.1:$front_port|" "$dir/$name/traefik.yml"
        set -- env -C "$dir/$name" traefik --configFile=traefik.yml
        ;;
    esac
    find "$dir/$name" -type f -exec sed -i -e "s|127.0.0.1:4180|127.0.0.1:$auth|" -e "s|127.0.0.1:4191|127.0.0.1:$echo_port|" {} +
    start "$name" "$@"
    until_ok "$name answers" curl -sf "http://127.0.0.1:$front_port/public/"
}

as=""
if [ "$(id -u)" = 0 ]; then as="user root;"; fi
build
prepare
start_tenant
start_holdfast "http://127.0.0.1:$tenant_port/" "https://api.example.com"
start_bare
token="$(curl -s "http://127.0.0.1:$tenant_port/dev/token?email=direct")"
for proxy in nginx traefik; do
    start_front "$proxy" "$proxy-bare" "$bare_port" && bare="http://127.0.0.1:$front_port"
    start_front "$proxy" "$proxy-holdfast" "$auth_port" && holdfast="http://127.0.0.1:$front_port"
    for ((round = 0; round < rounds; round++)); do
        one_round "$proxy-none" "$holdfast/public/"
        one_round "$proxy-bare" "$bare/page"
        one_round "$proxy-holdfast" "$holdfast/page"
    done
    for what in none bare holdfast; do
        read -r rate slow <<<"$(median "$proxy-$what")"
        if [ "$what" = bare ]; then floor="$rate"; fi
        ratio=""
        if [ "$what" = holdfast ]; then ratio="$(awk "BEGIN { printf \"  %.2f of the bare one\", $rate / $floor }")"; fi
        printf '%-8s auth server: %-9s %9.0f requests/s   99%% %7.2f ms%s\n' "$proxy" "$what" "$rate" "$slow" "$ratio"
    done
done
