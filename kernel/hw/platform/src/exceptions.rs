//! What happens on an exception: a fixup where the code expected the fault,
//! else a report of the processor's state and the end of the node.
//!
//! Source: AMD APM volume 2, section 8.2 (vectors). Interrupts come the same
//! way and go on to [`crate::interrupts`].

use crate::report;
use crate::serial::print_line;
use x86_64::registers::control::{Cr2, Cr3};

core::arch::global_asm!(include_str!("vectors.s"), options(att_syntax));

unsafe extern "C" {
    static vector_stubs: u8;
    static __fixup_start: [u64; 2];
    static __fixup_end: [u64; 2];
}

/// The interrupted state, as `vectors.s` pushes it.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const GENERAL_PROTECTION: u64 = 13;
const NAMES: [&str; 32] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "9",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack",
    "#GP general protection",
    "#PF page fault",
    "15",
    "#MF x87",
    "#AC alignment",
    "#MC machine check",
    "#XF SIMD",
    "20",
    "#CP control protection",
    "22",
    "23",
    "24",
    "25",
    "26",
    "27",
    "#HV hypervisor injection",
    "#VC VMM communication",
    "#SX security",
    "31",
];

/// Loads the descriptor tables with the vectors of this module.
///
/// # Safety
/// As [`crate::descriptors::start`].
pub(crate) unsafe fn start() {
    // SAFETY: the stubs are 256 times 16 bytes; the caller answers for the rest.
    unsafe { crate::descriptors::start(&raw const vector_stubs as u64) };
}

/// Where to go on after a fault at `rip`, if the code there expects one.
fn fixup(rip: u64) -> Option<u64> {
    let start = &raw const __fixup_start;
    let bytes = &raw const __fixup_end as usize - start as usize;
    // SAFETY: the linker script puts the pairs between the two symbols, eight
    // aligned, and nothing writes to them.
    let table = unsafe { core::slice::from_raw_parts(start, bytes / size_of::<[u64; 2]>()) };
    table.iter().find(|pair| pair[0] == rip).map(|pair| pair[1])
}

#[unsafe(no_mangle)]
extern "C" fn vector_entry(frame: &mut Frame) {
    if frame.vector >= 32 {
        crate::interrupts::arrived(frame.vector as u8);
        return;
    }
    if frame.vector == GENERAL_PROTECTION
        && let Some(next) = fixup(frame.rip)
    {
        frame.rip = next;
        return;
    }
    fatal(frame);
}

fn fatal(f: &Frame) -> ! {
    let name = NAMES[f.vector as usize & 31];
    let cr2 = Cr2::read_raw();
    let cr3 = Cr3::read_raw().0.start_address().as_u64();
    crate::serial::unlock_for_report();
    print_line(format_args!("EXCEPTION {name}, error code {:#x}", f.error));
    print_line(format_args!(
        "  rip {:016x}  cs {:04x}  rflags {:08x}  rsp {:016x}  ss {:04x}",
        f.rip, f.cs, f.rflags, f.rsp, f.ss
    ));
    let rows = [
        [("rax", f.rax), ("rbx", f.rbx), ("rcx", f.rcx)],
        [("rdx", f.rdx), ("rsi", f.rsi), ("rdi", f.rdi)],
        [("rbp", f.rbp), ("r8 ", f.r8), ("r9 ", f.r9)],
        [("r10", f.r10), ("r11", f.r11), ("r12", f.r12)],
        [("r13", f.r13), ("r14", f.r14), ("r15", f.r15)],
        [("cr2", cr2), ("cr3", cr3), ("err", f.error)],
    ];
    for [a, b, c] in rows {
        print_line(format_args!(
            "  {} {:016x}  {} {:016x}  {} {:016x}",
            a.0, a.1, b.0, b.1, c.0, c.1
        ));
    }
    let message = format_args!("{name} at {:#x}, address {cr2:#x}, error {:#x}", f.rip, f.error);
    report::die(message, f.rip, f.rbp)
}
