//! Sets of address ranges in a fixed space, for memory maps before any heap.

/// A half-open range of physical addresses in bytes; empty where `start >= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Range {
    /// The range from `start` to `end`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    /// `len` bytes from `start` on, cut off at the end of the address space.
    #[must_use]
    pub const fn from_len(start: u64, len: u64) -> Range {
        Range { start, end: start.saturating_add(len) }
    }

    /// Bytes in the range.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// The part made of whole pages.
    #[must_use]
    pub const fn whole_pages(&self) -> Range {
        match self.start.checked_add(4095) {
            Some(start) => Range { start: start & !4095, end: self.end & !4095 },
            None => Range { start: 0, end: 0 },
        }
    }

    /// The pages that the range touches.
    #[must_use]
    pub const fn touched_pages(&self) -> Range {
        Range { start: self.start & !4095, end: self.end.saturating_add(4095) & !4095 }
    }
}

/// Sorted, disjoint, non-touching ranges. When the space is used up the
/// smallest ranges are forgotten, never invented: a set that says what may be
/// used errs on the safe side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeSet<const N: usize> {
    ranges: [Range; N],
    len: usize,
    dropped: bool,
}

impl<const N: usize> Default for RangeSet<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> RangeSet<N> {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        RangeSet { ranges: [Range { start: 0, end: 0 }; N], len: 0, dropped: false }
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[Range] {
        &self.ranges[..self.len]
    }

    /// Whether ranges were forgotten because the space was used up.
    #[must_use]
    pub const fn dropped(&self) -> bool {
        self.dropped
    }

