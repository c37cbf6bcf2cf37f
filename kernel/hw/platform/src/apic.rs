//! The local APIC: end of interrupt and the one-shot timer.
//!
//! Sources: AMD APM volume 2, chapter 16 (local APIC, x2APIC); Intel SDM
//! volume 3, 11.5.4 (timer, TSC-deadline mode).

use crate::address_space::map_mmio;
use crate::clock;
use crate::cpu::{self, msr};
use crate::interrupts::{SPURIOUS, TIMER};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use volatile::VolatilePtr;

/// Registers: byte offsets of the memory mapped page; the MSR of x2APIC is
/// 0x800 plus a sixteenth of it.
mod register {
    pub(super) const ID: u16 = 0x20;
    pub(super) const TASK_PRIORITY: u16 = 0x80;
    pub(super) const END_OF_INTERRUPT: u16 = 0xB0;
    pub(super) const SPURIOUS: u16 = 0xF0;
    pub(super) const LVT_TIMER: u16 = 0x320;
    pub(super) const LVT_LINT0: u16 = 0x350;
    pub(super) const LVT_LINT1: u16 = 0x360;
    pub(super) const LVT_ERROR: u16 = 0x370;
    pub(super) const INITIAL_COUNT: u16 = 0x380;
    pub(super) const CURRENT_COUNT: u16 = 0x390;
    pub(super) const DIVIDE: u16 = 0x3E0;
}

const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const EXTERNAL_INTERRUPT: u32 = 0x700;
const NMI: u32 = 0x400;
const TSC_DEADLINE_MODE: u32 = 1 << 18;
const DIVIDE_BY_1: u32 = 0b1011;

/// The memory mapped registers; null in x2APIC mode.
static MMIO: AtomicPtr<u32> = AtomicPtr::new(ptr::null_mut());
static STARTED: AtomicBool = AtomicBool::new(false);
static DEADLINE_MODE: AtomicBool = AtomicBool::new(false);
/// Timer ticks for a TSC tick, as a 32.32 fixed point number.
static TICKS_PER_TSC: AtomicU64 = AtomicU64::new(0);

/// A memory mapped register; `None` in x2APIC mode.
#[inline]
fn mapped(offset: u16) -> Option<VolatilePtr<'static, u32>> {
    let page = NonNull::new(MMIO.load(Ordering::Relaxed))?;
    // SAFETY: `start` mapped the page for good, and the register is in it and
    // aligned. Only the one running processor reaches its own local APIC.
    Some(unsafe { VolatilePtr::new(page.byte_add(usize::from(offset))) })
}

fn read(offset: u16) -> u32 {
    match mapped(offset) {
        Some(register) => register.read(),
        // SAFETY: x2APIC mode is on and `offset` is one of its registers.
        None => unsafe { cpu::rdmsr(msr::X2APIC_BASE + u32::from(offset >> 4)) as u32 },
    }
}

fn write(offset: u16, value: u32) {
    match mapped(offset) {
        Some(register) => register.write(value),
        // SAFETY: as in `read`; the values come from this module only.
        None => unsafe { cpu::wrmsr(msr::X2APIC_BASE + u32::from(offset >> 4), value.into()) },
    }
}

/// Turns the local APIC on, in x2APIC mode where the processor has it, with
/// the 8259s passed through on LINT0. The clock has to run.
pub(crate) fn start() {
    // SAFETY: every processor with long mode has a local APIC and this MSR.
    let base = unsafe { cpu::rdmsr(msr::APIC_BASE) } | BASE_ENABLE;
    let x2apic = cpu::cpuid(1, 0)[2] & 1 << 21 != 0;
    if x2apic || base & BASE_X2APIC != 0 {
        // SAFETY: CPUID offers x2APIC; xAPIC mode is enabled first, as the
        // order of states demands (APM 16.9).
        unsafe {
            if base & BASE_X2APIC == 0 {
                cpu::wrmsr(msr::APIC_BASE, base);
            }
            cpu::wrmsr(msr::APIC_BASE, base | BASE_X2APIC);
        }
    } else {
        // SAFETY: only the enable bit changes.
        unsafe { cpu::wrmsr(msr::APIC_BASE, base) };
        let page = map_mmio(base & BASE_ADDRESS, 4096);
        let page = page.expect("the local APIC's page can be mapped");
        MMIO.store(page.cast(), Ordering::Relaxed);
    }
    write(register::SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS));
    write(register::TASK_PRIORITY, 0);
    write(register::LVT_LINT0, EXTERNAL_INTERRUPT);
    write(register::LVT_LINT1, NMI);
    write(register::LVT_ERROR, MASKED | u32::from(SPURIOUS));
    write(register::LVT_TIMER, MASKED | u32::from(TIMER));
    STARTED.store(true, Ordering::Release);
    start_timer();
}

fn start_timer() {
    if cpu::cpuid(1, 0)[2] & 1 << 24 != 0 {
        DEADLINE_MODE.store(true, Ordering::Relaxed);
        write(register::LVT_TIMER, TSC_DEADLINE_MODE | u32::from(TIMER));
        // A memory mapped write is not ordered before a WRMSR (SDM 11.5.4.1).
        // SAFETY: a fence touches nothing.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
        return;
    }
    write(register::DIVIDE, DIVIDE_BY_1);
    write(register::INITIAL_COUNT, u32::MAX);
    let start = cpu::rdtsc();
    let span = clock::ns_to_tsc(10_000_000);
    while cpu::rdtsc().wrapping_sub(start) < span {
        core::hint::spin_loop();
    }
    let ticks = u64::from(u32::MAX - read(register::CURRENT_COUNT));
    let elapsed = cpu::rdtsc().wrapping_sub(start).max(1);
    write(register::INITIAL_COUNT, 0);
    TICKS_PER_TSC.store(((ticks << 32) / elapsed).max(1), Ordering::Relaxed);
    write(register::LVT_TIMER, u32::from(TIMER));
}

/// This processor's APIC identity.
#[must_use]
pub fn id() -> u32 {
    let id = read(register::ID);
    if MMIO.load(Ordering::Relaxed).is_null() { id } else { id >> 24 }
}

/// Whether the local APIC is in x2APIC mode.
#[must_use]
pub fn is_x2apic() -> bool {
    STARTED.load(Ordering::Acquire) && MMIO.load(Ordering::Relaxed).is_null()
}

/// Ends the interrupt in service.
pub(crate) fn end_of_interrupt() {
    if STARTED.load(Ordering::Acquire) {
        write(register::END_OF_INTERRUPT, 0);
    }
}

/// Raises [`TIMER`] once when the TSC reaches `deadline`, or at once if it
/// has passed; replaces an earlier deadline. Where the timer's range is
/// shorter it fires early: the caller looks at the clock and sets it again.
pub fn set_timer(deadline: u64) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // Zero would disarm it.
        // SAFETY: CPUID offers the TSC deadline.
        unsafe { cpu::wrmsr(msr::TSC_DEADLINE, deadline.max(1)) };
        return;
    }
    let left = deadline.saturating_sub(cpu::rdtsc());
    let rate = TICKS_PER_TSC.load(Ordering::Relaxed);
    let ticks = (u128::from(left) * u128::from(rate)) >> 32;
    write(register::INITIAL_COUNT, ticks.clamp(1, u128::from(u32::MAX)) as u32);
}

/// Disarms the timer.
pub fn stop_timer() {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // SAFETY: as in `set_timer`.
        unsafe { cpu::wrmsr(msr::TSC_DEADLINE, 0) };
    } else {
        write(register::INITIAL_COUNT, 0);
    }
}
