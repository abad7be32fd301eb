//! The page of faults is true: each row names a test that exists.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

use std::path::Path;

const PAGE: &str = include_str!("../docs/faults.md");

/// The cells of each row below the head.
fn rows() -> Vec<Vec<&'static str>> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.skip(1).map(|line| line.split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn every_fault_is_held_by_a_test_that_exists() {
    let rows = rows();
    assert!(rows.len() >= 60, "{} rows", rows.len());
    for row in rows {
        let [fault, users, operator, test] = row[..] else { panic!("four cells: {row:?}") };
        assert!([fault, users, operator].iter().all(|cell| !cell.is_empty()), "{row:?}");
        let test = test.strip_prefix('`').and_then(|test| test.strip_suffix('`')).unwrap();
        let (file, name) = test.split_once("::").unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{test}: {error}"));
        // A case of the contract is a function that a macro makes a test of.
        assert!(text.contains(&format!("fn {name}(")), "{test} does not exist");
    }
}

#[test]
fn no_fault_is_told_twice() {
    let mut faults: Vec<_> = rows().iter().map(|row| row[0]).collect();
    let count = faults.len();
    faults.sort_unstable();
    faults.dedup();
    assert_eq!(faults.len(), count);
}
