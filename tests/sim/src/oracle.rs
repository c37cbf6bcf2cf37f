//! What every page must hold, and how a write marks a page.

use crate::failure::{Class, Failure};
use crate::history::{SLOTS, Word};
use addr::{Frame, Gfn};
use paging::HostMemory;
use std::collections::BTreeMap;
use std::fmt::Arguments;

/// Where in a page its value stands: in each part of a page that travels in
/// parts.
const PLACES: [usize; 3] = [8, 2048, 4080];

/// What a page must hold.
#[derive(Clone, Copy, Default, Debug)]
struct Content {
    mark: u64,
    words: [u64; SLOTS as usize],
}

/// The last write of every page and word.
#[derive(Default, Debug)]
pub struct Oracle {
    written: BTreeMap<Gfn, Content>,
    count: u64,
    blind: bool,
}

impl Oracle {
    /// Nothing is written yet. A blind oracle finds nothing wrong, so that
    /// others must.
    #[must_use]
    pub fn new(blind: bool) -> Oracle {
        Oracle { blind, ..Oracle::default() }
    }

    /// Whether it finds nothing wrong.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// A value that no write has had before; it tells the writer.
    pub fn fresh(&mut self, writer: usize) -> u64 {
        self.count += 1;
        (writer as u64 + 1) << 48 | self.count
    }

    /// Writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.count
    }

    /// Notes a write.
    pub fn wrote(&mut self, gfn: Gfn, value: u64) {
        self.written.entry(gfn).or_default().mark = value;
    }

    /// Notes a write to a word.
    pub fn wrote_word(&mut self, word: Word, value: u64) {
        self.count += 1;
        let content = self.written.entry(word.gfn).or_default();
        content.words[usize::from(word.slot)] = value;
    }

    /// Checks what was read from a word.
    ///
    /// # Errors
    /// A correctness failure if it is not the last write.
    pub fn check_word(&self, word: Word, found: u64, who: Arguments<'_>) -> Result<(), Failure> {
        let content = self.written.get(&word.gfn).copied().unwrap_or_default();
        let expected = content.words[usize::from(word.slot)];
        if found == expected || self.blind {
            return Ok(());
        }
        let what = format!("{who} reads {found:#x} from word {word}, written was {expected:#x}");
        Err(Failure::about(Class::Correctness, word.gfn, what))
    }

    /// Checks the words of a page as a frame holds them; without one they
    /// are zero.
    ///
    /// # Errors
    /// As [`Oracle::check_word`].
    pub fn check_words(
        &self,
        gfn: Gfn,
        memory: &impl HostMemory,
        frame: Option<Frame>,
        who: Arguments<'_>,
    ) -> Result<(), Failure> {
        let Some(content) = self.written.get(&gfn) else { return Ok(()) };
        for (slot, &expected) in content.words.iter().enumerate() {
            if expected != 0 {
                let word = Word { gfn, slot: slot as u8 };
                self.check_word(word, frame.map_or(0, |f| read_word(memory, f, word)), who)?;
            }
        }
        Ok(())
    }

    /// What the page must hold.
    #[must_use]
    pub fn expected(&self, gfn: Gfn) -> u64 {
        self.written.get(&gfn).map_or(0, |c| c.mark)
    }

    /// Pages written at least once.
    pub fn pages(&self) -> impl Iterator<Item = Gfn> + '_ {
        self.written.keys().copied()
    }

    /// Checks what was found in a page.
    ///
    /// # Errors
    /// A correctness failure if it is not the last write.
    pub fn check(&self, gfn: Gfn, found: [u64; 3], who: Arguments<'_>) -> Result<(), Failure> {
        let expected = self.expected(gfn);
        if found == [expected; 3] || self.blind {
            return Ok(());
        }
        Err(Failure::about(
            Class::Correctness,
            gfn,
            format!("{who} finds {found:x?} in page {:#x}, written was {expected:#x}", gfn.0),
        ))
    }
}

/// Reads a word.
pub fn read_word(memory: &impl HostMemory, frame: Frame, word: Word) -> u64 {
    let mut bytes = [0; 8];
    memory.read(frame, word.offset(), &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Writes a word.
pub fn write_word(memory: &mut impl HostMemory, frame: Frame, word: Word, value: u64) {
    memory.write(frame, word.offset(), &value.to_le_bytes());
}

/// Writes a value to a page's places.
pub fn mark(memory: &mut impl HostMemory, frame: Frame, value: u64) {
    PLACES.iter().for_each(|&at| memory.write(frame, at, &value.to_le_bytes()));
}

/// Reads a page's places; a page without a frame reads as zero.
pub fn marks(memory: &impl HostMemory, frame: Option<Frame>) -> [u64; 3] {
    let Some(frame) = frame else { return [0; 3] };
    PLACES.map(|at| {
        let mut bytes = [0; 8];
        memory.read(frame, at, &mut bytes);
        u64::from_le_bytes(bytes)
    })
}

/// The places as guest-physical addresses.
#[must_use]
pub fn addresses(gfn: Gfn) -> [addr::GuestPhys; 3] {
    PLACES.map(|at| addr::GuestPhys(gfn.start().0 + at as u64))
}
