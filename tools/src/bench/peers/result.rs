//! The comparison's result: the JSON that others read, and the table.

use super::super::measure::{Measured, Summary};
use super::Setup;
use super::exits::Exits;
use super::programs::Programs;
use super::workload::Sizes;
use anyhow::Result;
use runner::Recipe;
use serde::Serialize;
use std::fmt::Write;

/// The result as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// Bytes of local memory; the data set is twice as large.
    local_bytes: u64,
    /// Samples of a remote read.
    touches: u32,
    /// The NIC of all machines.
    link: String,
    /// Largest frame payload.
    mtu: u16,
    /// The set-ups' touches.
    peers: Vec<Row>,
    /// Programs of Debian's.
    #[serde(skip_serializing_if = "Programs::is_empty")]
    programs: Programs,
    /// The price of an exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    exits: Option<Exits>,
}

/// One set-up's measures.
#[derive(Debug, Serialize)]
struct Row {
    setup: Setup,
    title: &'static str,
    /// A read of a page that is away, with room for it.
    remote_read: Summary,
    /// Touches over twice the local memory.
    random: Pass,
    sequential: Pass,
    chase: Pass,
    /// How many times Pangaea's: medians, and time for each touch.
    #[serde(skip_serializing_if = "Option::is_none")]
    times_pangaea: Option<Ratios>,
}

/// A pass over more memory than is local.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pass {
    /// The touches that waited for the other machine.
    missed: Summary,
    /// Of all touches.
    missed_share: f64,
    /// All touches together.
    touch_ns: f64,
    mib_s: f64,
}

/// A set-up's figures over Pangaea's.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratios {
    remote_read: f64,
    random: f64,
    sequential: f64,
    chase: f64,
    /// What is to be reached for `remote_read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_read_wanted: Option<f64>,
}

impl Pass {
    fn new(measured: &Measured, name: &str) -> Result<Self> {
        let total = measured.total(name)?;
        Ok(Self {
            missed: measured.distribution(name)?.summary(),
            missed_share: total.faults as f64 / total.pages as f64,
            touch_ns: total.page_ns(),
            mib_s: total.mib_s(),
        })
    }
}

impl Row {
    fn new(setup: Setup, measured: &Measured) -> Result<Self> {
        Ok(Self {
            setup,
            title: setup.title(),
            remote_read: measured.distribution("remote_read")?.summary(),
            random: Pass::new(measured, "random")?,
            sequential: Pass::new(measured, "sequential")?,
            chase: Pass::new(measured, "chase")?,
            times_pangaea: None,
        })
    }

    fn over(&self, pangaea: &Row) -> Ratios {
        let median = |a: &Summary, b: &Summary| a.p50_ns as f64 / b.p50_ns.max(1) as f64;
        let touch = |a: &Pass, b: &Pass| a.touch_ns / b.touch_ns;
        Ratios {
            remote_read: median(&self.remote_read, &pangaea.remote_read),
            random: touch(&self.random, &pangaea.random),
            sequential: touch(&self.sequential, &pangaea.sequential),
            chase: touch(&self.chase, &pangaea.chase),
            remote_read_wanted: self.setup.wanted(),
        }
    }
}

