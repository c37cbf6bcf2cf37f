//! Nodes that all write the same two pages, both at once by every second
//! instruction: does everyone get on, and how long are pages best kept for an
//! instruction that lacks the other one?

use crate::scenario::{Load, MS, Mishap, Scenario, US, Weather};
use crate::world::World;

/// What nodes got done that fought for two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contention {
    /// Nodes.
    pub nodes: u16,
    /// Mean time that wanted pages are kept.
    pub hold_ns: u64,
    /// Instructions of all nodes in a millisecond, times ten.
    pub decirate: u64,
    /// Median wait of an instruction that waits, in nanoseconds.
    pub median_ns: u64,
    /// Longest wait.
    pub longest_ns: u64,
    /// Least instructions of a node over the most, in percent: 100 is fair.
    pub evenness: u64,
}

/// Runs them on a good link; `None` if an instruction starves.
#[must_use]
pub fn measure(nodes: u16, hold_ns: u64, seed: u64) -> Option<Contention> {
    let weather = Weather {
        loss: 0,
        double: 0,
        delay_ns: 5 * US,
        jitter_ns: 2 * US,
        strays: 0,
        pause_every_ns: 0,
        pause_ns: 0,
    };
    let scenario = Scenario {
        weather,
        load: Load::Contend,
        lenders: 0,
        instructions: 1000,
        hold_ns,
        mishap: Mishap::None,
        slow: None,
        ring: 256,
        mtu: 8160,
        spare: vec![600; usize::from(nodes)],
        runs: vec![1; usize::from(nodes)],
        ..Scenario::of(seed, Some(nodes))
    };
    let mut world = World::new(scenario, false);
    world.run().ok()?;
    let retired = world.waits_ns();
    // From when all have begun to when the first has done.
    let last = |r: &Vec<(u64, u64)>| r.last().map_or(0, |&(at, _)| at);
    let first = |r: &Vec<(u64, u64)>| r.first().map_or(0, |&(at, _)| at);
    let from = retired.iter().map(first).max().unwrap_or(0);
    let to = retired.iter().map(last).min().unwrap_or(0);
    let inside = |r: &Vec<(u64, u64)>| r.iter().filter(|r| from < r.0 && r.0 <= to).count() as u64;
    let counts: Vec<u64> = retired.iter().map(inside).collect();
    // A wait that began inside counts in full.
    let waits = retired.iter().flatten().filter(|(at, wait)| (from..=to).contains(&(at - wait)));
    let mut waits: Vec<u64> = waits.map(|&(_, wait)| wait).filter(|&wait| wait > 0).collect();
    waits.sort_unstable();
    assert!(!waits.is_empty(), "nobody fights for anything");
    Some(Contention {
        nodes,
        hold_ns,
        decirate: counts.iter().sum::<u64>() * 10 * MS / (to - from).max(1),
        median_ns: waits[waits.len() / 2],
        longest_ns: waits[waits.len() - 1],
        evenness: counts.iter().min().unwrap_or(&0) * 100
            / counts.iter().max().unwrap_or(&1).max(&1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everyone gets on at the hold time that the image has, and the longest
    /// wait stays within a bound of the median.
    #[test]
    fn nobody_starves() {
        let mut worst = 0;
        for seed in 0..20 {
            let nodes = [2, 3, 5, 8][seed as usize % 4];
            let c = measure(nodes, MS, seed).expect("nobody starves");
            let ratio = c.longest_ns / c.median_ns;
            assert!(ratio < 1000, "seed {seed}: {ratio}, {c:?}");
            worst = worst.max(ratio);
        }
        println!("longest wait over median: at most {worst}");
    }

    /// Pages that are given up before another can come get nobody on: the
    /// check can fail.
    #[test]
    fn too_short_a_hold_starves() {
        assert_eq!(measure(8, 20_000, 7), None);
    }
}
