//! Looks at a page's place in the table, mostly without a walk from its root.

use super::super::{Entry, HostMemory};
use super::{LARGE_LEVEL, NOWHERE, PageTable, Place, Slot, index_at, start_at};
use addr::{Frame, Gfn};

impl PageTable {
    /// Says that several looks at a page and changes of it are to come: they
    /// need not walk the table from its root each time.
    #[inline]
    pub fn approach(&mut self, memory: &impl HostMemory, gfn: Gfn) {
        if self.near.0 != gfn.run_start() {
            self.approach_far(memory, gfn);
        }
    }

    #[inline(never)]
    fn approach_far(&mut self, memory: &impl HostMemory, gfn: Gfn) {
        let around = match self.around(gfn) {
            Some(around) => around,
            None => {
                let Some(around) = self.walk(memory, gfn) else { return };
                self.around = (start_at(gfn, LARGE_LEVEL), around);
                around
            }
        };
        if let Some(Slot { table, large: false, above, .. }) = self.below(memory, around, gfn) {
            self.near = (gfn.run_start(), Place { table, above });
        }
    }

    /// The table of [`LARGE_LEVEL`] around a page, if it is that of the page
    /// approached last.
    #[inline(always)]
    fn around(&self, gfn: Gfn) -> Option<Place> {
        (self.around.0 == start_at(gfn, LARGE_LEVEL)).then_some(self.around.1)
    }

    /// What was remembered of a page's tables is forgotten.
    pub(super) fn forget(&mut self, gfn: Gfn) {
        if self.near.0 == gfn.run_start() {
            self.near = NOWHERE;
        }
        if self.around.0 == start_at(gfn, LARGE_LEVEL) {
            self.around = NOWHERE;
        }
    }

    /// The table of leaves of a page that was approached.
    #[inline(always)]
    pub(super) fn nearby(&self, gfn: Gfn) -> Option<Place> {
        (self.near.0 == gfn.run_start()).then_some(self.near.1)
    }

    #[inline]
    pub(super) fn find(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<Slot> {
        match self.nearby(gfn) {
            Some(place) => Some(Self::slot(place, gfn)),
            None => self.find_far(memory, gfn),
        }
    }

    #[inline(never)]
    fn find_far(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<Slot> {
        let around = self.around(gfn).or_else(|| self.walk(memory, gfn))?;
        self.below(memory, around, gfn)
    }

    pub(super) fn slot(Place { table, above }: Place, gfn: Gfn) -> Slot {
        Slot { table, index: index_at(gfn, 1), large: false, above }
    }

    /// Where a walk ends that began at the table of [`LARGE_LEVEL`] around a page.
    #[inline(always)]
    fn below(&self, memory: &impl HostMemory, around: Place, gfn: Gfn) -> Option<Slot> {
        let Place { table, above } = around;
        let index = index_at(gfn, LARGE_LEVEL);
        let bits = memory.read_entry(table, index);
        if self.format.is_large(bits) {
            return Some(Slot { table, index, large: true, above });
        }
        let leaves = Place { table: self.format.decode_table(bits)?, above: table };
        Some(Self::slot(leaves, gfn))
    }

    /// The table of [`LARGE_LEVEL`] around a page.
    #[inline(never)]
    fn walk(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<Place> {
        let (mut table, mut above) = (self.root, self.root);
        for level in [4, 3] {
            let bits = memory.read_entry(table, index_at(gfn, level));
            (table, above) = (self.format.decode_table(bits)?, table);
        }
        Some(Place { table, above })
    }

    /// What this node holds of a page. In a large leaf the page's own frame is
    /// given.
    #[must_use]
    pub fn get(&self, memory: &impl HostMemory, gfn: Gfn) -> Entry {
        let Some(slot) = self.find(memory, gfn) else { return Entry::default() };
        let mut entry = self.format.decode(memory.read_entry(slot.table, slot.index));
        if slot.large {
            entry.frame = entry.frame.map(|f| f.offset_by(gfn.run_index() as u64));
        }
        entry
    }

    /// The frame of a page that this node is master of, if it has one.
    #[inline(always)]
    #[must_use]
    pub fn master(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<Frame> {
        let Some(around) = self.around(gfn) else {
            return self.master_far(memory, gfn);
        };
        let bits = memory.read_entry(around.table, index_at(gfn, LARGE_LEVEL));
        let Some(table) = self.format.decode_table(bits) else {
            return self.master_far(memory, gfn);
        };
        let entry = self.format.decode(memory.read_entry(table, index_at(gfn, 1)));
        entry.frame.filter(|_| entry.state.is_master())
    }

    #[inline(never)]
    fn master_far(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<Frame> {
        let entry = self.get(memory, gfn);
        entry.frame.filter(|_| entry.state.is_master())
    }

    /// Whether the page is part of a large leaf.
    #[must_use]
    pub fn is_large(&self, memory: &impl HostMemory, gfn: Gfn) -> bool {
        self.find(memory, gfn).is_some_and(|s| s.large)
    }

    /// Whether there is a table of leaves for the page.
    #[must_use]
    pub fn has_leaves(&self, memory: &impl HostMemory, gfn: Gfn) -> bool {
        self.find(memory, gfn).is_some_and(|s| !s.large)
    }
}
