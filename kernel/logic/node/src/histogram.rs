//! A histogram of times: fixed size, no allocation after start, buckets less
//! than 1 % wide (128 for each power of two), exact minimum and count.

use alloc::boxed::Box;

const SUB_BITS: u32 = 7;
const SUB: usize = 1 << SUB_BITS;
const OCTAVES: usize = 40;
const BUCKETS: usize = SUB * OCTAVES;

/// Times in TSC ticks, counted by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
    min: u64,
}

/// What a histogram comes to, in the unit that was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Values recorded.
    pub count: u64,
    /// Least value.
    pub min: u64,
    /// Median, to 1 %.
    pub p50: u64,
    /// Ninth decile, to 1 %.
    pub p90: u64,
    /// 99th percentile, to 1 %.
    pub p99: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: Box::new([0; BUCKETS]), count: 0, min: u64::MAX }
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let top = 63 - value.leading_zeros();
    let octave = (top - SUB_BITS + 1) as usize;
    let within = (value >> (top - SUB_BITS)) as usize & (SUB - 1);
    (octave * SUB + within).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let (octave, within) = (bucket / SUB, (bucket % SUB) as u64);
    if octave == 0 {
        return within;
    }
    let width = 1 << (octave - 1);
    (SUB as u64 + within) * width + width / 2
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let b = &mut self.buckets[bucket(value)];
        *b = b.saturating_add(1);
        self.count += 1;
        self.min = self.min.min(value);
    }

    /// Values recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.min = u64::MAX;
    }

    fn quantile(&self, numerator: u64, denominator: u64) -> u64 {
        let rank = (self.count * numerator).div_ceil(denominator).max(1);
        let mut seen = 0;
        for (i, &n) in self.buckets.iter().enumerate() {
            seen += u64::from(n);
            if seen >= rank {
                return middle(i).max(self.min);
            }
        }
        self.min
    }

    /// Count, least value and quantiles; all zero if nothing was recorded.
    #[must_use]
    pub fn summary(&self) -> Summary {
        if self.count == 0 {
            return Summary::default();
        }
        Summary {
            count: self.count,
            min: self.min,
            p50: self.quantile(1, 2),
            p90: self.quantile(9, 10),
            p99: self.quantile(99, 100),
        }
    }
}

/// What several histograms together have counted since the last look. The
/// price of looking is paid here, recording costs nothing more.
#[derive(Clone, Debug)]
pub struct Recent {
    before: Box<[u32; BUCKETS]>,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { before: Box::new([0; BUCKETS]) }
    }
}

impl Recent {
    /// Count and quantiles since the last look. Histograms that were cleared
    /// meanwhile count from there on.
    pub fn look<const N: usize>(&mut self, histograms: [&Histogram; N]) -> Summary {
        let sum = |i: usize| histograms.iter().map(|h| h.buckets[i]).fold(0, u32::saturating_add);
        let cleared = (0..BUCKETS).any(|i| sum(i) < self.before[i]);
        let mut recent = Histogram::default();
        for i in 0..BUCKETS {
            let now = sum(i);
            let n = if cleared { now } else { now - self.before[i] };
            if n > 0 && recent.count == 0 {
                recent.min = middle(i);
            }
            recent.buckets[i] = n;
            recent.count += u64::from(n);
            self.before[i] = now;
        }
        recent.summary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_what_came_since_the_last_one() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        let mut recent = Recent::default();
        assert_eq!(recent.look([&a, &b]), Summary::default());
        (0..100).for_each(|_| a.record(10));
        (0..100).for_each(|_| b.record(50));
        let first = recent.look([&a, &b]);
        assert_eq!((first.count, first.min, first.p99), (200, 10, 50));
        assert_eq!(recent.look([&a, &b]).count, 0);
        b.record(70);
        let second = recent.look([&a, &b]);
        assert_eq!((second.count, second.p50), (1, 70));
        a.clear();
        a.record(20);
        let third = recent.look([&a]);
        assert_eq!((third.count, third.p50), (1, 20), "what was cleared counts anew");
    }

    #[test]
    fn quantiles_are_within_one_per_cent() {
        let mut h = Histogram::default();
        for v in 1..=10_000u64 {
            h.record(v * 7);
        }
        let s = h.summary();
        assert_eq!((s.count, s.min), (10_000, 7));
        for (got, want) in [(s.p50, 35_000), (s.p90, 63_000), (s.p99, 69_300)] {
            assert!(got.abs_diff(want) * 100 < want, "{got} for {want}");
        }
    }

    #[test]
    fn extremes_have_a_place() {
        let mut h = Histogram::default();
        h.record(0);
        h.record(u64::MAX);
        assert_eq!((h.summary().count, h.count()), (2, 2));
        for v in (0..2000).chain([1 << 20, (1 << 30) + 12345]) {
            let m = middle(bucket(v));
            assert!(m.abs_diff(v) * 256 <= v, "{v} in the bucket of {m}");
        }
    }
}
