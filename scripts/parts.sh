# shellcheck shell=bash
# What run.sh, bench-proxies.sh and bench-peers.sh share: parts that are started in the background, waited for, and
# stopped again, and rounds of wrk. To be sourced by bash, from the repository's root.
#
# Each part is known by its pid, and only what was started here is ever stopped. All files are in $dir, which goes away
# with the parts.

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # Debian keeps nginx where only root looks
# HOLDFAST_BINARIES is where they lie already, for who has built them.
binaries="${HOLDFAST_BINARIES:-${CARGO_TARGET_DIR:-target}/release}"
names=() pids=()

fail() {
    echo "$(basename "$0" .sh): $*" >&2
    exit 1
}

# Must come before the first part.
prepare() {
    # Short, since a unix socket's path has at most 107 bytes.
    dir="$(mktemp -d /tmp/holdfast.XXXXXX)"
    trap stop EXIT
    trap 'exit 0' INT TERM HUP
}

build() {
    if [ -n "${HOLDFAST_BINARIES:-}" ]; then return; fi
    # The whole workspace, so that all commands share one set of features and nothing is built twice.
    cargo build --release --locked --workspace
}

# free_port PORT: sets $port to it, or to the next one that nobody listens on.
free_port() {
    for ((port = $1; port < $1 + 50; port++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
    done
    fail "the ports from $1 to $port are all taken"
}

# start NAME COMMAND...: its output goes to $dir/NAME.log.
start() {
    local name="$1"
    shift
    "$@" </dev/null >"$dir/$name.log" 2>&1 &
    names+=("$name")
    pids+=("$!")
}

# until_ok WHAT COMMAND...: waits until the command succeeds.
until_ok() {
    local what="$1"
    shift
    for ((i = 0; i < 200; i++)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        name_the_dead
        sleep 0.1
    done
    tail -n 20 "$dir"/*.log >&2
    fail "$what: not after 20 seconds"
}

# Only a child of this shell counts: the pid of a part that has ended may be somebody else's by now.
is_running() {
    grep -qsx "PPid:[[:space:]]$$" "/proc/$1/status"
}

# Fails if a part has ended by itself, with the last it said.
name_the_dead() {
    local i
    for i in "${!pids[@]}"; do
        is_running "${pids[$i]}" && continue
        tail -n 20 "$dir/${names[$i]}.log" >&2
        fail "${names[$i]} has ended"
    done
}

# Stops the parts, the last one first: a client stops before its server.
stop() {
    local i pid wait_no_longer
    trap '' INT TERM HUP
    set +e # whatever one part ends with, the others are to be stopped
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        pid="${pids[$i]}"
        is_running "$pid" || continue
        kill -TERM "$pid" 2>/dev/null
        wait_no_longer=$((SECONDS + 15))
        while is_running "$pid" && ((SECONDS < wait_no_longer)); do sleep 0.05; done
        if is_running "$pid"; then
            echo "${names[$i]} does not end; it is killed" >&2
            kill -KILL "$pid"
        fi
        wait "$pid"
    done
    rm -rf "$dir"
}

start_tenant() {
    free_port 4190 && tenant_port="$port"
    free_port $((tenant_port + 1)) && echo_port="$port"
    start devtenant "$binaries/holdfast-devtenant" --listen "127.0.0.1:$tenant_port" --echo "127.0.0.1:$echo_port"
    until_ok "the dev tenant answers" curl -sf "http://127.0.0.1:$tenant_port/dev/calls"
}

# start_holdfast ISSUER AUDIENCE, with the example's configuration; only addresses are replaced.
start_holdfast() {
    free_port 4180 && auth_port="$port"
    free_port 9180 && admin_port="$port"
    sed -e "s|http://127.0.0.1:4190/|$1|" -e "s|https://api.example.com|$2|" \
        -e "s|127.0.0.1:4180|127.0.0.1:$auth_port|" -e "s|127.0.0.1:9180|127.0.0.1:$admin_port|" \
        -e "s|/run/holdfast/auth.sock|$dir/auth.sock|" examples/nginx/holdfast.toml >"$dir/holdfast.toml"
    start holdfast "$binaries/holdfast" serve --config "$dir/holdfast.toml"
    until_ok "holdfast knows the keys of $1" curl -sf "http://127.0.0.1:$admin_port/readyz"
}

start_nginx() {
    local as=""
    free_port 8080 && unix_port="$port"
    free_port $((unix_port + 1)) && tcp_port="$port"
    mkdir "$dir/snippets"
    cp examples/nginx/snippets/*.conf "$dir/snippets/"
    # 8081 before 8080, which may become 8081.
    sed -e "s|127.0.0.1:8081|127.0.0.1:$tcp_port|" -e "s|127.0.0.1:8080|127.0.0.1:$unix_port|" \
        -e "s|127.0.0.1:4191|127.0.0.1:$echo_port|" -e "s|127.0.0.1:4180|127.0.0.1:$auth_port|" \
        -e "s|/run/holdfast/auth.sock|$dir/auth.sock|" examples/nginx/nginx.conf >"$dir/nginx.conf"
    # As root, nginx's workers would be somebody else and could not enter $dir.
    if [ "$(id -u)" = 0 ]; then as="user root;"; fi
    start nginx nginx -e stderr -p "$dir" -c nginx.conf -g "daemon off; $as"
    until_ok "nginx answers" curl -sf "http://127.0.0.1:$tcp_port/public/"
}

# one_round NAME URL [COMMAND...]: wrk asks URL with $token, started by COMMAND. Adds a line to $dir/NAME.figures: the rate
# and the 99th percentile in ms.
one_round() {
    local name="$1" url="$2"
    shift 2
    "$@" wrk -t 1 -c "${CONNECTIONS:-32}" -d "${SECONDS_EACH:-5}s" --latency -H "Authorization: Bearer $token" "$url" >"$dir/wrk.out"
    ! grep -q Non-2xx "$dir/wrk.out" || fail "$name: $(grep Non-2xx "$dir/wrk.out")"
    awk '/Requests\/sec/ { rate = $2 } $1 == "99%" {
        slow = $2 * ($2 ~ /us$/ ? 0.001 : $2 ~ /ms$/ ? 1 : 1000)
    } END { print rate, slow }' "$dir/wrk.out" >>"$dir/$name.figures"
}

# The line of NAME.figures in the middle, by rate.
median() { sort -n "$dir/$1.figures" | sed -n "$((rounds / 2 + 1))p"; }
