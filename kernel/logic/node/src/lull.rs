//! How long a node that polled for a page leaves its NIC's interrupt off.
//!
//! A guest that goes from one remote page to the next is not to exit for what is
//! polled for anyway. So the interrupt stays off after a page, for as long as the
//! guest needs for a few more. Where each takes long, for a slow link or a busy host,
//! a fixed time would end just before the next fault, each time.
//!
//! A guest that does not want another page soon would exit only because that time is
//! over. Where the last few were followed by none, all that a page leaves to be done is
//! done before the guest goes on, which then takes a little longer.

/// Pages that a lull lasts for.
const PAGES: u64 = 4;
/// Highest [`Lull::alone`], and from where on a page is taken to be alone.
const ALONE: (u8, u8) = (3, 2);

/// Decides on it. Times are in ticks of one clock.
#[derive(Clone, Debug)]
pub struct Lull {
    least: u64,
    most: u64,
    /// When the guest exited for its last page.
    last: u64,
    /// How long the lull after that is, and when it ends, or would.
    length: u64,
    end: u64,
    /// From one page to the next, on average; 0 while that is not known.
    pace: u64,
    /// One more for each page that no other followed before its lull was over, one less
    /// for each other.
    alone: u8,
}

impl Lull {
    /// It lasts no less than `least` and no more than `most`: that long a peer may
    /// have to wait for this node.
    #[must_use]
    pub fn new(least: u64, most: u64) -> Lull {
        Lull { least, most, last: 0, length: least, end: 0, pace: 0, alone: 0 }
    }

    /// The guest waits for a page for which it exited at `since`, at `now` still: when the
    /// lull ends at the earliest that begins with this.
    pub fn wait(&mut self, since: u64, now: u64) -> u64 {
        if since != self.last {
            self.note(since);
        }
        now + self.length
    }

    /// The page has come at `now`.
    #[inline]
    pub fn came(&mut self, now: u64) {
        self.end = now + self.length;
    }

    fn note(&mut self, since: u64) {
        let is_followed = since < self.end;
        self.alone =
            if is_followed { self.alone.saturating_sub(1) } else { ALONE.0.min(self.alone + 1) };
        let gap = since.saturating_sub(self.last);
        self.last = since;
        self.pace = match self.pace {
            _ if gap >= self.most => 0,
            0 => gap,
            pace => (3 * pace + gap) / 4,
        };
        self.length = (PAGES * self.pace).clamp(self.least, self.most);
    }

    /// Whether it is likely to end before another page is waited for.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone >= ALONE.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the last lull, where a guest waits for pages so long one after the
    /// other, for `trip` each.
    fn after_trips(lull: &mut Lull, gaps: &[u64], trip: u64) -> u64 {
        let mut length = 0;
        for gap in gaps {
            let since = lull.last + gap;
            lull.wait(since, since + 1);
            length = lull.wait(since, since + 2) - since - 2;
            lull.came(since + trip);
        }
        length
    }

    fn after(lull: &mut Lull, gaps: &[u64]) -> u64 {
        after_trips(lull, gaps, 10)
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

    #[test]
    fn a_page_is_alone_where_the_last_ones_were() {
        let mut lull = Lull::new(300, 1000);
        let mut alone = |gaps: &[u64]| {
            after(&mut lull, gaps);
            lull.is_alone()
        };
        assert!(!alone(&[5000]), "one says little");
        assert!(alone(&[5000]));
        assert!(!alone(&[100, 100, 100]), "others follow");
        assert!(!alone(&[5000]), "they have ended");
        assert!(alone(&[5000]), "and this was none of them");
        assert!(alone(&[5000, 100, 5000]), "two, now and then");
        // What counts is what the guest does between them.
        after_trips(&mut lull, &[5000; 3], 4900);
        assert!(!lull.is_alone());
    }
}
