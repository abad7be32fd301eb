//! Reading one table of the configuration: every key asked for is known, every key left over is an error.

use std::collections::BTreeMap;

use super::node::{Node, Origin};
use super::{ConfigError, Problems};

/// One table, with its name for messages. Problems are collected, not thrown: a person wants to see all of them.
pub struct Section<'c> {
    path: String,
    origin: Origin,
    members: BTreeMap<String, Node>,
    known: Vec<&'static str>,
    problems: &'c Problems,
}

impl<'c> Section<'c> {
    /// A section from a node that should be a table.
    pub fn new(path: impl Into<String>, node: Node, problems: &'c Problems) -> Self {
        let path = path.into();
        let (members, origin) = match node {
            Node::Table(members, origin) => (members, origin),
            other => {
                let origin = other.origin().clone();
                problems.add(ConfigError::Value {
                    origin: origin.clone(),
                    key: path.clone(),
                    value: text_of(&other),
                    allowed: "a table of settings".to_owned(),
                });
                (BTreeMap::new(), origin)
            }
        };
        Self { path, origin, members, known: Vec::new(), problems }
    }

    /// Where the section stands.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether `key` is set.
    pub fn has(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// The section below `key`, empty if it is not set.
    pub fn section(&mut self, key: &'static str) -> Section<'c> {
        let node = self.take(key).unwrap_or_else(|| Node::empty(self.origin.clone()));
        Section::new(self.name(key), node, self.problems)
    }

    /// The section below `key`, if it is set.
    pub fn table(&mut self, key: &'static str) -> Option<Section<'c>> {
        let node = self.take(key)?;
        Some(Section::new(self.name(key), node, self.problems))
    }

    /// The rows of an array of tables (`[[key]]`), if any are set.
    pub fn rows(&mut self, key: &'static str) -> Option<Vec<Section<'c>>> {
        let rows = match self.take(key)? {
            Node::Array(rows, _) => rows,
            single => vec![single],
        };
        let named = rows.into_iter().enumerate();
        Some(
            named
                .map(|(row, node)| Section::new(format!("{}[{row}]", self.name(key)), node, self.problems))
                .collect(),
        )
    }

    /// The value of `key` through `parse`, or `default` if it is not set (or bad, which is noted).
    pub fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// The value of `key` through `parse`, if it is set (and good; else that is noted).
    pub fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.take(key)?;
        match &node {
            Node::Scalar { text, .. } => match parse(text) {
                Ok(value) => Some(value),
                Err(allowed) => {
                    self.reject(key, &node, allowed);
                    None
                }
            },
            _ => {
                self.reject(key, &node, "a single value".to_owned());
                None
            }
        }
    }

    /// As [`Section::optional`], for a value that may hold a password: a bad one is noted without being shown.
    pub fn secret<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.take(key)?;
        let parsed = match &node {
            Node::Scalar { text, .. } => parse(text),
            _ => Err("a single value".to_owned()),
        };
        let reject = |allowed| {
            self.problems.add(ConfigError::Value {
                origin: node.origin().clone(),
                key: self.name(key),
                value: "(not shown)".to_owned(),
                allowed,
            });
        };
        parsed.map_err(reject).ok()
    }

    /// The list at `key`, each item through `parse`. A single value is a list of one; in a variable, commas separate.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let node = self.take(key)?;
        let items: Vec<Node> = match node {
            Node::Array(items, _) => items,
            Node::Scalar { text, origin: origin @ Origin::Environment(_), .. } => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Node::Scalar { text: item.to_owned(), quoted: true, origin: origin.clone() })
                .collect(),
            single => vec![single],
        };
        let mut list = Vec::with_capacity(items.len());
        for item in &items {
            let parsed = match item {
                Node::Scalar { text, .. } => parse(text),
                _ => Err("a list of plain values".to_owned()),
            };
            match parsed {
                Ok(value) => list.push(value),
                Err(allowed) => self.reject(key, item, allowed),
            }
        }
        Some(list)
    }

    /// All members, for a table whose keys are not fixed, each with where to note its problems.
    pub fn into_members(self) -> impl Iterator<Item = (String, Node, &'c Problems)> {
        let problems = self.problems;
        self.members.into_iter().map(move |(key, node)| (key, node, problems))
    }

    /// Notes a problem that concerns the section as a whole, or a key that should be there.
    pub fn complain(&self, key: &str, value: impl Into<String>, allowed: impl Into<String>) {
        self.problems.add(ConfigError::Value {
            origin: self.origin.clone(),
            key: self.name(key),
            value: value.into(),
            allowed: allowed.into(),
        });
    }

    /// Ends the reading: whatever was set but not asked for is an unknown key.
    pub fn finish(self) {
        for (key, node) in &self.members {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, key), *known))
                .filter(|(distance, known)| *distance <= known.len().max(key.len()) / 2)
                .min();
            self.problems.add(ConfigError::UnknownKey {
                origin: node.origin().clone(),
                key: self.name(key),
                nearest: nearest.map(|(_, known)| self.name(known)),
                known: self.known.join(", "),
            });
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.members.remove(key)
    }

    fn reject(&self, key: &str, node: &Node, allowed: String) {
        self.problems.add(ConfigError::Value {
            origin: node.origin().clone(),
            key: self.name(key),
            value: text_of(node),
            allowed,
        });
    }

    fn name(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }
}

fn text_of(node: &Node) -> String {
    match node {
        Node::Scalar { text, quoted: true, .. } => format!("\"{text}\""),
        Node::Scalar { text, .. } => text.clone(),
        Node::Array(..) => "a list".to_owned(),
        Node::Table(..) => "a table".to_owned(),
    }
}
