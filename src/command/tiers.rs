//! `holdfast tiers`: prints the table in force, and how often each tier answered.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use holdfast::config::Settings;
use serde_json::Value;

use super::admin::AdminError;
use super::reach::{AdminArguments, AnyInstance, reach};
use super::{SourceArguments, block_on, fail};

/// Prints the running instance's table with its counts. If no instance runs, prints the table of the
/// configuration.
pub fn run(arguments: AdminArguments) -> Result<(), ExitCode> {
    let any = arguments.any;
    let settings = SourceArguments::from(arguments).read_for_upkeep()?;
    let configured = Table::of(&settings);
    let running = block_on(async {
        match running(&settings, any).await {
            Ok(running) => Ok(Some(running)),
            Err(error @ AdminError::NotThere(_)) => {
                eprintln!("{error}\nThe table below is that of the configuration, without counts.\n");
                Ok(None)
            }
            Err(error) => Err(fail(error)),
        }
    })?;
    let Some((table, counts)) = running else {
        configured.print(&Counts::default());
        return Ok(());
    };
    table.print(&counts);
    println!();
    for (store, records) in &counts.records {
        println!("records in {store}: {records}");
    }
    if table != configured {
        println!(
            "This is the table of the running holdfast. The configuration has another one: SIGHUP makes \
             holdfast read it."
        );
    }
    Ok(())
}

/// The tiers, youngest first, and the oldest tier that may serve the verdict on a foreign token.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    rows: Vec<Row>,
    ceiling: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    age_seconds: u64,
    role: String,
}

impl Table {
    fn of(settings: &Settings) -> Self {
        let rows = settings.tiers.iter().map(|(_, tier)| Row {
            name: tier.name.clone(),
            age_seconds: tier.age.as_secs(),
            role: tier.role.to_string(),
        });
        Self { rows: rows.collect(), ceiling: settings.policy.verdict_ceiling.clone() }
    }

    /// The table in `/status`.
    fn of_status(status: &Value) -> Self {
        let rows = status["tiers"].as_array().into_iter().flatten().filter_map(|row| {
            Some(Row {
                name: row["name"].as_str()?.to_owned(),
                age_seconds: row["age_seconds"].as_u64()?,
                role: row["role"].as_str()?.to_owned(),
            })
        });
        let ceiling = status["verdict_ceiling"].as_str().unwrap_or_default().to_owned();
        Self { rows: rows.collect(), ceiling }
    }

    fn print(&self, counts: &Counts) {
        let stores = counts.stores();
        let head = ["tier", "age up to", "role", "foreign token", "profile"].map(str::to_owned);
        let hits = stores.iter().map(|store| format!("hits in {store}"));
        let mut rows = vec![head.into_iter().chain(hits).collect::<Vec<_>>()];
        let ceiling = self.rows.iter().position(|row| row.name == self.ceiling);
        for (index, Row { name, age_seconds, role }) in self.rows.iter().enumerate() {
            let foreign = if ceiling.is_some_and(|ceiling| index <= ceiling) { does(role) } else { "no" };
            let age = as_configured(*age_seconds);
            let cells = [name.clone(), age, role.clone(), foreign.to_owned(), does(role).to_owned()];
            let hits = stores.iter().map(|store| {
                let hits = counts.hits.get(&(name.clone(), (*store).to_owned()));
                hits.map_or_else(|| "0".to_owned(), Clone::clone)
            });
            rows.push(cells.into_iter().chain(hits).collect());
        }
        let columns = 5 + stores.len();
        let widths: Vec<usize> =
            (0..columns).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

async fn running(settings: &Settings, any: AnyInstance) -> Result<(Table, Counts), AdminError> {
    let admin = reach(settings, any).await?;
    let status: Value = serde_json::from_str(&admin.get("/status").await?).unwrap_or_default();
    Ok((Table::of_status(&status), Counts::of(&admin.get("/metrics").await?)))
}

/// The counts in `/metrics`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Hits by tier and store.
    hits: BTreeMap<(String, String), String>,
    /// Records by store.
    records: BTreeMap<String, String>,
}

impl Counts {
    /// Parses the metrics. Names of tiers and stores are plain words, so labels need no unescaping.
    fn of(metrics: &str) -> Self {
        let mut counts = Self::default();
        for line in metrics.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Some((name, labels)) = series.split_once('{') else { continue };
            let label = |wanted: &str| {
                let labels = labels.trim_end_matches('}').split(',');
                let mut values = labels.filter_map(|pair| pair.split_once('='));
                values.find(|(name, _)| *name == wanted).map(|(_, value)| value.trim_matches('"').to_owned())
            };
            match (name, label("tier"), label("store")) {
                ("holdfast_tier_hits_total", Some(tier), Some(store)) => {
                    counts.hits.insert((tier, store), value.to_owned());
                }
                ("holdfast_records", None, Some(store)) => {
                    counts.records.insert(store, value.to_owned());
                }
                _ => {}
            }
        }
        counts
    }

    fn stores(&self) -> BTreeSet<&str> {
        self.hits
            .keys()
            .map(|(_, store)| store.as_str())
            .chain(self.records.keys().map(String::as_str))
            .collect()
    }
}

/// An age as in the configuration: in the largest unit that divides it. humantime's own format turns days
/// into months and years, and "1month 29days 13h" is hard to compare with `60d`.
fn as_configured(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

/// When a record of a tier with this role is served.
fn does(role: &str) -> &'static str {
    match role {
        "fresh" => "yes",
        "revalidate" => "yes, revalidated",
        _ => "if the issuer cannot tell",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shown_as_they_are_written() {
        let shown = [0, 45, 90, 5_400, 14_400, 86_400, 5_184_000, 31_536_000, 90_061].map(as_configured);
        assert_eq!(shown, ["0s", "45s", "90s", "90m", "4h", "1d", "60d", "365d", "90061s"]);
        for seconds in [45, 5_400, 5_184_000, 90_061] {
            let read = humantime::parse_duration(&as_configured(seconds)).unwrap();
            assert_eq!(read.as_secs(), seconds);
        }
    }

    #[test]
    fn counts_are_read_by_label_in_any_order() {
        let counts = Counts::of(
            "# HELP holdfast_records r\nholdfast_tier_hits_total{tier=\"primary\",store=\"disk\"} \
             2\nholdfast_tier_hits_total{store=\"memory\",tier=\"primary\"} \
             3\nholdfast_records{store=\"disk\"} 5\nother 1\n",
        );
        let hit =
            |store: &str| counts.hits.get(&("primary".to_owned(), store.to_owned())).map(String::as_str);
        assert_eq!((hit("disk"), hit("memory")), (Some("2"), Some("3")));
        assert_eq!(counts.records.get("disk").map(String::as_str), Some("5"));
        assert_eq!(counts.stores().into_iter().collect::<Vec<_>>(), ["disk", "memory"]);
    }
}
