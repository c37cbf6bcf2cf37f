//! Debug registers, breakpoints and single steps, also over instructions that
//! the hypervisor executes in the guest's place.

use crate::report::{
    Emulator::{Bochs, Tcg},
    Report,
};
use crate::trap::{self, Entry, PROTECTION, UNDEFINED, attempt, plain};
use crate::{Test, paging, remote};
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use paging::{P, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("debug.registers", registers),
    ("debug.step", step),
    ("debug.step-exits", step_exits),
    ("debug.step-strings", step_strings),
    ("debug.step-shadow", step_shadow),
    ("debug.execute", execute),
    ("debug.execute-exits", execute_exits),
    ("debug.data", data),
    ("debug.data-remote", data_remote),
    ("debug.general-detect", general_detect),
    ("debug.no-register", no_register),
];

/// DR6 without any condition, and its bits.
const DR6: u64 = 0xFFFF_0FF0;
const BS: u64 = 1 << 14;
const BD: u64 = 1 << 13;
/// DR7 with nothing enabled.
const DR7: u64 = 0x400;
/// The I/O APIC.
const IOAPIC: u64 = 0xFEC0_0000;

/// What Bochs 2.7 does.
pub(crate) const EARLY: &str =
    "an EPT violation saves the single step of the instruction that has not been done";

fn set_dr7(value: u64) -> Option<trap::Fault> {
    attempt!(["mov dr7, {v}"] v = in(reg) value)
}

fn dr7() -> u64 {
    let value;
    let _ = attempt!(["mov {v}, dr7"] v = out(reg) value);
    value
}

fn set_dr0(value: u64) {
    let _ = attempt!(["mov dr0, {v}"] v = in(reg) value);
}

fn registers(r: &mut Report) {
    let mut seen = [0u64; 4];
    let wanted = [0x1234_5678_9ABC_DEF0, u64::MAX, 0, 0xFFFF_8000_0000_1000];
    let _ = attempt!(["mov dr0, {a}", "mov dr1, {b}", "mov dr2, {c}", "mov dr3, {d}"]
        a = in(reg) wanted[0], b = in(reg) wanted[1], c = in(reg) wanted[2], d = in(reg) wanted[3]);
    // They are kept over exits.
    let _ = core::arch::x86_64::__cpuid(0);
    r.hold("sent", remote::send(remote::page(7), 1));
    let _: u64 = paging::peek(remote::page(7));
    let [a, b, c, d] = &mut seen;
    let _ = attempt!(["mov {a}, dr0", "mov {b}, dr1", "mov {c}, dr2", "mov {d}, dr3"]
        a = out(reg) *a, b = out(reg) *b, c = out(reg) *c, d = out(reg) *d);
    r.want("addresses", seen, wanted);
    let _ = attempt!(["mov dr6, {v}"] v = in(reg) 0xE00Fu64);
    let _ = core::arch::x86_64::__cpuid(0);
    let dr6 = trap::take_dr6();
    r.want("dr6", dr6 & 0x0000_FFF0 | dr6 & 0xF, 0xEFFF);
    r.want("dr7", (set_dr7(0), dr7()), (None, DR7));
    let high = [
        attempt!(["mov dr7, {v}"] v = in(reg) 1u64 << 32 | DR7),
        attempt!(["mov dr6, {v}"] v = in(reg) 1u64 << 32 | DR6),
    ];
    r.except("high", high, [PROTECTION; 2], (Tcg, [None; 2]), "the upper halves are not checked");
    let _ = set_dr7(DR7);
    trap::take_dr6();
    // DR4 and DR5 are DR6 and DR7 while CR4.DE is clear, else undefined.
    let alias = |de: (u64, u64)| {
        paging::with_control((0, 0), de, || attempt!(["mov {v}, dr4"] v = out(reg) _))
    };
    r.want("dr4", [alias((0, 8)), alias((8, 0))], [None, UNDEFINED]);
}

