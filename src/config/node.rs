//! The configuration as one tree of all sources.
//!
//! A file, `HOLDFAST_SECTION__KEY` variables and command-line flags all set the same keys. They are merged
//! here. Each value keeps its [`Origin`], so that checking happens once and an error can always say where the
//! bad value is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::origin::Origin;

/// A value, or a table or array of them.
#[derive(Clone, Debug)]
pub enum Node {
    /// A scalar as it was written; `quoted` distinguishes a TOML string from a bare number or boolean.
    Scalar {
        /// The text, without quotes.
        text: String,
        /// Whether it was a string, as far as the origin can tell (variables and flags are always strings).
        quoted: bool,
        /// Where it was set.
        origin: Origin,
    },
    /// A list.
    Array(Vec<Node>, Origin),
    /// A table.
    Table(BTreeMap<String, Node>, Origin),
}

impl Node {
    /// Where it was set.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Scalar { origin, .. } | Self::Array(_, origin) | Self::Table(_, origin) => origin,
        }
    }

    /// A text from a variable or a flag.
    pub(super) fn text(text: &str, origin: &Origin) -> Self {
        Self::Scalar { text: text.to_owned(), quoted: true, origin: origin.clone() }
    }

    /// Calls `visit` for this node, which is at `key`, and for every node in it, each with its own key.
    pub(super) fn walk(&self, key: &str, visit: &mut dyn FnMut(&str, &Self)) {
        visit(key, self);
        match self {
            Self::Scalar { .. } => {}
            Self::Array(items, _) => {
                for (row, item) in items.iter().enumerate() {
                    item.walk(&format!("{key}[{row}]"), visit);
                }
            }
            Self::Table(members, _) => {
                for (name, member) in members {
                    member.walk(&if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, visit);
                }
            }
        }
    }

    /// A plain value, or a list of plain values, as it was written; `None` for values with tables in them.
    #[must_use]
    pub fn as_written(&self) -> Option<String> {
        match self {
            Self::Scalar { text, quoted: true, .. } => Some(format!("\"{text}\"")),
            Self::Scalar { text, .. } => Some(text.clone()),
            Self::Array(items, _) => {
                let items: Option<Vec<_>> = items.iter().map(Self::as_written).collect();
                Some(format!("[{}]", items?.join(", ")))
            }
            Self::Table(..) => None,
        }
    }

    /// An empty table.
    #[must_use]
    pub fn empty(origin: Origin) -> Self {
        Self::Table(BTreeMap::new(), origin)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or as [`Node::from_toml`].
    pub(super) fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Unreadable {
            file: file.display().to_string(),
            problem: error.to_string(),
        })?;
        Self::from_toml(file, &text)
    }

    /// Reads a TOML text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line, if it is not TOML.
    pub fn from_toml(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let name: Arc<str> = file.display().to_string().into();
        let origin =
            |span: Range<usize>| Origin::File { file: name.clone(), line: line_of(text, span.start) };
        let document = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let problem = match error.message() {
                "duplicate key" => duplicate(text, span.clone()),
                other => other.to_owned(),
            };
            ConfigError::Syntax { origin: origin(span), problem }
        })?;
        Ok(table(document.get_ref(), origin(0..0), &origin))
    }

    /// Sets `value` in the tree at `path`, and creates tables (and array rows, for numeric parts) on the way.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if the path leads through a scalar or skips a row of an array.
    pub fn set(&mut self, path: &[&str], value: Node) -> Result<(), ConfigError> {
        let Some((first, rest)) = path.split_first() else {
            *self = value;
            return Ok(());
        };
        let origin = value.origin().clone();
        let misfit = |allowed: &str| ConfigError::Value {
            origin: origin.clone(),
            key: path.join("."),
            value: String::new(),
            allowed: allowed.to_owned(),
        };
        match self {
            Self::Table(members, _) => {
                let next = rest.first().map(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
                let child = members.entry((*first).to_owned()).or_insert_with(|| match next {
                    Some(true) => Self::Array(Vec::new(), origin.clone()),
                    _ => Self::empty(origin.clone()),
                });
                // `[issuer]` for `[[issuer]]`: one table is a list of one.
                if next == Some(true) && matches!(child, Self::Table(..)) {
                    let single = std::mem::replace(child, Self::empty(origin.clone()));
                    *child = Self::Array(vec![single], origin);
                }
                child.set(rest, value)
            }
            Self::Array(rows, _) => {
                let row: usize = first.parse().map_err(|_| misfit("a row number, counted from 0"))?;
                if row > rows.len() {
                    return Err(misfit("the number of an existing row, or the next one"));
                }
                if row == rows.len() {
                    rows.push(Self::empty(origin.clone()));
                }
                rows[row].set(rest, value)
            }
            Self::Scalar { .. } => Err(misfit("a key of a section; this one is a plain value")),
        }
    }

    /// Sets the variables named `HOLDFAST_SECTION__KEY` in the tree. A variable without a double underscore
    /// is not ours: Kubernetes sets variables such as `HOLDFAST_PORT` for a service called holdfast.
    ///
    /// # Errors
    /// As [`Node::set`].
    pub fn overlay_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut ours: Vec<_> =
            variables.filter(|(name, _)| name.starts_with("HOLDFAST_") && name.contains("__")).collect();
        ours.sort();
        for (name, text) in ours {
            let path = name["HOLDFAST_".len()..].to_ascii_lowercase();
            let parts: Vec<&str> = path.split("__").collect();
            let origin = Origin::Environment(name.clone());
            self.set(&parts, Self::text(&text, &origin))?;
        }
        Ok(())
    }
}

