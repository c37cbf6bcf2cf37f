//! Instructions and ports: the TSC, and the ways to end.

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

/// PM1a control register, as the guest's FADT tells it.
const PM1A_CONTROL: u16 = 0x604;
/// SLP_TYP of S5 in bits 10 to 12, and SLP_EN (ACPI 6.5, section 4.8.3.2):
/// as Pangaea's machine has it, and as QEMU's own has it for a guest that runs
/// without Pangaea.
const SLEEP_S5: [u16; 2] = [5 << 10 | 1 << 13, 1 << 13];

/// Reads the TSC after everything before has been done, and before anything
/// after begins (Intel SDM volume 2, RDTSC).
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: LFENCE and RDTSC change nothing; CR4.TSD is clear.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let now = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        now
    }
}

/// Switches the machine off.
pub fn power_off() -> ! {
    for sleep in SLEEP_S5 {
        // SAFETY: PM1a control belongs to power management; the write ends
        // the guest.
        unsafe { Port::new(PM1A_CONTROL).write(sleep) };
    }
    stop()
}

/// Ends the guest with a failure: a processor that is halted with interrupts
/// off cannot go on.
pub fn stop() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}
