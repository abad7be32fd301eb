//! `[admin]`: metrics, health, and operator requests.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::section::Section;
use super::value;

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `listen`, `--admin`: a loopback address by default, `127.0.0.1:9180`.
    pub listen: SocketAddr,
    /// `hosts`: accepted `Host` names, besides addresses and `localhost`. Default: none.
    pub hosts: Vec<String>,
    /// `token_file`: a private file with the token that operator requests must carry (`Authorization: Bearer
    /// …`). Without one, they are accepted over loopback only.
    pub token_file: Option<PathBuf>,
}

impl AdminSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 9180));
        let settings = Self {
            listen: section.value("listen", default, value::address),
            hosts: section.list("hosts", value::host_name).unwrap_or_default(),
            token_file: section.optional("token_file", value::path),
        };
        section.finish();
        settings
    }
}
