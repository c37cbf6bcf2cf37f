//! Jitter. SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom
//! number generators", OOPSLA 2014.

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between half of `mean` and one and a half.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.next() % mean.max(1)
    }
}
