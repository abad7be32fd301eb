//! The configuration as one tree, whichever way its values came in.
//!
//! A file, `HOLDFAST_SECTION__KEY` variables and command-line flags all set the same keys. They are laid over one
//! another here, each value remembering its [`Origin`], so that checking happens once and an error can always say
//! where the bad value stands.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration file, at this line (counted from 1).
    File {
        /// The file as it was named.
        file: Arc<str>,
        /// The line.
        line: usize,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// By this command-line flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value, or a table or array of them.
#[derive(Clone, Debug)]
pub enum Node {
    /// A scalar as it was written; `quoted` tells a TOML string from a bare number or boolean.
    Scalar {
        /// The text, without quotes.
        text: String,
        /// Whether it was a string, as far as the origin can tell (variables and flags are always strings).
        quoted: bool,
        /// Where it stands.
        origin: Origin,
    },
    /// A list.
    Array(Vec<Node>, Origin),
    /// A table.
    Table(BTreeMap<String, Node>, Origin),
}

impl Node {
    /// Where it stands.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Scalar { origin, .. } | Self::Array(_, origin) | Self::Table(_, origin) => origin,
        }
    }

    /// A plain value, or a list of such, as it was written; nothing for what has tables in it.
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

    /// Reads a TOML text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the line, if it is not TOML.
    pub fn from_toml(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let name: Arc<str> = file.display().to_string().into();
        let origin =
            |span: Range<usize>| Origin::File { file: name.clone(), line: line_of(text, span.start) };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: origin(error.span().unwrap_or(0..0)),
            problem: error.message().to_owned(),
        })?;
        Ok(table(document.get_ref(), origin(0..0), &origin))
    }

    /// Lays one `value` over the tree at `path`, making tables (and array rows, for numeric parts) on the way.
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

    /// Lays the variables named `HOLDFAST_SECTION__KEY` over the tree. A variable without a double underscore is not
    /// ours: Kubernetes sets `HOLDFAST_PORT` and the like for a service called holdfast.
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
            self.set(&parts, Self::Scalar { text, quoted: true, origin })?;
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

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    1 + before.bytes().filter(|byte| *byte == b'\n').count()
}
