//! Compares the documentation with the code: every key has a row, every row a key, and every documented
//! default is the real one.
//!
//! The list of keys comes from the error for an unknown key, which names the known keys.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::tiers::table::TierTable;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const README: &str = include_str!("../../README.md");
const LOGIN: &str = include_str!("../../docs/login.md");

/// No section has this key.
const UNKNOWN: &str = "unheard-of";

/// The variables that must be set together with a key of a section.
fn needed(section: &str, key: &str) -> &'static [(&'static str, &'static str)] {
    match (section, key) {
        ("auth", "requirements_header") => &[("AUTH__REQUIREMENTS_FROM", "header")],
        ("auth.tls", _) => &[
            ("AUTH__LISTEN", "tls:127.0.0.1:1"),
            ("AUTH__TLS__CERTIFICATE", "/certificate"),
            ("AUTH__TLS__KEY", "/key"),
        ],
        ("admin.tls", _) => &[
            ("ADMIN__LISTEN", "tls:127.0.0.1:1"),
            ("ADMIN__TLS__CERTIFICATE", "/certificate"),
            ("ADMIN__TLS__KEY", "/key"),
        ],
        ("admin.client", "certificate") => &[("ADMIN__CLIENT__KEY", "/key")],
        ("admin.client", "key") => &[("ADMIN__CLIENT__CERTIFICATE", "/certificate")],
        ("resource", _) => &[("RESOURCE__ID", "https://mcp.example.com/mcp")],
        ("login", _) => &[("LOGIN__URL", "https://app.example.com/login")],
        _ => &[],
    }
}

/// The settings with this key set, or the default settings without it.
fn settings(section: &str, key: &str, more: Option<(String, String)>) -> String {
    let issuer = [("ISSUER__0__URL", "https://t.eu.auth0.com/"), ("ISSUER__0__AUDIENCE", "https://api")];
    let set = issuer.iter().chain(needed(section, key));
    let set = set.map(|(name, value)| (format!("HOLDFAST_{name}"), (*value).to_owned()));
    let source = Source { environment: set.chain(more).collect(), ..Source::default() };
    format!("{:?}", Settings::read(&source).unwrap_or_else(|error| panic!("{error}")))
}

/// The keys that are read in a section; none if there is no such section. The empty name is the root.
fn known(section: &str) -> BTreeSet<String> {
    let dot = if section.is_empty() { "" } else { "." };
    let text = format!("{section}{dot}{UNKNOWN}.{UNKNOWN} = 1");
    let errors = Settings::read(&Source::text("test.toml", &text)).unwrap_err().0;
    let keys = errors.into_iter().find_map(|error| match error {
        ConfigError::UnknownKey { key, known, .. } if key.ends_with(UNKNOWN) => Some(known),
        _ => None,
    });
    keys.iter().flat_map(|keys| keys.split(", ")).map(str::to_owned).collect()
}

/// The documentation of a section, if there is any.
fn page(section: &str) -> Option<&'static str> {
    let heading = [format!("\n## `[{section}]`"), format!("\n## `[[{section}]]`")]
        .into_iter()
        .find(|heading| CONFIGURATION.contains(heading))?;
    if section == "login" {
        return Some(LOGIN);
    }
    CONFIGURATION.split(&heading).nth(1)?.split("\n## ").next()
}

/// The rows of the tables that begin with `| key`: key, and the next column.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let mut in_table = false;
    let rows = page.lines().filter_map(|line| {
        in_table = line.starts_with("| key") || (in_table && line.starts_with('|'));
        let mut cells = line.strip_prefix("| `").filter(|_| in_table)?.split(" | ");
        Some((cells.next()?.strip_suffix('`')?, cells.next()?))
    });
    rows.collect()
}

#[test]
fn every_key_that_is_read_is_documented_and_every_documented_key_is_read() {
    let mut sections: Vec<String> = known("").into_iter().collect();
    assert!(sections.len() >= 12, "{sections:?}");
    while let Some(section) = sections.pop() {
        let page = page(&section).unwrap_or_else(|| panic!("[{section}] is not documented"));
        let rows: BTreeSet<&str> = rows(page).iter().map(|(key, _)| *key).collect();
        let known = known(&section);
        assert!(!known.is_empty(), "{section}");
        if section == "headers" {
            // Its rows have names of the user's choice; an example shows their content.
            assert!(known.iter().all(|key| page.contains(&format!("{key} = "))), "{known:?}");
            continue;
        }
        for key in &known {
            let nested = format!("{section}.{key}");
            if self::page(&nested).is_some() {
                sections.push(nested);
            } else {
                assert!(rows.contains(&**key), "{nested} is not documented");
            }
        }
        for key in rows {
            assert!(known.contains(key), "{section}.{key} is documented, but nobody reads it");
        }
    }
}

#[test]
fn every_documented_default_is_the_true_one() {
    let mut checked = 0;
    for section in [
        "auth", "auth.tls", "admin", "store", "issuer", "policy", "breaker", "budget", "dpop", "login",
        "resource", "log",
    ] {
        for (key, cell) in rows(page(section).unwrap()) {
            // The cell of a default has only the value, or the value, a comma and its meaning.
            let value = cell.strip_prefix('`').and_then(|cell| cell.split_once('`'));
            let Some((value, "")) = value.map(|(value, rest)| (value, rest.split(',').next().unwrap()))
            else {
                continue;
            };
            let list = value.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
            let value = list.map_or(value.to_owned(), |list| list.replace(['"', ' '], ""));
            let row = if section == "issuer" { ".0" } else { "" };
            let name = format!("HOLDFAST_{section}{row}.{key}").to_uppercase().replace('.', "__");
            let set = settings(section, key, Some((name, value)));
            assert_eq!(set, settings(section, key, None), "the default of {section}.{key} is not {cell}");
            checked += 1;
        }
    }
    assert!(checked >= 38, "{checked}");
}

#[test]
fn the_documented_tiers_are_the_default_ones() {
    let rows = |page: &'static str, head: &str| -> Vec<&'static str> {
        let rows = page.split(head).nth(1).unwrap().lines().skip(2);
        rows.take_while(|line| line.starts_with('|')).collect()
    };
    let hours = |age: Duration| match age.as_secs() / 3600 {
        hours @ 0..=48 => format!("{hours} h"),
        hours => format!("{} d", hours / 24),
    };
    let table = TierTable::default();
    let true_rows = table.iter().map(|(_, tier)| {
        format!("| `{}` | {} | {} |", tier.name, hours(tier.age), format!("{:?}", tier.role).to_lowercase())
    });
    let true_rows: Vec<String> = true_rows.collect();
    assert_eq!(rows(page("tier").unwrap(), "| default tier |"), true_rows);
    let in_readme = rows(README, "| tier |");
    assert_eq!(in_readme.len(), true_rows.len());
    assert!(
        in_readme.iter().zip(&true_rows).all(|(row, true_row)| row.starts_with(true_row)),
        "{in_readme:?}"
    );
}
