use crate::proxy::{Differences, Listens, Method, Proxy};

/// An address as its files have it.
fn line(at: std::net::SocketAddr) -> String {
    format!("{{ address: {}, port_value: {} }}", at.ip(), at.port())
}

/// Envoy 1.40, with the HTTP service of `ext_authz`.
pub const PROXY: Proxy = Proxy {
    name: "envoy",
    files: &["envoy.yaml"],
    addresses: |at| {
        let tls = at.tls.as_ref().map_or_else(String::new, |tls| {
            let file = |path: &std::path::Path| format!("{{ filename: \"{}\" }}", path.display());
            format!(
                "transport_socket:\n            name: envoy.transport_sockets.tls\n            typed_config:\n              \
                 \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n              \
                 common_tls_context:\n                tls_certificates: [{{ certificate_chain: {}, private_key: {} }}]\n                \
                 validation_context: {{ trusted_ca: {} }}\n          ",
                file(&tls.certificate),
                file(&tls.key),
                file(&tls.authority)
            )
        });
        vec![
            (
                "        - filters:\n            - name: envoy.filters.network",
                format!("        - {tls}filters:\n            - name: envoy.filters.network"),
            ),
            (
                "socket_address: { address: 127.0.0.1, port_value: 8080 }",
                format!("pipe: {{ path: \"{}\" }}", at.front.display()),
            ),
            ("{ address: 127.0.0.1, port_value: 4180 }", line(at.auth)),
            ("port_value: 4191", format!("port_value: {}", at.backend.port())),
        ]
    },
    fleet: |at| {
        let [second, third] = at.others.map(line);
        vec![
            ("{ address: 127.0.0.1, port_value: 4182 }", second),
            ("{ address: 127.0.0.1, port_value: 4183 }", third),
        ]
    },
    // Hot restart needs memory that it would share with the Envoys of other tests.
    command: &["envoy", "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "warning"],
    listens: Listens::Unix,
    differs: Differences {
        // Envoy takes an answer of 500 and above for an error of the auth server and makes one of its own.
        passes_retry_after: false,
        gone: (503, Some("5")),
        silent: 503,
        keeps_connections: true,
        http2: true,
        takes_chunks: true,
        method: Method::Original,
        // holdfast takes no query from the question itself (`forwarded = "request"`).
        tells_query: false,
        tells_each_origin: true,
    },
};
