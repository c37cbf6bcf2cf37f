//! Pages held, found without a look at the space between them.

use super::super::{Entry, Format, HostMemory, PageState};
use super::{LARGE_LEVEL, PageTable, index_at, span};
use addr::{Frame, Gfn};

/// One page met by [`PageTable::scan`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The page, or the first of a large one.
    pub gfn: Gfn,
    /// Its entry.
    pub entry: Entry,
    /// Whether it is a 2 MiB leaf.
    pub large: bool,
}

impl PageTable {
    /// The first page at or after `from` that this node holds, looking at no
    /// more than `budget` table entries. The second value is where to go on;
    /// `None` when the end was reached.
    #[must_use]
    pub fn scan(
        &self,
        memory: &impl HostMemory,
        from: Gfn,
        end: Gfn,
        budget: usize,
    ) -> (Option<Scanned>, Option<Gfn>) {
        let mut at = from;
        let mut left = budget;
        while left > 0 {
            if at >= end {
                return (None, None);
            }
            left -= 1;
            let (level, found) = self.probe(memory, at);
            let large = match found {
                Found::Leaves { table, .. } => {
                    // The rest of this table, without walking down again.
                    while left > 0 {
                        let entry = self.format.decode(memory.read_entry(table, at.run_index()));
                        let gfn = at;
                        at = at.offset_by(1);
                        if entry.state != PageState::Invalid {
                            return (Some(Scanned { gfn, entry, large: false }), Some(at));
                        }
                        if at.run_index() == 0 {
                            break;
                        }
                        left -= 1;
                    }
                    continue;
                }
                Found::Large(entry) => Some(entry),
                Found::Nothing => None,
            };
            let start = Gfn(at.0 & !(span(level) - 1));
            at = start.offset_by(span(level));
            if let Some(entry) = large {
                return (Some(Scanned { gfn: start, entry, large: true }), Some(at));
            }
        }
        (None, Some(at))
    }

    /// The level at which a walk for `gfn` ends, and what is there.
    pub(super) fn probe(&self, memory: &impl HostMemory, gfn: Gfn) -> (u32, Found) {
        let (mut table, mut used) = (self.root, 0);
        for level in [4, 3, 2] {
            let bits = memory.read_entry(table, index_at(gfn, level));
            if level == LARGE_LEVEL && self.format.is_large(bits) {
                return (level, Found::Large(self.format.decode(bits)));
            }
            match self.format.decode_table(bits) {
                Some(next) => (table, used) = (next, Format::used(bits)),
                None => return (level, Found::Nothing),
            }
        }
        (1, Found::Leaves { table, used })
    }
}

/// What a walk ends at.
pub(super) enum Found {
    /// The table of 4 KiB leaves, and how many of them say something.
    Leaves { table: Frame, used: u64 },
    /// A 2 MiB leaf.
    Large(Entry),
    /// An empty entry of an upper table.
    Nothing,
}
