//! A four-level nested page table over [`HostMemory`].
//!
//! Levels are numbered as the manuals do: 4 is the root, 1 holds the 4 KiB
//! leaves; a leaf may also stand at level 2 (2 MiB). The table never decides
//! when to flush: every change that takes a right away returns
//! [`Flush::Owed`], and whoever runs the guest pays before the next entry.
//!
//! An entry that points to a table counts the entries of that table that say
//! something, in bits that the hardware ignores. So one without any is found
//! without a look at its 512 entries, and can be taken out.

mod early;
mod find;
mod merge;
mod reclaim;
mod scan;

pub use reclaim::Leaves;
pub use scan::Scanned;

use super::{Entry, Format, FramePool, HostMemory, PageState};
use addr::{Frame, Gfn, RUN_PAGES};

/// No frame was left for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames;

/// Whether processors may still hold a translation that is no longer true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Flush {
    /// Nothing that was allowed is now forbidden or elsewhere.
    None,
    /// Translations must be dropped before the change counts.
    Owed,
}

/// Where a lookup ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    table: Frame,
    index: usize,
    large: bool,
    /// The table above it.
    above: Frame,
}

/// A table and the one above it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Place {
    table: Frame,
    above: Frame,
}

/// A node's nested page table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageTable {
    format: Format,
    root: Frame,
    tables: u64,
    large: u64,
    /// Tables of leaves that say nothing.
    empty: u64,
    /// Large leaves that came apart, ever.
    splits: u64,
    /// Where the last walk of [`PageTable::approach`] ended: the run's first page and its
    /// table of leaves. Forgotten when that is taken out.
    near: (Gfn, Place),
    /// The table above that, and the first page that it covers: the next run is
    /// mostly one of its.
    around: (Gfn, Place),
}

/// The run of no page, and what covers no page.
const NOWHERE: (Gfn, Place) = (Gfn(u64::MAX), Place { table: Frame(0), above: Frame(0) });

const LARGE_LEVEL: u32 = 2;

const fn index_at(gfn: Gfn, level: u32) -> usize {
    ((gfn.0 >> (9 * (level - 1))) & 511) as usize
}

/// The first page of those that a table of `level` covers with this one.
const fn start_at(gfn: Gfn, level: u32) -> Gfn {
    Gfn(gfn.0 & !(span(level + 1) - 1))
}

const fn span(level: u32) -> u64 {
    1 << (9 * (level - 1))
}

impl PageTable {
    /// An empty table with its root from `pool`.
    ///
    /// # Errors
    /// [`OutOfFrames`] if the pool is empty.
    pub fn new(
        format: Format,
        pool: &mut FramePool,
        memory: &mut impl HostMemory,
    ) -> Result<PageTable, OutOfFrames> {
        let root = pool.allocate().ok_or(OutOfFrames)?;
        memory.zero(root);
        Ok(PageTable {
            format,
            root,
            tables: 1,
            large: 0,
            empty: 0,
            splits: 0,
            near: NOWHERE,
            around: NOWHERE,
        })
    }

    /// The vendor's bits.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The root, for the processor's nested page table pointer.
    #[must_use]
    pub fn root(&self) -> Frame {
        self.root
    }

    /// Frames used for tables.
    #[must_use]
    pub fn tables(&self) -> u64 {
        self.tables
    }

    /// Large leaves: each may need a table when it comes apart.
    #[must_use]
    pub fn large_leaves(&self) -> u64 {
        self.large
    }

    /// Tables of leaves that say nothing: [`PageTable::take_out`] takes them.
    #[must_use]
    pub fn empty_leaves(&self) -> u64 {
        self.empty
    }

    /// Counts entries of a table that have come to say something, or no longer
    /// do, where the entry at `index` of `above` points to it. How many do now.
    #[inline]
    fn count(memory: &mut impl HostMemory, (above, index): (Frame, usize), change: i64) -> u64 {
        let bits = Format::count(memory.read_entry(above, index), change);
        memory.write_entry(above, index, bits);
        Format::used(bits)
    }

    /// Finds or makes the level-1 slot of a page, splitting a large leaf.
    #[inline]
    fn leaf(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
    ) -> Result<Slot, OutOfFrames> {
        let place = match self.nearby(gfn) {
            Some(place) => place,
            None => self.descend(memory, pool, gfn, 1)?,
        };
        Ok(Self::slot(place, gfn))
    }

    /// Finds or makes the table of `to_level` that covers `gfn`.
    fn descend(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
        to_level: u32,
    ) -> Result<Place, OutOfFrames> {
        let (mut table, mut above) = (self.root, self.root);
        let mut level = 4;
        while level > to_level {
            let index = index_at(gfn, level);
            let bits = memory.read_entry(table, index);
            let next = if level == LARGE_LEVEL && self.format.is_large(bits) {
                self.split_slot(memory, pool, table, index, bits)?
            } else if let Some(next) = self.format.decode_table(bits) {
                next
            } else {
                let next = pool.allocate().ok_or(OutOfFrames)?;
                memory.zero(next);
                self.tables += 1;
                memory.write_entry(table, index, self.format.encode_table(next, 0));
                if level < 4 {
                    Self::count(memory, (above, index_at(gfn, level + 1)), 1);
                }
                self.empty += u64::from(level == LARGE_LEVEL);
                next
            };
            (table, above) = (next, table);
            level -= 1;
        }
        Ok(Place { table, above })
    }

