//! Random changes of byte strings, for runs without a coverage-guided fuzzer.

use fastrand::Rng;

/// Longest string that is made.
const LEN_MAX: usize = 4096;

/// Changes a string in a few places: flips, overwrites, inserts, removes,
/// repeats, appends.
pub fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.usize(..8) {
        let at = rng.usize(..bytes.len().max(1));
        match rng.usize(..6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.usize(..8),
            1 if !bytes.is_empty() => bytes[at] = rng.u8(..),
            2 => bytes.insert(at, rng.u8(..)),
            3 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            4 => {
                let end = bytes.len().min(at + rng.usize(..32));
                let part = bytes[at..end].to_vec();
                bytes.extend_from_slice(&part);
            }
            _ => bytes.extend((0..rng.usize(..48)).map(|_| rng.u8(..))),
        }
        bytes.truncate(LEN_MAX);
    }
}
