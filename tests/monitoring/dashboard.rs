//! The dashboard against Grafana's own schema, and against the order in which it is read at night.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::rules::shipped;
use crate::support::yaml::{in_repository, modules_of, text};

pub const DASHBOARD: &str = "deploy/monitoring/dashboard.json";

/// What the compiler says of a dashboard as a literal of Grafana's types.
fn validated(file: &Path) -> Output {
    let script = in_repository("tests/monitoring/validate.mjs");
    Command::new("node").arg(script).arg(modules_of("monitoring")).arg(file).output().unwrap()
}

#[test]
fn grafana_s_schema_accepts_it_and_would_not_accept_a_mistake() {
    let said = validated(&in_repository(DASHBOARD));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dashboard.json");
    for (right, wrong, words) in [
        ("\"mergeValues\"", "\"mergeValue\"", "'\"mergeValue\"' does not exist"),
        ("\"drawStyle\": \"line\"", "\"drawStyle\": \"lines\"", "'\"lines\"' is not assignable"),
        ("\"schemaVersion\": 41,", "", "Property 'schemaVersion' is missing"),
    ] {
        let text = shipped(DASHBOARD);
        assert!(text.contains(right), "it does not say {right}");
        std::fs::write(&file, text.replacen(right, wrong, 1)).unwrap();
        let said = validated(&file);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && stderr.contains(words), "{stderr}");
    }
}

#[test]
fn its_rows_are_the_questions_of_the_page_in_their_order() {
    let dashboard: Value = serde_json::from_str(&shipped(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| text(row, "/title")).collect();
    let page = shipped("docs/how-to/monitor.md");
    let table = page.split("| row | question |\n|---|---|\n").nth(1).unwrap();
    let table = table.lines().map_while(|line| line.strip_prefix("| "));
    let told: Vec<&str> = table.map(|line| line.split(" |").next().unwrap()).collect();
    assert_eq!(rows, told, "the dashboard (left) and docs/how-to/monitor.md (right)");
}

#[test]
fn each_panel_says_what_it_shows_and_asks_the_chosen_data_source() {
    let dashboard: Value = serde_json::from_str(&shipped(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = text(panel, "/title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is wider than the page");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} covers another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(titles.insert(title), "two panels are called {title}");
        assert!(text(panel, "/description").ends_with('.'), "{title} has no description");
        assert!(!text(panel, "/fieldConfig/defaults/unit").is_empty(), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks nothing");
        let refs: BTreeSet<&str> = targets.iter().map(|target| text(target, "/refId")).collect();
        assert_eq!(refs.len(), targets.len(), "{title}: two queries of one name");
        for asks in targets.iter().chain([panel]) {
            assert_eq!(text(asks, "/datasource/uid"), "${datasource}", "{title}");
        }
        assert!(targets.iter().all(|target| !text(target, "/legendFormat").is_empty()), "{title}");
    }
    assert!(titles.len() > 25, "{}", titles.len());
}
