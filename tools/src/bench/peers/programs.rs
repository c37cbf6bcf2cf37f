//! What programs of Debian have measured under each operating system: their
//! own words, checked and read, and the table.
//!
//! They print for people; `tests/peers/machine/workloads` passes each line on.

use super::super::measure::Measured;
use super::Setup;
use super::workload::{Sizes, Workload};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::fmt::Write;

/// The programs' names on their lines.
const STRESS: &str = "stress-ng";
const REDIS: &str = "redis";
const BENCHMARK: &str = "redis-benchmark";

/// One set-up's figures.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    setup: Setup,
    title: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stress: Option<Stress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Redis>,
    /// How many times Pangaea's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    times_pangaea: Option<Ratios>,
}

/// What stress-ng took for all of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Stress {
    seconds: f64,
    /// As stress-ng counts.
    operations: u64,
}

/// What redis-benchmark measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Redis {
    /// In the data set.
    keys: u64,
    /// Of each kind.
    requests: u32,
    get: Requests,
    set: Requests,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Requests {
    requests_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// A set-up's times over Pangaea's, for the same work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratios {
    #[serde(skip_serializing_if = "Option::is_none")]
    stress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_get: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_set: Option<f64>,
}

impl Stress {
    /// Reads what stress-ng says; refuses a run that failed or stopped early.
    fn new(said: &str, sizes: Sizes) -> Result<Self> {
        if let Some(failure) = said.lines().find(|line| line.contains(" fail: ")) {
            bail!("stress-ng found wrong memory or failed: {failure}");
        }
        let ended = said.lines().find_map(|line| line.strip_prefix("status "));
        let good = ended == Some("0") && said.contains("successful run completed");
        ensure!(good, "stress-ng ended with status {}:\n{said}", ended.unwrap_or("unknown"));
        let (operations, seconds) = said.lines().find_map(metrics).with_context(|| {
            format!("stress-ng has printed no metrics that can be read:\n{said}")
        })?;
        let wanted = sizes.operations();
        ensure!(operations == wanted, "stress-ng did {operations} operations of {wanted}");
        ensure!(seconds > 0.0, "stress-ng took no time");
        Ok(Self { seconds, operations })
    }
}

/// Operations and seconds from stress-ng's line of metrics, such as
/// `stress-ng: metrc: [42] vm 8192 1.81 0.23 0.66 4537.17 9130.68`.
fn metrics(line: &str) -> Option<(u64, f64)> {
    let (_, fields) = line.split_once("metrc: ")?;
    let fields: Vec<&str> = fields.split_whitespace().skip(1).collect();
    match fields[..] {
        ["vm", operations, seconds, ..] => Some((operations.parse().ok()?, seconds.parse().ok()?)),
        _ => None,
    }
}

impl Redis {
    /// Reads what Redis and redis-benchmark say; refuses lost keys, wrong
    /// values and replies that are errors.
    fn new(redis: &str, benchmark: &str, sizes: Sizes) -> Result<Self> {
        let told = |name: &str| {
            let line = redis.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|n| n.trim().parse::<u64>().ok());
            number.with_context(|| format!("Redis does not tell {name}:\n{redis}"))
        };
        let keys = sizes.keys();
        for name in ["filled", "keys"] {
            let found = told(name)?;
            ensure!(found == keys, "Redis has {found} keys of {keys} ({name})");
        }
        for name in ["wrong", "lost", "keyspace_misses", "evicted_keys", "total_error_replies"] {
            let count = told(name)?;
            ensure!(count == 0, "Redis has not kept its data: {name} is {count} in\n{redis}");
        }
        let (right, set, hits) = (told("right")?, told("set")?, told("keyspace_hits")?);
        let looked_at = keys.div_ceil(8);
        ensure!(right + set == looked_at, "{right} + {set} of {looked_at} values were looked at");
        let requests = sizes.requests;
        ensure!(hits == u64::from(requests), "Redis has found {hits} keys for {requests} requests");
        let used = told("used_memory")?;
        ensure!(used >= sizes.used_mib() << 20, "Redis keeps no more than {used} bytes");
        let of = |name| Requests::new(benchmark, name);
        Ok(Self { keys, requests, get: of("GET")?, set: of("SET")? })
    }
}

impl Requests {
    /// Reads the line of one kind from redis-benchmark's CSV, whose first line
    /// names the columns.
    fn new(csv: &str, name: &str) -> Result<Self> {
        let cells = |line: &str| -> Vec<String> {
            line.split(',').map(|cell| cell.trim().trim_matches('"').to_owned()).collect()
        };
        let unread = || format!("redis-benchmark has no figures for {name} in:\n{csv}");
        let mut lines = csv.lines().map(cells);
        let names = lines.find(|line| line[0] == "test").with_context(unread)?;
        let values = lines.find(|line| line[0] == name).with_context(unread)?;
        let value = |column: &str| {
            let at = names.iter().position(|n| n == column)?;
            values.get(at)?.parse::<f64>().ok().filter(|value| *value > 0.0)
        };
        let value = |column| value(column).with_context(unread);
        Ok(Self {
            requests_s: value("rps")?,
            p50_us: value("p50_latency_ms")? * 1e3,
            p99_us: value("p99_latency_ms")? * 1e3,
        })
    }
}

