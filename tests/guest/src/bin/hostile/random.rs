//! Numbers that look random and are the same in every run.

/// xorshift64* (Marsaglia; Vigna 2014).
pub(crate) struct Random(u64);

impl Random {
    /// Starts a row of numbers.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
