use crate::proxy::{Differences, Listens, Method, Proxy};

/// Caddy 2.11.
pub const PROXY: Proxy = Proxy {
    name: "caddy",
    files: &["Caddyfile"],
    addresses: |at| {
        let tls = at.tls.as_ref().map_or_else(String::new, |tls| {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            format!("\ttls {certificate} {key} {{\n\t\tclient_auth {{\n\t\t\tmode request\n\t\t}}\n\t}}\n")
        });
        let scheme = if at.tls.is_some() { "https" } else { "http" };
        vec![
            ("http://:8080", format!("{scheme}://:8080")),
            // The socket that it is given. On a unix socket it would not send X-Forwarded-Host to holdfast.
            ("bind 127.0.0.1\n", format!("bind fd/3\n{tls}")),
            ("127.0.0.1:4180", at.auth.to_string()),
            ("127.0.0.1:4191", at.backend.to_string()),
        ]
    },
    fleet: |at| {
        let [second, third] = at.others.map(|other| other.to_string());
        vec![("127.0.0.1:4182", second), ("127.0.0.1:4183", third)]
    },
    command: &["caddy", "run"],
    listens: Listens::Given,
    differs: Differences {
        passes_retry_after: true,
        // Caddy answers this itself, and `handle_errors` could not distinguish it from an unreachable
        // backend.
        gone: (502, None),
        silent: 504,
        keeps_connections: true,
        http2: true,
        takes_chunks: true,
        method: Method::Get,
        tells_query: true,
        tells_each_origin: true,
    },
};
