//! Where the shared store is, how to log in there, and its limits.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use url::Url;

use super::error::SharedError;
use crate::private_file;

/// The longest password file that is read, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Where Redis is, and the name and password to log in with. Shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress(String);

impl RedisAddress {
    /// Reads a URL: `redis://`, `rediss://` (TLS) or `unix://`.
    ///
    /// # Errors
    /// What is allowed, as a text that does not hold the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let allowed = "a URL such as redis://user:password@host:6379/0, rediss://host (TLS), \
                       or unix:///run/redis.sock?db=0&user=name&pass=password";
        // A fragment could switch off the check of the server's certificate.
        let known = ["redis://", "rediss://", "unix://"].iter().any(|scheme| url.starts_with(scheme));
        // Other parameters would be ignored: with `?password=…`, the login would be without a password.
        let parameters: &[&str] =
            if url.starts_with("unix://") { &["db", "user", "pass", "protocol"] } else { &["protocol"] };
        let is_read = Url::parse(url)
            .is_ok_and(|url| url.query_pairs().all(|(name, _)| parameters.contains(&name.as_ref())));
        if !known || !is_read || url.contains('#') {
            return Err(allowed.to_owned());
        }
        let address = Self(url.to_owned());
        address.info().map(|_| address).map_err(|_| allowed.to_owned())
    }

    /// Reads the URL of one of several servers that must know each other's address: as
    /// [`RedisAddress::parse`], without `unix://`.
    ///
    /// # Errors
    /// As [`RedisAddress::parse`].
    pub fn parse_tcp(url: &str) -> Result<Self, String> {
        let address = Self::parse(url).ok();
        let is_tcp = |info: ConnectionInfo| !matches!(info.addr(), ConnectionAddr::Unix(_));
        address.filter(|address| address.info().is_ok_and(is_tcp)).ok_or_else(|| {
            "URLs such as redis://host:26379, redis://user:password@host:26379, or rediss://host:26379 \
             (TLS)"
                .to_owned()
        })
    }

    pub(super) fn info(&self) -> Result<ConnectionInfo, SharedError> {
        self.0.as_str().into_connection_info().map_err(SharedError::from)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisAddress")
    }
}

/// The sentinels that know which Redis is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinels {
    /// Where they are, each with the login for this sentinel. The primary is reached by TLS if they are, and
    /// its database is the one that their URLs name.
    pub addresses: Vec<RedisAddress>,
    /// The name under which they know the primary.
    pub primary_name: String,
    /// The name to log in with at the primary. None: the default user.
    pub user: Option<String>,
}

/// The servers that hold the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One Redis, or a proxy in front of it.
    Single(RedisAddress),
    /// A primary and its replicas, watched by sentinels.
    Sentinels(Sentinels),
    /// A cluster: some of its nodes, each with the login that holds at all of them.
    Cluster(Vec<RedisAddress>),
}

impl RedisServers {
    pub(super) const fn are_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Where the shared store is, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// Where Redis is.
    pub servers: RedisServers,
    /// A file with the password, instead of the URL's. It is read at each connect, so it may change.
    pub password_file: Option<PathBuf>,
    /// How long a request waits for a record.
    pub read_timeout: Duration,
    /// How many bytes of writes may wait.
    pub queue: usize,
    /// Whether the instance secret of the store is the old one of two. Other instances may have only that
    /// one.
    pub is_former: bool,
}

impl SharedSettings {
    /// The defaults, for this address.
    #[must_use]
    pub const fn at(address: RedisAddress) -> Self {
        Self::of(RedisServers::Single(address))
    }

    /// The defaults, for these servers.
    #[must_use]
    pub const fn of(servers: RedisServers) -> Self {
        let queue = 8 * 1024 * 1024;
        Self {
            servers,
            password_file: None,
            read_timeout: Duration::from_millis(50),
            queue,
            is_former: false,
        }
    }
}

/// The password in a private file, without line ends at its end.
pub(super) fn read_password(path: &Path) -> Result<String, SharedError> {
    let unusable = |problem: String| SharedError::Password { path: path.to_owned(), problem };
    let password =
        private_file::read_line(path, MAX_PASSWORD_BYTES).map_err(|error| unusable(error.to_string()))?;
    String::from_utf8(password).map_err(|_| unusable("is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_never_shows_what_it_holds() {
        let address = RedisAddress::parse("redis://name:hunter2@127.0.0.1:6379/3").unwrap();
        assert_eq!(format!("{address:?}"), "RedisAddress");
        let settings = format!("{:?}", SharedSettings::at(address));
        assert!(!settings.contains("hunter2") && !settings.contains("name"), "{settings}");
    }

    #[test]
    fn bad_addresses_are_refused_without_being_shown() {
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://hunter2@host/",
            "redis://",
            "redis://:hunter2@host/zero",
            "rediss://:hunter2@host/#insecure",
            "unix://host/hunter2",
            "redis://host?password=hunter2",
            "redis://host/0?pass=hunter2",
            "unix:///run/redis.sock?password=hunter2",
        ] {
            let error = RedisAddress::parse(bad).unwrap_err();
            assert!(error.contains("rediss://") && !error.contains("hunter2"), "{bad}: {error}");
        }
        for good in
            ["redis://host", "rediss://name:pass@host:1234/2", "unix:///run/redis.sock?db=1&user=a&pass=b"]
        {
            assert!(RedisAddress::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_password_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_password(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("hunter2"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_password(&path).unwrap(), "hunter2");
    }
}