impl Outcome {
    /// Puts the result together; refuses it if anything was not measured.
    pub(super) fn new(
        measured: &[(Setup, Measured)],
        mut programs: Programs,
        sizes: Sizes,
        recipe: &Recipe,
        exits: Option<Exits>,
    ) -> Result<Self> {
        let rows = measured.iter().map(|(setup, m)| Row::new(*setup, m));
        let mut peers = rows.collect::<Result<Vec<_>>>()?;
        if let Some(at) = peers.iter().position(|row| row.setup == Setup::Pangaea) {
            let ratios: Vec<_> = peers.iter().map(|row| row.over(&peers[at])).collect();
            for (row, ratio) in peers.iter_mut().zip(ratios) {
                row.times_pangaea = Some(ratio);
            }
        }
        programs.compare();
        Ok(Self {
            local_bytes: sizes.local_mib << 20,
            touches: sizes.touches,
            link: recipe.nic.clone(),
            mtu: recipe.mtu,
            peers,
            programs,
            exits,
        })
    }

    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if !self.peers.is_empty() {
            self.write_peers(&mut text);
        }
        let programs =
            (!self.programs.is_empty()).then(|| self.programs.table(self.local_bytes >> 20));
        for table in programs.into_iter().chain(self.exits.as_ref().map(Exits::table)) {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(gap);
            text.push_str(&table);
        }
        text
    }

    fn write_peers(&self, text: &mut String) {
        let mib = self.local_bytes >> 20;
        let mut line = |words: std::fmt::Arguments<'_>| {
            writeln!(text, "{words}").expect("a string takes all");
        };
        line(format_args!(
            "two machines, {mib} MiB local, {} MiB touched, {}, MTU {}\n",
            2 * mib,
            self.link,
            self.mtu
        ));
        line(format_args!(
            "{:<42} {:>8} {:>9} {:>9} {:>7} {:>9} {:>9} {:>7} {:>8} {:>7} {:>9} {:>7}",
            "", "", "remote", "", "", "random", "", "", "sequen-", "", "chase", ""
        ));
        line(format_args!(
            "{:<42} {:>8} {:>9} {:>9} {:>7} {:>9} {:>9} {:>7} {:>8} {:>7} {:>9} {:>7}",
            "",
            "min us",
            "p50 us",
            "p99 us",
            "x",
            "p50 us",
            "p99 us",
            "x",
            "MiB/s",
            "x",
            "us a hop",
            "x"
        ));
        for row in &self.peers {
            let us = |ns: u64| ns as f64 / 1e3;
            let ratio = |of: fn(&Ratios) -> f64| match &row.times_pangaea {
                Some(ratios) => format!("{:.2}", of(ratios)),
                None => "-".to_owned(),
            };
            line(format_args!(
                "{:<42} {:>8.1} {:>9.1} {:>9.1} {:>7} {:>9.1} {:>9.1} {:>7} {:>8.2} {:>7} {:>9.1} {:>7}",
                row.title,
                us(row.remote_read.min_ns),
                us(row.remote_read.p50_ns),
                us(row.remote_read.p99_ns),
                ratio(|r| r.remote_read),
                us(row.random.missed.p50_ns),
                us(row.random.missed.p99_ns),
                ratio(|r| r.random),
                row.sequential.mib_s,
                ratio(|r| r.sequential),
                row.chase.touch_ns / 1e3,
                ratio(|r| r.chase)
            ));
        }
        line(format_args!(
            "\nremote: reads of pages that are away, with room for them. The others go over twice\n\
             the local memory: touches that waited (random), all touches (sequential, chase).\n\
             x: times Pangaea's median (remote), times its time for all touches (the others)."
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::{Line, STEPS};

    const SIZES: Sizes = Sizes { local_mib: 64, touches: 50, requests: 100 };

    fn measured(factor: u64) -> Measured {
        let mut m = Measured::default();
        for name in ["remote_read", "random", "sequential", "chase"] {
            let quantiles = (0..=STEPS as u64).map(|i| (1000 + i) * factor).collect();
            m.take(Line::Samples { name: name.into(), hz: 1_000_000_000, count: 50, quantiles })
                .unwrap();
            let (hz, ticks) = (1_000_000_000, 100_000 * factor);
            let name = name.into();
            m.take(Line::Total { name, hz, pages: 100, ticks, faults: 50 }).unwrap();
        }
        m
    }

    fn outcome(rows: &[(Setup, Measured)]) -> Outcome {
        let folder = crate::compile::workspace().join("qemu/machines");
        let recipe = Recipe::load(&folder, "linux-svm").unwrap();
        Outcome::new(rows, Programs::default(), SIZES, &recipe, None).unwrap()
    }

    #[test]
    fn ratios_are_over_pangaea() {
        let rows = [(Setup::Pangaea, measured(1)), (Setup::NbdSwap, measured(20))];
        let outcome = outcome(&rows);
        let json = serde_json::to_value(&outcome).unwrap();
        let nbd = &json["peers"][1];
        assert_eq!(nbd["setup"], "nbd-swap");
        assert_eq!(nbd["times_pangaea"]["remote_read"], 20.0);
        assert_eq!(nbd["times_pangaea"]["remote_read_wanted"], 20.0);
        assert_eq!(nbd["random"]["missed_share"], 0.5);
        assert_eq!(json["peers"][0]["times_pangaea"]["chase"], 1.0);
        let table = outcome.table();
        assert!(table.contains("20.00") && table.contains("page-cluster 0"), "{table}");
    }

    #[test]
    fn without_pangaea_there_are_no_ratios() {
        let outcome = outcome(&[(Setup::UserfaultTcp, measured(3))]);
        assert!(outcome.peers[0].times_pangaea.is_none());
        assert!(outcome.table().contains(" - "));
    }

    #[test]
    fn what_was_not_measured_is_refused() {
        let folder = crate::compile::workspace().join("qemu/machines");
        let recipe = Recipe::load(&folder, "linux-svm").unwrap();
        let rows = [(Setup::Pangaea, Measured::default())];
        assert!(Outcome::new(&rows, Programs::default(), SIZES, &recipe, None).is_err());
    }
}
