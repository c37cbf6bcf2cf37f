//! Interrupts: when they are taken, and in which order.

use crate::report::{Emulator, Report};
use crate::trap::{self, Frame, PROTECTION, attempt};
use crate::{Test, apic, msrs, paging, remote};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("interrupt.shadow", shadow),
    ("interrupt.at-once", at_once),
    ("interrupt.masked", masked),
    ("interrupt.order", order),
    ("interrupt.nesting", nesting),
    ("interrupt.merged", merged),
    ("interrupt.task-priority", task_priority),
    ("interrupt.cr8", cr8),
    ("interrupt.self-ipi", self_ipi),
    ("interrupt.software", software),
    ("interrupt.remote-stack", remote_stack),
    ("nmi.masked", nmi_masked),
    ("nmi.blocked", nmi_blocked),
    ("nmi.nested", nmi_nested),
    ("halt.pending", halt_pending),
    ("halt.nmi", halt_nmi),
];

const VECTOR: u8 = 0x41;
/// RFLAGS.IF.
const IF: u64 = 1 << 9;
/// The I/O APIC's index and data.
const IOAPIC: u64 = 0xFEC0_0000;

/// Where the last interrupts came, the newest in the low place.
static PLACES: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Notes where an interrupt or NMI came.
fn note(frame: &mut Frame) -> bool {
    if frame.vector == 2 || frame.vector >= 32 {
        let n = TAKEN.fetch_add(1, Relaxed) as usize;
        PLACES[n % 4].store(frame.rip, Relaxed);
    }
    false
}

/// Forgets what was noted, and notes anew.
fn watch() {
    TAKEN.store(0, Relaxed);
    trap::hook(Some(note));
}

/// An interrupt waits, with interrupts off.
fn raise(vector: u8) {
    apic::interrupt(vector);
    // An IPI to itself is there when the write has been done; xAPIC's may
    // take a moment.
    while !apic::bit(apic::IRR, vector) {
        core::hint::spin_loop();
    }
}

/// Runs lines with an interrupt waiting and IF clear at their start; whether
/// it came exactly once and exactly at label 3, which is in the lines.
macro_rules! taken_at {
    ([$($line:expr),+ $(,)?] $($operands:tt)*) => {{
        watch();
        raise(VECTOR);
        let at: u64;
        // SAFETY: as in `attempt!`; the interrupt's handler keeps all.
        unsafe {
            asm!("lea {at}, [rip + 3f]", $($line,)+ "nop", "cli", at = out(reg) at,
                $($operands)*);
        }
        trap::hook(None);
        (TAKEN.load(Relaxed), PLACES[0].load(Relaxed) == at)
    }};
}

fn shadow(r: &mut Report) {
    let want = (1, true);
    r.want("nop", taken_at!(["sti", "nop", "3:", "nop"]), want);
    r.want("sti", taken_at!(["sti", "sti", "3:", "nop"]), want);
    // Instructions that exit in the shadow end it.
    let cpuid = taken_at!(["push rbx", "sti", "cpuid", "3:", "nop", "pop rbx"]
        inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _);
    r.want("cpuid", cpuid, want);
    r.want("in", taken_at!(["sti", "in al, dx", "3:", "nop"] in("dx") 0xE0, out("al") _), want);
    let msr = taken_at!(["sti", "rdmsr", "3:", "nop"] in("ecx") 0x277, out("eax") _, out("edx") _);
    r.want("rdmsr", msr, want);
    let device = taken_at!(["sti", "mov {v:e}, [{a}]", "3:", "nop"] a = in(reg) IOAPIC,
        v = out(reg) _);
    r.want("device", device, want);
    let strings = taken_at!(["sti", "insb", "3:", "nop"] in("dx") 0xE0,
        inout("rdi") paging::arena(0) => _);
    r.want("insb", strings, want);
    // A page fault of the node's own in the shadow does not end it.
    let at = remote::page(4);
    r.hold("sent", remote::send(at, 1));
    let away = taken_at!(["sti", "mov {v}, [{a}]", "3:", "nop"] a = in(reg) at, v = out(reg) _);
    let why = "VMRUN forgets an interrupt shadow";
    r.except("remote", away, want, (Emulator::Tcg, (1, false)), why);
    // A fault in the shadow: its handler has IF clear, and returns behind.
    watch();
    raise(VECTOR);
    let fault = attempt!(["sti", "ud2"]);
    // SAFETY: lets the interrupt in that waits.
    unsafe { asm!("nop", "cli") };
    r.want("fault", (fault, TAKEN.load(Relaxed)), (trap::UNDEFINED, 1));
}

