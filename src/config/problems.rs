//! Collects problems while the configuration is read.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::error::ConfigError;
use super::node::Node;
use super::origin::Origin;

/// Collects problems, and knows where each key was set.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) found: RefCell<Vec<ConfigError>>,
    places: RefCell<BTreeMap<String, (Origin, Option<String>)>>,
}

impl Problems {
    /// Records where `node`, at `key`, and everything in it was set.
    pub(super) fn locate(&self, key: &str, node: &Node) {
        match node {
            Node::Scalar { .. } => {}
            Node::Array(items, _) => {
                for (row, item) in items.iter().enumerate() {
                    self.locate(&format!("{key}[{row}]"), item);
                }
            }
            Node::Table(members, _) => {
                for (name, member) in members {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    self.locate(&key, member);
                }
            }
        }
        self.places.borrow_mut().insert(key.to_owned(), (node.origin().clone(), node.as_written()));
    }

    pub(super) fn add(&self, error: ConfigError) {
        self.found.borrow_mut().push(error);
    }

    /// Where a key was set, and its value if that is a plain value or a list of plain values.
    pub(super) fn place(&self, key: &str) -> Option<(Origin, Option<String>)> {
        self.places.borrow().get(key).cloned()
    }

    /// Whether there is a problem with `key` or something in it.
    pub(super) fn has(&self, key: &str) -> bool {
        let inside = |found: &str| {
            let rest = found.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.found.borrow().iter().filter_map(ConfigError::key).any(inside)
    }
}
