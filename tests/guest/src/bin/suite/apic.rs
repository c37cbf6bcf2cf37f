//! The local APIC, in x2APIC mode where there is one and else by memory.

use crate::msrs;
use crate::trap::attempt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// IA32_APIC_BASE and its bits.
pub(crate) const BASE: u32 = 0x1B;
pub(crate) const ENABLED: u64 = 1 << 11;
pub(crate) const X2APIC: u64 = 1 << 10;
/// Where xAPIC's registers lie.
pub(crate) const PLACE: u64 = 0xFEE0_0000;
/// Registers by their xAPIC offset (Intel SDM vol. 3, table 11-1).
pub(crate) const ID: u32 = 0x20;
pub(crate) const VERSION: u32 = 0x30;
pub(crate) const TPR: u32 = 0x80;
pub(crate) const PPR: u32 = 0xA0;
pub(crate) const EOI: u32 = 0xB0;
pub(crate) const SPURIOUS: u32 = 0xF0;
pub(crate) const ISR: u32 = 0x100;
pub(crate) const IRR: u32 = 0x200;
pub(crate) const ICR: u32 = 0x300;
pub(crate) const TIMER: u32 = 0x320;
pub(crate) const LINT0: u32 = 0x350;
pub(crate) const INITIAL_COUNT: u32 = 0x380;
pub(crate) const CURRENT_COUNT: u32 = 0x390;
pub(crate) const DIVIDE: u32 = 0x3E0;
/// x2APIC only.
pub(crate) const SELF_IPI: u32 = 0x3F0;
/// Masked, in a local vector.
pub(crate) const MASKED: u64 = 1 << 16;

static BY_MSR: AtomicBool = AtomicBool::new(false);

/// Whether the processor has x2APIC mode.
pub(crate) fn has_x2apic() -> bool {
    core::arch::x86_64::__cpuid(1).ecx & 1 << 21 != 0
}

/// The MSR of a register.
pub(crate) fn msr(register: u32) -> u32 {
    0x800 + (register >> 4)
}

/// Turns the APIC on, with nothing coming from elsewhere.
pub(crate) fn install() {
    // The 8259 pair: firmware may have left its lines open.
    let _ = attempt!(["out 0x21, al", "out 0xA1, al"] in("al") 0xFFu8);
    let base = msrs::read(BASE).unwrap_or(0);
    if has_x2apic() {
        let _ = msrs::write(BASE, base | ENABLED | X2APIC);
    }
    sync();
    write(SPURIOUS, 0x1FF);
    write(LINT0, MASKED);
    write(TIMER, MASKED);
    write(TPR, 0);
}

/// Takes over the mode that IA32_APIC_BASE tells.
pub(crate) fn sync() {
    BY_MSR.store(msrs::read(BASE).unwrap_or(0) & X2APIC != 0, Relaxed);
}

/// Reads a register.
pub(crate) fn read(register: u32) -> u64 {
    if BY_MSR.load(Relaxed) {
        return msrs::read(msr(register)).unwrap_or(u64::MAX);
    }
    // SAFETY: the register lies there, mapped to itself.
    u64::from(unsafe { ((PLACE + u64::from(register)) as *const u32).read_volatile() })
}

/// Writes a register.
pub(crate) fn write(register: u32, value: u64) {
    if BY_MSR.load(Relaxed) {
        // SAFETY: no value that tests write through here is refused.
        unsafe { x86_64::registers::model_specific::Msr::new(msr(register)).write(value) };
        return;
    }
    // SAFETY: the register lies there, mapped to itself. What it does is what
    // a test wants.
    unsafe { ((PLACE + u64::from(register)) as *mut u32).write_volatile(value as u32) };
}

/// Ends the interrupt that is being served.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// The id, without the place where xAPIC has it.
pub(crate) fn id() -> u64 {
    if BY_MSR.load(Relaxed) { read(ID) } else { read(ID) >> 24 }
}

/// Sends an IPI to this processor: fixed, by the shorthand "self".
pub(crate) fn interrupt(vector: u8) {
    write(ICR, 1 << 18 | u64::from(vector));
}

/// Sends an NMI to this processor, by its id. The shorthand "self" takes
/// fixed interrupts only (Intel SDM vol. 3, table 11-3).
pub(crate) fn nmi() {
    if BY_MSR.load(Relaxed) {
        return write(ICR, id() << 32 | 4 << 8);
    }
    write(ICR + 0x10, read(ID));
    write(ICR, 4 << 8);
}

/// Whether a vector waits (IRR) or is served (ISR), as `bank` says.
pub(crate) fn bit(bank: u32, vector: u8) -> bool {
    read(bank + 0x10 * u32::from(vector / 32)) >> (vector % 32) & 1 != 0
}
