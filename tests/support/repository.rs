//! The text files of the repository, for tests of their content.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The text files of the repository with one of these endings, by their path in it.
pub fn files(endings: &[&str]) -> BTreeMap<PathBuf, String> {
    let mut directories = vec![PathBuf::from(ROOT)];
    let mut files = BTreeMap::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
                directories.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(ROOT).unwrap().to_owned(), text);
            }
        }
    }
    files
}
