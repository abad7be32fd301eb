//! The rules by themselves: `promtool` accepts them, each alert is tested, and each has its runbook.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::drill::path_to_servers;
use crate::support::yaml::{documents, in_repository, text};

pub const RULES: [&str; 2] = ["deploy/monitoring/recording.yaml", "deploy/monitoring/alerts.yaml"];
const TESTS: &str = "tests/monitoring/alerts.test.yaml";

/// The text of a file of this repository.
pub fn shipped(path: &str) -> String {
    std::fs::read_to_string(in_repository(path)).unwrap()
}

/// The rules of a file.
pub fn rules(path: &str) -> Vec<Value> {
    let document = documents(&shipped(path)).pop().unwrap();
    let groups = document["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The alerts, by name.
fn alerts() -> BTreeMap<String, Value> {
    rules(RULES[1]).into_iter().map(|rule| (text(&rule, "/alert").to_owned(), rule)).collect()
}

fn promtool(arguments: &[&str]) {
    let mut promtool = Command::new("promtool");
    let said = promtool
        .args(arguments)
        .current_dir(in_repository(""))
        .env("PATH", path_to_servers())
        .output()
        .unwrap_or_else(|error| panic!("cannot run promtool; was `make setup` run? {error}"));
    let [out, err] = [&said.stdout, &said.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(said.status.success(), "promtool {arguments:?}:\n{out}{err}");
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    promtool(&["check", "rules", RULES[0], RULES[1]]);
    promtool(&["test", "rules", TESTS]);
}

#[test]
fn each_alert_is_tested_to_fire_and_not_to_fire() {
    let tests = documents(&shipped(TESTS)).pop().unwrap();
    let (mut fires, mut does_not) = (BTreeSet::new(), BTreeSet::new());
    for case in tests["tests"].as_array().unwrap() {
        for check in case["promql_expr_test"].as_array().unwrap() {
            let alert = text(check, "/expr").split('"').nth(1).unwrap().to_owned();
            let samples = check["exp_samples"].as_array().unwrap();
            if samples.is_empty() {
                does_not.insert(alert)
            } else {
                fires.insert(alert)
            };
        }
    }
    let all: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!((&fires, &does_not), (&all, &all), "tested (left) and there (right)");
}

#[test]
fn each_alert_says_what_to_do_in_its_own_section_of_the_runbook() {
    let runbook = shipped("docs/runbook.md");
    let section = runbook.split("\n## Alerts\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let parts: BTreeMap<&str, &str> =
        section.split("\n### ").skip(1).map(|part| part.split_once('\n').unwrap()).collect();
    let alerts = alerts();
    assert_eq!(
        parts.keys().copied().collect::<Vec<_>>(),
        alerts.keys().map(String::as_str).collect::<Vec<_>>(),
        "the sections of docs/runbook.md (left) and the alerts (right)"
    );
    let page = shipped("docs/how-to/monitor.md");
    let rows = page.lines().filter(|line| line.starts_with("| `Holdfast")).count();
    assert_eq!(rows, alerts.len(), "docs/how-to/monitor.md lists alerts that do not exist");
    for (name, alert) in &alerts {
        let severity = text(alert, "/labels/severity");
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let begins = format!("{}{}.", severity[..1].to_uppercase(), &severity[1..]);
        assert!(parts[name.as_str()].trim_start().starts_with(&begins), "{name} is {severity}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(row.is_some_and(|row| row.ends_with(&format!("| {severity} |"))), "{name}: {row:?}");
        assert_eq!(
            text(alert, "/annotations/runbook_url"),
            format!("https://holdfast.example.com/docs/runbook.html#{}", name.to_lowercase())
        );
        for words in ["summary", "description"] {
            assert!(text(alert, &format!("/annotations/{words}")).len() > 20, "{name}: {words}");
        }
    }
}
