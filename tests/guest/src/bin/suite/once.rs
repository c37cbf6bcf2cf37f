//! Each interrupt comes once: none lost, none doubled, however long it takes
//! until the guest next exits.

use crate::report::Report;
use crate::trap::{self, Frame};
use crate::{Test, apic};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use guests::cpu::{stop, tsc};

/// The tests.
pub(crate) const TESTS: &[Test] = &[("interrupt.once", once)];

/// How often the timer is armed: the word `rounds=N` of the command line.
pub(crate) static ROUNDS: AtomicU64 = AtomicU64::new(60);

const VECTOR: u8 = 0x44;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;
/// How long the handler stays in the guest, where whatever disturbs the
/// processor finds an interrupt delivered and no exit since.
const HOLD_TICKS: u64 = 200_000;
/// Longest that an interrupt is waited for.
const WAIT_TICKS: u64 = 1 << 32;

/// The timer was armed, and its interrupt has not come.
static ARMED: AtomicBool = AtomicBool::new(false);
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Where the guest goes on behind the HLT that follows its STI; else 0.
static AWAKE: AtomicU64 = AtomicU64::new(0);

/// Ends the guest where something is wrong: an emulator that has delivered an
/// interrupt twice may not get any further, and its TSC may stand.
fn hold(right: bool, what: &str) {
    if !right {
        let taken = TAKEN.load(Relaxed);
        guests::println!("@suite interrupt.once FAILED: {what} after {taken}");
        stop();
    }
}

/// The timer's handler.
fn take(frame: &mut Frame) -> bool {
    if frame.vector != u64::from(VECTOR) {
        return false;
    }
    hold(frame.rflags & IF != 0, "an interrupt with IF clear");
    hold(ARMED.swap(false, Relaxed), "an interrupt of no timer");
    let awake = AWAKE.swap(0, Relaxed);
    hold(awake == 0 || frame.rip == awake, "an interrupt between STI and HLT");
    let end = tsc() + HOLD_TICKS;
    while tsc() < end {}
    hold(apic::bit(apic::ISR, VECTOR), "an interrupt that is not in service");
    apic::end_of_interrupt();
    TAKEN.fetch_add(1, Relaxed);
    true
}

/// Where an interrupt of the timer meets the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meets {
    /// Where it spins.
    Spinning,
    /// At the STI, waiting since long.
    Late,
    /// In the HLT behind the STI, or on the way there.
    Halted,
}

/// Arms the timer and takes its interrupt.
fn round(meets: Meets, count: u64) {
    let end = tsc() + WAIT_TICKS;
    ARMED.store(true, Relaxed);
    apic::write(apic::INITIAL_COUNT, count);
    while meets == Meets::Late && !apic::bit(apic::IRR, VECTOR) {
        hold(tsc() < end, "no interrupt waits");
    }
    match meets {
        // SAFETY: every vector has a handler.
        Meets::Halted => unsafe {
            asm!("lea {at}, [rip + 2f]", "mov [rip + {awake}], {at}", "sti", "hlt", "2:",
                at = out(reg) _, awake = sym AWAKE);
        },
        // SAFETY: as above.
        Meets::Spinning | Meets::Late => unsafe { asm!("sti", "nop") },
    }
    while ARMED.load(Relaxed) {
        hold(tsc() < end && meets == Meets::Spinning, "no interrupt comes");
    }
    // SAFETY: keeps interrupts out.
    unsafe { asm!("cli") };
    let in_use = apic::bit(apic::IRR, VECTOR) || apic::bit(apic::ISR, VECTOR);
    hold(!in_use, "its vector is in use");
}

fn once(r: &mut Report) {
    let rounds = ROUNDS.load(Relaxed);
    guests::println!("@once {rounds} rounds");
    trap::hook(Some(take));
    apic::write(apic::DIVIDE, 0b1011);
    apic::write(apic::TIMER, u64::from(VECTOR));
    for number in 0..rounds {
        let meets = [Meets::Spinning, Meets::Late, Meets::Halted][number as usize % 3];
        round(meets, 20_000 + number * 7919 % 30_000);
    }
    apic::write(apic::TIMER, apic::MASKED);
    trap::hook(None);
    r.want("taken", TAKEN.load(Relaxed), rounds);
}
