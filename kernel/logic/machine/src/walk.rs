//! The guest's own address translation, walked in software.
//!
//! Needed to fetch an instruction that the hardware did not decode, and to
//! reach its operands. All modes of AMD APM vol. 2, chapter 5: no paging,
//! 32-bit (with 4 MiB pages), PAE, four and five levels.

use crate::memory::{GuestMemory, MemoryError, read_number};
use crate::stop::Stop;
use addr::GuestPhys;
use vcpu::{Event, SystemRegisters};

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const RFLAGS_AC: u64 = 1 << 18;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51 to 12.
const FRAME: u64 = 0x000F_FFFF_FFFF_F000;

/// Page fault error code: protection violation (page present).
const ERROR_PRESENT: u32 = 1;
const ERROR_WRITE: u32 = 1 << 1;
const ERROR_USER: u32 = 1 << 2;
const ERROR_RESERVED: u32 = 1 << 3;
const ERROR_FETCH: u32 = 1 << 4;

/// What the guest's instruction does at the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Fetch,
    Read,
    Write,
}

/// The state that translation depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mmu {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    rflags: u64,
    user: bool,
}

/// What a walk gathers: rights that hold at every level.
struct Rights {
    writable: bool,
    user: bool,
    no_execute: bool,
}

impl Mmu {
    pub(crate) fn new(system: &SystemRegisters, rflags: u64) -> Mmu {
        let SystemRegisters { cr0, cr3, cr4, efer, cpl, .. } = *system;
        Mmu { cr0, cr3, cr4, efer, rflags, user: cpl == 3 }
    }