fn at_once(r: &mut Report) {
    let want = (1, true);
    let popf = taken_at!(["pushfq", "or dword ptr [rsp], 0x200", "popfq", "3:", "nop"]);
    r.want("popf", popf, want);
    let iret = taken_at!([
        "mov {t}, rsp",
        "push 0x10",
        "push {t}",
        "pushfq",
        "or dword ptr [rsp], 0x200",
        "push 8",
        "lea {t}, [rip + 3f]",
        "push {t}",
        "iretq",
        "3:",
        "nop"
    ] t = out(reg) _);
    r.want("iret", iret, want);
    // With IF set, an IPI to itself comes by itself.
    trap::clear_counts();
    // SAFETY: every vector has a handler.
    unsafe { asm!("sti") };
    apic::interrupt(VECTOR);
    for _ in 0..1000 {
        core::hint::spin_loop();
    }
    // SAFETY: as above.
    unsafe { asm!("cli") };
    r.want("ipi", trap::count(VECTOR), 1);
}

fn masked(r: &mut Report) {
    watch();
    raise(VECTOR);
    let _ = core::arch::x86_64::__cpuid(0);
    let seen = (TAKEN.load(Relaxed), apic::bit(apic::IRR, VECTOR), apic::bit(apic::ISR, VECTOR));
    r.want("off", seen, (0, true, false));
    // STI and CLI next to each other leave no time.
    // SAFETY: as above.
    unsafe { asm!("sti", "cli") };
    r.want("sti-cli", TAKEN.load(Relaxed), 0);
    // SAFETY: as above.
    unsafe { asm!("sti", "nop", "cli") };
    let seen = (TAKEN.load(Relaxed), apic::bit(apic::IRR, VECTOR), apic::bit(apic::ISR, VECTOR));
    r.want("on", seen, (1, false, false));
    trap::hook(None);
}

/// The vectors in the order in which they came.
static ORDER: AtomicU64 = AtomicU64::new(0);

fn note_vector(frame: &mut Frame) -> bool {
    if frame.vector >= 32 {
        ORDER.store(ORDER.load(Relaxed) << 8 | frame.vector, Relaxed);
    }
    false
}

/// Lets in what waits.
fn let_in() {
    // SAFETY: every vector has a handler.
    unsafe { asm!("sti", "nop", "nop", "nop", "cli") };
}

fn order(r: &mut Report) {
    ORDER.store(0, Relaxed);
    trap::hook(Some(note_vector));
    for vector in [0x31, 0xE2, 0x32, 0x91] {
        raise(vector);
    }
    let_in();
    trap::hook(None);
    r.want("order", ORDER.load(Relaxed), 0xE291_3231);
}

/// Lets others in while it is served, then ends.
fn nest(frame: &mut Frame) -> bool {
    if frame.vector < 32 {
        return false;
    }
    ORDER.store(ORDER.load(Relaxed) << 8 | frame.vector, Relaxed);
    if frame.vector == 0x51 {
        // Of its own class one waits, a higher one comes at once.
        raise(0x52);
        raise(0x63);
        let_in();
        ORDER.store(ORDER.load(Relaxed) << 8 | 0xFF, Relaxed);
    }
    false
}

