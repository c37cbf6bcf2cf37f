//! The node's own page tables: four levels, identity mapped.
//!
//! Source: AMD APM volume 2 (24593), section 5.3 (long-mode page translation).
//! The builder works over [`HostMemory`], so it runs on the host in tests.
//! Every range is mapped exactly, in the largest pages that fit into it: no
//! page reaches over the end of RAM into device memory.

use addr::Frame;
use boot::Range;
use paging::HostMemory;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
/// Accessed and dirty, set beforehand so that no walk has to write them.
const TOUCHED: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// One past the highest address that an identity map in the lower half of a
/// four-level address space reaches.
pub const ADDRESS_END: u64 = 1 << 47;

/// How the processor caches a page (the PAT's power-on default entries).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caching {
    /// Ordinary memory.
    WriteBack,
    /// Device registers (PAT entry 3, strong uncacheable).
    Uncached,
}

/// What may be done with mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub execute: bool,
    /// Memory type.
    pub caching: Caching,
}

impl Rights {
    /// Code.
    pub const TEXT: Rights = Rights { write: false, execute: true, caching: Caching::WriteBack };
    /// Constants.
    pub const RODATA: Rights = Rights { write: false, execute: false, caching: Caching::WriteBack };
    /// Variables and free memory.
    pub const DATA: Rights = Rights { write: true, execute: false, caching: Caching::WriteBack };
    /// Device registers.
    pub const DEVICE: Rights = Rights { write: true, execute: false, caching: Caching::Uncached };

    fn bits(self) -> u64 {
        let mut bits = PRESENT | TOUCHED;
        if self.write {
            bits |= WRITABLE;
        }
        if !self.execute {
            bits |= NO_EXECUTE;
        }
        if self.caching == Caching::Uncached {
            bits |= WRITE_THROUGH | CACHE_DISABLE;
        }
        bits
    }
}

/// Why memory could not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// No frame is left for a table.
    NoTables,
    /// Part of the range is mapped already with other rights.
    Conflict,
    /// The range does not consist of pages or lies beyond [`ADDRESS_END`].
    Range,
}

/// Bytes that one entry of a table at `level` (1 to 4) spans.
const fn span(level: u32) -> u64 {
    1 << (12 + 9 * (level - 1))
}

const fn index(address: u64, level: u32) -> usize {
    ((address / span(level)) & 511) as usize
}

/// A tree of page tables.
#[derive(Clone, Copy, Debug)]
pub struct PageTable {
    root: Frame,
    giant: bool,
}

/// Where tables come from.
pub trait TableSource {
    /// A frame of its own for a table; its content may be anything.
    fn table_frame(&mut self) -> Option<Frame>;
}

impl PageTable {
    /// An empty tree; `giant` allows 1 GiB pages.
    ///
    /// # Errors
    /// [`MapError::NoTables`].
    pub fn new(
        memory: &mut impl HostMemory,
        tables: &mut impl TableSource,
        giant: bool,
    ) -> Result<PageTable, MapError> {
        let root = tables.table_frame().ok_or(MapError::NoTables)?;
        memory.zero(root);
        Ok(PageTable { root, giant })
    }

    /// The frame for CR3.
    #[must_use]
    pub fn root(&self) -> Frame {
        self.root
    }

