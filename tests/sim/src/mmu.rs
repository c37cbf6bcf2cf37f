//! A processor's address translation: walks the nested page table that the
//! production code keeps in the node's memory, sets accessed flags, and keeps
//! translations, and the ways to tables of leaves, until it is told to drop
//! them. A change of the table without the flush that it owes is therefore seen
//! by the guest.

use addr::{Access, Frame, Gfn};
use paging::{Format, HostMemory};
use std::collections::HashMap;

const FORMAT: Format = Format::NPT;
/// Bits 12 to 51 (AMD APM vol. 2, 5.4.1).
const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Translations of one node.
#[derive(Default, Debug)]
pub struct Mmu {
    kept: HashMap<Gfn, (Frame, bool)>,
    /// Tables of leaves, by the first page of their run (AMD APM vol. 2, 5.5;
    /// Intel SDM vol. 3, 29.4.1: caches of upper entries).
    ways: HashMap<Gfn, Frame>,
}

impl Mmu {
    /// Drops all translations.
    pub fn flush(&mut self) {
        self.kept.clear();
        self.ways.clear();
    }

    /// Drops the rights to write alone: what a forgotten flush comes to, less
    /// the damage that writes to other pages' frames would do.
    pub fn keep_readable(&mut self) {
        self.kept.values_mut().for_each(|kept| kept.1 = false);
    }

    /// The frame an access goes to; `None` is a nested page fault.
    pub fn translate(
        &mut self,
        memory: &mut impl HostMemory,
        root: Frame,
        gfn: Gfn,
        access: Access,
    ) -> Option<Frame> {
        let allows = |writable: bool| access == Access::Read || writable;
        if let Some(&(frame, writable)) = self.kept.get(&gfn)
            && allows(writable)
        {
            return Some(frame);
        }
        // A fault drops the translation that lacked the right (APM vol. 2, 5.5.2).
        self.kept.remove(&gfn);
        let (frame, writable) = self.walk(memory, root, gfn)?;
        if !allows(writable) {
            return None;
        }
        self.kept.insert(gfn, (frame, writable));
        Some(frame)
    }

    fn walk(
        &mut self,
        memory: &mut impl HostMemory,
        root: Frame,
        gfn: Gfn,
    ) -> Option<(Frame, bool)> {
        let way = self.ways.get(&gfn.run_start()).copied();
        let (mut table, levels) = way.map_or((root, 4), |leaves| (leaves, 1));
        for level in (1..=levels).rev() {
            let index = (gfn.0 >> (9 * (level - 1))) as usize & 511;
            let bits = memory.read_entry(table, index);
            if bits & 1 == 0 {
                return None;
            }
            let leaf = level == 1 || (level == 2 && bits & FORMAT.large != 0);
            let next = Frame((bits & FRAME_MASK) >> addr::PAGE_SHIFT);
            if leaf {
                memory.write_entry(table, index, bits | FORMAT.accessed);
                let offset = if level == 2 { gfn.run_index() as u64 } else { 0 };
                return Some((next.offset_by(offset), bits & FORMAT.write != 0));
            }
            table = next;
            if level == 2 {
                self.ways.insert(gfn.run_start(), table);
            }
        }
        None
    }
}