fn nesting(r: &mut Report) {
    ORDER.store(0, Relaxed);
    trap::hook(Some(nest));
    raise(0x51);
    let_in();
    trap::hook(None);
    r.want("order", ORDER.load(Relaxed), 0x5163_FF52);
}

/// Sends its own vector twice while it is served: one waits, one is merged.
fn again(frame: &mut Frame) -> bool {
    if frame.vector == u64::from(VECTOR) && TAKEN.fetch_add(1, Relaxed) == 0 {
        raise(VECTOR);
        raise(VECTOR);
    }
    false
}

fn merged(r: &mut Report) {
    TAKEN.store(0, Relaxed);
    trap::hook(None);
    raise(VECTOR);
    raise(VECTOR);
    trap::clear_counts();
    let_in();
    r.want("twice", trap::count(VECTOR), 1);
    trap::hook(Some(again));
    raise(VECTOR);
    let_in();
    trap::hook(None);
    r.want("served", TAKEN.load(Relaxed), 2);
}

fn cr8_write(value: u64) -> Option<trap::Fault> {
    attempt!(["mov cr8, {v}"] v = in(reg) value)
}

fn cr8_read() -> u64 {
    let value;
    let _ = attempt!(["mov {v}, cr8"] v = out(reg) value);
    value
}

fn task_priority(r: &mut Report) {
    trap::clear_counts();
    apic::write(apic::TPR, 0x50);
    raise(0x5F);
    raise(0x61);
    let_in();
    let held = (trap::count(0x5F), trap::count(0x61), apic::bit(apic::IRR, 0x5F));
    r.want("held", held, (0, 1, true));
    r.want("ppr", apic::read(apic::PPR), 0x50);
    apic::write(apic::TPR, 0x4F);
    let_in();
    r.want("released", (trap::count(0x5F), apic::bit(apic::IRR, 0x5F)), (1, false));
    apic::write(apic::TPR, 0);
}

/// CR8 is the upper half of the task priority, and opens the way by itself.
fn cr8(r: &mut Report) {
    trap::clear_counts();
    let got = [cr8_write(16), cr8_write(1 << 32)];
    let why = "CR8 takes reserved bits";
    r.except("refused", got, [PROTECTION; 2], (Emulator::Tcg, [None; 2]), why);
    r.want("written", (cr8_write(9), apic::read(apic::TPR)), (None, 0x90));
    apic::write(apic::TPR, 0xA5);
    r.want("read", cr8_read(), 0xA);
    raise(0xA1);
    let_in();
    let _ = core::arch::x86_64::__cpuid(0);
    r.want("held", trap::count(0xA1), 0);
    // With IF set, lowering CR8 lets the interrupt in.
    watch();
    // SAFETY: every vector has a handler.
    unsafe {
        asm!("sti", "mov {v}, 9", "mov cr8, {v}", "nop", "nop", "cli", v = out(reg) _);
    }
    trap::hook(None);
    r.want("released", (trap::count(0xA1), TAKEN.load(Relaxed)), (1, 1));
    // 0x90 holds back its own class only.
    raise(0x9E);
    raise(0xA2);
    let_in();
    r.want("class", (trap::count(0x9E), trap::count(0xA2)), (0, 1));
    r.want("zero", cr8_write(0), None);
    let_in();
    r.want("end", (trap::count(0x9E), apic::read(apic::TPR)), (1, 0));
}