    /// Maps `range` to itself. What is mapped already with the same rights is
    /// left alone. After an error part of the range may be mapped.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(
        &mut self,
        memory: &mut impl HostMemory,
        tables: &mut impl TableSource,
        range: Range,
        rights: Rights,
    ) -> Result<(), MapError> {
        let unaligned = (range.start | range.end) & 0xFFF != 0;
        if unaligned || range.end > ADDRESS_END {
            return Err(MapError::Range);
        }
        let mut at = range.start;
        while at < range.end {
            at = self.map_one(memory, tables, Range::new(at, range.end), rights)?;
        }
        Ok(())
    }

    /// Maps the largest page that fits at the start of `range`; returns where
    /// to go on.
    fn map_one(
        &mut self,
        memory: &mut impl HostMemory,
        tables: &mut impl TableSource,
        range: Range,
        rights: Rights,
    ) -> Result<u64, MapError> {
        let at = range.start;
        let largest = if self.giant { 3 } else { 2 };
        let fits = |level: u32| at.is_multiple_of(span(level)) && range.len() >= span(level);
        let target = (1..=largest).rev().find(|&level| fits(level)).unwrap_or(1);
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = memory.read_entry(table, index(at, level));
            let is_leaf = level == 1 || entry & LARGE != 0;
            if entry & PRESENT != 0 && is_leaf {
                let same = entry & !(ADDRESS | LARGE) == rights.bits();
                let next = (at & !(span(level) - 1)) + span(level);
                return if same { Ok(next) } else { Err(MapError::Conflict) };
            }
            if entry & PRESENT != 0 {
                // A table where a page would fit: the page goes in piecewise.
                table = Frame((entry & ADDRESS) >> 12);
                continue;
            }
            if level <= target {
                let large = if level > 1 { LARGE } else { 0 };
                memory.write_entry(table, index(at, level), at | rights.bits() | large);
                return Ok(at + span(level));
            }
            let next = tables.table_frame().ok_or(MapError::NoTables)?;
            memory.zero(next);
            let link = next.start().0 | PRESENT | WRITABLE | TOUCHED;
            memory.write_entry(table, index(at, level), link);
            table = next;
        }
        unreachable!("level 1 is always a leaf or a target")
    }

    /// The entry that maps an address and the bytes it spans.
    #[must_use]
    pub fn lookup(&self, memory: &impl HostMemory, address: u64) -> Option<(u64, u64)> {
        let mut table = self.root;
        for level in (1..=4).rev() {
            let entry = memory.read_entry(table, index(address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 1 || entry & LARGE != 0 {
                return Some((entry, span(level)));
            }
            table = Frame((entry & ADDRESS) >> 12);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Fake(HashMap<u64, [u64; 512]>);

    impl HostMemory for Fake {
        fn read_entry(&self, table: Frame, index: usize) -> u64 {
            self.0[&table.0][index]
        }
        fn write_entry(&mut self, table: Frame, index: usize, value: u64) {
            self.0.get_mut(&table.0).unwrap()[index] = value;
        }
        fn zero(&mut self, frame: Frame) {
            self.0.insert(frame.0, [0; 512]);
        }
        fn is_zero(&self, frame: Frame) -> bool {
            self.0[&frame.0] == [0; 512]
        }
        fn write(&mut self, _: Frame, _: usize, _: &[u8]) {
            panic!("tables are written by entry");
        }
        fn read(&self, _: Frame, _: usize, _: &mut [u8]) {
            panic!("tables are read by entry");
        }
    }

    struct Count(u64, u64);

    impl TableSource for Count {
        fn table_frame(&mut self) -> Option<Frame> {
            self.0 += 1;
            (self.0 <= self.1).then_some(Frame(self.0))
        }
    }

    fn new(limit: u64) -> (Fake, Count, PageTable) {
        let mut memory = Fake::default();
        let mut count = Count(0, limit);
        let table = PageTable::new(&mut memory, &mut count, true).unwrap();
        (memory, count, table)
    }

    #[test]
    fn maps_exactly_what_was_asked_in_large_pages() {
        let (mut m, mut c, mut t) = new(100);
        let end = (32 << 30) + 0x20_3000;
        t.map(&mut m, &mut c, Range::new(0x1000, end), Rights::DATA).unwrap();
        assert_eq!(t.lookup(&m, 0xFFF), None);
        assert_eq!(t.lookup(&m, end), None);
        for (address, size) in
            [(0x1000, 0x1000), (0x20_0000, 0x20_0000), (1 << 30, 1 << 30), (end - 1, 0x1000)]
        {
            let (entry, spanned) = t.lookup(&m, address).unwrap();
            assert_eq!(spanned, size);
            assert_eq!(entry & ADDRESS, address & !(size - 1));
            assert_ne!(entry & NO_EXECUTE, 0);
        }
        assert!(c.0 < 8, "a table for every edge, not for every page");
    }

    #[test]
    fn mapping_again_needs_the_same_rights() {
        let (mut m, mut c, mut t) = new(100);
        let big = Range::new(1 << 30, 3 << 30);
        t.map(&mut m, &mut c, big, Rights::DATA).unwrap();
        let part = Range::new((1 << 30) + 0x5000, (1 << 30) + 0x6000);
        t.map(&mut m, &mut c, part, Rights::DATA).unwrap();
        assert_eq!(t.map(&mut m, &mut c, part, Rights::DEVICE), Err(MapError::Conflict));
        // A page in the middle first, then the whole around it.
        let hole = Range::new(0x20_3000, 0x20_4000);
        t.map(&mut m, &mut c, hole, Rights::DEVICE).unwrap();
        t.map(&mut m, &mut c, Range::new(0x20_0000, 0x60_0000), Rights::DEVICE).unwrap();
        assert_eq!(t.lookup(&m, 0x3F_F000).unwrap().1, 0x1000);
        assert_eq!(t.lookup(&m, 0x40_0000).unwrap().1, 0x20_0000);
    }

    #[test]
    fn errors() {
        let (mut m, mut c, mut t) = new(2);
        let low = Range::new(0x1000, 0x2000);
        assert_eq!(t.map(&mut m, &mut c, low, Rights::DATA), Err(MapError::NoTables));
        let odd = Range::new(0x1001, 0x2000);
        assert_eq!(t.map(&mut m, &mut c, odd, Rights::DATA), Err(MapError::Range));
        let far = Range::new(ADDRESS_END - 0x1000, ADDRESS_END + 0x1000);
        assert_eq!(t.map(&mut m, &mut c, far, Rights::DATA), Err(MapError::Range));
    }
}
