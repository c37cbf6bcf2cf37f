//! A random order that needs no memory.

/// Every number below `len` once, in an order without runs.
///
/// A counter of k bits goes through a bijection (multiplications by odd
/// numbers and shifted exclusive ors, as in the finalisers of hash functions);
/// results of `len` and above are passed over.
#[derive(Clone, Debug)]
pub struct Shuffle {
    len: u64,
    bits: u32,
    next: u64,
}

impl Shuffle {
    /// An order of the numbers below `len`.
    #[must_use]
    pub fn new(len: u64) -> Shuffle {
        let bits = (64 - len.saturating_sub(1).leading_zeros()).max(2);
        Shuffle { len, bits, next: 0 }
    }

    fn scatter(&self, counter: u64) -> u64 {
        let mask = u64::MAX >> (64 - self.bits);
        let half = self.bits.div_ceil(2);
        let mut x = counter;
        for odd in [0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB_u64] {
            x = x.wrapping_mul(odd).wrapping_add(odd >> 32) & mask;
            x ^= x >> half;
        }
        x
    }
}

impl Iterator for Shuffle {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while self.next >> self.bits == 0 {
            let value = self.scatter(self.next);
            self.next += 1;
            if value < self.len {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once() {
        for len in [0, 1, 2, 3, 5, 1000, 4096, 10_000] {
            let mut all: Vec<_> = Shuffle::new(len).collect();
            all.sort_unstable();
            assert_eq!(all, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn neighbours_seldom_follow_each_other() {
        let order: Vec<_> = Shuffle::new(10_000).collect();
        let near = order.windows(2).filter(|w| w[0].abs_diff(w[1]) <= 16).count();
        assert!(near < 150, "{near} of 10000 are within 16 of the one before");
    }
}
