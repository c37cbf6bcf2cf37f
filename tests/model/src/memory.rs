//! Page frames of a node in a few bytes each: what all entries are but for
//! those that are not.
//!
//! The model holds millions of states; a vector of bytes would make each of
//! them 100 KiB.

use addr::{Frame, PAGE_SIZE};
use paging::HostMemory;

const WORDS: usize = PAGE_SIZE / 8;
/// What a frame holds that nobody has written.
const GARBAGE: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// One frame as 512 words.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Words {
    /// The word at every index that is not in `others`.
    fill: u64,
    others: Vec<(u16, u64)>,
}

impl Words {
    fn get(&self, index: usize) -> u64 {
        let found = self.others.iter().find(|(at, _)| usize::from(*at) == index);
        found.map_or(self.fill, |(_, word)| *word)
    }

    fn set(&mut self, index: usize, word: u64) {
        let at = self.others.iter().position(|(at, _)| usize::from(*at) == index);
        match at {
            Some(at) if word == self.fill => {
                self.others.swap_remove(at);
            }
            Some(at) => self.others[at].1 = word,
            None if word == self.fill => {}
            None => self.others.push((index as u16, word)),
        }
        if self.others.len() > WORDS / 2 {
            self.refill(word);
        }
    }

    /// Makes `fill` the word that most indices have now.
    fn refill(&mut self, fill: u64) {
        let all: Vec<u64> = (0..WORDS).map(|i| self.get(i)).collect();
        let differs = all.iter().enumerate().filter(|&(_, &word)| word != fill);
        self.others = differs.map(|(at, &word)| (at as u16, word)).collect();
        self.fill = fill;
    }
}

/// Frames 0 to n - 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory(Vec<Words>);

impl Memory {
    /// Memory of `frames` frames that hold garbage.
    #[must_use]
    pub fn new(frames: usize) -> Memory {
        Memory(vec![Words { fill: GARBAGE, others: Vec::new() }; frames])
    }

    fn words(&self, frame: Frame) -> &Words {
        &self.0[frame.0 as usize]
    }

    /// The first word of a page: all that the model's stores write.
    #[must_use]
    pub fn value(&self, frame: Frame) -> u64 {
        self.words(frame).get(0)
    }

    /// Makes a page hold a value and nothing else.
    pub fn store(&mut self, frame: Frame, value: u64) {
        let words = &mut self.0[frame.0 as usize];
        (words.fill, words.others) = (0, Vec::new());
        words.set(0, value);
    }
}

impl HostMemory for Memory {
    fn read_entry(&self, table: Frame, index: usize) -> u64 {
        self.words(table).get(index)
    }
    fn write_entry(&mut self, table: Frame, index: usize, value: u64) {
        self.0[table.0 as usize].set(index, value);
    }
    fn zero(&mut self, frame: Frame) {
        self.store(frame, 0);
    }
    fn is_zero(&self, frame: Frame) -> bool {
        let words = self.words(frame);
        words.fill == 0 && words.others.is_empty()
    }
    fn write(&mut self, frame: Frame, offset: usize, from: &[u8]) {
        assert!(offset == 0 && from.len() == PAGE_SIZE, "the protocol copies whole pages");
        assert!(from[8..].iter().all(|&b| b == 0), "the model's pages have one word");
        self.store(frame, u64::from_le_bytes(from[..8].try_into().expect("eight bytes")));
    }
    fn read(&self, _: Frame, _: usize, _: &mut [u8]) {
        unreachable!("the protocol never reads a page");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paging::memory::fake::VecMemory;

    #[test]
    fn it_behaves_as_a_vector_of_bytes() {
        let mut sparse = Memory::new(2);
        let mut plain = VecMemory::new(2);
        let mut seed = 1u64;
        for step in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (seed >> 33) as usize % WORDS;
            // Long runs of one value, so that the fill changes now and then.
            let value = if seed >> 60 == 0 { seed } else { step / 3000 };
            sparse.write_entry(Frame(1), index, value);
            plain.write_entry(Frame(1), index, value);
            let other = (seed >> 20) as usize % WORDS;
            assert_eq!(sparse.read_entry(Frame(1), other), plain.read_entry(Frame(1), other));
        }
        sparse.zero(Frame(1));
        assert!(sparse.is_zero(Frame(1)) && !sparse.is_zero(Frame(0)));
    }
}
