//! Interrupts: a vector that arrives is noted and acknowledged, nothing more;
//! the main loop asks what came.
//!
//! Vectors: 0x20 to 0x2F the two 8259 PICs, 0x30 to 0x6F message signalled
//! interrupts, 0xF0 the local APIC's timer, 0xFF its spurious vector.
//!
//! A PIC line is masked when it fires, because a level-triggered line would
//! fire again before its driver had a chance to run, and armed again by
//! [`halt_until_interrupt`].

use crate::{apic, pic};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// First vector of the PICs.
pub const PIC_BASE: u8 = 0x20;
/// First vector for message signalled interrupts.
pub const MSI_BASE: u8 = 0x30;
/// One past the last vector for message signalled interrupts.
pub const MSI_END: u8 = 0x70;
/// Vector of the local APIC's timer.
pub const TIMER: u8 = 0xF0;
/// Spurious vector of the local APIC.
pub const SPURIOUS: u8 = 0xFF;

static PENDING: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static NEXT_MSI: AtomicU8 = AtomicU8::new(MSI_BASE);

/// Called by the vector stubs with interrupts off.
pub(crate) fn arrived(vector: u8) {
    let wanted = match vector {
        SPURIOUS => false,
        PIC_BASE..MSI_BASE => pic::acknowledge(vector - PIC_BASE),
        _ => {
            apic::end_of_interrupt();
            // What nobody allocated (a device that the firmware left running)
            // must not keep the node awake.
            vector == TIMER || (MSI_BASE..NEXT_MSI.load(Ordering::Relaxed)).contains(&vector)
        }
    };
    if !wanted {
        return;
    }
    PENDING[usize::from(vector / 64)].fetch_or(1 << (vector % 64), Ordering::Relaxed);
}

/// Whether the vector has arrived since the last call; clears it.
pub fn take(vector: u8) -> bool {
    let bit = 1 << (vector % 64);
    let word = &PENDING[usize::from(vector / 64)];
    word.load(Ordering::Relaxed) & bit != 0 && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
}

/// Whether the ISA line has fired since the last call; clears it.
pub fn take_line(line: u8) -> bool {
    take(PIC_BASE + (line & 15))
}

/// A vector that no one else has, for a message signalled interrupt.
pub fn alloc_msi_vector() -> Option<u8> {
    NEXT_MSI
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |v| (v < MSI_END).then(|| v + 1))
        .ok()
}

/// Lets an ISA line (0 to 15, not the cascade 2) interrupt this node.
pub fn enable_line(line: u8) {
    pic::enable(line);
}

/// Stops an ISA line.
pub fn disable_line(line: u8) {
    pic::disable(line);
    take_line(line);
}

/// Whether an interrupt was noted that nobody has taken.
#[must_use]
pub fn any_pending() -> bool {
    PENDING.iter().any(|w| w.load(Ordering::Relaxed) != 0)
}

/// Halts until an interrupt has arrived; returns at once if one is noted that
/// nobody has taken. Interrupts are off before and after. An interrupt that
/// comes between the check and the halt is not lost: STI takes effect after
/// the next instruction, so it wakes the HLT (AMD APM volume 3, STI).
/// A PIC line that nobody services wakes it again and again.
///
/// Whoever uses it has to take every vector that it enabled, or it never
/// halts again.
pub fn halt_until_interrupt() {
    pic::arm();
    if !any_pending() {
        x86_64::instructions::interrupts::enable_and_hlt();
        x86_64::instructions::interrupts::disable();
    }
}

/// Opens again the PIC lines that have fired, for a caller that is about to
/// run a guest with interrupts on.
pub fn arm() {
    pic::arm();
}

/// Opens a window in which interrupts that wait are noted, without halting.
/// For a loop that polls and never halts.
pub fn poll() {
    pic::arm();
    // SAFETY: the handlers only note the vector; STI delays by one
    // instruction, hence the NOP.
    unsafe { core::arch::asm!("sti", "nop", "cli", options(nostack)) };
}