fn table(members: &DeTable<'_>, at: Origin, origin: &impl Fn(Range<usize>) -> Origin) -> Node {
    let members = members
        .iter()
        .map(|(key, value)| {
            let name = key.get_ref().to_string();
            (name, node(value.get_ref(), origin(key.span()), origin))
        })
        .collect();
    Node::Table(members, at)
}

fn node(value: &DeValue<'_>, at: Origin, origin: &impl Fn(Range<usize>) -> Origin) -> Node {
    let bare = |text: String| Node::Scalar { text, quoted: false, origin: at.clone() };
    match value {
        DeValue::String(text) => Node::Scalar { text: text.to_string(), quoted: true, origin: at },
        DeValue::Integer(number) => bare(number.to_string()),
        DeValue::Float(number) => bare(number.to_string()),
        DeValue::Boolean(value) => bare(value.to_string()),
        DeValue::Datetime(value) => bare(value.to_string()),
        DeValue::Array(items) => {
            let rows = items.iter().map(|item| node(item.get_ref(), origin(item.span()), origin)).collect();
            Node::Array(rows, at)
        }
        DeValue::Table(members) => table(members, at, origin),
    }
}

/// The name of the duplicate key at `span`, and where it was set first. The parser does not report that, so
/// this searches for a line that begins alike: in the same table, or anywhere for a table's own name.
fn duplicate(text: &str, span: Range<usize>) -> String {
    let key = text.get(span.clone()).unwrap_or_default();
    let at = line_of(text, span.start);
    let before: Vec<&str> = text.lines().map(str::trim_start).take(at).collect();
    let is_header = before.last().is_some_and(|line| line.starts_with('['));
    let table = before.iter().rposition(|line| line.starts_with('[')).unwrap_or(0);
    let same = |line: &&str| match is_header {
        true => before.last().is_some_and(|last| name_of(last) == name_of(line)) && line.starts_with('['),
        false => line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')),
    };
    let from = if is_header { 0 } else { table };
    let earlier = &before[..at.saturating_sub(1)];
    let first = earlier.iter().skip(from).position(same).map(|line| from + line + 1);
    let header = before.get(table).filter(|line| line.starts_with('[')).map(|line| name_of(line));
    let name = match header {
        Some(table) if is_header => format!("[{table}]"),
        Some(table) => format!("{table}.{key}"),
        None => key.to_owned(),
    };
    match first {
        Some(line) => format!("duplicate key {name}: it is already set in line {line}"),
        None => format!("duplicate key {name}: it is already set above"),
    }
}

/// The name in a table's header, without its brackets.
fn name_of(line: &str) -> &str {
    line.trim_start_matches('[').split(']').next().unwrap_or_default().trim()
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    1 + before.bytes().filter(|byte| *byte == b'\n').count()
}
