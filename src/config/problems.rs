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
    /// Records where everything in `tree` was set.
    pub(super) fn locate(&self, tree: &Node) {
        tree.walk("", &mut |key, node| {
            let place = (node.origin().clone(), node.as_written());
            self.places.borrow_mut().insert(key.to_owned(), place);
        });
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
