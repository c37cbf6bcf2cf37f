//! Nodes that all write the same two pages, both at once by every second
//! instruction: does everyone get on, and how long are pages best kept for an
//! instruction that lacks the other one?

use crate::scenario::{Load, MS, Mishap, Scenario, Weather};
use crate::world::World;
use core::ops::Range;

/// What nodes got done that fought for two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contention {
    /// Nodes.
    pub nodes: u16,
    /// One way through the link, on average.
    pub delay_ns: u64,
    /// Mean time that wanted pages are kept, or what the nodes have come to.
    pub hold_ns: u64,
    /// A round trip as the fabrics have measured it, on average.
    pub rtt_ns: u64,
    /// Instructions of all nodes in a millisecond, times ten.
    pub decirate: u64,
    /// Median wait of an instruction that waits, in nanoseconds.
    pub median_ns: u64,
    /// Longest wait.
    pub longest_ns: u64,
    /// Least instructions of a node over the most, in percent: 100 is fair.
    pub evenness: u64,
}

impl Contention {
    /// Longest wait over median: how unfair it was to somebody.
    #[must_use]
    pub fn ratio(&self) -> u64 {
        self.longest_ns / self.median_ns
    }

    /// Of several runs with hold times that the nodes choose, the one with the
    /// worst [`Contention::ratio`]; `None` if something starves in any.
    #[must_use]
    pub fn worst(nodes: u16, delay_ns: u64, seeds: Range<u64>) -> Option<Contention> {
        let runs: Option<Vec<Contention>> =
            seeds.map(|seed| measure(nodes, delay_ns, None, seed)).collect();
        runs?.into_iter().max_by_key(Contention::ratio)
    }
}

/// Runs them on a good link that takes `delay_ns` at least and a fifth of it
/// more on average. Wanted pages are kept for `hold_ns`, or as the nodes
/// measure. `None` if an instruction starves, or a node until another has done.
#[must_use]
pub fn measure(nodes: u16, delay_ns: u64, hold_ns: Option<u64>, seed: u64) -> Option<Contention> {
    let weather = Weather {
        loss: 0,
        double: 0,
        delay_ns,
        jitter_ns: delay_ns * 2 / 5,
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
        tables: None,
        hurry_every: 0,
        ..Scenario::of(seed, Some(nodes))
    };
    let mut world = World::new(scenario, false);
    world.run().ok()?;
    let retired = world.waits_ns();
    let (hold_ns, rtt_ns) = world.holds_and_rtts_ns();
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
    if waits.is_empty() {
        return None; // one had done all before another had begun
    }
    Some(Contention {
        nodes,
        delay_ns,
        hold_ns,
        rtt_ns,
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
    use crate::scenario::US;

    /// Everyone gets on with the hold time that the nodes choose, on links of
    /// any delay, and the longest wait stays within a bound of the median.
    #[test]
    fn nobody_starves() {
        let mut worst = 0;
        for seed in 0..20 {
            let nodes = [2, 3, 5, 8][seed as usize % 4];
            let delay_ns = [5, 25, 75][seed as usize % 3] * US;
            let c = measure(nodes, delay_ns, None, seed).expect("nobody starves");
            assert!(c.ratio() < 1000, "seed {seed}: {c:?}");
            worst = worst.max(c.ratio());
        }
        println!("longest wait over median: at most {worst}");
    }

    /// Pages are kept for longer where round trips are longer.
    #[test]
    fn the_hold_time_follows_the_link() {
        let of = |delay_us| measure(4, delay_us * US, None, 1).expect("nobody starves");
        let (near, far) = (of(5), of(75));
        assert!(far.rtt_ns > near.rtt_ns + 100 * US, "{near:?} {far:?}");
        // What is seen of each varies from run to run.
        assert!(2 * far.hold_ns > 3 * near.hold_ns, "{near:?} {far:?}");
    }

    /// Pages that are given up before another can come get nobody on: the
    /// check can fail.
    #[test]
    fn too_short_a_hold_starves() {
        assert_eq!(measure(8, 5 * US, Some(20 * US), 7), None);
    }
}
