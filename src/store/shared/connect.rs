//! Opens a connection to one server, with the bounds that hold on every connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisError, RedisResult,
};
use tokio::task::JoinSet;

use super::error::SharedError;
use super::framing::{BoundedReplies, ReplyError};
use super::stream;

/// How long connecting may take, and each command for which no request waits.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Connects and logs in. No reply is longer than [`BoundedReplies`] allows; if one would be, `failed` says
/// so. The work of the connection is done by a task of `driver`.
pub(super) async fn connect(
    server: &ConnectionInfo,
    config: AsyncConnectionConfig,
    driver: &mut JoinSet<()>,
    failed: &Arc<OnceLock<ReplyError>>,
) -> RedisResult<MultiplexedConnection> {
    // The Redis user of the guide may not set the library's name, and Redis would log each attempt.
    let login = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    let stream = BoundedReplies::new(stream::connect(server.addr()).await?, failed.clone());
    let (redis, work) = MultiplexedConnection::new_with_config(&login, stream, config).await?;
    driver.spawn(work);
    Ok(redis)
}

/// Waits for `reply` for at most [`TIMEOUT`].
pub(super) async fn with_timeout<T>(
    work: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, SharedError> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(done) => done.map_err(SharedError::from),
        Err(_) => Err(SharedError::Timeout),
    }
}

/// The connection settings of another server: TCP or TLS and the login as for `server`.
pub(super) fn with_address(server: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match server.addr() {
        ConnectionAddr::TcpTls { .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    server.clone().set_addr(address)
}

/// The node that `server` names as `host:port`. Without a host, it is on the same one.
pub(super) fn moved_to(server: &ConnectionInfo, node: &str) -> ConnectionInfo {
    let (host, port) = node.rsplit_once(':').unwrap_or((node, ""));
    let (own_host, own_port) = match server.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.as_str(), *port),
        _ => ("", 0),
    };
    let host = if host.is_empty() { own_host } else { host };
    with_address(server, host.to_owned(), port.parse().unwrap_or(own_port))
}
