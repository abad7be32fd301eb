//! Reading YAML of the examples. Rust has no parser for it in this tree, Node's packages for
//! `tests/manifests.rs` do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A file of this repository.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of an example, such as `traefik/dynamic.yml`.
pub fn example(name: &str) -> String {
    let file = in_repository("examples").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The same with something else in place of `from`, which must be there.
pub fn example_with(name: &str, from: &str, to: &str) -> String {
    let text = example(name);
    assert!(text.contains(from), "{name} does not say {from:?}");
    text.replace(from, to)
}

/// The directory that has `node_modules` with schemas and parser.
pub fn modules() -> PathBuf {
    modules_of("manifests")
}

/// The directory that has `node_modules` with the packages of `tests/TEST/package.json`.
pub fn modules_of(test: &str) -> PathBuf {
    let modules = packages_of(test);
    assert!(modules.join("node_modules").exists(), "no packages in {}; run `make setup`", modules.display());
    modules
}

/// Where the packages of `tests/TEST/package.json` are, if they are installed: beside those of
/// `HOLDFAST_TEST_NODE_MODULES`, or in `tests/TEST`.
pub fn packages_of(test: &str) -> PathBuf {
    match std::env::var("HOLDFAST_TEST_NODE_MODULES") {
        Ok(jose) => Path::new(&jose).parent().unwrap().join(test),
        Err(_) => in_repository("tests").join(test),
    }
}

/// The documents of a text.
pub fn documents(text: &str) -> Vec<Value> {
    let mut node = Command::new("node")
        .arg(in_repository("tests/manifests/read.mjs"))
        .arg(modules())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "no YAML:\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A text in a document, by a JSON pointer.
pub fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("there is no text at {pointer}: {value}"))
}

/// The texts of a list in a document, by a JSON pointer.
pub fn texts<'v>(value: &'v Value, pointer: &str) -> Vec<&'v str> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("there is no list at {pointer}: {value}"));
    list.iter().map(|item| item.as_str().unwrap()).collect()
}
