//! The source tree against the table of layers in ARCHITECTURE.md: imports point down, no circle, no long file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "support/repository.rs"]
mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

/// The most lines of a file, code and comment; its tests do not count.
const MAX_LINES: usize = 450;

/// A file of `src/`, without its tests and comments.
struct Source {
    /// Relative to the repository.
    path: String,
    /// As in a Rust path: `store`, `disk`, `writer`. Empty: the root of the crate.
    module: Vec<String>,
    /// The lines before the tests.
    lines: Vec<String>,
}

/// A path of another module that a file names.
struct Import {
    line: usize,
    /// From the root of the crate.
    path: Vec<String>,
}

/// All files of `src/` but tests.
fn sources() -> Vec<Source> {
    let files = repository::files(&[".rs"]);
    // `mod NAME;` after `#[cfg(test)]`: that file is a test.
    let is_test = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let parent = path.parent().unwrap();
        let declared = format!("#[cfg(test)]\nmod {name};");
        [parent.join("mod.rs"), parent.with_extension("rs")]
            .iter()
            .any(|holder| files.get(holder).is_some_and(|text| text.contains(&declared)))
    };
    let sources = files.iter().filter(|(path, _)| path.starts_with("src") && !is_test(path));
    let sources = sources.map(|(path, text)| {
        let below = path.strip_prefix("src").unwrap().with_extension("");
        let mut module: Vec<String> = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
            module.pop();
        }
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        Source { path: path.display().to_string(), module, lines: text.lines().map(str::to_owned).collect() }
    });
    sources.collect()
}

impl Source {
    /// The code of a line, without its comment.
    fn code(line: &str) -> &str {
        line.split("//").next().unwrap()
    }

    /// Every path that begins at the crate, at a parent or at a child, in `use` and elsewhere.
    fn imports(&self, modules: &BTreeSet<Vec<String>>) -> Vec<Import> {
        let mut imports = Vec::new();
        let mut statement: Option<(usize, String)> = None;
        for (number, line) in self.lines.iter().enumerate() {
            let code = Self::code(line).trim();
            let begins =
                ["use ", "pub use ", "pub(super) use "].iter().find_map(|word| code.strip_prefix(word));
            match (&mut statement, begins) {
                (Some((_, text)), _) => text.push_str(code),
                (None, Some(rest)) => statement = Some((number + 1, rest.to_owned())),
                (None, None) => {
                    for start in ["crate::", "super::", "holdfast::"] {
                        for (at, _) in code.match_indices(start) {
                            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                            if !code[..at].ends_with(|c: char| is_word(c)) {
                                let path: String = code[at..].chars().take_while(|c| is_word(*c)).collect();
                                self.add(number + 1, &path, modules, &mut imports);
                            }
                        }
                    }
                }
            }
            if let Some((line, text)) = statement.take_if(|(_, text)| text.contains(';')) {
                for path in expanded(text.split(';').next().unwrap()) {
                    self.add(line, &path, modules, &mut imports);
                }
            }
        }
        imports
    }

    fn add(&self, line: usize, path: &str, modules: &BTreeSet<Vec<String>>, imports: &mut Vec<Import>) {
        let mut parts: Vec<String> =
            path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut base = self.module.clone();
        match parts.first().map(String::as_str) {
            Some("crate" | "holdfast") => {
                base.clear();
                parts.remove(0);
            }
            Some("super") => {
                while parts.first().is_some_and(|part| part == "super") {
                    base.pop();
                    parts.remove(0);
                }
            }
            Some("self") => drop(parts.remove(0)),
            Some(child) => {
                let child = base.iter().cloned().chain([child.to_owned()]).collect::<Vec<_>>();
                if !modules.contains(&child) {
                    return;
                }
            }
            None => return,
        }
        base.extend(parts);
        imports.push(Import { line, path: base });
    }
}

/// `a::{b, c::{d, e}}` → `a::b`, `a::c::d`, `a::c::e`.
fn expanded(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in inner.chars().chain([',']) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            items.push(std::mem::take(&mut item));
        } else {
            item.push(c);
        }
    }
    let items = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    items.flat_map(|item| expanded(&format!("{}{item}", head.trim()))).collect()
}

/// The longest module that a path leads to.
fn module_of(path: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|module| modules.contains(module))
}

/// The layers, from the top down: the block below the heading.
fn layers() -> Vec<Vec<String>> {
    let block = ARCHITECTURE.split("### Layers").nth(1).unwrap().split("```").nth(1).unwrap();
    let rows = block.lines().skip(1).filter(|row| !row.trim().is_empty());
    rows.map(|row| row.split('·').map(|name| name.trim().to_owned()).collect()).collect()
}

#[test]
fn every_module_stands_in_one_layer_and_every_layer_is_of_modules() {
    let listed: Vec<String> = layers().into_iter().flatten().collect();
    let names: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(names.len(), listed.len(), "a module stands in two layers: {listed:?}");
    let there: BTreeSet<String> =
        sources().iter().filter_map(|source| source.module.first().cloned()).collect();
    assert_eq!(names, there, "the layers of ARCHITECTURE.md (left) and src/ (right)");
}

#[test]
fn a_module_imports_only_from_layers_below() {
    let layers = layers();
    let layer = |name: &str| layers.iter().position(|row| row.iter().any(|module| module == name));
    let sources = sources();
    let modules: BTreeSet<_> = sources.iter().map(|source| source.module.clone()).collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for source in &sources {
        let Some(own) = source.module.first() else { continue };
        for import in source.imports(&modules) {
            let Some(other) = import.path.first().filter(|other| *other != own) else { continue };
            let Some(below) = layer(other) else { continue };
            seen += 1;
            if layer(own).is_none_or(|above| above >= below) {
                wrong.push(format!(
                    "{}:{}: {own} imports {}",
                    source.path,
                    import.line,
                    import.path.join("::")
                ));
            }
        }
    }
    assert!(seen > 300, "only {seen} imports were found: they are not read");
    assert!(wrong.is_empty(), "these imports do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    let sources = sources();
    let modules: BTreeSet<_> = sources.iter().map(|source| source.module.clone()).collect();
    let mut left: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in &sources {
        let imports = source.imports(&modules).into_iter();
        let others = imports.filter_map(|import| module_of(&import.path, &modules));
        left.insert(source.module.clone(), others.filter(|other| *other != source.module).collect());
    }
    // Whoever imports nobody that is left goes; a circle stays.
    loop {
        let free: Vec<_> =
            left.iter().filter(|(_, others)| others.is_empty()).map(|(own, _)| own.clone()).collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|own| drop(left.remove(own)));
        left.values_mut().for_each(|others| others.retain(|other| !free.contains(other)));
    }
    // Above a circle others stay as well; they are no part of it.
    while let Some(top) = left.keys().find(|own| !left.values().any(|others| others.contains(*own))).cloned()
    {
        left.remove(&top);
    }
    let shown = left.iter().map(|(own, others)| {
        let others: Vec<String> = others.iter().map(|other| other.join("::")).collect();
        format!("{} imports {}", own.join("::"), others.join(", "))
    });
    assert!(left.is_empty(), "a circle:\n{}", shown.collect::<Vec<_>>().join("\n"));
}

#[test]
fn no_file_is_long() {
    let sources = sources();
    let long = sources.iter().filter(|source| source.lines.len() > MAX_LINES);
    let long: Vec<String> = long.map(|source| format!("{}: {}", source.path, source.lines.len())).collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines:\n{}", long.join("\n"));
}
