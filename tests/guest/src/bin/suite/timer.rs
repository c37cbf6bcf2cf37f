//! The local APIC's timer, and the TSC.

use crate::report::{Emulator, Report};
use crate::trap::{self, UNDEFINED, attempt};
use crate::{Test, apic, msrs, paging, remote};
use core::arch::asm;
use guests::cpu::tsc;

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("timer.registers", registers),
    ("timer.one-shot", one_shot),
    ("timer.periodic", periodic),
    ("timer.masked", masked),
    ("timer.deadline", deadline),
    ("tsc.monotonic", monotonic),
    ("tsc.msr", by_msr),
    ("tsc.adjust", adjust),
    ("tsc.aux", aux),
    ("tsc.disabled", disabled),
];

const VECTOR: u8 = 0x43;
const PERIODIC: u64 = 1 << 17;
const DEADLINE_MODE: u64 = 2 << 17;
const DEADLINE: u32 = 0x6E0;
const TSC: u32 = 0x10;
const ADJUST: u32 = 0x3B;
const AUX: u32 = 0xC000_0103;
/// Longest that a timer is waited for, in polls.
const POLLS_MAX: u32 = 50_000_000;

/// Lets interrupts in until a vector came that often.
fn wait(vector: u8, times: u32) -> bool {
    for _ in 0..POLLS_MAX {
        if trap::count(vector) >= times {
            return true;
        }
        // SAFETY: every vector has a handler.
        unsafe { asm!("sti", "nop", "cli") };
    }
    false
}

/// Lets interrupts in for a while.
fn linger() {
    let end = tsc() + 3_000_000;
    while tsc() < end {
        // SAFETY: every vector has a handler.
        unsafe { asm!("sti", "nop", "cli") };
    }
}

fn registers(r: &mut Report) {
    for value in [0b0000, 0b0011, 0b1000, 0b1010, 0b1011] {
        apic::write(apic::DIVIDE, value);
        r.want("divide", apic::read(apic::DIVIDE), value);
    }
    let entry = apic::MASKED | PERIODIC | u64::from(VECTOR);
    apic::write(apic::TIMER, entry);
    r.want("entry", apic::read(apic::TIMER), entry);
    apic::write(apic::TIMER, apic::MASKED | u64::from(VECTOR));
    apic::write(apic::INITIAL_COUNT, u64::from(u32::MAX));
    let (initial, current) = (apic::read(apic::INITIAL_COUNT), apic::read(apic::CURRENT_COUNT));
    r.want("initial", initial, 0xFFFF_FFFF);
    r.hold("counts down", current < initial && apic::read(apic::CURRENT_COUNT) <= current);
    apic::write(apic::INITIAL_COUNT, 0);
    r.want("stopped", apic::read(apic::CURRENT_COUNT), 0);
}

fn one_shot(r: &mut Report) {
    trap::clear_counts();
    apic::write(apic::DIVIDE, 0b1011);
    apic::write(apic::TIMER, u64::from(VECTOR));
    apic::write(apic::INITIAL_COUNT, 100_000);
    r.want("came", wait(VECTOR, 1), true);
    linger();
    r.want("once", (trap::count(VECTOR), apic::read(apic::CURRENT_COUNT)), (1, 0));
    // Writing the count again arms it again, 0 disarms it.
    apic::write(apic::INITIAL_COUNT, 100_000);
    r.want("again", wait(VECTOR, 2), true);
    apic::write(apic::INITIAL_COUNT, u64::from(u32::MAX));
    apic::write(apic::INITIAL_COUNT, 0);
    linger();
    r.want("disarmed", trap::count(VECTOR), 2);
    apic::write(apic::TIMER, apic::MASKED);
}

fn periodic(r: &mut Report) {
    trap::clear_counts();
    apic::write(apic::DIVIDE, 0b1011);
    apic::write(apic::TIMER, PERIODIC | u64::from(VECTOR));
    apic::write(apic::INITIAL_COUNT, 200_000);
    r.want("came", wait(VECTOR, 5), true);
    // Turned to one-shot it ends by itself.
    apic::write(apic::TIMER, u64::from(VECTOR));
    linger();
    let count = trap::count(VECTOR);
    linger();
    r.hold("ended", trap::count(VECTOR) == count);
    apic::write(apic::INITIAL_COUNT, 0);
    apic::write(apic::TIMER, apic::MASKED);
}

fn masked(r: &mut Report) {
    trap::clear_counts();
    apic::write(apic::TIMER, apic::MASKED | u64::from(VECTOR));
    apic::write(apic::INITIAL_COUNT, 1000);
    linger();
    r.want("masked", (trap::count(VECTOR), apic::bit(apic::IRR, VECTOR)), (0, false));
    // What expired while it was masked does not come later.
    apic::write(apic::TIMER, u64::from(VECTOR));
    linger();
    r.want("unmasked", trap::count(VECTOR), 0);
    apic::write(apic::TIMER, apic::MASKED);
}

