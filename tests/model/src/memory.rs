//! Page frames of a node in a few bytes each: what all entries are but for
//! those that are not.
//!
//! The model holds millions of states; a vector of bytes would make each of
//! them 100 KiB.

use addr::{Frame, PAGE_SIZE};
use paging::HostMemory;
use std::sync::Arc;

const WORDS: usize = PAGE_SIZE / 8;
/// What a frame holds that nobody has written.
const GARBAGE: u64 = 0xa5a5_a5a5_a5a5_a5a5;
/// Words that differ from the others at most, before all are written down.
const OTHERS_MAX: usize = 32;
/// Frames that states have in common or not, together.
const TOGETHER: usize = 64;

/// One frame as 512 words.
#[derive(Clone, Debug)]
enum Words {
    /// A word at every index but for others at some.
    Alike(u64, Vec<(u16, u64)>),
    /// Each word.
    Each(Arc<[u64; WORDS]>),
}

impl Words {
    fn get(&self, index: usize) -> u64 {
        match self {
            Words::Alike(fill, others) => {
                let found = others.iter().find(|(at, _)| usize::from(*at) == index);
                found.map_or(*fill, |(_, word)| *word)
            }
            Words::Each(words) => words[index],
        }
    }

    fn set(&mut self, index: usize, word: u64) {
        let (fill, others) = match self {
            Words::Alike(fill, others) => (*fill, others),
            Words::Each(words) => {
                Arc::make_mut(words)[index] = word;
                return;
            }
        };
        let at = others.iter().position(|(at, _)| usize::from(*at) == index);
        match at {
            Some(at) if word == fill => {
                others.swap_remove(at);
            }
            Some(at) => others[at].1 = word,
            None if word == fill => {}
            None => others.push((index as u16, word)),
        }
        if others.len() > OTHERS_MAX {
            *self = self.fewest();
        }
    }

    /// The same as words that are alike but for a few, if they are.
    fn fewest(&self) -> Words {
        let all: [u64; WORDS] = std::array::from_fn(|i| self.get(i));
        let fill = all[WORDS / 2];
        let differs = all.iter().enumerate().filter(|&(_, &word)| word != fill);
        let others: Vec<_> = differs.map(|(at, &word)| (at as u16, word)).collect();
        if others.len() > OTHERS_MAX / 2 {
            return Words::Each(Arc::new(all));
        }
        Words::Alike(fill, others)
    }
}

/// Frames 0 to n - 1.
#[derive(Clone, Debug)]
pub struct Memory(Vec<Arc<[Words; TOGETHER]>>);

impl Memory {
    /// Memory of `frames` frames that hold garbage.
    #[must_use]
    pub fn new(frames: usize) -> Memory {
        let some = Arc::new(std::array::from_fn(|_| Words::Alike(GARBAGE, Vec::new())));
        Memory(vec![some; frames.div_ceil(TOGETHER)])
    }

    fn words(&self, frame: Frame) -> &Words {
        &self.0[frame.0 as usize / TOGETHER][frame.0 as usize % TOGETHER]
    }

    fn words_mut(&mut self, frame: Frame) -> &mut Words {
        &mut Arc::make_mut(&mut self.0[frame.0 as usize / TOGETHER])[frame.0 as usize % TOGETHER]
    }

    /// The first word of a page: all that the model's stores write.
    #[must_use]
    pub fn value(&self, frame: Frame) -> u64 {
        self.words(frame).get(0)
    }

    /// Makes a page hold a value and nothing else.
    pub fn store(&mut self, frame: Frame, value: u64) {
        let mut words = Words::Alike(0, Vec::new());
        words.set(0, value);
        *self.words_mut(frame) = words;
    }
}

impl HostMemory for Memory {
    fn read_entry(&self, table: Frame, index: usize) -> u64 {
        self.words(table).get(index)
    }
    fn write_entry(&mut self, table: Frame, index: usize, value: u64) {
        self.words_mut(table).set(index, value);
    }
    fn zero(&mut self, frame: Frame) {
        self.store(frame, 0);
    }
    fn is_zero(&self, frame: Frame) -> bool {
        match self.words(frame) {
            Words::Alike(fill, others) => *fill == 0 && others.is_empty(),
            Words::Each(words) => words.iter().all(|&word| word == 0),
        }
    }
    fn write(&mut self, frame: Frame, offset: usize, from: &[u8]) {
        assert!(offset == 0 && from.len() == PAGE_SIZE, "the protocol copies whole pages");
        assert!(from[8..].iter().all(|&b| b == 0), "the model's pages have one word");
        self.store(frame, u64::from_le_bytes(from[..8].try_into().expect("eight bytes")));
    }
    fn read(&self, _: Frame, _: usize, _: &mut [u8]) {
        unreachable!("the protocol never reads a page");
    }
    fn copy_frame(&mut self, to: Frame, from: Frame) {
        *self.words_mut(to) = self.words(from).clone();
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
        sparse.copy_frame(Frame(0), Frame(1));
        let same = |i| sparse.read_entry(Frame(0), i) == plain.read_entry(Frame(1), i);
        assert!((0..WORDS).all(same));
        sparse.write_entry(Frame(0), 7, 7);
        assert_eq!(sparse.read_entry(Frame(1), 7), plain.read_entry(Frame(1), 7));
        sparse.zero(Frame(1));
        assert!(sparse.is_zero(Frame(1)) && !sparse.is_zero(Frame(0)));
    }
}
