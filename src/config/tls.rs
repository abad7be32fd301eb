//! `[auth.tls]`: TLS on the auth listener, for those who run it on another machine than the proxy.
//!
//! An address says itself that it speaks TLS (`tls:0.0.0.0:4443`), so that one that lost its settings is an error, and
//! never an open port.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use super::{Listen, value};

/// `[auth.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `certificate`: the certificate and what leads to its CA, in PEM, its own first.
    pub certificate: PathBuf,
    /// `key`: its private key, in PEM, in a file that only its owner may read.
    pub key: PathBuf,
    /// `client_ca`: the CAs, in PEM, of which one must have signed the client's certificate. Without it, anybody who
    /// can reach the port may ask.
    pub client_ca: Option<PathBuf>,
    /// `handshake_timeout`: how long a client may take until the connection is secured. Default 5 s.
    pub handshake_timeout: Duration,
}

impl TlsSettings {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let certificate = section.optional("certificate", value::path);
        let key = section.optional("key", value::path);
        let client_ca = section.optional("client_ca", value::path);
        let handshake_timeout = section.value(
            "handshake_timeout",
            Duration::from_secs(5),
            value::duration(Duration::from_millis(100), Duration::from_secs(60)),
        );
        for (name, missing) in [("certificate", certificate.is_none()), ("key", key.is_none())] {
            if missing {
                section.complain(
                    name,
                    "nothing usable",
                    "a file in PEM; [auth.tls] needs certificate and key",
                );
            }
        }
        section.finish();
        Some(Self { certificate: certificate?, key: key?, client_ca, handshake_timeout })
    }
}

/// `auth.tls` and an address that is marked `tls:` go together. A table that is set but wrong has been complained of.
pub(super) fn check(section: &Section<'_>, listen: &[Listen], is_set: bool) {
    let marked = listen.iter().any(|listen| matches!(listen, Listen::Tls(_)));
    match (marked, is_set) {
        (true, false) => {
            section.complain(
                "tls",
                "nothing",
                "[auth.tls] with certificate and key, for the address marked tls:",
            );
        }
        (false, true) => section.complain(
            "listen",
            "no address that is marked tls:",
            "at least one such as tls:0.0.0.0:4443 where [auth.tls] is set; the others speak no TLS",
        ),
        _ => {}
    }
}
