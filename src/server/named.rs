//! The `Host` names that the admin listener accepts.
//!
//! A web page in an operator's browser may read answers from its own name, and the owner of that name can
//! resolve it to this machine (DNS rebinding). The browser then sends the page's name as `Host`. So the
//! listener accepts only names that nobody else can own. An IP address is such a name: a page has it as its
//! name only if the page itself came from that address.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Uri};

/// Whether a request names this listener by an IP address, a loopback name, or one of `hosts`. A request
/// without a name is accepted, because browsers always send one.
pub(super) fn is_allowed(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> bool {
    let by_line = uri.authority().is_none_or(|authority| is_known(authority, hosts));
    by_line
        && headers.get_all(HOST).iter().all(|value| {
            Authority::try_from(value.as_bytes()).is_ok_and(|authority| is_known(&authority, hosts))
        })
}

fn is_known(authority: &Authority, hosts: &[String]) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    is_address || is_loopback(host) || hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// `localhost` and the names below it always resolve to loopback (RFC 6761 §6.3).
fn is_loopback(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn asks(uri: &str, hosts: &[&str]) -> bool {
        let headers = hosts.iter().map(|host| (HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap()));
        is_allowed(&uri.parse().unwrap(), &headers.collect(), &["holdfast.monitoring.svc".to_owned()])
    }

    #[test]
    fn addresses_loopback_names_and_configured_names_are_answered() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9180",
            "10.1.2.3:9180",
            "[::1]",
            "[fd00::7]:9180",
            "localhost",
            "LocalHost:9180",
            "localhost.",
            "holdfast.localhost:9180",
            "holdfast.monitoring.svc:9180",
            "Holdfast.Monitoring.Svc.",
        ] {
            assert!(asks("/status", &[host]), "{host}");
        }
        assert!(asks("/status", &[]));
        assert!(asks("http://127.0.0.1:9180/status", &["127.0.0.1:9180"]));
    }

    #[test]
    fn a_name_that_somebody_else_may_own_is_not() {
        for host in [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "2130706433",
            "0x7f.1",
            "[evil.example]",
            "monitoring.svc",
            "a.holdfast.monitoring.svc",
            "",
            " ",
            "\u{e9}",
        ] {
            assert!(!asks("/status", &[host]), "{host}");
        }
        assert!(!asks("/status", &["127.0.0.1", "evil.example"]));
        assert!(!asks("http://evil.example/status", &["127.0.0.1"]));
        assert!(!asks("http://127.0.0.1/status", &["evil.example"]));
    }
}
