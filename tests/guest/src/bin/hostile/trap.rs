//! Exceptions: noted, and gone on behind the attempt that raised them.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
pub(crate) use guests::attempt;
use guests::trap::{Frame, RECOVER};
pub(crate) use guests::trap::{Pointer, load};

/// The exception that came: vector + 1 in the high half, error code in the low.
static CAUGHT: AtomicU64 = AtomicU64::new(0);
/// Interrupts that came.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
/// The number of interrupts at which the APIC's timer is stopped, should it
/// leave the guest no time to do that.
static LIMIT: AtomicU64 = AtomicU64::new(0);
static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// An exception that an attempt has raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// Its vector.
    pub(crate) vector: u8,
    /// Its error code.
    pub(crate) error: u32,
}

/// #UD without an error code.
pub(crate) const UNDEFINED: Fault = Fault { vector: 6, error: 0 };
/// #GP(0).
pub(crate) const PROTECTION: Fault = Fault { vector: 13, error: 0 };

/// Called by the stubs.
extern "C" fn handle(frame: &mut Frame) {
    if frame.vector >= 32 || frame.vector == 2 {
        if INTERRUPTS.fetch_add(1, Relaxed) + 1 == LIMIT.load(Relaxed) {
            crate::apic::calm();
        }
        if frame.vector != 2 {
            crate::apic::end_of_interrupt();
        }
        return;
    }
    let recover = RECOVER.swap(0, Relaxed);
    if recover == 0 {
        let Frame { vector, error, rip, .. } = frame;
        guests::println!("@hostile FAILED: exception {vector} ({error:#x}) at {rip:#x}");
        guests::cpu::stop();
    }
    CAUGHT.store((frame.vector + 1) << 32 | frame.error & 0xFFFF_FFFF, Relaxed);
    frame.rip = recover;
    // No single step behind an attempt that had set it.
    frame.rflags &= !(1 << 8);
}

/// Interrupts so far.
pub(crate) fn interrupts() -> u64 {
    INTERRUPTS.load(Relaxed)
}

/// Stops the timer after `more` interrupts; never for 0.
pub(crate) fn limit(more: u64) {
    LIMIT.store(if more == 0 { 0 } else { interrupts() + more }, Relaxed);
}

/// Attempts and faults so far.
pub(crate) fn counts() -> (u64, u64) {
    (ATTEMPTS.load(Relaxed), FAULTS.load(Relaxed))
}

/// Ends an attempt: what it has raised.
pub(crate) fn outcome() -> Option<Fault> {
    RECOVER.store(0, Relaxed);
    ATTEMPTS.fetch_add(1, Relaxed);
    let caught = CAUGHT.swap(0, Relaxed);
    if caught == 0 {
        return None;
    }
    FAULTS.fetch_add(1, Relaxed);
    Some(Fault { vector: (caught >> 32) as u8 - 1, error: caught as u32 })
}

/// A gate of the interrupt descriptor table (AMD APM volume 2, 4.8.4).
#[repr(C, align(16))]
struct Table([[u64; 2]; 256]);

static mut TABLE: Table = Table([[0; 2]; 256]);

/// Loads the table of all 256 stubs.
pub(crate) fn install() {
    let cs: u16;
    // SAFETY: reads a selector.
    unsafe { asm!("mov {0:x}, cs", out(reg) cs, options(nomem, nostack)) };
    let table = &raw mut TABLE;
    guests::trap::set_handler(handle);
    for vector in 0..=255u8 {
        let stub = guests::trap::stub(vector);
        // Present, 64-bit interrupt gate.
        let low = stub & 0xFFFF | u64::from(cs) << 16 | 0x8E << 40 | (stub >> 16 & 0xFFFF) << 48;
        // SAFETY: the table is loaded only below; nothing else refers to it.
        unsafe { (*table).0[usize::from(vector)] = [low, stub >> 32] };
    }
    load(&Pointer { limit: size_of::<Table>() as u16 - 1, base: table as u64 });
}