    /// Puts a table of 512 small leaves in place of a large one. No flush is
    /// owed: frame and rights of every page stay as they are.
    fn split_slot(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        table: Frame,
        index: usize,
        bits: u64,
    ) -> Result<Frame, OutOfFrames> {
        let large = self.format.decode(bits);
        let next = pool.allocate().ok_or(OutOfFrames)?;
        self.tables += 1;
        self.large -= 1;
        self.splits += 1;
        for i in 0..RUN_PAGES {
            let entry = Entry { frame: large.frame.map(|f| f.offset_by(i)), ..large };
            memory.write_entry(next, i as usize, self.format.encode(&entry, false));
        }
        memory.write_entry(table, index, self.format.encode_table(next, RUN_PAGES));
        Ok(next)
    }

    /// Sets what this node holds of one page.
    ///
    /// # Errors
    /// [`OutOfFrames`] if a table was needed and no frame was left; nothing
    /// has changed then.
    pub fn set(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
        entry: Entry,
    ) -> Result<Flush, OutOfFrames> {
        self.replace(memory, pool, gfn, entry).map(|(_, flush)| flush)
    }

    /// Sets what this node holds of one page; says what it held before.
    ///
    /// # Errors
    /// As [`PageTable::set`].
    pub fn replace(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
        entry: Entry,
    ) -> Result<(Entry, Flush), OutOfFrames> {
        if entry == Entry::default() && self.find(memory, gfn).is_none() {
            return Ok((Entry::default(), Flush::None));
        }
        let slot = self.leaf(memory, pool, gfn)?;
        let before = memory.read_entry(slot.table, slot.index);
        let after = self.format.encode(&entry, false);
        memory.write_entry(slot.table, slot.index, after);
        let old = self.format.decode(before);
        let change = i64::from(entry.is_held()) - i64::from(old.is_held());
        let lost = self.format.takes_away(before, after);
        if change != 0 || lost {
            let index = index_at(gfn, LARGE_LEVEL);
            let before = memory.read_entry(slot.above, index);
            let counted = Format::count(before, change);
            let after = if lost { Format::unmark(counted) } else { counted };
            if after != before {
                memory.write_entry(slot.above, index, after);
            }
            self.empty += u64::from(change == -1 && Format::used(after) == 0);
            self.empty -= u64::from(change == 1 && Format::used(after) == 1);
        }
        Ok((old, if lost { Flush::Owed } else { Flush::None }))
    }

    /// Sets what this node holds of a page of which it held nothing.
    ///
    /// # Errors
    /// As [`PageTable::set`].
    #[inline(always)]
    pub fn fill(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
        entry: Entry,
    ) -> Result<(), OutOfFrames> {
        let slot = self.leaf(memory, pool, gfn)?;
        debug_assert!(entry.is_held(), "a page is filled with something");
        debug_assert!(
            !self.format.decode(memory.read_entry(slot.table, slot.index)).is_held(),
            "a page that is here is replaced"
        );
        memory.write_entry(slot.table, slot.index, self.format.encode(&entry, false));
        let used = Self::count(memory, (slot.above, index_at(gfn, LARGE_LEVEL)), 1);
        self.empty -= u64::from(used == 1);
        Ok(())
    }

    /// Maps a whole aligned run that this node did not hold, as one leaf.
    /// `entry.frame` is the run's first frame, or `None` for zero pages.
    ///
    /// # Errors
    /// [`OutOfFrames`] as [`PageTable::set`]. A run that has a table of leaves
    /// is refused as `Ok(false)`, also where the table is empty: processors may
    /// have cached the way to it since the last flush.
    pub fn set_run(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
        entry: Entry,
    ) -> Result<bool, OutOfFrames> {
        assert!(gfn.run_index() == 0, "a run is aligned");
        let Place { table, above } = self.descend(memory, pool, gfn, LARGE_LEVEL)?;
        let index = index_at(gfn, LARGE_LEVEL);
        let bits = memory.read_entry(table, index);
        if self.format.is_large(bits) || self.format.decode_table(bits).is_some() {
            return Ok(false);
        }
        self.large += 1;
        memory.write_entry(table, index, self.format.encode(&entry, true));
        Self::count(memory, (above, index_at(gfn, LARGE_LEVEL + 1)), 1);
        Ok(true)
    }

    /// Splits the large leaf that holds `gfn`, if there is one.
    ///
    /// # Errors
    /// [`OutOfFrames`] if no frame was left for the new table.
    pub fn split(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        gfn: Gfn,
    ) -> Result<(), OutOfFrames> {
        if self.is_large(memory, gfn) {
            self.descend(memory, pool, gfn, 1)?;
        }
        Ok(())
    }

    /// Clears the accessed flag of a leaf and gives it a rank.
    pub fn set_rank(&mut self, memory: &mut impl HostMemory, gfn: Gfn, rank: u8) {
        if let Some(slot) = self.find(memory, gfn) {
            let bits = memory.read_entry(slot.table, slot.index);
            let entry = Entry { rank, accessed: false, ..self.format.decode(bits) };
            memory.write_entry(slot.table, slot.index, self.format.encode(&entry, slot.large));
        }
    }

    /// Keeps a word about the past of a page that is not here. It is lost when
    /// the page comes back, and where the page has no table of leaves.
    pub fn set_history(&mut self, memory: &mut impl HostMemory, gfn: Gfn, history: u32) {
        if let Some(slot) = self.find(memory, gfn)
            && !slot.large
            && self.format.decode(memory.read_entry(slot.table, slot.index)).state
                == PageState::Invalid
        {
            memory.write_entry(slot.table, slot.index, Format::encode_history(history));
        }
    }

    /// The word that [`PageTable::set_history`] has left; 0 for none.
    #[must_use]
    pub fn history(&self, memory: &impl HostMemory, gfn: Gfn) -> u32 {
        match self.find(memory, gfn) {
            Some(slot) if !slot.large => {
                Format::decode_history(memory.read_entry(slot.table, slot.index))
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests;
