//! What the bench guest and the nodes say, as numbers.
//!
//! The guest prints one line `@bench {json}` for each measure, in TSC ticks;
//! the nodes print `stages` events, each with the number of the phase that
//! has just ended (`tests/guest/src/bin/bench/plan.rs`).

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What marks a measure on the guest's console.
const PREFIX: &str = "@bench ";
/// What marks a line that one of the guest's programs has printed; its name
/// and the line follow.
const SAID: &str = "@said ";
/// Parts that a distribution is divided into.
pub(super) const STEPS: usize = 400;

/// The phases by which nodes name their histograms.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// First touches.
    FirstTouch = 1,
    /// Read faults.
    Read = 2,
    /// Upgrades.
    Upgrade = 3,
    /// Write faults.
    Write = 4,
    /// Faults answered on the spot.
    Floor = 5,
    /// Filling more memory than a node has.
    Evict = 6,
    /// Read faults of pages that the requester is home to.
    OwnRead = 8,
}

/// A line of the guest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// The distribution of a measure's samples.
    Samples {
        /// Which measure.
        name: String,
        /// TSC ticks a second.
        hz: u64,
        /// Number of samples.
        count: u64,
        /// Their quantiles in ticks, from the least to the greatest.
        quantiles: Vec<u64>,
    },
    /// Many touches as one.
    Total {
        /// Which measure.
        name: String,
        /// TSC ticks a second.
        hz: u64,
        /// Pages touched.
        pages: u64,
        /// Ticks for all.
        ticks: u64,
        /// Touches that faulted.
        faults: u64,
    },
    /// How often the guest exited in a measure.
    Exits {
        /// Which measure.
        name: String,
        /// Its faults.
        faults: u64,
        /// Exits for them and whatever else.
        exits: u64,
    },
    /// What is being done.
    Stage {
        /// In words.
        text: String,
    },
    /// Why the guest gave up.
    Error {
        /// In words.
        reason: String,
    },
    /// The last word.
    End {
        /// `end`.
        name: String,
    },
    /// What a program has printed, as it is.
    #[serde(skip)]
    Said {
        /// Which program.
        program: String,
        /// One line.
        text: String,
    },
}

/// Reads one line, if it is one of the guest's words.
fn read_line(line: &str) -> Option<Line> {
    if let Some(rest) = line.strip_prefix(SAID) {
        let (program, text) = rest.split_once(' ').unwrap_or((rest, ""));
        return Some(Line::Said { program: program.to_owned(), text: text.to_owned() });
    }
    serde_json::from_str(line.strip_prefix(PREFIX)?).ok()
}

/// Takes the whole lines out of `pending` and reads the guest's words in them.
pub(super) fn take_lines(pending: &mut Vec<u8>) -> Vec<Line> {
    let Some(end) = pending.iter().rposition(|&b| b == b'\n') else { return Vec::new() };
    let whole: Vec<u8> = pending.drain(..=end).collect();
    String::from_utf8_lossy(&whole).lines().filter_map(read_line).collect()
}

/// What a measure comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// Samples.
    pub(super) count: u64,
    /// Median.
    pub(super) p50_ns: u64,
    /// Ninth decile.
    pub(super) p90_ns: u64,
    /// 99th percentile.
    pub(super) p99_ns: u64,
    /// Least sample.
    pub(super) min_ns: u64,
}

/// The distribution of a measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Distribution {
    /// Samples.
    pub(super) count: u64,
    /// Quantiles in nanoseconds, in [`STEPS`] steps.
    pub(super) quantiles_ns: Vec<f64>,
}

impl Distribution {
    /// Turns ticks into nanoseconds, and refuses what cannot be.
    fn new(name: &str, hz: u64, count: u64, quantiles: &[u64]) -> Result<Self> {
        ensure!(count > 0, "the measure {name} has no sample");
        ensure!(hz > 0, "the measure {name} has no unit of time");
        ensure!(
            quantiles.len() == STEPS + 1 && quantiles.is_sorted() && quantiles[0] > 0,
            "the measure {name} is no distribution of times"
        );
        let quantiles_ns = quantiles.iter().map(|&t| t as f64 * 1e9 / hz as f64).collect();
        Ok(Self { count, quantiles_ns })
    }

    /// Count, least value, median and tail.
    pub(super) fn summary(&self) -> Summary {
        let at = |step: usize| self.quantiles_ns[step].round() as u64;
        Summary {
            count: self.count,
            p50_ns: at(STEPS / 2),
            p90_ns: at(STEPS * 90 / 100),
            p99_ns: at(STEPS * 99 / 100),
            min_ns: at(0),
        }
    }
}