fn self_ipi(r: &mut Report) {
    if !apic::has_x2apic() {
        return r.skip("no x2APIC");
    }
    trap::clear_counts();
    let fault = msrs::write(apic::msr(apic::SELF_IPI), u64::from(VECTOR));
    r.want("waits", (fault, apic::bit(apic::IRR, VECTOR)), (None, true));
    let_in();
    r.want("came", trap::count(VECTOR), 1);
    // To all but this one: nobody. To all: this one.
    apic::write(apic::ICR, 3 << 18 | u64::from(VECTOR));
    let_in();
    r.want("others", trap::count(VECTOR), 1);
    apic::write(apic::ICR, 2 << 18 | u64::from(VECTOR));
    let_in();
    r.want("all", trap::count(VECTOR), 2);
    // By id, by logical id, to the broadcast id, to nobody.
    let id = apic::read(apic::ID);
    let logical = apic::read(0xD0) << 32 | 1 << 11;
    for (place, want) in [(id << 32, 3), (logical, 4), (0xFFFF_FFFF << 32, 5), ((id ^ 7) << 32, 5)]
    {
        apic::write(apic::ICR, place | u64::from(VECTOR));
        let_in();
        r.want("by-id", trap::count(VECTOR), want);
    }
}

fn software(r: &mut Report) {
    watch();
    // INT n comes whatever IF is, and returns behind itself.
    let at: u64;
    // SAFETY: the vector has a handler.
    unsafe { asm!("lea {at}, [rip + 3f]", "int 0x45", "3:", at = out(reg) at) };
    trap::hook(None);
    r.want("int", (TAKEN.load(Relaxed), PLACES[0].load(Relaxed) == at), (1, true));
}

/// An interrupt whose stack is away on another node.
fn remote_stack(r: &mut Report) {
    let top = remote::page(5) + 4096;
    for round in 0..3 {
        watch();
        raise(VECTOR);
        r.hold("sent", remote::send(remote::page(5), 1));
        let (at, kept): (u64, u64);
        // SAFETY: the stack is memory of the tests.
        unsafe {
            asm!("lea {at}, [rip + 3f]", "mov {kept}, rsp", "mov rsp, {top}", "sti", "nop", "3:",
                "nop", "cli", "mov rsp, {kept}", at = out(reg) at, kept = out(reg) kept,
                top = in(reg) top);
        }
        let _ = kept;
        trap::hook(None);
        let seen = (round, TAKEN.load(Relaxed), PLACES[0].load(Relaxed) == at);
        r.want("taken", seen, (round, 1, true));
    }
}

/// Waits until NMIs came, a bounded while.
fn wait_nmis(wanted: u32) -> u32 {
    for _ in 0..1000 {
        if trap::count(2) >= wanted {
            break;
        }
        core::hint::spin_loop();
    }
    trap::count(2)
}

fn nmi_masked(r: &mut Report) {
    trap::clear_counts();
    apic::nmi();
    r.want("with-if-clear", wait_nmis(1), 1);
    apic::nmi();
    r.want("again", wait_nmis(2), 2);
    // CR8 does not hold it back.
    let _ = cr8_write(15);
    apic::nmi();
    r.want("with-cr8", wait_nmis(3), 3);
    let _ = cr8_write(0);
}

/// How deep NMI handlers are in each other, and how deep they were.
static DEPTH: AtomicU32 = AtomicU32::new(0);
static DEEPEST: AtomicU32 = AtomicU32::new(0);

/// Sends another NMI from its handler, which must wait for IRET.
fn hold_nmi(frame: &mut Frame) -> bool {
    if frame.vector != 2 {
        return false;
    }
    let depth = DEPTH.fetch_add(1, Relaxed) + 1;
    DEEPEST.fetch_max(depth, Relaxed);
    if TAKEN.fetch_add(1, Relaxed) == 0 {
        apic::nmi();
        // Exits, and an exception whose IRET would unblock on its own: so no
        // exception here.
        for _ in 0..20 {
            let _ = core::arch::x86_64::__cpuid(0);
        }
    }
    DEPTH.fetch_sub(1, Relaxed);
    true
}

fn nmi_blocked(r: &mut Report) {
    for value in [&DEPTH, &DEEPEST, &TAKEN] {
        value.store(0, Relaxed);
    }
    trap::hook(Some(hold_nmi));
    trap::clear_counts();
    apic::nmi();
    let came = wait_nmis(2);
    trap::hook(None);
    r.want("came", came, 2);
    r.want("deepest", DEEPEST.load(Relaxed), 1);
}