    fn long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }

    fn levels(&self) -> u32 {
        match (self.long(), self.cr4 & CR4_LA57 != 0, self.cr4 & CR4_PAE != 0) {
            (true, true, _) => 5,
            (true, false, _) => 4,
            (false, _, true) => 3,
            (false, _, false) => 2,
        }
    }

    fn error(&self, what: Use, present: bool) -> u32 {
        let fetch_shown =
            self.cr4 & CR4_SMEP != 0 || (self.efer & EFER_NXE != 0 && self.cr4 & CR4_PAE != 0);
        (if present { ERROR_PRESENT } else { 0 })
            | (if what == Use::Write { ERROR_WRITE } else { 0 })
            | (if self.user { ERROR_USER } else { 0 })
            | (if what == Use::Fetch && fetch_shown { ERROR_FETCH } else { 0 })
    }

    /// Translates a linear address; sets accessed and dirty flags, except for
    /// fetches. Setting them is not atomic against other processors of the
    /// guest: the store is of one byte, after its other bits were read.
    pub(crate) fn translate(
        &self,
        memory: &mut dyn GuestMemory,
        linear: u64,
        what: Use,
    ) -> Result<u64, Stop> {
        if self.cr0 & CR0_PG == 0 {
            return Ok(linear & 0xFFFF_FFFF);
        }
        let levels = self.levels();
        let linear = if self.long() { linear } else { linear & 0xFFFF_FFFF };
        let width = if levels == 5 { 57 } else { 48 };
        if self.long() && ((linear as i64) << (64 - width)) >> (64 - width) != linear as i64 {
            return Err(Stop::Fault { event: Event::GENERAL_PROTECTION, cr2: None });
        }
        let wide = levels > 2;
        let (bits, size) = if wide { (9, 8) } else { (10, 4) };
        let mut table = match levels {
            2 => self.cr3 & 0xFFFF_F000,
            3 => self.cr3 & 0xFFFF_FFE0,
            _ => self.cr3 & FRAME,
        };
        let mut rights = Rights { writable: true, user: true, no_execute: false };
        let index_mask = (1u64 << bits) - 1;
        let mut shift = 12 + bits * levels;
        for level in (0..levels).rev() {
            shift -= bits;
            let index = linear.wrapping_shr(shift) & index_mask;
            let at = table | (index * size);
            let entry = self.entry(memory, at, size as usize, linear, what)?;
            if entry & PRESENT == 0 {
                return Err(Stop::page_fault(linear, self.error(what, false)));
            }
            // The four PAE directory pointers have no rights.
            if !(levels == 3 && level == 2) {
                rights.writable &= entry & WRITABLE != 0;
                rights.user &= entry & USER != 0;
                rights.no_execute |= wide && entry & NO_EXECUTE != 0;
            }
            let large = self.is_large(entry, level, levels);
            if level == 0 || large {
                self.check(&rights, linear, what)?;
                mark(memory, at, entry, what)?;
                let mask = (1u64 << shift) - 1;
                let frame = if large && !wide { pse36(entry) } else { entry & FRAME & !mask };
                return Ok(frame | (linear & mask));
            }
            if !(levels == 3 && level == 2) {
                mark_accessed(memory, at, entry, what)?;
            }
            table = if wide { entry & FRAME } else { entry & 0xFFFF_F000 };
        }
        unreachable!("the last level returns")
    }

    fn is_large(&self, entry: u64, level: u32, levels: u32) -> bool {
        entry & LARGE != 0
            && match levels {
                2 => level == 1 && self.cr4 & CR4_PSE != 0,
                3 => level == 1,
                _ => level == 1 || level == 2,
            }
    }

    /// Reads a table entry. Where there is no memory the bus answers all
    /// ones: an entry with reserved bits set.
    fn entry(
        &self,
        memory: &mut dyn GuestMemory,
        at: u64,
        size: usize,
        linear: u64,
        what: Use,
    ) -> Result<u64, Stop> {
        read_number(memory, at, size).map_err(|error| match error {
            MemoryError::Pending { gfn, access } => Stop::Pending { gfn, access },
            MemoryError::NotMemory => {
                Stop::page_fault(linear, self.error(what, true) | ERROR_RESERVED)
            }
        })
    }

    fn check(&self, rights: &Rights, linear: u64, what: Use) -> Result<(), Stop> {
        let nx = rights.no_execute && self.efer & EFER_NXE != 0;
        let allowed = match (self.user, what) {
            (true, Use::Fetch) => rights.user && !nx,
            (true, Use::Read) => rights.user,
            (true, Use::Write) => rights.user && rights.writable,
            (false, Use::Fetch) => !nx && (!rights.user || self.cr4 & CR4_SMEP == 0),
            (false, data) => {
                let smap = rights.user && self.cr4 & CR4_SMAP != 0 && self.rflags & RFLAGS_AC == 0;
                let write = data == Use::Write && !rights.writable && self.cr0 & CR0_WP != 0;
                !smap && !write
            }
        };
        if allowed { Ok(()) } else { Err(Stop::page_fault(linear, self.error(what, true))) }
    }
}

/// Frame of a 4 MiB page: address bits 39 to 32 are in bits 20 to 13.
fn pse36(entry: u64) -> u64 {
    (entry & 0xFFC0_0000) | ((entry >> 13) & 0xFF) << 32
}

fn mark(memory: &mut dyn GuestMemory, at: u64, entry: u64, what: Use) -> Result<(), Stop> {
    match what {
        Use::Fetch => Ok(()),
        Use::Read => set_flags(memory, at, entry, ACCESSED),
        Use::Write => set_flags(memory, at, entry, ACCESSED | DIRTY),
    }
}

fn mark_accessed(memory: &mut dyn GuestMemory, at: u64, entry: u64, what: Use) -> Result<(), Stop> {
    if what == Use::Fetch { Ok(()) } else { set_flags(memory, at, entry, ACCESSED) }
}

fn set_flags(memory: &mut dyn GuestMemory, at: u64, entry: u64, flags: u64) -> Result<(), Stop> {
    if entry & flags != flags {
        memory.write(GuestPhys(at), &[(entry | flags) as u8])?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
