//! `holdfast tiers`: the table in force, and what each tier answered so far.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use holdfast::config::Settings;
use holdfast::tiers::table::{Role, Tier};
use serde_json::Value;

use super::admin::{Admin, AdminError};
use super::{block_on, fail};

/// Prints the table of the configuration, with the running instance's counts if there is one.
pub fn run(settings: &Settings) -> Result<(), ExitCode> {
    let running = block_on(async {
        let admin = Admin::at(settings.admin.listen).map_err(fail)?;
        match running(&admin).await {
            Ok(running) => Ok(Some(running)),
            Err(error @ AdminError::NotThere(_)) => {
                eprintln!("{error}\nSo this is the table of the configuration, without counts.\n");
                Ok(None)
            }
            Err(error) => Err(fail(error)),
        }
    })?;
    print_table(settings, running.as_ref());
    if let Some(running) = &running {
        println!();
        for (store, records) in &running.counts.records {
            println!("records in {store}: {records}");
        }
        let configured: Vec<_> =
            settings.tiers.iter().map(|(_, row)| (row.name.clone(), row.age.as_secs())).collect();
        if running.table != configured {
            println!(
                "The running holdfast has another table than this configuration: SIGHUP makes it read the file."
            );
        }
    }
    Ok(())
}

/// What the running instance says of itself.
struct Running {
    table: Vec<(String, u64)>,
    counts: Counts,
}

async fn running(admin: &Admin) -> Result<Running, AdminError> {
    let status: Value = serde_json::from_str(&admin.get("/status").await?).unwrap_or_default();
    let rows = status["tiers"].as_array().into_iter().flatten();
    let table = rows
        .filter_map(|row| Some((row["name"].as_str()?.to_owned(), row["age_seconds"].as_u64()?)))
        .collect();
    Ok(Running { table, counts: Counts::of(&admin.get("/metrics").await?) })
}

/// Counts out of `/metrics`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// By tier and store.
    hits: BTreeMap<(String, String), String>,
    /// By store.
    records: BTreeMap<String, String>,
}

impl Counts {
    /// Names of tiers and stores are plain words, so labels need no unescaping.
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

fn print_table(settings: &Settings, running: Option<&Running>) {
    let stores = running.map(|running| running.counts.stores()).unwrap_or_default();
    let mut rows =
        vec![["tier", "age up to", "role", "foreign token", "profile"].map(str::to_owned).to_vec()];
    rows[0].extend(stores.iter().map(|store| format!("hits in {store}")));
    let ceiling = settings.tiers.find(&settings.policy.verdict_ceiling);
    for (index, tier) in settings.tiers.iter() {
        let foreign = if ceiling.is_some_and(|ceiling| index <= ceiling) { does(tier) } else { "no" };
        let mut row = vec![
            tier.name.clone(),
            humantime::format_duration(tier.age).to_string(),
            tier.role.to_string(),
            foreign.to_owned(),
            does(tier).to_owned(),
        ];
        row.extend(stores.iter().map(|store| {
            let hits = running.and_then(|running| {
                running.counts.hits.get(&(tier.name.clone(), (*store).to_owned())).cloned()
            });
            hits.unwrap_or_else(|| "0".to_owned())
        }));
        rows.push(row);
    }
    let columns = 5 + stores.len();
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// What is done with a record of the tier.
const fn does(tier: &Tier) -> &'static str {
    match tier.role {
        Role::Fresh => "yes",
        Role::Revalidate => "yes, revalidated",
        Role::Outage => "if the issuer cannot tell",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_label_in_any_order() {
        let counts = Counts::of(
            "# HELP holdfast_records r\nholdfast_tier_hits_total{tier=\"primary\",store=\"disk\"} 2\n\
             holdfast_tier_hits_total{store=\"memory\",tier=\"primary\"} 3\nholdfast_records{store=\"disk\"} 5\nother 1\n",
        );
        let hit =
            |store: &str| counts.hits.get(&("primary".to_owned(), store.to_owned())).map(String::as_str);
        assert_eq!((hit("disk"), hit("memory")), (Some("2"), Some("3")));
        assert_eq!(counts.records.get("disk").map(String::as_str), Some("5"));
        assert_eq!(counts.stores().into_iter().collect::<Vec<_>>(), ["disk", "memory"]);
    }
}
