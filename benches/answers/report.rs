//! What was measured, as the tables of `benches/RESULTS.md` and as JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::SHARES;
use crate::support::callgrind::Counted;

const BEGIN: &str = "<!-- Written by `make bench` from here on. -->\n";
const END: &str = "<!-- As far as this. -->\n";

/// One figure of the floor and of holdfast, round by round.
#[derive(Default)]
pub struct Pair {
    floor: Vec<f64>,
    holdfast: Vec<f64>,
}

/// One row: figures for one kind of load.
pub struct Measured {
    name: String,
    /// Answers a second.
    pub rate: Pair,
    /// Seconds of processor time for one answer.
    pub cpu: Pair,
    /// Seconds, for each of [`SHARES`]: median, 99th and 99.9th percentile.
    pub latencies: [[Pair; 3]; 2],
}

/// Resident memory of holdfast, in bytes, before and after it has kept the answers of as many identities.
#[derive(Default)]
pub struct Memory {
    pub idle: u64,
    pub filled: u64,
    pub identities: usize,
}

/// Answers a second of server and load together on one core and on two.
pub struct Scaling {
    pub one: Pair,
    pub two: Pair,
}

/// What one answer takes.
pub struct Instructions {
    pub floor: Counted,
    pub hit: Counted,
    pub denial: Counted,
}

#[derive(Default)]
pub struct Results {
    pub cores: usize,
    pub measured: Vec<Measured>,
    pub memory: Memory,
    /// Seconds of processor time for a new token: RS256, and the same in a JWE.
    pub first_sight: [f64; 2],
    pub scaling: Option<Scaling>,
    pub instructions: Option<Instructions>,
    pub seconds: u64,
}

impl Pair {
    /// The rounds of the server with this number: 0 is the floor.
    pub fn of(&mut self, number: usize) -> &mut Vec<f64> {
        if number == 0 { &mut self.floor } else { &mut self.holdfast }
    }

    pub fn median(&self, number: usize) -> f64 {
        median(if number == 0 { &self.floor } else { &self.holdfast })
    }

    /// holdfast to the floor in each round: median, least and most.
    fn ratio(&self) -> [f64; 3] {
        let ratios: Vec<f64> =
            self.holdfast.iter().zip(&self.floor).map(|(ours, floor)| ours / floor).collect();
        [
            median(&ratios),
            ratios.iter().copied().fold(f64::MAX, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
        ]
    }

    fn ratio_cell(&self) -> String {
        let [ratio, least, most] = self.ratio();
        format!("{ratio:.2} ({least:.2}–{most:.2})")
    }

    fn json(&self) -> Value {
        let [ratio, least, most] = self.ratio();
        json!({
            "floor": self.median(0), "holdfast": self.median(1), "ratio": ratio, "least": least, "most": most,
            "rounds": { "floor": self.floor, "holdfast": self.holdfast },
        })
    }
}

impl Measured {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rate: Pair::default(),
            cpu: Pair::default(),
            latencies: Default::default(),
        }
    }
}

impl Results {
    /// Prints the tables; and writes them and the JSON, if they are to be kept.
    pub fn show(&self, keep: bool) {
        let text = self.text();
        println!("{text}");
        if !keep {
            return;
        }
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        let file = directory.join("RESULTS.md");
        let page = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        std::fs::write(&file, format!("{before}{BEGIN}\n{text}\n{END}{after}")).unwrap();
        let json = serde_json::to_string_pretty(&self.json()).unwrap();
        std::fs::write(directory.join("answers.json"), json + "\n").unwrap();
    }

