//! Where the configuration comes from: a file, variables, flags.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::node::Node;
use super::origin::Origin;

/// Where the configuration comes from. Later ones win: file, then environment, then flags.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// A text that replaces the file's content.
    pub text: Option<String>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Values of flags: key path, flag name, values.
    pub flags: Vec<Flag>,
}

/// A command-line flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key it sets.
    pub path: &'static [&'static str],
    /// How it is spelled.
    pub name: &'static str,
    /// Its values; a flag that may be repeated sets a list.
    pub values: Vec<String>,
}

impl Source {
    /// A text in place of a file, without environment and flags.
    #[must_use]
    pub fn text(name: impl AsRef<Path>, text: &str) -> Self {
        Self { file: Some(name.as_ref().to_owned()), text: Some(text.to_owned()), ..Self::default() }
    }

    pub(super) fn tree(&self) -> Result<Node, ConfigError> {
        let mut tree = match &self.file {
            None => Node::empty(Origin::Nowhere),
            Some(file) => match &self.text {
                Some(text) => Node::from_toml(file, text)?,
                None => Node::from_file(file)?,
            },
        };
        tree.overlay_environment(self.environment.iter().cloned())?;
        for flag in self.flags.iter().filter(|flag| !flag.values.is_empty()) {
            let origin = Origin::Flag(flag.name);
            let value = match flag.values.as_slice() {
                [single] => Node::text(single, &origin),
                several => {
                    Node::Array(several.iter().map(|text| Node::text(text, &origin)).collect(), origin)
                }
            };
            tree.set(flag.path, value)?;
        }
        Ok(tree)
    }
}
