//! What the processors of a run did to single words, as a user of the memory
//! would see it: no simulated time, no look inside a node.
//!
//! Every value is written to its word once in a run: it names its writer and
//! that writer's count, and a fetch-add counts in bits of its own. So a load
//! tells which write it saw, and [`order`] can say whether any order of all
//! operations explains what was seen.

pub mod order;

use addr::Gfn;

/// Words of a page that histories use.
pub const SLOTS: u8 = 15;

/// A 64-bit word of the guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Word {
    /// Its page.
    pub gfn: Gfn,
    /// Its place among the words of the page.
    pub slot: u8,
}

impl Word {
    /// Where in the page it lies: in all parts of a page that travels in
    /// parts, and never where [`crate::oracle`] puts its marks.
    #[must_use]
    pub fn offset(self) -> usize {
        64 + 264 * usize::from(self.slot)
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{:#x}.{}]", self.gfn.0, self.slot)
    }
}

/// An instruction's kind of access to a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Reads.
    Load,
    /// Writes a fresh value.
    Store,
    /// Adds one, and reads what was there.
    FetchAdd,
    /// Writes a fresh value, and reads what was there.
    Exchange,
    /// Writes a fresh value if the word holds what this processor saw there
    /// last.
    CompareExchange,
    /// A compare-exchange that is made to fail: a locked read.
    LockedLoad,
}

impl Op {
    /// Whether it needs the right to write, and reads at the same instant.
    #[must_use]
    pub fn is_atomic(self) -> bool {
        !matches!(self, Op::Load | Op::Store)
    }
}

/// What an instruction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// The word.
    pub word: Word,
    /// What it read.
    pub read: Option<u64>,
    /// What it wrote.
    pub wrote: Option<u64>,
}

impl Event {
    /// A load.
    #[must_use]
    pub fn load(word: Word, read: u64) -> Event {
        Event { word, read: Some(read), wrote: None }
    }
    /// A store.
    #[must_use]
    pub fn store(word: Word, wrote: u64) -> Event {
        Event { word, read: None, wrote: Some(wrote) }
    }
    /// An atomic read and write.
    #[must_use]
    pub fn swap(word: Word, read: u64, wrote: u64) -> Event {
        Event { word, read: Some(read), wrote: Some(wrote) }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.read, self.wrote) {
            (Some(read), None) => write!(f, "load {} = {read:#x}", self.word),
            (None, Some(wrote)) => write!(f, "store {} <- {wrote:#x}", self.word),
            (Some(read), Some(wrote)) => {
                write!(f, "atomic {} {read:#x} -> {wrote:#x}", self.word)
            }
            (None, None) => write!(f, "nothing at {}", self.word),
        }
    }
}

/// The events of all processors, each in the order of its program.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By processor.
    pub cpus: Vec<Vec<Event>>,
    fresh: u64,
}

impl History {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(cpus: usize) -> History {
        History { cpus: vec![Vec::new(); cpus], fresh: 0 }
    }

    /// A value that no word has held before: writer in bits 56 to 63, count
    /// in 32 to 55, below that room for additions.
    pub fn fresh(&mut self, writer: usize) -> u64 {
        self.fresh += 1;
        (writer as u64 + 1) << 56 | self.fresh << 32
    }

    /// Notes an event.
    pub fn note(&mut self, cpu: usize, event: Event) {
        self.cpus[cpu].push(event);
    }

    /// Events noted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cpus.iter().map(Vec::len).sum()
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Only what was done to one word.
    #[must_use]
    pub fn of_word(&self, word: Word) -> History {
        let mut history = self.clone();
        history.cpus.iter_mut().for_each(|events| events.retain(|e| e.word == word));
        history
    }
}