/// Runs lines with TF set from the second on; the #DBs that came, by their
/// distance from label 3, and DR6 of all of them or'ed. The log ends with the
/// POPFQ that clears TF again.
macro_rules! stepped {
    ([$($line:expr),+ $(,)?] $($operands:tt)*) => {{
        let at: u64;
        let (log, len) = trap::log(|| {
            let place: u64;
            // SAFETY: as in `attempt!`.
            unsafe {
                asm!(
                    "lea {place}, [rip + 3f]",
                    "pushfq",
                    "pushfq",
                    "or dword ptr [rsp], 0x100",
                    "popfq",
                    "3:",
                    $($line,)+
                    "popfq",
                    "nop",
                    place = out(reg) place,
                    $($operands)*
                );
            }
            PLACE.store(place, Relaxed);
        });
        at = PLACE.load(Relaxed);
        steps(&log[..len], at)
    }};
}

/// Where the last steps began.
static PLACE: AtomicU64 = AtomicU64::new(0);

/// Most steps that a test takes.
const STEPS_MAX: usize = 8;

/// Where steps came, by the distance from the first, and whether all said that
/// they were single steps and nothing else.
#[derive(PartialEq, Eq)]
struct Steps {
    places: [u64; STEPS_MAX],
    len: usize,
    plain: bool,
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = &self.places[..self.len.min(STEPS_MAX)];
        write!(f, "{places:x?}{}", if self.plain { "" } else { " with DR6 wrong" })
    }
}

fn steps(log: &[Entry], at: u64) -> Steps {
    let mut places = [0; STEPS_MAX];
    for (place, entry) in places.iter_mut().zip(log) {
        *place = entry.rip.wrapping_sub(at);
    }
    let plain = log.iter().all(|e| e.vector == 1 && e.dr6 & 0xE00F == BS);
    Steps { places, len: log.len(), plain }
}

/// What steps should be.
fn at<const N: usize>(wanted: [u64; N]) -> Steps {
    let mut places = [0; STEPS_MAX];
    places[..N].copy_from_slice(&wanted);
    Steps { places, len: N, plain: true }
}

fn step(r: &mut Report) {
    r.want("nop", stepped!(["nop", "nop"]), at([1, 2, 3]));
    let jump = stepped!(["jmp 4f", "nop", "4:", "nop"]);
    r.want("jump", jump, at([3, 4, 5]));
    // A load from another node's page is one instruction like any other.
    r.hold("sent", remote::send(remote::page(7), 1));
    let load = stepped!(["mov rax, [rdi]", "nop"] in("rdi") remote::page(7), out("rax") _);
    r.except("remote", load, at([3, 4, 5]), (Bochs, at([0, 3, 4, 5])), EARLY);
}

fn step_exits(r: &mut Report) {
    // CPUID changes RBX, which LLVM keeps for itself.
    let cpuid = stepped!(["push rbx", "cpuid", "pop rbx"] inout("eax") 0 => _,
        inout("ecx") 0 => _, out("edx") _);
    r.want("cpuid", cpuid, at([1, 3, 4, 5]));
    let input = stepped!(["in al, dx", "nop"] in("dx") 0xE0, out("al") _);
    r.want("in", input, at([1, 2, 3]));
    let output = stepped!(["out dx, al", "nop"] in("dx") 0xE0, in("al") 0u8);
    r.want("out", output, at([1, 2, 3]));
    let read = stepped!(["rdmsr", "nop"] in("ecx") 0x277, out("eax") _, out("edx") _);
    r.want("rdmsr", read, at([2, 3, 4]));
    let write = stepped!(["wrmsr", "nop"] in("ecx") 0x176, in("eax") 0, in("edx") 0);
    r.want("wrmsr", write, at([2, 3, 4]));
    let device = stepped!(["mov eax, [rdi]", "nop"] in("rdi") IOAPIC, out("eax") _);
    r.want("device", device, at([2, 3, 4]));
    let stored = stepped!(["mov [rdi], eax", "nop"] in("rdi") IOAPIC, in("eax") 0);
    r.want("device-write", stored, at([2, 3, 4]));
    let wbinvd = stepped!(["wbinvd", "nop"]);
    r.want("wbinvd", wbinvd, at([2, 3, 4]));
    if remote::is_pangaea() {
        let call = if core::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Genu") {
            stepped!(["vmcall", "nop"] inout("rax") 1u64 => _)
        } else {
            stepped!(["vmmcall", "nop"] inout("rax") 1u64 => _)
        };
        r.want("hypercall", call, at([3, 4, 5]));
    }
    if core::arch::x86_64::__cpuid(1).ecx >> 26 & 1 != 0 {
        let xsetbv = paging::with_control(
            (0, 0),
            (1 << 18, 0),
            || stepped!(["xsetbv", "nop"] in("ecx") 0, in("eax") 1, in("edx") 0),
        );
        r.want("xsetbv", xsetbv, at([3, 4, 5]));
    }
}

