//! How long a node that polled for a page leaves its NIC's interrupt off.
//!
//! A guest that goes from one remote page to the next is not to exit for what is
//! polled for anyway. So the interrupt stays off after a page, for as long as the
//! guest needs for a few more. Where each takes long, for a slow link or a busy host,
//! a fixed time would end just before the next fault, each time.

/// Pages that a lull lasts for.
const PAGES: u64 = 4;

/// Decides on it. Times are in ticks of one clock.
#[derive(Clone, Debug)]
pub struct Lull {
    least: u64,
    most: u64,
    /// When the last began.
    begin: u64,
    /// From one to the next, on average; 0 while that is not known.
    pace: u64,
}

impl Lull {
    /// It lasts no less than `least` and no more than `most`: that long a peer may
    /// have to wait for this node.
    #[must_use]
    pub fn new(least: u64, most: u64) -> Lull {
        Lull { least, most, begin: 0, pace: 0 }
    }

    /// How long the one lasts that begins now.
    pub fn begin(&mut self, now: u64) -> u64 {
        let gap = now.saturating_sub(self.begin);
        self.begin = now;
        self.pace = match self.pace {
            _ if gap >= self.most => 0,
            0 => gap,
            pace => (3 * pace + gap) / 4,
        };
        (PAGES * self.pace).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lull: &mut Lull, gaps: &[u64]) -> u64 {
        let mut last = 0;
        let mut now = lull.begin;
        for gap in gaps {
            now += gap;
            last = lull.begin(now);
        }
        last
    }

    #[test]
    fn it_follows_the_guest_within_its_bounds() {
        let mut lull = Lull::new(300, 1000);
        assert_eq!(after(&mut lull, &[5000]), 300, "the first");
        assert_eq!(after(&mut lull, &[20; 9]), 300, "a quick guest");
        assert_eq!(after(&mut lull, &[200; 30]), 788, "a slow one");
        assert_eq!(after(&mut lull, &[600; 30]), 1000, "a slower one");
        assert_eq!(after(&mut lull, &[1000]), 300, "it has done something else");
        assert_eq!(after(&mut lull, &[200]), 800, "and is back");
    }

    #[test]
    fn one_late_page_does_not_count_for_much() {
        let mut lull = Lull::new(300, 1000);
        after(&mut lull, &[5000, 100, 100, 100]);
        assert_eq!(after(&mut lull, &[900]), 1000);
        assert!(after(&mut lull, &[100; 8]) < 500);
    }
}
