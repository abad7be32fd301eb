use crate::proxy::{Differences, Listens, Method, Proxy};

/// Traefik 3.7, with the file provider.
pub const PROXY: Proxy = Proxy {
    name: "traefik",
    files: &["traefik.yml", "dynamic.yml"],
    // Its own address stays: it takes the socket that it is given.
    addresses: |at| {
        let mut changes =
            vec![("127.0.0.1:4180", at.auth.to_string()), ("127.0.0.1:4191", at.backend.to_string())];
        if let Some(tls) = &at.tls {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            changes.push((
                "\nhttp:\n  routers:\n",
                format!(
                    "\ntls:\n  certificates:\n    - {{ certFile: {certificate}, keyFile: {key} }}\n  options:\n    default:\n      \
                     clientAuth: {{ clientAuthType: RequestClientCert }}\n\nhttp:\n  routers:\n"
                ),
            ));
            changes.push((
                "      aliasHeadersStrategy: delete\n",
                "      aliasHeadersStrategy: delete\n      tls: {}\n".to_owned(),
            ));
        }
        changes
    },
    fleet: |at| {
        let [second, third] = at.others.map(|other| other.to_string());
        let own = format!("{}:4179", at.own);
        vec![("127.0.0.1:4182", second), ("127.0.0.1:4183", third), ("127.0.0.1:4179", own)]
    },
    command: &["traefik", "--configFile=traefik.yml"],
    listens: Listens::Given,
    differs: Differences {
        passes_retry_after: true,
        // Traefik says so itself, and an `errors` middleware that turned it into a 503 would do so with the
        // backend's own 500, too.
        gone: (500, None),
        // After 30 s, fixed in Traefik's code.
        silent: 500,
        keeps_connections: true,
        http2: true,
        takes_chunks: true,
        method: Method::Get,
        tells_query: true,
        tells_each_origin: true,
    },
};
