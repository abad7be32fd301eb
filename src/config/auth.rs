//! `[auth]`: the listener that proxies ask.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::Section;
use super::value::Listen;
use super::{group, tls, value};
use crate::tls::TlsSettings;

/// `[auth]`.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// `listen`, `--listen`: TCP addresses, with TLS if so marked, and unix sockets. Default
    /// `127.0.0.1:4180`.
    pub listen: Vec<Listen>,
    /// `[auth.tls]`: certificates for the addresses marked `tls:`. Set if and only if there is such an
    /// address.
    pub tls: Option<TlsSettings>,
    /// `socket_mode`: permissions of the unix sockets, octal. Default `660`.
    pub socket_mode: u32,
    /// `socket_group`: the group of the unix sockets, by name (in `/etc/group`) or number. Default: the
    /// process's.
    pub socket_group: Option<u32>,
    /// `idle_timeout`: how long a connection may wait for its next request, take to send one, or leave an
    /// answer unread. Longer than any proxy's pool keeps it. Default 120 s.
    pub idle_timeout: Duration,
    /// `lame_duck`: how long all requests are still answered after SIGTERM, while `/readyz` says 503. Default
    /// 0 s: a sidecar ends with its proxy. Behind a load balancer, longer than it takes to notice; 5 s behind
    /// a Kubernetes Service.
    pub lame_duck: Duration,
    /// `drain_timeout`: how long SIGTERM, after `lame_duck`, waits for requests under way. Default 10 s.
    pub drain_timeout: Duration,
    /// `undecided_status`: the status for "cannot tell". Default 503.
    pub undecided_status: u16,
    /// `max_connections`: above it, accepting waits. Default 10000.
    pub max_connections: usize,
    /// `max_head`: the longest head of a request, in bytes. Default 128 KiB: behind nginx a 431 becomes a
    /// 500, so this is well above what most proxies pass on.
    pub max_head: usize,
}

impl AuthSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 4180));
        let status = |text: &str| match text {
            "503" => Ok(503),
            "500" => Ok(500),
            "502" => Ok(502),
            "403" => Ok(403),
            "401" => Ok(401),
            _ => Err("503, 500, 502, 403 or 401".to_owned()),
        };
        let tls = section.table("tls");
        let has_tls = tls.is_some();
        let settings = Self {
            listen: section.list("listen", value::listen).unwrap_or_else(|| vec![Listen::Tcp(default)]),
            tls: tls.and_then(|tls| TlsSettings::read(tls, "auth.tls")),
            socket_mode: section.value("socket_mode", 0o660, |text| {
                u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o777)
                    .ok_or_else(|| "octal permissions such as \"660\"".to_owned())
            }),
            socket_group: section.optional("socket_group", group::id),
            idle_timeout: section.value(
                "idle_timeout",
                Duration::from_secs(120),
                value::duration(Duration::from_secs(1), Duration::from_secs(3600)),
            ),
            lame_duck: section.value(
                "lame_duck",
                Duration::ZERO,
                value::duration(Duration::ZERO, Duration::from_secs(600)),
            ),
            drain_timeout: section.value(
                "drain_timeout",
                Duration::from_secs(10),
                value::duration(Duration::ZERO, Duration::from_secs(600)),
            ),
            undecided_status: section.value("undecided_status", 503, status),
            max_connections: usize::try_from(section.value(
                "max_connections",
                10_000,
                value::number(1, 1_000_000),
            ))
            .unwrap_or(usize::MAX),
            max_head: usize::try_from(section.value("max_head", 128 << 10, value::size(64 << 10, 1 << 20)))
                .unwrap_or(usize::MAX),
        };
        if settings.listen.is_empty() {
            section.report("listen", "[]", "at least one address or unix socket");
        }
        let is_marked = settings.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
        tls::check(&section, "auth.tls", is_marked, has_tls);
        section.finish();
        settings
    }
}
