//! Finds the server to connect to, at each connect: the configured one, the primary that Redis Sentinel
//! names, or the node of a cluster that has our slot.
//!
//! **Sentinel**, as Redis's [guide for
//! clients](https://redis.io/docs/latest/develop/reference/sentinel-clients/) says: a sentinel names the
//! primary, and the server that it names must itself say that it is one. All sentinels are asked at once, so
//! one that is down delays nothing. A sentinel that is cut off from the others may name a server that is not
//! the primary any more. Then the next answer counts.
//!
//! **Cluster**: a node is asked for a name of our slot. It has the slot, or names the node that has it
//! (`MOVED`), which is asked next. All configured nodes are asked at once.
//!
//! The client library has types for both, too. They open their own connections, on which replies have no
//! bound ([`super::framing`]).

use std::collections::HashSet;
use std::sync::Arc;

use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, RedisConnectionInfo, RedisError, RedisResult, Role, Value,
    cmd, from_redis_value,
};
use tokio::task::JoinSet;

use super::connect::{connect, moved_to, with_address, with_timeout};
use super::error::SharedError;
use super::names::IN_CLUSTER;
use super::settings::{RedisAddress, RedisServers, Sentinels};

/// How many redirects are followed.
const MAX_HOPS: usize = 5;

impl RedisServers {
    /// The server to connect to now, with the login for it. `password` replaces that of the settings.
    pub(super) async fn locate(&self, password: Option<&str>) -> Result<ConnectionInfo, SharedError> {
        match self {
            Self::Single(address) => Ok(logged_in(address.info()?, password)),
            Self::Sentinels(sentinels) => primary(sentinels, password).await,
            Self::Cluster(nodes) => owner(nodes, password).await,
        }
    }
}

fn logged_in(server: ConnectionInfo, password: Option<&str>) -> ConnectionInfo {
    let login = server.redis_settings().clone();
    server.set_redis_settings(with_password(login, password))
}

/// The node that has our slot: the first that says so.
async fn owner(nodes: &[RedisAddress], password: Option<&str>) -> Result<ConnectionInfo, SharedError> {
    let mut asked = JoinSet::new();
    for node in nodes {
        asked.spawn(owner_by(logged_in(node.info()?, password)));
    }
    let mut why = SharedError::Disconnected;
    while let Some(found) = asked.join_next().await {
        match found.unwrap_or(Err(SharedError::Disconnected)) {
            Ok(owner) => return Ok(owner),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// The node that has our slot, found by following redirects from this one.
async fn owner_by(mut node: ConnectionInfo) -> Result<ConnectionInfo, SharedError> {
    let mut question = cmd("STRLEN");
    question.arg(IN_CLUSTER);
    for _ in 0..MAX_HOPS {
        let moved = match ask(&node, &question).await? {
            Err(error) => match error.redirect_node() {
                Some((to, _)) if error.code() == Some("MOVED") => Some(moved_to(&node, to)),
                // During a move, the old node still has the slot.
                Some(_) => None,
                None => return Err(error.into()),
            },
            Ok(_) => None,
        };
        match moved {
            Some(to) => node = to,
            None => return Ok(node),
        }
    }
    Err(SharedError::Refused("MOVED".to_owned()))
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
        let server = match answer.unwrap_or(Err(SharedError::Disconnected)) {
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
            match role(&server).await {
                Ok(Role::Primary { .. }) => return Ok(server),
                Ok(_) => problems.push(SharedError::NoPrimary),
                Err(error) => problems.push(error),
            }
        }
    }
    let telling = problems.iter().position(SharedError::is_by_a_server).unwrap_or_default();
    Err(problems.into_iter().nth(telling).unwrap_or(SharedError::Disconnected))
}

async fn role(server: &ConnectionInfo) -> Result<Role, SharedError> {
    Ok(from_redis_value(ask(server, &cmd("ROLE")).await??).map_err(RedisError::from)?)
}

/// Where this sentinel says that the primary is: reached as the sentinel is, by TCP or TLS, and with the
/// database of its URL.
async fn named_by(sentinel: &RedisAddress, question: &Cmd) -> Result<Option<ConnectionInfo>, SharedError> {
    let info = sentinel.info()?;
    // A sentinel has no databases.
    let login = info.redis_settings().clone().set_db(0);
    let reply = ask(&info.clone().set_redis_settings(login), question).await??;
    let named: Option<(String, u16)> = from_redis_value(reply).map_err(RedisError::from)?;
    Ok(named.map(|(host, port)| with_address(&info, host, port)))
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

/// The reply of a server to one command, over a connection for this alone. The inner error is what the server
/// replied.
async fn ask(server: &ConnectionInfo, command: &Cmd) -> Result<RedisResult<Value>, SharedError> {
    with_timeout(async {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let mut driver = JoinSet::new();
        let mut redis = connect(server, config, &mut driver, &Arc::default()).await?;
        Ok(command.query_async(&mut redis).await)
    })
    .await
}