impl Row {
    /// A set-up that has run nothing yet.
    fn new(setup: Setup) -> Self {
        Self { setup, title: setup.title(), stress: None, redis: None, times_pangaea: None }
    }

    fn over(&self, pangaea: &Row) -> Ratios {
        let stress = |row: &Row| row.stress.map(|s| s.seconds);
        let second =
            |row: &Row, of: fn(Redis) -> Requests| row.redis.map(|r| 1.0 / of(r).requests_s);
        let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        let requests = |of| ratio(second(self, of), second(pangaea, of));
        Ratios {
            stress: ratio(stress(self), stress(pangaea)),
            redis_get: requests(|r| r.get),
            redis_set: requests(|r| r.set),
        }
    }
}

/// All set-ups' figures.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Programs {
    rows: Vec<Row>,
}

impl Programs {
    /// Takes what a workload has said on a set-up.
    pub(super) fn take(
        &mut self,
        setup: Setup,
        workload: Workload,
        measured: &Measured,
        sizes: Sizes,
    ) -> Result<()> {
        if self.rows.last().is_none_or(|row| row.setup != setup) {
            self.rows.push(Row::new(setup));
        }
        let row = self.rows.last_mut().expect("it was added");
        match workload {
            Workload::Touches => bail!("the touches are no program of Debian's"),
            Workload::Stress => row.stress = Some(Stress::new(measured.said(STRESS)?, sizes)?),
            Workload::Redis => {
                let (redis, benchmark) = (measured.said(REDIS)?, measured.said(BENCHMARK)?);
                row.redis = Some(Redis::new(redis, benchmark, sizes)?);
            }
        }
        Ok(())
    }

    /// Compares each set-up with Pangaea, if that was measured.
    pub(super) fn compare(&mut self) {
        if let Some(at) = self.rows.iter().position(|row| row.setup == Setup::Pangaea) {
            let ratios: Vec<_> = self.rows.iter().map(|row| row.over(&self.rows[at])).collect();
            for (row, ratio) in self.rows.iter_mut().zip(ratios) {
                row.times_pangaea = Some(ratio);
            }
        }
    }

    /// Whether nothing was run.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table for people.
    pub(super) fn table(&self, local_mib: u64) -> String {
        let mut text = String::new();
        let mut line = |name: &str, cells: [&str; 10]| {
            let [a, b, c, d, e, f, g, h, i, j] = cells;
            let line = format!(
                "{name:<42} {a:>9} {b:>6} {c:>10} {d:>8} {e:>8} {f:>6} {g:>10} {h:>8} {i:>8} {j:>6}"
            );
            writeln!(text, "{}", line.trim_end()).expect("a string takes all");
        };
        let title = format!("programs of Debian, {local_mib} MiB local");
        line(&title, ["stress-ng", "", "Redis GET", "", "", "", "Redis SET", "", "", ""]);
        let requests = ["requests/s", "p50 us", "p99 us", "x"];
        let [a, b, c, d] = requests;
        line("", ["seconds", "x", a, b, c, d, a, b, c, d]);
        for row in &self.rows {
            let cell = |value: Option<f64>, decimals: usize| match value {
                Some(value) => format!("{value:.decimals$}"),
                None => "-".to_owned(),
            };
            let (r, s) = (row.redis, row.stress.map(|s| s.seconds));
            let x =
                |of: fn(&Ratios) -> Option<f64>| cell(row.times_pangaea.as_ref().and_then(of), 2);
            let of = |of: fn(Redis) -> f64, decimals| cell(r.map(of), decimals);
            let cells = [
                cell(s, 1),
                x(|x| x.stress),
                of(|r| r.get.requests_s, 1),
                of(|r| r.get.p50_us, 0),
                of(|r| r.get.p99_us, 0),
                x(|x| x.redis_get),
                of(|r| r.set.requests_s, 1),
                of(|r| r.set.p50_us, 0),
                of(|r| r.set.p99_us, 0),
                x(|x| x.redis_set),
            ];
            line(row.title, cells.each_ref().map(String::as_str));
        }
        text.push_str(LEGEND);
        text
    }
}

/// What the columns are.
const LEGEND: &str = "
stress-ng: all of twice the local memory written, then checked and inverted. Redis: a data set of
twice the local memory, random keys, one client that waits for each reply.
x: times Pangaea's time for the same work.
";

#[cfg(test)]
#[path = "programs_tests.rs"]
mod tests;