    /// Bytes in all ranges.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.as_slice().iter().fold(0, |sum, r| sum.saturating_add(r.len()))
    }

    /// The range that holds the address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<Range> {
        let after = self.as_slice().partition_point(|r| r.start <= address);
        let range = *self.as_slice().get(after.checked_sub(1)?)?;
        range.contains(address).then_some(range)
    }

    /// Whether all of `range` is in the set; an empty range is not.
    #[must_use]
    pub fn covers(&self, range: Range) -> bool {
        !range.is_empty() && self.find(range.start).is_some_and(|r| range.end <= r.end)
    }

    /// Adds a range, joining what it overlaps or touches.
    pub fn insert(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let first = self.as_slice().partition_point(|r| r.end < range.start);
        let last = self.as_slice().partition_point(|r| r.start <= range.end);
        if first == last {
            self.insert_at(first, range);
            return;
        }
        let joined = Range {
            start: self.ranges[first].start.min(range.start),
            end: self.ranges[last - 1].end.max(range.end),
        };
        self.ranges[first] = joined;
        self.delete(first + 1, last);
    }

    /// Takes a range out, splitting what it cuts.
    pub fn remove(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let first = self.as_slice().partition_point(|r| r.end <= range.start);
        let last = self.as_slice().partition_point(|r| r.start < range.end);
        if first == last {
            return;
        }
        let left = Range::new(self.ranges[first].start, range.start);
        let right = Range::new(range.end, self.ranges[last - 1].end);
        self.delete(first, last);
        if !right.is_empty() {
            self.insert_at(first, right);
        }
        if !left.is_empty() {
            // `right` may have been forgotten or have replaced another range.
            let at = self.as_slice().partition_point(|r| r.start < left.start);
            self.insert_at(at, left);
        }
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.ranges.copy_within(to..self.len, from);
        self.len -= to - from;
    }

    fn insert_at(&mut self, at: usize, range: Range) {
        let mut at = at;
        if self.len == N {
            self.dropped = true;
            let smallest = (0..self.len).min_by_key(|&i| self.ranges[i].len());
            match smallest {
                Some(i) if self.ranges[i].len() < range.len() => {
                    self.delete(i, i + 1);
                    if i < at {
                        at -= 1;
                    }
                }
                _ => return,
            }
        }
        self.ranges.copy_within(at..self.len, at + 1);
        self.ranges[at] = range;
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> RangeSet<4> {
        let mut s = RangeSet::new();
        for &(a, b) in ranges {
            s.insert(Range::new(a, b));
        }
        s
    }

    fn list<const N: usize>(s: &RangeSet<N>) -> [(u64, u64); 4] {
        let mut out = [(0, 0); 4];
        for (o, r) in out.iter_mut().zip(s.as_slice()) {
            *o = (r.start, r.end);
        }
        out
    }

    #[test]
    fn joins_and_splits() {
        let mut s = set(&[(10, 20), (30, 40), (20, 25), (5, 12)]);
        assert_eq!(list(&s), [(5, 25), (30, 40), (0, 0), (0, 0)]);
        s.remove(Range::new(8, 35));
        assert_eq!(list(&s), [(5, 8), (35, 40), (0, 0), (0, 0)]);
        s.insert(Range::new(0, 100));
        s.remove(Range::new(10, 20));
        assert_eq!(list(&s), [(0, 10), (20, 100), (0, 0), (0, 0)]);
        assert!(s.covers(Range::new(20, 100)));
        assert!(!s.covers(Range::new(5, 25)));
        assert_eq!(s.find(10), None);
        assert_eq!(s.total(), 90);
    }

    #[test]
    fn a_full_set_forgets_the_smallest() {
        let mut s = set(&[(0, 10), (20, 21), (40, 60), (80, 100)]);
        s.insert(Range::new(200, 300));
        assert_eq!(list(&s), [(0, 10), (40, 60), (80, 100), (200, 300)]);
        s.insert(Range::new(400, 401));
        assert_eq!(list(&s), [(0, 10), (40, 60), (80, 100), (200, 300)]);
        assert!(s.dropped());
        s.remove(Range::new(210, 211));
        assert_eq!(list(&s)[3], (211, 300));
        assert!(s.find(210).is_none());
    }

    /// However full the set: what was removed is out, and nothing is in that
    /// was never put in.
    #[test]
    fn a_small_set_errs_on_the_safe_side() {
        let mut seed = 7u64;
        let mut lost = 0;
        for _ in 0..2000 {
            let mut s = RangeSet::<3>::new();
            let mut bits = 0u64;
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let a = (seed >> 40) % 63;
                let b = (a + 1 + (seed >> 50) % 9).min(63);
                let mask = ((1u64 << (b - a)) - 1) << a;
                if seed >> 33 & 3 != 0 {
                    s.insert(Range::new(a, b));
                    bits |= mask;
                } else {
                    s.remove(Range::new(a, b));
                    bits &= !mask;
                }
                let kept = (0..64).filter(|&i| s.find(i).is_some()).fold(0, |k, i| k | 1u64 << i);
                assert_eq!(kept & !bits, 0);
                assert!(kept == bits || s.dropped());
                lost += u32::from(kept != bits);
                assert!(s.as_slice().windows(2).all(|w| w[0].end < w[1].start));
            }
        }
        assert!(lost > 0, "the test never filled a set");
    }

    /// Every operation against a bitmap of 64 addresses; removal must never
    /// leave an address in, insertion into a roomy set must never lose one.
    #[test]
    fn agrees_with_a_bitmap() {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..300 {
            let mut s = RangeSet::<40>::new();
            let mut bits = 0u64;
            for _ in 0..30 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let a = (seed >> 40) % 63;
                let b = a + 1 + (seed >> 50) % (63 - a);
                let mask = ((1u64 << (b - a)) - 1) << a;
                if seed >> 33 & 1 == 0 {
                    s.insert(Range::new(a, b));
                    bits |= mask;
                } else {
                    s.remove(Range::new(a, b));
                    bits &= !mask;
                }
                for i in 0..64 {
                    assert_eq!(s.find(i).is_some(), bits >> i & 1 == 1);
                }
                assert!(s.as_slice().windows(2).all(|w| w[0].end < w[1].start));
            }
        }
    }

    #[test]
    fn pages_at_the_edges() {
        assert_eq!(Range::new(1, 8193).whole_pages(), Range::new(4096, 8192));
        assert!(Range::new(u64::MAX - 5, u64::MAX).whole_pages().is_empty());
        assert_eq!(Range::from_len(u64::MAX - 1, 100).end, u64::MAX);
        assert_eq!(Range::new(4097, 4098).touched_pages(), Range::new(4096, 8192));
    }
}
