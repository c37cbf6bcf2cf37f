//! The price of an exit, in instructions: Pangaea's beside that of Linux KVM
//! in the same emulator, by the same guest (`tests/guest/src/bin/exits`).
//!
//! The emulator counts instructions and its TSC shows them, so the figures
//! repeat and do not depend on the host.

use super::super::measure::Measured;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write;

/// What the guest measures, and what the table calls it.
const MEASURES: [(&str, &str); 3] = [
    ("cpuid_exit", "CPUID"),
    ("port_exit", "write to a port of no device"),
    ("fresh_page", "first touch of a page"),
];
/// What two reads of the TSC take by themselves.
const NOTHING: &str = "nothing";

/// Instructions for each.
#[derive(Debug, Serialize)]
pub(super) struct Exits {
    rows: Vec<Row>,
}

/// One kind of exit.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    pangaea: Price,
    kvm: Price,
    /// KVM's mean over Pangaea's.
    ratio: f64,
}

/// Instructions that the guest sees go by.
#[derive(Clone, Copy, Debug, Serialize)]
struct Price {
    p50: u64,
    mean: f64,
}

impl Price {
    /// Nanoseconds are instructions here.
    fn new(measured: &Measured, name: &str) -> Result<Self> {
        let floor = measured.distribution(NOTHING)?.summary().p50_ns;
        let p50 = measured.distribution(name)?.summary().p50_ns.saturating_sub(floor);
        let mean = (measured.total(name)?.page_ns() - floor as f64).max(0.0);
        Ok(Self { p50, mean })
    }
}

impl Exits {
    /// Puts both runs side by side.
    pub(super) fn new(pangaea: &Measured, kvm: &Measured) -> Result<Self> {
        let row = |&(name, _): &(&'static str, _)| {
            let (pangaea, kvm) = (Price::new(pangaea, name)?, Price::new(kvm, name)?);
            Ok(Row { name, pangaea, kvm, ratio: kvm.mean / pangaea.mean.max(1.0) })
        };
        Ok(Self { rows: MEASURES.iter().map(row).collect::<Result<_>>()? })
    }

    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let heading = ["Pangaea", "mean", "KVM", "mean", "KVM / Pangaea"];
        let [a, b, c, d, e] = heading;
        writeln!(text, "{:<42} {a:>9} {b:>9} {c:>9} {d:>9} {e:>14}", "instructions of an exit")
            .expect("a string takes all");
        for (row, (_, title)) in self.rows.iter().zip(MEASURES) {
            writeln!(
                text,
                "{title:<42} {:>9} {:>9.0} {:>9} {:>9.0} {:>14.2}",
                row.pangaea.p50, row.pangaea.mean, row.kvm.p50, row.kvm.mean, row.ratio
            )
            .expect("a string takes all");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::measure::{Line, STEPS};
    use super::*;

    #[test]
    fn the_floor_is_taken_off() {
        let measured = |ticks: u64| {
            let mut m = Measured::default();
            for (name, ticks) in
                [("cpuid_exit", ticks), ("port_exit", ticks), ("fresh_page", ticks), (NOTHING, 20)]
            {
                let hz = 1_000_000_000;
                let quantiles = vec![ticks; STEPS + 1];
                m.take(Line::Samples { name: name.into(), hz, count: 10, quantiles }).unwrap();
                let name = name.into();
                m.take(Line::Total { name, hz, pages: 10, ticks: ticks * 10, faults: 10 }).unwrap();
            }
            m
        };
        let exits = Exits::new(&measured(120), &measured(2020)).unwrap();
        assert_eq!((exits.rows[0].pangaea.p50, exits.rows[0].kvm.p50), (100, 2000));
        assert!((exits.rows[2].ratio - 20.0).abs() < 1e-9);
        assert!(exits.table().contains("20.00"));
        assert!(Exits::new(&Measured::default(), &measured(1)).is_err());
    }
}
