//! Random changes of byte strings, for runs without a coverage-guided fuzzer.

/// SplitMix64.
#[derive(Clone, Copy, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }
}

/// Longest string that is made.
const LEN_MAX: usize = 4096;

/// Changes a string in a few places: flips, overwrites, inserts, removes,
/// repeats, appends.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(8) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            1 if !bytes.is_empty() => bytes[at] = rng.number() as u8,
            2 => bytes.insert(at, rng.number() as u8),
            3 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            4 => {
                let end = bytes.len().min(at + rng.below(32));
                let part = bytes[at..end].to_vec();
                bytes.extend_from_slice(&part);
            }
            _ => bytes.extend((0..rng.below(48)).map(|_| rng.number() as u8)),
        }
        bytes.truncate(LEN_MAX);
    }
}
