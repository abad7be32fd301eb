use crate::proxy::{Differences, Listens, Method, Proxy};

/// HAProxy 2.6, asking by Lua.
pub const PROXY: Proxy = Proxy {
    name: "haproxy",
    files: &["haproxy.cfg", "holdfast.lua"],
    addresses: |at| {
        let tls = at.tls.as_ref().map_or_else(String::new, |tls| {
            let (both, authority) = (tls.both.display(), tls.authority.display());
            format!(" ssl crt {both} ca-file {authority} verify optional")
        });
        vec![
            ("bind 127.0.0.1:8080", format!("bind unix@{}{tls}", at.front.display())),
            ("127.0.0.1:4180", at.auth.to_string()),
            ("127.0.0.1:4191", at.backend.to_string()),
        ]
    },
    fleet: |at| {
        let [second, third] = at.others.map(|other| other.to_string());
        let own = format!("{}:4179", at.own);
        vec![("127.0.0.1:4182", second), ("127.0.0.1:4183", third), ("127.0.0.1:4179", own)]
    },
    command: &["haproxy", "-db", "-f", "haproxy.cfg"],
    listens: Listens::Unix,
    differs: Differences {
        passes_retry_after: true,
        gone: (503, Some("5")),
        silent: 503,
        // Its client opens one for each request.
        keeps_connections: false,
        // It passes trailers on, so the example takes nothing that may have some.
        http2: false,
        takes_chunks: false,
        method: Method::Get,
        tells_query: true,
        tells_each_origin: true,
    },
};