/// The same, but an IRET within the handler opens the way.
fn nest_nmi(frame: &mut Frame) -> bool {
    if frame.vector != 2 {
        return false;
    }
    let depth = DEPTH.fetch_add(1, Relaxed) + 1;
    DEEPEST.fetch_max(depth, Relaxed);
    if TAKEN.fetch_add(1, Relaxed) == 0 {
        apic::nmi();
        let before = TAKEN.load(Relaxed);
        // SAFETY: returns to the next line with the same stack.
        unsafe {
            asm!("mov {t}, rsp", "push 0x10", "push {t}", "pushfq", "push 8",
                "lea {t}, [rip + 2f]", "push {t}", "iretq", "2:", t = out(reg) _);
        }
        wait_nmis(2);
        ORDER.store(u64::from(before) << 8 | u64::from(TAKEN.load(Relaxed)), Relaxed);
    }
    DEPTH.fetch_sub(1, Relaxed);
    true
}

fn nmi_nested(r: &mut Report) {
    for value in [&DEPTH, &DEEPEST, &TAKEN] {
        value.store(0, Relaxed);
    }
    trap::hook(Some(nest_nmi));
    trap::clear_counts();
    apic::nmi();
    let came = wait_nmis(2);
    trap::hook(None);
    r.want("came", came, 2);
    r.want("deepest", DEEPEST.load(Relaxed), 2);
    r.want("behind-iret", ORDER.load(Relaxed), 0x102);
}

fn halt_pending(r: &mut Report) {
    let want = (1, true);
    r.want("sti-hlt", taken_at!(["sti", "hlt", "3:", "nop"]), want);
    // HLT with IF set and nothing waiting: the timer wakes it.
    apic::write(apic::DIVIDE, 0b1011);
    apic::write(apic::TIMER, u64::from(VECTOR));
    watch();
    apic::write(apic::INITIAL_COUNT, 2_000_000);
    let at: u64;
    // SAFETY: the timer's vector has a handler.
    unsafe { asm!("lea {at}, [rip + 3f]", "sti", "hlt", "3:", "cli", at = out(reg) at) };
    apic::write(apic::TIMER, apic::MASKED);
    trap::hook(None);
    r.want("timer", (TAKEN.load(Relaxed), PLACES[0].load(Relaxed) == at), want);
}

/// HLT with IF clear, woken by an NMI: the interval timer's pin of the I/O
/// APIC says NMI.
fn halt_nmi(r: &mut Report) {
    const PIT_PIN: u32 = 0x10 + 2 * 2;
    let pin = |low: u32| {
        paging::poke(IOAPIC, PIT_PIN + 1);
        paging::poke(IOAPIC + 0x10, (apic::id() as u32) << 24);
        paging::poke(IOAPIC, PIT_PIN);
        paging::poke(IOAPIC + 0x10, low);
    };
    // Channel 0, both bytes, mode 0: one interrupt after the count.
    let _ = attempt!(["mov al, 0x30", "out 0x43, al"] out("al") _);
    pin(4 << 8);
    watch();
    trap::clear_counts();
    let at: u64;
    // SAFETY: only the NMI can come, whose handler returns.
    unsafe {
        asm!("lea {at}, [rip + 3f]", "cli", "mov al, 0xFF", "out 0x40, al", "out 0x40, al", "hlt",
            "3:", at = out(reg) at, out("al") _);
    }
    pin(1 << 16);
    trap::hook(None);
    let seen = (trap::count(2), PLACES[0].load(Relaxed) == at, flags() & IF);
    r.want("woken", seen, (1, true, 0));
}

fn flags() -> u64 {
    let value;
    // SAFETY: reads RFLAGS.
    unsafe { asm!("pushfq", "pop {}", out(reg) value) };
    value
}
