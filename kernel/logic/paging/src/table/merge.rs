//! Runs of small leaves become one large leaf.

use super::super::{Entry, Format, FramePool, HostMemory};
use super::{Flush, LARGE_LEVEL, NOWHERE, PageTable, index_at};
use addr::{Frame, Gfn, RUN_PAGES};

/// An entry of an upper table: the table and where it stands there.
type At = (Frame, usize);

impl PageTable {
    /// Large leaves that came apart, ever.
    #[must_use]
    pub fn splits(&self) -> u64 {
        self.splits
    }

    /// The entry that points to the table of leaves of a page, and that table.
    fn leaf_pointer(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<(At, Frame)> {
        let slot = self.find(memory, gfn).filter(|slot| !slot.large)?;
        Some(((slot.above, index_at(gfn, LARGE_LEVEL)), slot.table))
    }

    /// What the table of leaves of a run says of its pages, in their order, if
    /// it says something of each; `None` if it does not, or there is no such
    /// table.
    pub fn full_run<'a, M: HostMemory>(
        &self,
        memory: &'a M,
        gfn: Gfn,
    ) -> Option<impl Iterator<Item = Entry> + use<'a, M>> {
        let ((above, index), table) = self.leaf_pointer(memory, gfn)?;
        let format = self.format;
        (Format::used(memory.read_entry(above, index)) == RUN_PAGES).then(|| {
            (0..RUN_PAGES as usize).map(move |i| format.decode(memory.read_entry(table, i)))
        })
    }

    /// Marks the table of leaves of a run until this node loses a right to any
    /// page of it; whether it was marked already.
    pub fn mark(&self, memory: &mut impl HostMemory, gfn: Gfn) -> bool {
        let Some(((above, index), _)) = self.leaf_pointer(memory, gfn) else { return false };
        let bits = memory.read_entry(above, index);
        memory.write_entry(above, index, Format::mark(bits));
        Format::is_marked(bits)
    }

    /// Puts one large leaf in the place of a run's table of leaves, whose frame
    /// is free again. What the leaf says of the pages must be what the table
    /// says, but for where they lie and their rank. A flush is owed: processors
    /// may have cached the way to the table, and where the pages were.
    ///
    /// # Panics
    /// If the run has no table of leaves, or `entry` no aligned frame.
    pub fn merge(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
        entry: Entry,
    ) -> Flush {
        assert!(entry.frame.is_some_and(|f| f.run_index() == 0), "a run of frames is aligned");
        let ((above, index), table) = self.leaf_pointer(memory, gfn).expect("a table of leaves");
        memory.write_entry(above, index, self.format.encode(&entry, true));
        pool.release(table);
        self.tables -= 1;
        self.large += 1;
        if self.near.0 == gfn.run_start() {
            self.near = NOWHERE;
        }
        Flush::Owed
    }
}

#[cfg(test)]
mod tests;
