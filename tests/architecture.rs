//! The source tree against ARCHITECTURE.md: imports point down its layers, no circle, no long file, and what
//! it names exists. Cargo.toml against the table of dependencies.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "support/repository.rs"]
mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

/// The most lines of a file, code and comment; its tests do not count.
const MAX_LINES: usize = 450;

/// The most columns of a line.
const MAX_WIDTH: usize = 110;

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
    // Removes files that import none of the remaining ones; a circle remains.
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

/// Code, comments and the tests among them.
#[test]
fn no_line_is_wide() {
    let files = repository::files(&[".rs"]);
    let lines = files.iter().filter(|(path, _)| path.starts_with("src")).flat_map(|(path, text)| {
        text.lines().enumerate().map(move |(number, line)| (path, number + 1, line.chars().count()))
    });
    let wide = lines.filter(|(.., width)| *width > MAX_WIDTH);
    let wide: Vec<String> = wide.map(|(path, number, _)| format!("{}:{number}", path.display())).collect();
    assert!(wide.is_empty(), "wider than {MAX_WIDTH} columns:\n{}", wide.join("\n"));
}

/// Two pages draw a module. Their tables name its files as they are below it.
#[test]
fn a_page_that_draws_a_module_names_each_of_its_files_and_no_other() {
    for (page, module) in [("docs/explanation/records.md", "tiers"), ("docs/explanation/stores.md", "store")]
    {
        let text = std::fs::read_to_string(Path::new(repository::ROOT).join(page)).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(".rs` | "));
        let mut named: Vec<String> = rows.map(|(name, _)| format!("src/{module}/{name}.rs")).collect();
        named.sort();
        let paths = sources().into_iter().map(|source| source.path);
        let own =
            paths.filter(|path| path.starts_with(&format!("src/{module}/")) && !path.contains("/tests/"));
        let mut there: Vec<String> = own.collect();
        there.sort();
        assert_eq!(named, there, "{page} (left) and src/{module}/ (right)");
    }
}

/// What stands between backticks on the page, outside of blocks.
fn names(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    prose.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_page_is_short_and_has_few_words_and_short_recipes() {
    let lines = ARCHITECTURE.lines().count();
    assert!(lines <= 250, "{lines} lines: move what is not needed at first into docs/");
    let words = ARCHITECTURE.split("\n## Words\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = words.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!((20..=25).contains(&rows.len()), "{} words", rows.len());
    let recipes = ARCHITECTURE.split("\n## Five recipes\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let recipes: Vec<&str> = recipes.split("\n### ").skip(1).collect();
    assert_eq!(recipes.len(), 5);
    for recipe in recipes {
        let is_step =
            |line: &&str| line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        let steps = recipe.lines().filter(is_step).count();
        assert!((2..=5).contains(&steps), "{steps} steps:\n{recipe}");
    }
}

#[test]
fn every_file_and_every_function_that_the_page_names_exists() {
    let files = repository::files(&[".rs"]);
    let code: String =
        files.iter().filter(|(path, _)| path.starts_with("src")).map(|(_, text)| &**text).collect();
    let root = Path::new(repository::ROOT);
    let (mut missing, mut seen) = (Vec::new(), 0);
    for name in names(ARCHITECTURE) {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let exists = if name.contains('/') && name.chars().all(is_path) && !name.starts_with('/') {
            // A folder of `src/` goes by its own name.
            root.join(name).exists() || root.join("src").join(name).exists()
        } else if let Some((owner, item)) = name.split('(').next().unwrap().rsplit_once("::") {
            let owner = owner.rsplit("::").next().unwrap();
            let is_there = |before: &[&str], name: &str| {
                before.iter().any(|word| {
                    let start = format!("{word} {name}");
                    let is_word = |c: char| c.is_alphanumeric() || c == '_';
                    code.split(start.as_str()).skip(1).any(|rest| !rest.starts_with(is_word))
                })
            };
            // Enum variants and modules are there by name.
            let is_variant = [",\n", "(", " {"].iter().any(|end| code.contains(&format!("    {item}{end}")));
            let item_is_there =
                is_variant || is_there(&["fn", "struct", "enum", "mod", "trait", "const"], item);
            item_is_there && is_there(&["struct", "enum", "mod", "trait"], owner)
        } else {
            continue;
        };
        seen += 1;
        if !exists {
            missing.push(name);
        }
    }
    assert!(seen > 80, "{seen}");
    assert!(missing.is_empty(), "ARCHITECTURE.md names what does not exist: {missing:?}");
}

#[test]
fn the_oldest_rust_is_the_same_everywhere() {
    let read = |name: &str| std::fs::read_to_string(Path::new(repository::ROOT).join(name)).unwrap();
    let manifest = read("Cargo.toml");
    let oldest = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    for (file, said) in [
        ("deploy/docker/Dockerfile", format!("FROM rust:{oldest}-")),
        ("docs/how-to/install.md", format!("Rust {oldest} or newer")),
        ("CONTRIBUTING.md", format!("`rust-version` in `Cargo.toml` is {oldest}:")),
    ] {
        assert!(read(file).contains(&said), "{file} does not say: {said}");
    }
}

#[test]
fn every_dependency_has_a_reason() {
    let page =
        std::fs::read_to_string(Path::new(repository::ROOT).join("docs/reference/dependencies.md")).unwrap();
    let table = page.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    // One row may tell of two crates; what is not between backticks there is a remark.
    let told: BTreeSet<&str> = rows.flat_map(|row| names(row.split('|').nth(1).unwrap())).collect();
    let manifest = std::fs::read_to_string(Path::new(repository::ROOT).join("Cargo.toml")).unwrap();
    let sections = ["\n[dependencies]\n", "\n[dev-dependencies]\n"];
    let sections = sections.map(|head| manifest.split(head).nth(1).unwrap().split("\n[").next().unwrap());
    let lines = sections.iter().flat_map(|section| section.lines());
    let needed: BTreeSet<&str> =
        lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    assert_eq!(told, needed, "docs/reference/dependencies.md (left) and Cargo.toml (right)");
}
