//! Instructions and ports: the TSC, the modes of a processor, and the ways to end.

use core::arch::x86_64::__cpuid_count;
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

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

/// Sets CR0 and CR4 as 64-bit operating systems do: write protection, large
/// and global pages, and SMEP and SMAP where the processor has them. A guest
/// that measures is to cost what a guest with an operating system costs, and
/// an emulator flushes more in a world switch whose two sides differ in them.
pub fn set_modes_of_an_os() {
    let mut modes = Cr4Flags::PAGE_SIZE_EXTENSION | Cr4Flags::PAGE_GLOBAL;
    // CPUID 7 EBX bits 7 and 20 (Intel SDM volume 2, CPUID).
    let features = if __cpuid_count(0, 0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    modes.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features & 1 << 7 != 0);
    modes.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features & 1 << 20 != 0);
    // SAFETY: the processor has the modes. The loader's tables map all of the
    // guest writable, and for the supervisor alone.
    unsafe {
        Cr0::update(|cr0| cr0.insert(Cr0Flags::WRITE_PROTECT));
        Cr4::update(|cr4| cr4.insert(modes));
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