    fn text(&self) -> String {
        let mut text = format!("{}; {} s in all.\n\n", self.environment(), self.seconds);
        text += "| from memory | floor | holdfast | answers a second, ratio | CPU of an answer, floor | holdfast | ratio |\n\
                 |---|---|---|---|---|---|---|\n";
        for row in &self.measured {
            let (rate, cpu) = (&row.rate, &row.cpu);
            let micros = |number| format!("{:.2} µs", cpu.median(number) * 1e6);
            let cells = [
                row.name.clone(),
                grouped(rate.median(0)),
                grouped(rate.median(1)),
                rate.ratio_cell(),
                micros(0),
                micros(1),
                cpu.ratio_cell(),
            ];
            writeln!(text, "| {} |", cells.join(" | ")).unwrap();
        }
        text += "\nOpen loop at the same rate for both, a share of what holdfast can do: median, 99 %, 99.9 % in µs.\n\n\
                 | from memory | load | floor | holdfast | 99 %, ratio |\n|---|---|---|---|---|\n";
        for row in &self.measured {
            for (share, latencies) in SHARES.iter().zip(&row.latencies) {
                let of = |number| {
                    let cells: Vec<_> =
                        latencies.iter().map(|pair| format!("{:.0}", pair.median(number) * 1e6)).collect();
                    cells.join(" / ")
                };
                let ratio = latencies[1].ratio_cell();
                writeln!(text, "| {} | {:.0} % | {} | {} | {ratio} |", row.name, share * 100.0, of(0), of(1))
                    .unwrap();
            }
        }
        text += "\n| what | floor | holdfast | ratio |\n|---|---|---|---|\n";
        if let Some(counted) = &self.instructions {
            let (floor, hit, denial) = (counted.floor, counted.hit, counted.denial);
            for (what, ours) in [("a hit", hit), ("a forged token, seen before", denial)] {
                let (ours_each, floor_each) = (ours.instructions as f64, floor.instructions as f64);
                let ratio = ours_each / floor_each;
                let (ours_each, floor_each) = (grouped(ours_each), grouped(floor_each));
                writeln!(text, "| instructions, {what} | {floor_each} | {ours_each} | {ratio:.2} |").unwrap();
                writeln!(
                    text,
                    "| allocations, {what} | {:.1} | {:.1} | |",
                    floor.allocations, ours.allocations
                )
                .unwrap();
            }
        }
        for (what, seconds) in [
            ("an RS256 token", self.first_sight[0]),
            ("the same in a JWE (RSA-OAEP-256)", self.first_sight[1]),
        ] {
            writeln!(text, "| CPU, {what} at first sight | | {:.1} µs | |", seconds * 1e6).unwrap();
        }
        if let Some(Scaling { one, two }) = &self.scaling {
            let factor = |number| two.median(number) / one.median(number);
            let (floor, ours) = (factor(0), factor(1));
            writeln!(
                text,
                "| two cores to one, answers a second | {floor:.2} | {ours:.2} | {:.2} |",
                ours / floor
            )
            .unwrap();
        }
        let Memory { idle, filled, identities } = self.memory;
        let identities_text = grouped(identities as f64);
        writeln!(text, "| resident memory before | | {} MB | |", idle / 1_000_000).unwrap();
        let each = filled.saturating_sub(idle) as f64 / identities.max(1) as f64;
        writeln!(
            text,
            "| resident memory with the answers of {identities_text} identities more | | {} MB, {each:.0} bytes each | |",
            filled / 1_000_000
        )
        .unwrap();
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<_> = self.measured.iter().map(|row| {
            let open = SHARES.iter().zip(&row.latencies).map(|(share, [half, slow, slowest])| {
                json!({ "load": share, "p50": half.json(), "p99": slow.json(), "p99_9": slowest.json() })
            });
            json!({ "name": row.name, "answers_per_second": row.rate.json(), "cpu_seconds": row.cpu.json(), "open_loop": open.collect::<Vec<_>>() })
        }).collect();
        let counted = |counted: Counted| json!({ "instructions": counted.instructions, "allocations": counted.allocations });
        json!({
            "environment": self.environment(),
            "seconds": self.seconds,
            "first_sight_cpu_seconds": { "RS256": self.first_sight[0], "JWE": self.first_sight[1] },
            "rows": rows,
            "callgrind": self.instructions.as_ref().map(|all| json!({
                "floor": counted(all.floor), "hit": counted(all.hit), "denial": counted(all.denial),
            })),
            "scaling": self.scaling.as_ref().map(|all| json!({ "one_core": all.one.json(), "two_cores": all.two.json() })),
            "memory": {
                "bytes_before": self.memory.idle, "bytes_after": self.memory.filled, "identities": self.memory.identities,
            },
        })
    }

    /// Processor, cores, compiler and kernel.
    fn environment(&self) -> String {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let model = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([':', ' ', '\t']);
        format!(
            "{model}, {} cores, Linux {}, {}",
            self.cores,
            said("uname", &["-r"]),
            said("rustc", &["--version"])
        )
    }
}

/// A number with commas.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
