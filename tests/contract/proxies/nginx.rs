use crate::proxy::{Differences, Listens, Method, Proxy};

/// nginx, over TCP. What is its own is in `tests/nginx.rs`, over a unix socket, too.
pub const PROXY: Proxy = Proxy {
    name: "nginx",
    files: &[
        "nginx.conf",
        "snippets/answer.conf",
        "snippets/ask-login.conf",
        "snippets/ask-original.conf",
        "snippets/ask-sender.conf",
        "snippets/ask.conf",
        "snippets/forbidden.conf",
        "snippets/headers.conf",
        "snippets/login.conf",
        "snippets/protect-login.conf",
        "snippets/protect.conf",
        "snippets/undecided.conf",
    ],
    addresses: |at| {
        let (front, http2) = (at.front.display(), at.front_http2.display());
        let tls = at.tls.as_ref().map_or_else(String::new, |tls| {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            format!(
                " ssl;\nssl_certificate {certificate};\nssl_certificate_key {key};\nssl_verify_client optional_no_ca"
            )
        });
        vec![
            // Both of its servers; nginx 1.22 speaks HTTP/2 without TLS on a socket that speaks nothing else.
            ("127.0.0.1:8080", format!("unix:{front}-unused")),
            ("127.0.0.1:8081", format!("unix:{front}{tls};\nlisten unix:{http2} http2")),
            ("127.0.0.1:4180", at.auth.to_string()),
            ("127.0.0.1:4191", at.backend.to_string()),
        ]
    },
    fleet: |at| {
        let [second, third] = at.others.map(|other| other.to_string());
        vec![("127.0.0.1:4182", second), ("127.0.0.1:4183", third)]
    },
    // One process instead of a master and its workers: it dies with the test, and drops no privileges, so
    // that its directory may stay private when the test runs as root.
    command: &[
        "nginx",
        "-e",
        "stderr",
        "-c",
        "nginx.conf",
        "-p",
        ".",
        "-g",
        "daemon off; master_process off;",
    ],
    listens: Listens::UnixAndUnixForHttp2,
    differs: Differences {
        passes_retry_after: true,
        // By snippets/undecided.conf.
        gone: (503, Some("5")),
        silent: 503,
        keeps_connections: true,
        http2: true,
        takes_chunks: true,
        method: Method::Get,
        tells_query: true,
        // Before 1.23 it passes on only the first of them.
        tells_each_origin: false,
    },
};