/// Many touches as one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Total {
    /// Pages touched.
    pub(super) pages: u64,
    /// Of these, touches that faulted.
    pub(super) faults: u64,
    /// Time for all.
    pub(super) seconds: f64,
}

impl Total {
    /// Pages of 4 KiB in MiB a second.
    pub(super) fn mib_s(&self) -> f64 {
        self.pages as f64 / 256.0 / self.seconds
    }

    /// Nanoseconds a page.
    pub(super) fn page_ns(&self) -> f64 {
        self.seconds * 1e9 / self.pages as f64
    }
}

/// Everything that one run has said.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Distributions by name.
    pub(super) samples: BTreeMap<String, Distribution>,
    /// Totals by name.
    pub(super) totals: BTreeMap<String, Total>,
    /// The guest's exits for each fault, by name.
    exits: BTreeMap<String, f64>,
    /// The nodes' `stages` events by node and phase.
    stages: BTreeMap<(u64, u64), Value>,
    /// The nodes' last `report` events.
    reports: BTreeMap<u64, Value>,
    /// What programs have printed, by their names.
    said: BTreeMap<String, String>,
    /// The guest has said its last word.
    complete: bool,
}

impl Measured {
    /// Takes a line of the guest; what it does now, if that is what it says.
    pub(super) fn take(&mut self, line: Line) -> Result<Option<String>> {
        match line {
            Line::Samples { name, hz, count, quantiles } => {
                let distribution = Distribution::new(&name, hz, count, &quantiles)?;
                self.samples.insert(name, distribution);
            }
            Line::Total { name, hz, pages, ticks, faults } => {
                ensure!(hz > 0 && pages > 0 && ticks > 0, "the measure {name} is empty");
                let seconds = ticks as f64 / hz as f64;
                self.totals.insert(name, Total { pages, faults, seconds });
            }
            Line::Exits { name, faults, exits } => {
                ensure!(faults > 0 && exits > 0, "the measure {name} has no exit");
                self.exits.insert(name, exits as f64 / faults as f64);
            }
            Line::Stage { text } => return Ok(Some(text)),
            Line::Error { reason } => bail!("the measurement failed: {reason}"),
            Line::End { name } => self.complete |= name == "end",
            Line::Said { program, text } => {
                let said = self.said.entry(program).or_default();
                said.push_str(&text);
                said.push('\n');
            }
        }
        Ok(None)
    }

