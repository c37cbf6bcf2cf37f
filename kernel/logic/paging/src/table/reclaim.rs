//! Tables of leaves that say nothing, found and taken out.

use super::super::{Format, FramePool, HostMemory};
use super::scan::Found;
use super::{Flush, LARGE_LEVEL, PageTable, index_at, span};
use addr::{Gfn, RUN_PAGES};

/// A table of leaves met by [`PageTable::next_leaves`], or a large leaf of zero
/// pages without frames, which is as much as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaves {
    /// The first page of its run.
    pub run: Gfn,
    /// Pages of which it says something.
    pub used: u64,
}

impl PageTable {
    /// The next table of leaves, that of `from` or one after it, or large leaf
    /// of pages without frames, looking at no more than `budget` entries of upper
    /// tables. The second value is where to go on; `None` when the end was reached.
    #[must_use]
    pub fn next_leaves(
        &self,
        memory: &impl HostMemory,
        from: Gfn,
        end: Gfn,
        budget: usize,
    ) -> (Option<Leaves>, Option<Gfn>) {
        let mut at = from.run_start();
        for _ in 0..budget {
            if at >= end {
                return (None, None);
            }
            let (level, found) = self.probe(memory, at);
            let reach = span(level.max(LARGE_LEVEL));
            let run = Gfn(at.0 & !(reach - 1));
            at = run.offset_by(reach);
            let used = match found {
                Found::Leaves { used, .. } => used,
                Found::Large(entry) if entry.frame.is_none() => RUN_PAGES,
                Found::Large(_) | Found::Nothing => continue,
            };
            return (Some(Leaves { run, used }), Some(at));
        }
        (None, Some(at))
    }

    /// Takes out the table of leaves of a run, if it says nothing of any page,
    /// with the tables above it that have no other; their frames are free again.
    /// What is remembered of pages that were there is lost. A flush is owed,
    /// since processors may have cached the way to them; [`Flush::None`] if
    /// there is no such table, or it is in use.
    pub fn take_out(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
    ) -> Flush {
        let mut path = [(self.root, 0); 3];
        let mut table = self.root;
        for (slot, level) in path.iter_mut().zip([4, 3, 2]) {
            *slot = (table, index_at(gfn, level));
            let Some(next) = self.format.decode_table(memory.read_entry(table, slot.1)) else {
                return Flush::None;
            };
            table = next;
        }
        if Format::used(memory.read_entry(path[2].0, path[2].1)) != 0 {
            return Flush::None;
        }
        self.empty -= 1;
        for level in (0..3).rev() {
            let (above, index) = path[level];
            let below = self.format.decode_table(memory.read_entry(above, index));
            memory.write_entry(above, index, 0);
            pool.release(below.expect("it was walked"));
            self.tables -= 1;
            if level == 0 || Self::count(memory, path[level - 1], -1) > 0 {
                break;
            }
        }
        self.forget(gfn);
        Flush::Owed
    }
}

#[cfg(test)]
mod tests;
