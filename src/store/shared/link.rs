//! The open connection as commands see it: it follows a cluster that moves our slot to another node.
//!
//! All names of holdfast in a cluster are in one slot ([`super::names`]), so one node has all of them, and
//! one connection is enough. While the slot is being moved, that node has only some of the names, and replies
//! `ASK` with the other node for the rest. Such a command is repeated there. When the slot has moved, the
//! node replies `MOVED` to every command. The first such command is repeated, too, and the reconnect task
//! looks up the new owner of the slot.

use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, Value,
};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use super::connect::{connect, moved_to};

/// The connection to a server, and to the node that our slot is moved to.
#[derive(Clone)]
pub(super) struct Link {
    redis: MultiplexedConnection,
    server: ConnectionInfo,
    /// Whether it is a node of a cluster. Any other server must not redirect us, with our login, to another
    /// one.
    in_cluster: bool,
    importing: Arc<Mutex<Option<Importing>>>,
    /// Notified when the slot has moved.
    pub(super) moved: Arc<Notify>,
}

/// The node that our slot is moved to.
struct Importing {
    node: String,
    redis: MultiplexedConnection,
    /// The task that reads and writes. It ends when this is dropped.
    _driver: JoinSet<()>,
}

impl Link {
    pub(super) fn new(redis: MultiplexedConnection, server: ConnectionInfo, in_cluster: bool) -> Self {
        Self { redis, server, in_cluster, importing: Arc::default(), moved: Arc::default() }
    }

    /// The connections to all nodes that have names of our slot. `absent` reads a name that no server
    /// has: the reply tells whether the slot is being moved.
    pub(super) async fn nodes(&self, absent: &Cmd) -> RedisResult<Vec<MultiplexedConnection>> {
        let mut all = vec![self.redis.clone()];
        let reply = self.redis.clone().req_packed_command(absent).await;
        if let Err(error) = reply.and_then(Value::extract_error)
            && let Some(node) = self.other_node(&error)
        {
            all.push(self.importing(node).await?);
        }
        Ok(all)
    }

    /// Repeats a command at the node that `error` names, if it names one.
    async fn follow(&self, error: RedisError, command: &Cmd) -> RedisResult<Value> {
        let Some(node) = self.other_node(&error) else { return Err(error) };
        if error.code() == Some("MOVED") {
            self.moved.notify_one();
        }
        let mut redis = self.importing(node).await?;
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(command.clone());
        let replies = redis.req_packed_commands(&both, 1, 1).await?;
        replies.into_iter().next().ok_or(error)
    }

    /// The node that `error` redirects to.
    fn other_node<'e>(&self, error: &'e RedisError) -> Option<&'e str> {
        error.redirect_node().filter(|_| self.in_cluster).map(|(node, _)| node)
    }

    async fn importing(&self, node: &str) -> RedisResult<MultiplexedConnection> {
        let mut importing = self.importing.lock().await;
        if let Some(known) = importing.as_ref().filter(|known| known.node == node) {
            return Ok(known.redis.clone());
        }
        let server = moved_to(&self.server, node);
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let mut driver = JoinSet::new();
        let redis = connect(&server, config, &mut driver, &Arc::default()).await?;
        *importing = Some(Importing { node: node.to_owned(), redis: redis.clone(), _driver: driver });
        Ok(redis)
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            match self.redis.req_packed_command(command).await.and_then(Value::extract_error) {
                Err(error) => self.follow(error, command).await,
                done => done,
            }
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut replies = self.redis.req_packed_commands(pipeline, offset, count).await?;
            for (reply, command) in replies.iter_mut().zip(pipeline.cmd_iter().skip(offset)) {
                if let Value::ServerError(error) = reply
                    && let Ok(followed) = self.follow(error.clone().into(), command).await
                {
                    *reply = followed;
                }
            }
            Ok(replies)
        })
    }

    fn get_db(&self) -> i64 {
        self.redis.get_db()
    }
}
