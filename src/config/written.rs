//! The settings that are set, and where each is set.

use url::Url;

use super::error::ConfigError;
use super::node::Node;
use super::origin::Origin;
use super::source::Source;

/// Stands in place of a password.
const MASK: &str = "***";

/// One setting as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its key, for example `issuer[0].url`.
    pub key: String,
    /// A plain value, or a list of them. A password in a URL is masked.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

impl Source {
    /// The settings of all sources together, by key. A value that a later source replaces is not among them.
    /// Read the settings first: only a value that is good is sure to have its password masked.
    ///
    /// # Errors
    /// As [`Settings::read`](super::Settings::read) if the sources do not fit together.
    pub fn written(&self) -> Result<Vec<Written>, ConfigError> {
        let mut all = Vec::new();
        collect(String::new(), &masked(self.tree()?), &mut all);
        Ok(all)
    }
}

fn collect(key: String, node: &Node, all: &mut Vec<Written>) {
    match (node.as_written(), node) {
        (Some(value), _) => all.push(Written { key, value, origin: node.origin().clone() }),
        (None, Node::Array(rows, _)) => {
            for (row, node) in rows.iter().enumerate() {
                collect(format!("{key}[{row}]"), node, all);
            }
        }
        (None, Node::Table(members, _)) => {
            for (name, node) in members {
                let dot = if key.is_empty() { "" } else { "." };
                collect(format!("{key}{dot}{name}"), node, all);
            }
        }
        (None, Node::Scalar { .. }) => {}
    }
}

fn masked(node: Node) -> Node {
    match node {
        Node::Scalar { text, quoted, origin } => {
            Node::Scalar { text: without_password(text), quoted, origin }
        }
        Node::Array(items, origin) => Node::Array(items.into_iter().map(masked).collect(), origin),
        Node::Table(members, origin) => {
            Node::Table(members.into_iter().map(|(name, node)| (name, masked(node))).collect(), origin)
        }
    }
}

/// The text, without the password if it is a URL that has one: before the host, or as `pass` in the query, as
/// in the URL of a Redis on a unix socket.
fn without_password(text: String) -> String {
    let Ok(mut url) = Url::parse(&text) else { return text };
    let in_query = url.query_pairs().any(|(name, _)| name == "pass");
    if url.password().is_none() && !in_query {
        return text;
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if in_query {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let value = if name == "pass" { MASK.into() } else { value };
                (name.into_owned(), value.into_owned())
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;

    #[test]
    fn each_setting_is_shown_once_with_the_source_that_wins() {
        let text = "[store]\nredis_ttl = \"1h\"\npath = \"/a\"\n[[issuer]]\nurl = \"https://a/\"\n\
                    audience = [\"x\", \"y\"]\n[policy]\nleeway = 5\n";
        let source = Source {
            environment: vec![("HOLDFAST_STORE__PATH".to_owned(), "/b".to_owned())],
            flags: vec![Flag {
                path: &["issuer", "0", "url"],
                name: "--issuer",
                values: vec!["u".to_owned()],
            }],
            ..Source::text("h.toml", text)
        };
        let lines: Vec<String> = source
            .written()
            .unwrap()
            .iter()
            .map(|Written { key, value, origin }| format!("{key} = {value} # {origin}"))
            .collect();
        let expected = [
            "issuer[0].audience = [\"x\", \"y\"] # h.toml:6",
            "issuer[0].url = \"u\" # flag --issuer",
            "policy.leeway = 5 # h.toml:8",
            "store.path = \"/b\" # environment variable HOLDFAST_STORE__PATH",
            "store.redis_ttl = \"1h\" # h.toml:2",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_password_in_a_url_is_masked_and_nothing_else_is_changed() {
        for (url, shown) in [
            ("redis://me:s3cret@host:6379/0", "redis://me:***@host:6379/0"),
            ("rediss://:s3cret@host", "rediss://:***@host"),
            ("unix:///run/r.sock?db=0&user=me&pass=s3cret", "unix:///run/r.sock?db=0&user=me&pass=***"),
            ("unix:///run/r.sock?p%61ss=s3cret", "unix:///run/r.sock?pass=***"),
            ("redis://me@host", "redis://me@host"),
            ("https://a/b?c=%64", "https://a/b?c=%64"),
            ("tls:127.0.0.1:1", "tls:127.0.0.1:1"),
            ("plain text", "plain text"),
        ] {
            assert_eq!(without_password(url.to_owned()), shown);
        }
    }
}
