//! The manual is consistent: every link has a target, every page is in the summary and says whom it is for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

#[path = "support/repository.rs"]
mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use repository::{ROOT, files};

fn pages() -> BTreeMap<PathBuf, String> {
    files(&[".md"])
}

/// The page without code: blocks between fences, and code in a line.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // Every second piece between backticks is code.
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// What the links and pictures of a page lead to.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let starts = [("](", ')'), ("href=\"", '"'), ("src=\"", '"'), ("srcset=\"", '"')];
    let links = starts.iter().flat_map(|(start, end)| {
        prose.split(start).skip(1).map(|rest| rest.split(*end).next().unwrap().to_owned())
    });
    links.collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else { continue };
        let heading = heading.trim_start_matches('#').trim();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor: String =
            kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|count| format!("{anchor}-{count}"));
        let anchor = std::iter::once(anchor.clone()).chain(again).find(|anchor| !anchors.contains(anchor));
        anchors.extend(anchor);
    }
    anchors
}

/// `link` as a path in the repository, if it stays in it.
fn resolved(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent().unwrap().to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// The pages that SUMMARY.md lists, in its order.
fn summary(pages: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let summary = Path::new("docs/SUMMARY.md");
    links(&pages[summary]).iter().map(|link| resolved(summary, link).unwrap()).collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut checked = 0;
    for (page, text) in &pages {
        for link in links(text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { Some(page.clone()) } else { resolved(page, path) };
            let good = target.is_some_and(|target| {
                Path::new(ROOT).join(&target).is_file()
                    && (anchor.is_empty()
                        || pages.get(&target).is_some_and(|text| anchors(text).contains(anchor)))
            });
            if !good {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(checked > 100, "{checked} links");
    assert!(
        broken.is_empty(),
        "broken links (a link leads to a file, not to a directory):\n{}",
        broken.join("\n")
    );
}

#[test]
fn every_page_that_code_or_an_example_names_exists() {
    let mut names = 0;
    for (file, text) in files(&[".rs", ".toml", ".conf", ".yml", ".yaml", ".lua", ".sh", ".cfg", "Caddyfile"])
    {
        for rest in text.split("docs/").skip(1) {
            let is_path = |c: char| c.is_ascii_alphanumeric() || ['/', '-', '.', '_'].contains(&c);
            let name = rest.split(|c| !is_path(c)).next().unwrap();
            if let Some((name, _)) = name.split_once(".md") {
                names += 1;
                let page = Path::new(ROOT).join(format!("docs/{name}.md"));
                assert!(page.exists(), "{} names docs/{name}.md, which does not exist", file.display());
            }
        }
    }
    assert!(names > 10, "{names}");
}

#[test]
fn every_page_of_the_manual_is_once_in_its_table_of_contents() {
    let pages = pages();
    let listed = summary(&pages);
    let once: BTreeSet<&PathBuf> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    for page in pages.keys() {
        let is_of_the_manual = ["docs", "examples", "deploy"].iter().any(|root| page.starts_with(root));
        if is_of_the_manual && page != Path::new("docs/SUMMARY.md") {
            // The book lists the decision records by itself.
            assert!(
                once.contains(page) || page.starts_with("docs/decisions"),
                "{} is not in docs/SUMMARY.md",
                page.display()
            );
        }
    }
}

/// `make docs` makes a book of the pages in SUMMARY.md, of the decision records, and of the folders with
/// files to show.
#[test]
fn every_link_of_the_book_stays_in_the_book() {
    let pages = pages();
    let listed = summary(&pages);
    for page in &listed {
        for link in links(&pages[page]) {
            let path = link.split('#').next().unwrap();
            if link.contains("://") || path.is_empty() {
                continue;
            }
            let target = resolved(page, path).unwrap();
            let is_in = |folder: &str| target.starts_with(folder);
            let is_copied = target.parent() == Some(Path::new(""))
                || ["docs", "examples", "deploy"].into_iter().any(is_in);
            let is_page = listed.contains(&target) || is_in("docs/decisions");
            let good = if path.ends_with(".md") { is_page } else { is_copied };
            assert!(good, "{}: {link} leads out of the book", page.display());
        }
    }
}

#[test]
fn every_page_of_the_manual_opens_with_whom_it_is_for() {
    let pages = pages();
    for page in summary(&pages).iter().filter(|page| page.components().count() > 1) {
        let mut lines = pages[page].lines();
        let title = lines.next().unwrap();
        assert!(title.starts_with("# "), "{} does not begin with its title", page.display());
        let first = lines.find(|line| !line.is_empty()).unwrap();
        assert!(first.starts_with("For "), "{} does not say whom it is for: {first}", page.display());
    }
}

#[test]
fn every_decision_is_short_and_stands_in_the_index() {
    let pages = pages();
    let index = Path::new("docs/decisions/README.md");
    let listed: Vec<PathBuf> = links(&pages[index]).iter().filter_map(|link| resolved(index, link)).collect();
    let records: Vec<&PathBuf> =
        pages.keys().filter(|page| page.starts_with("docs/decisions") && *page != index).collect();
    assert!(records.len() >= 12, "{}", records.len());
    assert_eq!(
        listed.iter().collect::<Vec<_>>(),
        records,
        "docs/decisions/README.md (left) and the records (right)"
    );
    for record in records {
        let text = &pages[record];
        let number = record.file_name().unwrap().to_str().unwrap().split('-').next().unwrap();
        let title = text.lines().next().unwrap();
        assert!(title.starts_with(&format!("# {number}: ")), "{}: {title}", record.display());
        assert!(pages[index].contains(&title[7..]), "the index does not say {title}");
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(heads, ["## Context", "## Decision", "## Consequence"], "{}", record.display());
        assert!(text.lines().count() <= 40, "{} is long", record.display());
    }
}

/// The texts in the body of a function: from its name to the brace that ends it.
fn texts_in<'c>(code: &'c str, function: &str) -> Vec<&'c str> {
    let body = code.split(&format!("fn {function}(")).nth(1).unwrap().split("\n    }\n").next().unwrap();
    body.split('"').skip(1).step_by(2).collect()
}

#[test]
fn every_reason_that_a_request_is_counted_by_is_explained() {
    let code = |path: &str| std::fs::read_to_string(Path::new(ROOT).join("src").join(path)).unwrap();
    let functions = [
        ("credential.rs", "reason"),
        ("token/compact.rs", "reason"),
        ("token/refusal.rs", "reason"),
        ("token/dpop.rs", "reason"),
        ("sender/error.rs", "reason"),
        ("token/jwe/error.rs", "reason"),
        ("route/closed.rs", "reason"),
        ("issuer/client.rs", "reason"),
        ("issuer/endpoint.rs", "reason"),
        ("guard/singleflight.rs", "reason"),
        ("guard/suppressed.rs", "as_str"),
        ("respond.rs", "decline"),
    ];
    let mut reasons: BTreeSet<String> = BTreeSet::new();
    for (file, function) in functions {
        reasons.extend(texts_in(&code(file), function).into_iter().map(str::to_owned));
    }
    let requirements = code("route/requirement.rs");
    let names = requirements.split("NAMES: [").nth(1).unwrap().split("];").next().unwrap();
    reasons.extend(names.split('"').skip(1).step_by(2).map(str::to_owned));
    let auth = code("server/auth.rs");
    // `answered("outcome", "reason")`, and the reasons of answers that need nobody.
    let answered = auth.split("answered(\"").skip(1).map(|rest| rest.split('"').collect::<Vec<_>>());
    reasons.extend(answered.filter(|texts| texts[1] == ", ").map(|texts| texts[2].to_owned()));
    let anonymous = auth.split("allow_anonymous(&instance, headers, \"").skip(1);
    reasons.extend(anonymous.map(|rest| rest.split('"').next().unwrap().to_owned()));
    reasons.extend(auth.split("reason: \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    // The answer then is that revocations are behind.
    reasons.remove("revocation");
    // Found in memory, it is counted by a counter of its own; outcomes are no reasons; and such a token is
    // foreign.
    reasons.insert("memory".to_owned());
    for other in ["allow", "unauthenticated", "forbidden", "undecided", "error", "jwe_no_key"] {
        reasons.remove(other);
    }
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/reference/reasons.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained = rows.flat_map(|row| {
        let names = row.split(" | ").next().unwrap();
        names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>()
    });
    let explained: BTreeSet<String> = explained.collect();
    assert_eq!(explained, reasons, "docs/reference/reasons.md (left) and the code (right)");
}
