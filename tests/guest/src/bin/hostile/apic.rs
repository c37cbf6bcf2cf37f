//! The local APIC: nonsense in its registers, and storms of interrupts.

use crate::random::Random;
use crate::trap::attempt;
use crate::{Verdict, msrs, trap};
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use guests::cpu::tsc;

/// IA32_APIC_BASE: enabled, in x2APIC mode, at its usual place, BSP.
const BASE: u32 = 0x1B;
const BASE_X2APIC: u64 = 0xFEE0_0000 | 1 << 11 | 1 << 10 | 1 << 8;
/// x2APIC registers (Intel SDM vol. 3, table 11-6).
const EOI: u32 = 0x80B;
const SPURIOUS: u32 = 0x80F;
const COMMAND: u32 = 0x830;
const TIMER: u32 = 0x832;
const INITIAL_COUNT: u32 = 0x838;
const DIVIDE: u32 = 0x83E;
const SELF_IPI: u32 = 0x83F;
const DEADLINE: u32 = 0x6E0;
/// Mode of the timer.
const PERIODIC: u64 = 1 << 17;
/// The local vector table, CMCI's entry first.
const LOCAL_VECTORS: RangeInclusive<u32> = 0x82F..=0x837;
/// Delivery modes INIT and start-up: the try `init` is theirs.
const MODE: u64 = 7 << 8;
const INIT: u64 = 5 << 8;

/// Whether the APIC is in x2APIC mode.
static X2APIC: AtomicBool = AtomicBool::new(false);

/// Ends the interrupt that is being served.
pub(crate) fn end_of_interrupt() {
    if X2APIC.load(Relaxed) {
        // SAFETY: the register takes 0 in this mode, and ends an interrupt.
        unsafe { x86_64::registers::model_specific::Msr::new(EOI).write(0) };
    }
}

/// Turns x2APIC mode on and the APIC with it.
fn enable() -> Verdict {
    if msrs::write(BASE, BASE_X2APIC).is_some() || msrs::write(SPURIOUS, 0x1FF).is_some() {
        return Err("x2APIC mode cannot be turned on");
    }
    X2APIC.store(true, Relaxed);
    Ok(())
}

/// Lets interrupts come for a moment.
fn let_in() {
    // SAFETY: every vector has a handler.
    unsafe { core::arch::asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// Nonsense everywhere, and IPIs to itself and others.
pub(crate) fn garbage() -> Verdict {
    enable()?;
    // Vectors 16 to 31 are legal, but a handler cannot tell them from
    // exceptions, some of which push an error code.
    for vector in (0..16).chain(32..=255) {
        let fault = msrs::write(SELF_IPI, vector);
        let through_command = msrs::write(COMMAND, 1 << 18 | vector);
        if fault.is_some() || through_command.is_some() {
            return Err("a self IPI has faulted");
        }
        let_in();
    }
    if trap::interrupts() < 100 {
        return Err("self IPIs do not arrive");
    }
    let mut random = Random::new(9);
    for _ in 0..20_000 {
        let msr = 0x800 + (random.next() & 0xFF) as u32;
        let mut value = random.next() >> (random.next() & 63);
        if (LOCAL_VECTORS.contains(&msr) || msr == COMMAND || msr == SELF_IPI) && value & 0x10 != 0
        {
            value |= 0x20;
        }
        if msr == INITIAL_COUNT {
            // The try `storm` is for timers that leave no time.
            value |= 1 << 28;
        }
        if msr == COMMAND {
            // INIT and start-up for this processor are another try's.
            let command = value & !(MODE & INIT);
            let _ = msrs::write(COMMAND, command);
        } else if msr != SPURIOUS {
            let _ = msrs::write(msr, value);
        }
        let _ = msrs::read(msr);
        let_in();
    }
    // Back to xAPIC mode without turning it off first is refused.
    if msrs::write(BASE, BASE_X2APIC & !(1 << 10)).is_none() {
        return Err("x2APIC mode was left for xAPIC mode at once");
    }
    for value in [0, 1 << 10, u64::MAX, random.next()] {
        let _ = msrs::write(BASE, value);
    }
    Ok(())
}

/// Stops the timer; called by the handler of its interrupt.
pub(crate) fn calm() {
    // SAFETY: the register takes 0, and the timer is this program's.
    unsafe { x86_64::registers::model_specific::Msr::new(INITIAL_COUNT).write(0) };
}

/// Timers that expire as fast as they can: faster than a handler returns.
pub(crate) fn storm() -> Verdict {
    const INTERRUPTS: u64 = 2000;
    enable()?;
    for (mode, divide, count) in [(PERIODIC, 0b1011, 1), (PERIODIC, 0, 2), (PERIODIC, 0b1010, 9)] {
        let _ = msrs::write(DIVIDE, divide);
        let _ = msrs::write(TIMER, mode | 0x40);
        let before = trap::interrupts();
        trap::limit(INTERRUPTS);
        let _ = msrs::write(INITIAL_COUNT, count);
        while trap::interrupts() < before + INTERRUPTS {
            let_in();
        }
    }
    let _ = msrs::write(TIMER, 2 << 17 | 0x41);
    for deadline in [1, u64::MAX, tsc(), tsc() + 1, u64::MAX / 2] {
        let _ = msrs::write(DEADLINE, deadline);
        let_in();
    }
    // HLT with a deadline that has passed must come back.
    let before = trap::interrupts();
    let _ = msrs::write(DEADLINE, tsc() + 1000);
    attempt!(["sti", "hlt", "cli"]);
    if trap::interrupts() == before { Err("HLT came back without an interrupt") } else { Ok(()) }
}

/// Such a timer for ever: the guest gets nowhere any more.
pub(crate) fn livelock() -> Verdict {
    enable()?;
    guests::println!("@hostile about to livelock");
    let _ = msrs::write(DIVIDE, 0b1011);
    let _ = msrs::write(TIMER, PERIODIC | 0x40);
    let _ = msrs::write(INITIAL_COUNT, 1);
    loop {
        let_in();
    }
}
