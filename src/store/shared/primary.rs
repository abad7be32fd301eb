//! Finds the server to connect to, at each connect: the configured one, or the primary that Redis Sentinel
//! names.
//!
//! As Redis's [guide for clients](https://redis.io/docs/latest/develop/reference/sentinel-clients/) says: a
//! sentinel names the primary, and the server that it names must itself say that it is one. All sentinels are
//! asked at once, so one that is down delays nothing. One that is cut off from the others may name a server
//! that is no primary any more. Then the next answer counts.
//!
//! The client library has a type for this, too. It opens its own connections, on which replies have no bound
//! ([`super::framing`]).

use std::collections::HashSet;
use std::sync::Arc;

use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, RedisConnectionInfo,
};
use redis::{Role, cmd};
use tokio::task::JoinSet;

use super::connection::{connect, patiently};
use super::error::SharedError;
use super::settings::{RedisAddress, RedisServers, Sentinels};

impl RedisServers {
    /// The server to connect to now, with the login for it. `password` replaces that of the settings.
    pub(super) async fn locate(&self, password: Option<&str>) -> Result<ConnectionInfo, SharedError> {
        match self {
            Self::Single(address) => {
                let info = address.info()?;
                let login = info.redis_settings().clone();
                Ok(info.set_redis_settings(with_password(login, password)))
            }
            Self::Sentinels(sentinels) => primary(sentinels, password).await,
        }
    }
}

async fn primary(sentinels: &Sentinels, password: Option<&str>) -> Result<ConnectionInfo, SharedError> {
    let mut asked = JoinSet::new();
    for sentinel in sentinels.addresses.clone() {
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&sentinels.primary_name);
        asked.spawn(async move { named_by(&sentinel, &question).await });
    }
    let (mut tried, mut problems) = (HashSet::new(), Vec::new());
    while let Some(answer) = asked.join_next().await {
        let server = match answer.unwrap_or(Err(SharedError::Away)) {
            Ok(Some(server)) => server,
            Ok(None) => {
                problems.push(SharedError::UnknownPrimary { name: sentinels.primary_name.clone() });
                continue;
            }
            Err(error) => {
                problems.push(error);
                continue;
            }
        };
        if tried.insert(server.addr().to_string()) {
            let server = log_in(sentinels, server, password);
            match ask::<Role>(&server, &cmd("ROLE")).await {
                Ok(Role::Primary { .. }) => return Ok(server),
                Ok(_) => problems.push(SharedError::NoPrimary),
                Err(error) => problems.push(error),
            }
        }
    }
    // What a server said tells more than that another one is down.
    let is_telling = |error: &SharedError| !matches!(error, SharedError::Redis(_) | SharedError::Timeout);
    let telling = problems.iter().position(is_telling).unwrap_or_default();
    Err(problems.into_iter().nth(telling).unwrap_or(SharedError::Away))
}

/// Where this sentinel says that the primary is: reached as the sentinel is, by TCP or TLS, and with the
/// database of its URL.
async fn named_by(sentinel: &RedisAddress, question: &Cmd) -> Result<Option<ConnectionInfo>, SharedError> {
    let info = sentinel.info()?;
    // A sentinel has no databases.
    let login = info.redis_settings().clone().set_db(0);
    let named: Option<(String, u16)> = ask(&info.clone().set_redis_settings(login), question).await?;
    Ok(named.map(|(host, port)| {
        let address = match info.addr() {
            ConnectionAddr::TcpTls { .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        info.set_addr(address)
    }))
}

/// The primary with the login for it, instead of that for the sentinel.
fn log_in(sentinels: &Sentinels, primary: ConnectionInfo, password: Option<&str>) -> ConnectionInfo {
    let login = RedisConnectionInfo::default().set_db(primary.redis_settings().db());
    let login = match &sentinels.user {
        Some(user) => login.set_username(user),
        None => login,
    };
    primary.set_redis_settings(with_password(login, password))
}

fn with_password(login: RedisConnectionInfo, password: Option<&str>) -> RedisConnectionInfo {
    match password {
        Some(password) => login.set_password(password),
        None => login,
    }
}

/// The answer of a server to one command, over a connection for this alone.
async fn ask<T: FromRedisValue>(server: &ConnectionInfo, command: &Cmd) -> Result<T, SharedError> {
    patiently(async {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let mut driver = JoinSet::new();
        let mut redis = connect(server, config, &mut driver, &Arc::default()).await?;
        command.query_async(&mut redis).await
    })
    .await
}
