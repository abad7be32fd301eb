//! `[auth]`: the listener that proxies ask.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::Section;
use super::value::{HOUR, Listen, SECOND};
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
        let status = value::one_of([("503", 503), ("500", 500), ("502", 502), ("403", 403), ("401", 401)]);
        let wait = |text: &str| value::duration(Duration::ZERO, 600 * SECOND)(text);
        let tls = section.table("tls");
        let has_tls = tls.is_some();
        let settings = Self {
            listen: section
                .some("listen", value::listen, "at least one address or unix socket")
                .unwrap_or_else(|| vec![Listen::Tcp(default)]),
            tls: tls.and_then(|tls| TlsSettings::read(tls, "auth.tls")),
            socket_mode: section.value("socket_mode", 0o660, |text| {
                u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o777)
                    .ok_or_else(|| "octal permissions such as \"660\"".to_owned())
            }),
            socket_group: section.optional("socket_group", group::id),
            idle_timeout: section.value("idle_timeout", 120 * SECOND, value::duration(SECOND, HOUR)),
            lame_duck: section.value("lame_duck", Duration::ZERO, wait),
            drain_timeout: section.value("drain_timeout", 10 * SECOND, wait),
            undecided_status: section.value("undecided_status", 503, status),
            max_connections: section.value("max_connections", 10_000, value::number(1, 1_000_000)),
            max_head: section.value("max_head", 128 << 10, value::size(64 << 10, 1 << 20)),
        };
        let is_marked = settings.listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
        tls::check(&section, "auth.tls", is_marked, has_tls);
        settings
    }
}