/// Each round of a REP is a step.
fn step_strings(r: &mut Report) {
    let to = paging::map(0, remote::page(7), P | W);
    r.hold("sent", remote::send(remote::page(7), 1));
    let memory = stepped!(["rep stosb", "nop"] inout("rdi") to => _, inout("rcx") 2u64 => _,
        in("al") 0u8);
    r.except("stos", memory, at([0, 2, 3, 4]), (Bochs, at([0, 0, 2, 3, 4])), EARLY);
    r.hold("sent", remote::send(remote::page(7), 1));
    let port = stepped!(["rep insb", "nop"] inout("rdi") to => _, inout("rcx") 3u64 => _,
        in("dx") 0xE0);
    r.want("ins", port, at([0, 0, 2, 3, 4]));
    let port = stepped!(["rep outsb", "nop"] inout("rsi") to => _, inout("rcx") 3u64 => _,
        in("dx") 0xE0);
    r.want("outs", port, at([0, 0, 2, 3, 4]));
    let device = stepped!(["rep movsd", "nop"] inout("rsi") IOAPIC => _, inout("rdi") to => _,
        inout("rcx") 2u64 => _);
    r.want("device", device, at([0, 2, 3, 4]));
    let none = stepped!(["rep insb", "nop"] inout("rdi") to => _, inout("rcx") 0u64 => _,
        in("dx") 0xE0);
    r.want("none", none, at([2, 3, 4]));
}

/// MOV SS holds back the step behind it; the next comes with both.
fn step_shadow(r: &mut Report) {
    let moved = stepped!(["mov ss, eax", "nop", "nop"] in("eax") 0x10);
    r.want("mov-ss", moved, at([3, 4, 5]));
    let exits = stepped!(["mov ss, eax", "in al, dx", "nop"] inout("eax") 0x10 => _,
        in("dx") 0xE0);
    r.want("in", exits, at([3, 4, 5]));
}

/// Runs a RET at an address of its own with DR0 there; what came.
fn break_at(address: u64) -> ([Entry; 2], usize) {
    set_dr0(address);
    let _ = set_dr7(DR7 | 2);
    let (log, len) = trap::log(|| {
        let _ = attempt!(["mov {s}, rsp", "call {a}"] a = in(reg) address, s = out(reg) _,
            inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _, in("rdi") IOAPIC);
    });
    let _ = set_dr7(DR7);
    ([log[0], log[1]], len)
}

/// What one breakpoint should give.
fn once(address: u64) -> (Entry, usize) {
    (Entry { vector: 1, rip: address, dr6: 1 }, 1)
}

fn shown((log, len): ([Entry; 2], usize)) -> (Entry, usize) {
    (Entry { dr6: log[0].dr6 & 0xE00F, ..log[0] }, len)
}