fn deadline(r: &mut Report) {
    if core::arch::x86_64::__cpuid(1).ecx & 1 << 24 == 0 {
        return r.skip("no TSC-deadline timer");
    }
    trap::clear_counts();
    apic::write(apic::TIMER, DEADLINE_MODE | u64::from(VECTOR));
    let far = tsc() | 1 << 60;
    let armed = (msrs::write(DEADLINE, far), msrs::read(DEADLINE) == Ok(far));
    r.want("armed", armed, (None, true));
    let at = tsc() + 1_000_000;
    let _ = msrs::write(DEADLINE, at);
    r.want("came", wait(VECTOR, 1), true);
    r.hold("not early", tsc() >= at);
    r.want("cleared", msrs::read(DEADLINE), Ok(0));
    // A deadline that has passed comes at once.
    let _ = msrs::write(DEADLINE, 1);
    // SAFETY: every vector has a handler.
    unsafe { asm!("sti", "nop", "nop", "cli") };
    r.want("past", (trap::count(VECTOR), msrs::read(DEADLINE)), (2, Ok(0)));
    let _ = msrs::write(DEADLINE, far);
    let _ = msrs::write(DEADLINE, 0);
    linger();
    r.want("disarmed", trap::count(VECTOR), 2);
    // The counts do nothing in this mode, the deadline nothing in others.
    apic::write(apic::INITIAL_COUNT, 1000);
    linger();
    r.want("count", (trap::count(VECTOR), apic::read(apic::CURRENT_COUNT)), (2, 0));
    apic::write(apic::TIMER, u64::from(VECTOR));
    let _ = msrs::write(DEADLINE, tsc());
    linger();
    r.want("one-shot", (trap::count(VECTOR), msrs::read(DEADLINE)), (2, Ok(0)));
    apic::write(apic::TIMER, apic::MASKED);
}

fn monotonic(r: &mut Report) {
    let mut last = tsc();
    let mut forward = true;
    for round in 0..400u64 {
        match round % 4 {
            0 => {
                let _ = core::arch::x86_64::__cpuid(0);
            }
            1 => {
                let _ = attempt!(["in al, dx"] in("dx") 0xE0, out("al") _);
            }
            2 if round % 16 == 2 => {
                forward &= remote::send(remote::page(6), 1);
                let _: u64 = paging::peek(remote::page(6));
            }
            _ => {}
        }
        let now = tsc();
        forward &= now > last;
        last = now;
    }
    r.want("forward", forward, true);
}

/// RDMSR and RDTSC read one counter.
fn by_msr(r: &mut Report) {
    let mut between = true;
    for _ in 0..50 {
        let (before, msr, after) = (tsc(), msrs::read(TSC).unwrap_or(0), tsc());
        between &= before <= msr && msr <= after;
    }
    let why = "RDMSR does not know the TSC";
    if remote::is_pangaea() {
        r.want("between", between, true);
    } else {
        r.except("between", between, true, (Emulator::Tcg, false), why);
    }
    if !remote::is_pangaea() {
        return;
    }
    let old = tsc();
    let _ = msrs::write(TSC, old + (1 << 40));
    let now = tsc();
    r.hold("moved forward", now >= old + (1 << 40) && now < old + (1 << 41));
    let _ = msrs::write(ADJUST, 0);
    r.hold("moved back", tsc() < old + (1 << 39));
}

fn adjust(r: &mut Report) {
    if core::arch::x86_64::__cpuid_count(7, 0).ebx >> 1 & 1 == 0 {
        return r.skip("no TSC_ADJUST");
    }
    let old = msrs::read(ADJUST);
    let before = tsc();
    let fault = msrs::write(ADJUST, old.unwrap_or(0) + (1 << 42));
    let after = tsc();
    r.want("written", (fault, old.is_ok()), (None, true));
    r.hold("moves the counter", after > before + (1 << 42) && after < before + (1 << 43));
    let _ = msrs::write(ADJUST, old.unwrap_or(0));
    r.want("back", msrs::read(ADJUST), old);
}

fn aux(r: &mut Report) {
    let before = msrs::read(AUX).unwrap_or(0);
    let _ = msrs::write(AUX, 0x1234_5678);
    let (low, high, aux): (u64, u64, u64);
    let all = u64::MAX;
    let fault = attempt!(["rdtscp"] inout("rax") all => low, inout("rdx") all => high,
        inout("rcx") all => aux);
    r.want("rdtscp", (fault, aux, low >> 32, high >> 32), (None, 0x1234_5678, 0, 0));
    // It is kept over exits and other nodes' pages.
    let _ = core::arch::x86_64::__cpuid(0);
    r.hold("sent", remote::send(remote::page(6), 1));
    let _: u64 = paging::peek(remote::page(6));
    r.want("kept", msrs::read(AUX), Ok(0x1234_5678));
    let _ = msrs::write(AUX, before);
}

/// CR4.TSD does not concern level 0; user code is in `rings`.
fn disabled(r: &mut Report) {
    let fault = paging::with_control(
        (0, 0),
        (1 << 2, 0),
        || attempt!(["rdtsc"] out("eax") _, out("edx") _),
    );
    r.want("tsd", fault, None);
    r.want("ud", attempt!(["ud2"]), UNDEFINED);
}
