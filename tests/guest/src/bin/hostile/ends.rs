//! Tries that end the guest: each dies in its own way, or never ends.

use crate::trap::{self, Pointer, attempt};
use crate::{Verdict, msrs};
use core::arch::asm;

/// Above all memory that these clusters have, below 4 GiB.
const NOWHERE: u64 = 0xD000_0000;

/// Says what is about to happen, and that all before it went well.
fn announce(what: &str) {
    guests::println!("@hostile about to {what}");
}

/// HLT with interrupts off.
pub(crate) fn halt() -> Verdict {
    announce("halt for ever");
    guests::cpu::stop()
}

/// An exception without a handler for anything.
pub(crate) fn triple_fault() -> Verdict {
    announce("fault three times");
    trap::load(&Pointer { limit: 0, base: 0 });
    // SAFETY: it is to end the guest.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Page tables where there is no memory, from the root on.
pub(crate) fn walk_root() -> Verdict {
    announce("lose its page tables");
    // SAFETY: it is to end the guest.
    unsafe { asm!("mov cr3, {}", "2: jmp 2b", in(reg) NOWHERE, options(noreturn)) }
}

/// A table entry that leads out of memory.
pub(crate) fn walk_table() -> Verdict {
    announce("walk out of memory");
    // SAFETY: the loader's tables are mapped to themselves; the entry of
    // these 512 GiB is not used for anything. It is to end the guest.
    unsafe {
        let root: u64;
        asm!("mov {}, cr3", out(reg) root);
        let entry = (root & !0xFFF) as *mut u64;
        entry.add(1).write_volatile(NOWHERE | 3);
        ((512u64 << 30) as *const u64).read_volatile();
    }
    Err("it came back")
}

/// An access that the machine does not emulate, over and over; each #GP is
/// handled.
pub(crate) fn stall() -> Verdict {
    for _ in 0..30_000 {
        if attempt!(["fnsave [{a}]"] a = in(reg) NOWHERE) != Some(trap::PROTECTION) {
            return Err("an access that is not emulated raised no #GP");
        }
    }
    Ok(())
}

/// INIT to itself.
pub(crate) fn init() -> Verdict {
    announce("send itself INIT");
    let _ = msrs::write(0x1B, 0xFEE0_0D00);
    let _ = msrs::write(0x830, 5 << 8 | 1 << 14);
    Err("it came back")
}

/// Nothing but a jump, with interrupts off.
pub(crate) fn spin() -> Verdict {
    announce("spin");
    // SAFETY: an endless loop.
    unsafe { asm!("2: jmp 2b", options(noreturn)) }
}