fn execute(r: &mut Report) {
    let address = paging::map(0, remote::page(7), P | W) + 0x20;
    paging::put(address, &[0x90, 0xC3]);
    r.want("nop", shown(break_at(address)), once(address));
    r.hold("sent", remote::send(remote::page(7), 1));
    let (seen, want) = (shown(break_at(address)), once(address));
    let why = "an EPT violation loses RF, so the breakpoint comes again";
    r.except("remote", seen, want, (Bochs, (want.0, 2)), why);
    // A breakpoint that is off does nothing.
    set_dr0(address);
    let (_, len) = trap::log(|| {
        let _ = attempt!(["mov {s}, rsp", "call {a}"] a = in(reg) address, s = out(reg) _);
    });
    r.want("off", len, 0);
}

/// At an instruction that exits: it comes once, before it, and RF does not
/// stay set behind it.
fn execute_exits(r: &mut Report) {
    let address = paging::map(0, remote::page(7), P | W) + 0x20;
    // IN AL, 0xE0; MOV EAX, [RDI]; RDMSR.
    let codes: [(&str, &[u8]); 2] = [("in", &[0xE4, 0xE0, 0xC3]), ("device", &[0x8B, 0x07, 0xC3])];
    for (what, code) in codes {
        paging::put(address, code);
        r.want(what, shown(break_at(address)), once(address));
    }
    // The same instruction twice, by a loop: RF must have gone.
    paging::put(address, &[0xE4, 0xE0, 0xFF, 0xC1, 0x83, 0xF9, 0x02, 0x75, 0xF7, 0xC3]);
    let (log, len) = break_at(address);
    r.want("loop", (log[0].rip - address, log[1].rip - address, len), (0, 0, 2));
}

/// A breakpoint on data: kinds and sizes; it comes behind the access.
fn data(r: &mut Report) {
    watch_data(r, paging::map(0, paging::arena(0), P | W), 0);
}

fn data_remote(r: &mut Report) {
    watch_data(r, paging::map(0, remote::page(7), P | W), remote::page(7));
}

/// `away` is a page to be sent away before each access, or 0.
fn watch_data(r: &mut Report, page: u64, away: u64) {
    let address = page + 0x40;
    set_dr0(address);
    // Kind 1 writes, 3 both; length 4 bytes (3).
    for (what, kind, write, wanted) in [
        ("write", 1u64, true, 1usize),
        ("read", 1, false, 0),
        ("both-write", 3, true, 1),
        ("both-read", 3, false, 1),
    ] {
        r.hold("sent", away == 0 || remote::send(away, 1));
        let _ = set_dr7(DR7 | 2 | kind << 16 | 3 << 18);
        let (log, len) = trap::log(|| {
            let _ = if write {
                attempt!(["mov byte ptr [{a}], 1"] a = in(reg) address + 2)
            } else {
                attempt!(["mov {v:e}, [{a}]"] a = in(reg) address, v = out(reg) _)
            };
        });
        let _ = set_dr7(DR7);
        let dr6 = if wanted == 0 { 0 } else { log[0].dr6 & 0xE00F };
        r.want(what, (len, dr6), (wanted, wanted as u64));
    }
}

/// DR7.GD: an access to a debug register faults, and GD is clear then.
fn general_detect(r: &mut Report) {
    let _ = set_dr7(DR7 | BD);
    let (fault, seen) = {
        let fault = attempt!(["mov {v}, dr0"] v = out(reg) _);
        (fault, trap::take_dr6())
    };
    r.except(
        "fault",
        (fault, seen & 0xE00F),
        (plain(1), BD),
        (Tcg, (None, 0)),
        "there is no general detect",
    );
    r.except("gd-clear", dr7() & BD, 0, (Tcg, BD), "there is no general detect");
    let _ = set_dr7(DR7);
}

/// Control registers that no processor has.
fn no_register(r: &mut Report) {
    r.want("cr1", attempt!(["mov {v}, cr1"] v = out(reg) _), UNDEFINED);
    r.want("cr7", attempt!([".byte 0x0F, 0x22, 0xF8"] in("rax") 0u64), UNDEFINED);
}