    /// Takes the nodes' events.
    pub(super) fn take_events<'a>(&mut self, events: impl IntoIterator<Item = &'a Value>) {
        for event in events {
            if event["event"] == "report"
                && let Some(node) = event["node"].as_u64()
            {
                self.reports.insert(node, event.clone());
            }
            if event["event"] != "stages" {
                continue;
            }
            if let (Some(node), Some(mark)) = (event["node"].as_u64(), event["mark"].as_u64()) {
                self.stages.insert((node, mark), event.clone());
            }
        }
    }

    /// Whether the guest has said its last word.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Refuses a run that broke off.
    pub(super) fn check_complete(&self) -> Result<()> {
        ensure!(self.complete, "the guest ended before it had measured everything");
        Ok(())
    }

    /// What a program has printed.
    pub(super) fn said(&self, program: &str) -> Result<&str> {
        let said = self.said.get(program).map(String::as_str);
        said.with_context(|| format!("{program} has printed nothing"))
    }

    /// A distribution that must be there.
    pub(super) fn distribution(&self, name: &str) -> Result<&Distribution> {
        self.samples.get(name).with_context(|| format!("the measure {name} is missing"))
    }

    /// A total that must be there.
    pub(super) fn total(&self, name: &str) -> Result<Total> {
        self.totals.get(name).copied().with_context(|| format!("the measure {name} is missing"))
    }

    /// Exits for each fault of a measure that must be there.
    pub(super) fn exits(&self, name: &str) -> Result<f64> {
        self.exits.get(name).copied().with_context(|| format!("the exits of {name} are missing"))
    }

    /// A count of a node's last report; `path` leads to it.
    pub(super) fn count(&self, node: u64, path: &[&str]) -> Result<u64> {
        let what = || format!("node {node} has not reported {}", path.join("."));
        let report = self.reports.get(&node).with_context(what)?;
        path.iter().fold(report, |value, key| &value[*key]).as_u64().with_context(what)
    }

    /// A histogram of a node in a phase; `path` leads to it in the event.
    /// Without a single value in it, there is none.
    pub(super) fn histogram(&self, node: u64, phase: Phase, path: &[&str]) -> Result<Summary> {
        let what = || format!("node {node} has not measured {} ({phase:?})", path.join("."));
        let event = self.stages.get(&(node, phase as u64)).with_context(what)?;
        let value = path.iter().fold(event, |value, key| &value[*key]);
        let summary = Summary::deserialize(value).with_context(what)?;
        ensure!(summary.count > 0, what());
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn samples(count: u64, least: u64) -> Line {
        let quantiles: Vec<u64> = (0..=STEPS as u64).map(|i| (least + i) * 2).collect();
        Line::Samples { name: "x".into(), hz: 2_000_000_000, count, quantiles }
    }

    #[test]
    fn lines_are_read_when_they_are_whole() {
        let mut pending = b"noise\r\n@bench {\"name\":\"end\"}\r\n@bench {\"na".to_vec();
        assert_eq!(take_lines(&mut pending), [Line::End { name: "end".into() }]);
        pending.extend(b"me\":\"stage\",\"text\":\"t\"}\n@bench broken\n");
        assert_eq!(take_lines(&mut pending), [Line::Stage { text: "t".into() }]);
        assert!(pending.is_empty());
        pending.extend(b"@bench {\"name\":\"l\",\"hz\":1,\"pages\":2,\"ticks\":3,\"faults\":4}\n");
        let total = Line::Total { name: "l".into(), hz: 1, pages: 2, ticks: 3, faults: 4 };
        assert_eq!(take_lines(&mut pending), [total]);
        pending
            .extend(b"@bench {\"name\":\"s\",\"hz\":1,\"count\":1,\"sum\":7,\"quantiles\":[7]}\n");
        assert!(matches!(&take_lines(&mut pending)[..], [Line::Samples { count: 1, .. }]));
    }

    #[test]
    fn what_programs_print_is_kept_by_their_names() {
        let mut pending = b"@said a one two\r\n@said b {\"x\"}\n@said a\nsaid c\n".to_vec();
        let mut measured = Measured::default();
        for line in take_lines(&mut pending) {
            assert_eq!(measured.take(line).unwrap(), None);
        }
        assert_eq!(measured.said("a").unwrap(), "one two\n\n");
        assert_eq!(measured.said("b").unwrap(), "{\"x\"}\n");
        assert!(measured.said("c").is_err());
    }

    #[test]
    fn a_summary_takes_its_ranks_in_nanoseconds() {
        let mut measured = Measured::default();
        assert_eq!(measured.take(samples(10_000, 100)).unwrap(), None);
        let want = Summary { count: 10_000, p50_ns: 300, p90_ns: 460, p99_ns: 496, min_ns: 100 };
        assert_eq!(measured.distribution("x").unwrap().summary(), want);
        assert!(measured.distribution("y").is_err());
    }

    #[test]
    fn empty_and_impossible_measures_are_refused() {
        let mut measured = Measured::default();
        assert!(measured.take(samples(0, 100)).is_err(), "no sample");
        assert!(measured.take(samples(5, 0)).is_err(), "nothing takes no time");
        let falling = Line::Samples {
            name: "x".into(),
            hz: 1,
            count: 1,
            quantiles: (1..=STEPS as u64 + 1).rev().collect(),
        };
        assert!(measured.take(falling).is_err());
        let empty = Line::Total { name: "l".into(), hz: 1, pages: 0, ticks: 3, faults: 0 };
        assert!(measured.take(empty).is_err());
        let error = measured.take(Line::Error { reason: "why".into() }).unwrap_err();
        assert!(error.to_string().ends_with("why"));
        assert!(measured.check_complete().is_err());
        measured.take(Line::End { name: "end".into() }).unwrap();
        assert!(measured.check_complete().is_ok());
    }

    #[test]
    fn bandwidth_is_pages_over_time() {
        let total = Total { pages: 512, faults: 1, seconds: 0.5 };
        assert_eq!(total.mib_s(), 4.0);
        assert!((total.page_ns() - 976_562.5).abs() < 1e-6);
    }

    #[test]
    fn histograms_are_found_by_node_and_phase() {
        let summary =
            |count| json!({"count": count, "min_ns": 1, "p50_ns": 2, "p90_ns": 3, "p99_ns": 4});
        let event = |node, mark, count| json!({"event": "stages", "node": node, "mark": mark, "serve": summary(count)});
        let mut measured = Measured::default();
        let last = json!({"event": "stages", "node": 1, "serve": summary(9)});
        measured.take_events([&event(0, 2, 5), &event(1, 2, 6), &event(1, 4, 0), &last]);
        let read = measured.histogram(1, Phase::Read, &["serve"]).unwrap();
        assert_eq!((read.count, read.p99_ns), (6, 4));
        assert!(measured.histogram(1, Phase::Write, &["serve"]).is_err(), "nothing in it");
        assert!(measured.histogram(1, Phase::Evict, &["serve"]).is_err(), "not there");
        assert!(measured.histogram(0, Phase::Read, &["stages", "send"]).is_err(), "not there");
    }
}
