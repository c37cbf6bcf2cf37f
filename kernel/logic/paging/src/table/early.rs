//! A page that the guest may use before it is counted.

use super::{Entry, HostMemory, LARGE_LEVEL, PageTable, index_at};
use crate::Format;
use addr::Gfn;

impl PageTable {
    /// Maps a page of which this node held nothing, and counts nothing yet: that is
    /// for [`PageTable::count_early`]. Its history ([`PageTable::history`]), or
    /// `None` where there is something of it, or its table of leaves was not
    /// approached; nothing has changed then.
    #[inline(always)]
    pub fn map_early(
        &mut self,
        memory: &mut impl HostMemory,
        gfn: Gfn,
        entry: Entry,
    ) -> Option<u32> {
        let slot = Self::slot(self.nearby(gfn)?, gfn);
        let before = memory.read_entry(slot.table, slot.index);
        if self.format.decode(before).is_held() {
            return None;
        }
        memory.write_entry(slot.table, slot.index, self.format.encode(&entry, false));
        Some(Format::decode_history(before))
    }

    /// Counts a page that was mapped by [`PageTable::map_early`], as
    /// [`PageTable::fill`] would have.
    ///
    /// # Panics
    /// If it is not mapped.
    pub fn count_early(&mut self, memory: &mut impl HostMemory, gfn: Gfn) {
        let slot = self.find(memory, gfn).filter(|slot| !slot.large).expect("it is mapped");
        let used = Self::count(memory, (slot.above, index_at(gfn, LARGE_LEVEL)), 1);
        self.empty -= u64::from(used == 1);
    }
}
