//! Reads one table of the configuration. A key that no reader asks for is unknown, and an error.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::node::Node;
use super::origin::Origin;
use super::problems::Problems;

/// One table, with its name for messages. Problems are collected, because an operator wants to see all of
/// them.
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

    /// The value of `key` through `parse`, or `default` if it is not set, or bad, which is recorded.
    pub fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// As [`Section::optional`], for a value that must be set. A missing one is recorded, with `allowed`.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        allowed: impl Into<String>,
    ) -> Option<T> {
        let value = self.optional(key, parse);
        if value.is_none() {
            self.report(key, "nothing", allowed);
        }
        value
    }

    /// The value of `key` through `parse`, if it is set and good; a bad value is recorded.
    pub fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.single(key, parse, Self::reject)
    }

    /// As [`Section::optional`], for a value that may hold a password: a bad one is recorded without showing
    /// it.
    pub fn secret<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.single(key, parse, Self::reject_hidden)
    }

    fn single<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        reject: impl Fn(&Self, &str, &Node, String),
    ) -> Option<T> {
        let node = self.take(key)?;
        let parsed = match &node {
            Node::Scalar { text, .. } => parse(text),
            _ => Err("a single value".to_owned()),
        };
        parsed.map_err(|allowed| reject(self, key, &node, allowed)).ok()
    }

    /// As [`Section::list`], for values that may hold passwords: a bad one is recorded without showing it.
    pub fn secrets<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.items(key, parse, Self::reject_hidden)
    }

    /// The list at `key`, each item through `parse`. A single value is a list of one; in a variable, commas
    /// separate.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.items(key, parse, Self::reject)
    }

    /// As [`Section::list`], for a list that may be absent, but not empty. An empty one is recorded.
    pub fn some<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        allowed: &str,
    ) -> Option<Vec<T>> {
        let list = self.list(key, parse);
        if list.as_ref().is_some_and(Vec::is_empty) {
            self.report(key, "[]", allowed);
        }
        list
    }

    /// As [`Section::list`], for a list that must be set and not be empty. Otherwise this is recorded, with
    /// `allowed`.
    pub fn required_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        allowed: &str,
    ) -> Option<Vec<T>> {
        let list = self.list(key, parse).filter(|list| !list.is_empty());
        if list.is_none() {
            self.report(key, "nothing", allowed);
        }
        list
    }

    fn items<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        reject: impl Fn(&Self, &str, &Node, String),
    ) -> Option<Vec<T>> {
        let node = self.take(key)?;
        let items: Vec<Node> = match node {
            Node::Array(items, _) => items,
            Node::Scalar { text, origin: origin @ Origin::Environment(_), .. } => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Node::text(item, &origin))
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
                Err(allowed) => reject(self, key, item, allowed),
            }
        }
        Some(list)
    }

    /// All members, for a table without fixed keys, each with the section that collects its problems.
    pub fn into_members(mut self) -> impl Iterator<Item = (String, Node, &'c Problems)> {
        let problems = self.problems;
        std::mem::take(&mut self.members).into_iter().map(move |(key, node)| (key, node, problems))
    }

    /// Reports a problem of a key in relation to others, or of the whole section. The message shows where and
    /// how the key was set; it shows `value` if the key is absent or a table. A key that is bad by itself is
    /// reported only once.
    pub fn report(&self, key: &str, value: impl Into<String>, allowed: impl Into<String>) {
        let key = self.name(key);
        if self.problems.has(&key) {
            return;
        }
        let (origin, written) = self.problems.place(&key).unwrap_or_else(|| (self.origin.clone(), None));
        self.problems.add(ConfigError::Value {
            origin,
            value: written.unwrap_or_else(|| value.into()),
            allowed: allowed.into(),
            key,
        });
    }

    /// Reports that the section's own name is not valid.
    pub fn report_name(&self, name: &str, allowed: impl Into<String>) {
        self.problems.add(ConfigError::Value {
            origin: self.origin.clone(),
            key: self.path.clone(),
            value: name.to_owned(),
            allowed: allowed.into(),
        });
    }

    /// Reports a problem with `key` that no single value causes.
    pub fn unfit(&self, key: &str, problem: impl Into<String>) {
        let key = self.name(key);
        let (origin, _) = self.problems.place(&key).unwrap_or_else(|| (self.origin.clone(), None));
        self.problems.add(ConfigError::Unfit { origin, key, problem: problem.into() });
    }

    /// Whether something below `key` was bad, so that a comparison with other keys makes no sense.
    pub fn has_problem(&self, key: &str) -> bool {
        self.problems.has(&self.name(key))
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.members.remove(key)
    }

    fn reject(&self, key: &str, node: &Node, allowed: String) {
        self.reject_as(key, node, text_of(node), allowed);
    }

    fn reject_hidden(&self, key: &str, node: &Node, allowed: String) {
        self.reject_as(key, node, "(not shown)".to_owned(), allowed);
    }

    fn reject_as(&self, key: &str, node: &Node, value: String, allowed: String) {
        let (origin, key) = (node.origin().clone(), self.name(key));
        self.problems.add(ConfigError::Value { origin, key, value, allowed });
    }

    fn name(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }
}

/// The reading ends: a key that was set but not read is unknown.
impl Drop for Section<'_> {
    fn drop(&mut self) {
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
}

fn text_of(node: &Node) -> String {
    node.as_written().unwrap_or_else(|| match node {
        Node::Table(..) => "a table".to_owned(),
        _ => "a list".to_owned(),
    })
}
