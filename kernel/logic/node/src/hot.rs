//! The pages that most remote faults go to, and the instructions they come
//! from.
//!
//! A table of fixed size by the space-saving algorithm (Metwally, Agrawal, El
//! Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
//! Streams", 2005): a pair that is not in it takes the place of the least, and
//! inherits its count as the most that its own may be wrong by. Only one
//! fault in a few is looked at, at distances that follow no pattern, so that
//! a fault itself pays next to nothing.

use addr::Gfn;

/// Places in the table.
pub const PLACES: usize = 16;
/// What a fault counts inside the table, so that counts can fade by parts.
const UNIT: u32 = 64;
/// The longest distance between two faults that are looked at.
const GAP_MAX: u32 = 8;

/// A page, an instruction, and how often they met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hot {
    /// The page.
    pub gfn: Gfn,
    /// The guest's instruction pointer.
    pub rip: u64,
    /// Faults that were looked at, [`Hot::error`] of them perhaps of others.
    pub count: u32,
    /// The most that the count may be too large by.
    pub error: u32,
}

/// The table.
#[derive(Clone, Debug)]
pub struct HotPages {
    places: [Hot; PLACES],
    gap: u32,
    random: u32,
}

impl Default for HotPages {
    fn default() -> HotPages {
        HotPages { places: [Hot::default(); PLACES], gap: 1, random: 0x9E37_79B9 }
    }
}

impl HotPages {
    /// A fault at `gfn` by the instruction at `rip`.
    #[inline]
    pub fn fault(&mut self, gfn: Gfn, rip: u64) {
        self.gap -= 1;
        if self.gap == 0 {
            self.gap = self.next_gap();
            self.count(gfn, rip);
        }
    }

    /// A distance of 1 to [`GAP_MAX`] (xorshift32, Marsaglia 2003).
    fn next_gap(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        1 + self.random % GAP_MAX
    }

    fn count(&mut self, gfn: Gfn, rip: u64) {
        let mut least = 0;
        for at in 0..PLACES {
            let place = &mut self.places[at];
            if place.count > 0 && place.gfn == gfn && place.rip == rip {
                place.count = place.count.saturating_add(UNIT);
                return;
            }
            if place.count < self.places[least].count {
                least = at;
            }
        }
        let error = self.places[least].count;
        self.places[least] = Hot { gfn, rip, count: error.saturating_add(UNIT), error };
    }

    /// The pairs that were counted, the most frequent first.
    #[must_use]
    pub fn most(&self) -> [Hot; PLACES] {
        let whole = |count: u32| count / UNIT + u32::from(count % UNIT >= UNIT / 2);
        let mut places = self.places;
        for place in &mut places {
            (place.count, place.error) = (whole(place.count), whole(place.error));
        }
        places.sort_unstable_by_key(|hot| (core::cmp::Reverse(hot.count), hot.gfn, hot.rip));
        places
    }

    /// Takes an eighth of all counts, so that what was long ago counts for
    /// little.
    pub fn fade(&mut self) {
        for place in &mut self.places {
            place.count -= place.count.div_ceil(8);
            place.error -= place.error.div_ceil(8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fault is looked at.
    fn count(table: &mut HotPages, gfn: u64, rip: u64) {
        table.count(Gfn(gfn), rip);
    }

    #[test]
    fn a_frequent_pair_is_found_among_many() {
        let mut table = HotPages::default();
        for i in 0..1000 {
            count(&mut table, 7, 0x1000);
            count(&mut table, 100 + i, 0x2000);
            count(&mut table, 200_000 + i, 0x3000);
        }
        let most = table.most();
        assert_eq!((most[0].gfn, most[0].rip), (Gfn(7), 0x1000));
        let certain = most[0].count - most[0].error;
        assert!((900..=1000).contains(&certain), "{most:?}");
        assert!(most[0].count >= 1000, "a count is never too low");
        assert!(most[1].count - most[1].error < 10, "the others are known to be rare");
    }

    #[test]
    fn one_page_by_two_instructions_is_two_pairs() {
        let mut table = HotPages::default();
        (0..5).for_each(|_| count(&mut table, 7, 1));
        (0..3).for_each(|_| count(&mut table, 7, 2));
        let most = table.most();
        assert_eq!([most[0].count, most[1].count, most[2].count], [5, 3, 0]);
    }

    #[test]
    fn what_was_long_ago_fades() {
        let mut table = HotPages::default();
        (0..8).for_each(|_| count(&mut table, 7, 1));
        table.fade();
        assert_eq!(table.most()[0].count, 7);
        (0..40).for_each(|_| table.fade());
        assert_eq!(table.most()[0].count, 0);
        count(&mut table, 9, 1);
        assert_eq!(table.most()[0].gfn, Gfn(9));
    }

    #[test]
    fn one_fault_in_a_few_is_looked_at() {
        let mut table = HotPages::default();
        (0..9000).for_each(|_| table.fault(Gfn(1), 1));
        let counted = table.most()[0].count;
        assert!((1800..2200).contains(&counted), "{counted} of 9000");
    }

    #[test]
    fn what_has_faded_by_less_than_half_counts() {
        let mut table = HotPages::default();
        count(&mut table, 7, 1);
        // 64 parts become 56, 49, 42, 36 and 31.
        for whole in [1, 1, 1, 1, 0] {
            table.fade();
            assert_eq!(table.most()[0].count, whole);
        }
        for _ in 0..8 {
            (0..PLACES as u64).for_each(|gfn| count(&mut table, 100 + gfn, 1));
        }
        count(&mut table, 9, 1);
        let newest = |table: &HotPages| table.most().into_iter().find(|hot| hot.gfn == Gfn(9));
        let error = newest(&table).unwrap().error;
        table.fade();
        assert!((1..error).contains(&newest(&table).unwrap().error), "{error}");
    }
}
