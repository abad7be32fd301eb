//! `[admin]`: metrics, health, and operator requests.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::section::Section;
use super::value::Listen;
use super::{tls, value};
use crate::tls::TlsSettings;

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `listen`, `--admin`: a loopback address by default, `127.0.0.1:9180`.
    pub listen: SocketAddr,
    /// Whether `listen` is marked `tls:`.
    pub speaks_tls: bool,
    /// `[admin.tls]`: certificates for an address marked `tls:`. Set if and only if it is; a command that
    /// only asks a running holdfast needs none.
    pub tls: Option<TlsSettings>,
    /// `[admin.client]`: how the commands reach an address marked `tls:`.
    pub client: AdminClientSettings,
    /// `hosts`: accepted `Host` names, besides addresses and `localhost`. Default: none.
    pub hosts: Vec<String>,
    /// `token_file`: a private file with the token that operator requests must carry (`Authorization: Bearer
    /// …`). Without one, they are accepted over loopback, and from clients with a verified certificate.
    pub token_file: Option<PathBuf>,
}

/// `[admin.client]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminClientSettings {
    /// `ca`: the CAs, in PEM, of which one has signed the server's certificate. Default: the system's.
    pub ca: Option<PathBuf>,
    /// `certificate`: the certificate chain in PEM that is shown, with `key`. Default: none is shown.
    pub certificate: Option<PathBuf>,
    /// `key`: the private key of the certificate, in PEM, in a private file.
    pub key: Option<PathBuf>,
    /// `server_name`: the name or address in the server's certificate. Default: the address of
    /// `admin.listen`.
    pub server_name: Option<String>,
}

impl AdminSettings {
    /// Reads the section. Without `serves`, a command only asks a running holdfast, maybe another machine's.
    pub(super) fn read(mut section: Section<'_>, serves: bool) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 9180));
        let (listen, speaks_tls) = section.value("listen", (default, false), value::admin_listen);
        let tls = section.table("tls");
        let has_tls = tls.is_some();
        let settings = Self {
            listen,
            speaks_tls,
            tls: tls.and_then(|tls| TlsSettings::read(tls, "admin.tls")),
            client: AdminClientSettings::read(section.section("client")),
            hosts: section.list("hosts", value::host_name).unwrap_or_default(),
            token_file: section.optional("token_file", value::path),
        };
        if serves {
            tls::check(&section, "admin.tls", speaks_tls, has_tls);
        }
        settings
    }

    /// Where the listener waits for connections.
    #[must_use]
    pub const fn listener(&self) -> Listen {
        if self.speaks_tls { Listen::Tls(self.listen) } else { Listen::Tcp(self.listen) }
    }
}

impl AdminClientSettings {
    fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            ca: section.optional("ca", value::path),
            certificate: section.optional("certificate", value::path),
            key: section.optional("key", value::path),
            server_name: section.optional("server_name", value::host_name),
        };
        for (name, missing) in [
            ("certificate", settings.certificate.is_none() && settings.key.is_some()),
            ("key", settings.key.is_none() && settings.certificate.is_some()),
        ] {
            if missing {
                section.report(name, "nothing", "a file in PEM; certificate and key are set together");
            }
        }
        settings
    }
}
