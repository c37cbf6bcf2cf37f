//! Fingerprints of states: 64 bits, mixed well enough that two of 10^8 states
//! are taken for one with a chance of 3 in 10,000.

/// Mixes words into a fingerprint.
#[derive(Clone, Copy, Debug)]
pub struct Mixer(u64);

const START: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

impl Default for Mixer {
    fn default() -> Mixer {
        Mixer(START)
    }
}

impl Mixer {
    /// Adds a word; both halves of the product count.
    pub fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ START) * u128::from(FACTOR | 1);
        self.0 =
            (product as u64 ^ (product >> 64) as u64).rotate_left(23) ^ word.wrapping_mul(START);
    }

    /// The fingerprint of what was added.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        self.word(0x5bd1_e995);
        let mut h = self.0;
        h = (h ^ (h >> 32)).wrapping_mul(FACTOR);
        h = (h ^ (h >> 29)).wrapping_mul(START | 1);
        h ^ (h >> 32)
    }
}
