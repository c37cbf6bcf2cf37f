//! How long pages are kept for an instruction that still lacks another one.
//!
//! An instruction may need several pages at once, so those that have come are
//! kept from other nodes until it has retired. Two processors may then each
//! keep what the other needs. So none keeps for ever; and since two that give
//! up at the same instant only swap their pages and are where they were, each
//! chooses its time at random, anew every time.

/// Round trips that a wanted page is kept for, on average: near the best on most
/// links, by the simulator's contention (`cargo pangaea scale --contention`).
const ROUND_TRIPS: u64 = 4;
/// Shortest and longest mean time, whatever a peer makes of its round trips.
const MEAN_NS: (u64, u64) = (100_000, 4_000_000);
/// The mean time before a round trip has been measured.
const UNMEASURED_NS: u64 = 1_000_000;

/// The mean time to keep wanted pages where a round trip takes `rtt_ns`.
pub(crate) fn mean_ns(rtt_ns: Option<u64>) -> u64 {
    let (least, most) = MEAN_NS;
    rtt_ns.map_or(UNMEASURED_NS, |ns| ns.saturating_mul(ROUND_TRIPS).clamp(least, most))
}

/// The time until pages that others want are given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hold {
    until_ns: Option<u64>,
    chance: u64,
}

impl Hold {
    /// `seed` differs between the nodes.
    pub(crate) fn new(seed: u64) -> Hold {
        Hold { until_ns: None, chance: seed }
    }

    /// Nothing is kept any more.
    pub(crate) fn end(&mut self) {
        self.until_ns = None;
    }

    /// Another node waits for a page that is kept, maybe since earlier.
    pub(crate) fn begin(&mut self, now_ns: u64, mean_ns: u64) {
        if self.until_ns.is_none() {
            // Knuth's MMIX generator; the high bits are the good ones.
            self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005);
            self.chance = self.chance.wrapping_add(1_442_695_040_888_963_407);
            let spread = (self.chance >> 33) % mean_ns.max(1);
            self.until_ns = Some(now_ns + mean_ns / 2 + spread);
        }
    }

    /// The same; `true` when it must go.
    pub(crate) fn is_over(&mut self, now_ns: u64, mean_ns: u64) -> bool {
        self.begin(now_ns, mean_ns);
        self.until_ns.is_some_and(|at| at <= now_ns)
    }

    /// When to look again.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        self.until_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_time_follows_round_trips_within_bounds() {
        assert_eq!(mean_ns(None), 1_000_000);
        assert_eq!(mean_ns(Some(90_000)), 360_000);
        assert_eq!(mean_ns(Some(1)), 100_000);
        assert_eq!(mean_ns(Some(u64::MAX)), 4_000_000);
    }

    #[test]
    fn two_nodes_do_not_give_up_together_for_long() {
        let (mut a, mut b) = (Hold::new(0), Hold::new(1));
        let mut apart = 0;
        for round in 0..100u64 {
            let now = round * 10_000;
            assert!(!a.is_over(now, 1_000) && !b.is_over(now, 1_000));
            let (x, y) = (a.until_ns().unwrap(), b.until_ns().unwrap());
            assert!((now + 500..now + 1_500).contains(&x), "{x}");
            assert!(!a.is_over(x - 1, 1_000) && a.is_over(x, 1_000));
            apart += u64::from(x.abs_diff(y) > 100);
            a.end();
            b.end();
        }
        assert!(apart > 60, "{apart}");
    }
}
