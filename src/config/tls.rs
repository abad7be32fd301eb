//! `[auth.tls]` and `[admin.tls]`: TLS on a listener, for those who reach it from another machine.
//!
//! The address itself says that it uses TLS (`tls:0.0.0.0:4443`). So without its settings it is an error, and
//! never a port without TLS.

use super::section::Section;
use super::value::{self, SECOND};
use crate::tls::TlsSettings;

impl TlsSettings {
    pub(super) fn read(mut section: Section<'_>, table: &'static str) -> Option<Self> {
        let needed = format!("a file in PEM; [{table}] needs certificate and key");
        let certificate = section.required("certificate", value::path, &*needed);
        let key = section.required("key", value::path, needed);
        let client_ca = section.optional("client_ca", value::path);
        let handshake_timeout =
            section.value("handshake_timeout", 5 * SECOND, value::duration(SECOND / 10, 60 * SECOND));
        Some(Self { table, certificate: certificate?, key: key?, client_ca, handshake_timeout })
    }
}

/// `table` and an address that is marked `tls:` need each other. Errors in the table have already been
/// reported.
pub(super) fn check(section: &Section<'_>, table: &str, is_marked: bool, is_set: bool) {
    match (is_marked, is_set) {
        (true, false) => section.report(
            "tls",
            "nothing",
            format!("[{table}] with certificate and key, for the address marked tls:"),
        ),
        (false, true) => section.report(
            "listen",
            "no address marked tls:",
            format!("an address such as tls:0.0.0.0:4443 where [{table}] is set; the others speak no TLS"),
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Settings, Source};
    use crate::tls::TlsSettings;

    fn read(lines: &str) -> Result<Option<TlsSettings>, String> {
        let text = format!("[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n{lines}\n");
        Settings::read(&Source::text("holdfast.toml", &text))
            .map(|settings| settings.auth.tls)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn tls_is_for_addresses_that_are_marked_and_needs_two_files() {
        assert_eq!(read("").unwrap(), None);
        let tls = "[auth]\nlisten = [\"127.0.0.1:1\", \"tls:[::1]:2\"]\n\
                   [auth.tls]\ncertificate = \"/c\"\nkey = \"/k\"";
        let settings = read(tls).unwrap().unwrap();
        assert_eq!(
            (settings.certificate.as_path(), settings.key.as_path()),
            (Path::new("/c"), Path::new("/k"))
        );
        assert_eq!((settings.client_ca, settings.handshake_timeout.as_secs()), (None, 5));
    }

    #[test]
    fn an_address_without_its_files_or_files_without_an_address_are_refused() {
        for (lines, expected) in [
            ("[auth]\nlisten = \"tls:127.0.0.1:1\"", "auth.tls = nothing: allowed is [auth.tls] with"),
            ("[auth.tls]\ncertificate = \"/c\"\nkey = \"/k\"", "auth.listen = no address marked tls:"),
            ("[auth]\nlisten = \"tls:localhost:1\"", "holdfast.toml:5: auth.listen = \"tls:localhost:1\""),
            ("[auth]\nlisten = \"tls:unix:/s\"", "holdfast.toml:5: auth.listen = \"tls:unix:/s\""),
            (
                "[auth]\nlisten = \"tls:[::1]:1\"\n[auth.tls]\nkey = \"/k\"",
                "holdfast.toml:6: auth.tls.certificate = nothing: allowed is a file",
            ),
            (
                "[auth]\nlisten = \"tls:[::1]:1\"\n[auth.tls]\nkey = \"/k\"\ncertifcate = \"/c\"",
                "holdfast.toml:8: unknown key auth.tls.certifcate; did you mean auth.tls.certificate?",
            ),
            ("[admin]\nlisten = \"tls:127.0.0.1:1\"", "admin.tls = nothing: allowed is [admin.tls] with"),
            ("[admin.tls]\ncertificate = \"/c\"\nkey = \"/k\"", "admin.listen = no address marked tls:"),
            ("[admin]\nlisten = \"unix:/s\"", "admin.listen = \"unix:/s\": allowed is an address and port"),
            ("[admin.client]\nkey = \"/k\"", "admin.client.certificate = nothing: allowed is a file in PEM"),
        ] {
            let said = read(lines).unwrap_err();
            assert!(said.contains(expected), "{lines}\n{said}");
        }
    }
}
