//! x87, SSE and AVX state, and all general registers, kept over exits.

use crate::report::Report;
use crate::trap::{self, Fault, attempt};
use crate::{Test, paging, remote};
use core::cell::UnsafeCell;
use paging::{P, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("state.general", general),
    ("state.x87-sse", x87_sse),
    ("state.avx", avx),
    ("state.forms", forms),
    ("state.control", control),
    ("state.fxsave-border", fxsave_border),
    ("state.exceptions", exceptions),
];

/// CR0.MP, without EM and TS; CR4.OSFXSR, OSXMMEXCPT.
const CR0: (u64, u64) = (2, 12);
const CR4: (u64, u64) = (3 << 9, 0);
const OSXSAVE: u64 = 1 << 18;

/// Room for FXSAVE and XSAVE: before, after, and between.
#[repr(C, align(64))]
struct Areas([[u8; 1024]; 3]);

struct Shared(UnsafeCell<Areas>);

// SAFETY: the guest has one processor.
unsafe impl Sync for Shared {}

static AREAS: Shared = Shared(UnsafeCell::new(Areas([[0; 1024]; 3])));

fn area(index: u64) -> u64 {
    AREAS.0.get() as u64 + 1024 * index
}

/// Runs lines between which exits of all kinds come. RDI is a page that is
/// away, RSI one of RAM.
macro_rules! with_exits {
    ([$($before:expr),+ $(,)?], [$($after:expr),+ $(,)?], $($operands:tt)*) => {
        attempt!([
            $($before,)+
            "push rbx",
            "xor eax, eax",
            "xor ecx, ecx",
            "cpuid",
            "pop rbx",
            "mov edx, 0xE0",
            "in al, dx",
            "mov ecx, 0x277",
            "rdmsr",
            "mov rax, [rdi]",
            "mov [rdi + 8], rax",
            "mov eax, 0xFEC00000",
            "mov eax, [rax]",
            "wbinvd",
            $($after,)+
        ] out("eax") _, out("ecx") _, out("edx") _, in("rdi") away(), $($operands)*)
    };
}

/// A page that is on its way to another node.
fn away() -> u64 {
    let page = remote::page(9);
    let _ = remote::send(page, 1);
    page
}

/// R8 to R15, RBX, RBP, RSI over exits; those that CPUID and RDMSR change are
/// elsewhere.
fn general(r: &mut Report) {
    let at = area(0);
    for i in 0..16 {
        paging::poke(at + 8 * i, 0x0101_0101_0101_0101 * (i + 1));
    }
    let fault = with_exits!(
        [
            "push rbp",
            "push rbx",
            "mov rbx, [rsi]",
            "mov rbp, [rsi + 8]",
            "mov r8, [rsi + 16]",
            "mov r9, [rsi + 24]",
            "mov r10, [rsi + 32]",
            "mov r11, [rsi + 40]",
            "mov r12, [rsi + 48]",
            "mov r13, [rsi + 56]",
            "mov r14, [rsi + 64]",
            "mov r15, [rsi + 72]",
        ],
        [
            "mov [rsi + 1024], rbx",
            "mov [rsi + 1032], rbp",
            "mov [rsi + 1040], r8",
            "mov [rsi + 1048], r9",
            "mov [rsi + 1056], r10",
            "mov [rsi + 1064], r11",
            "mov [rsi + 1072], r12",
            "mov [rsi + 1080], r13",
            "mov [rsi + 1088], r14",
            "mov [rsi + 1096], r15",
            "pop rbx",
            "pop rbp",
        ],
        in("rsi") at, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
        out("r13") _, out("r14") _, out("r15") _
    );
    r.want("fault", fault, None);
    let kept = (0..10).all(|i| paging::peek::<u64>(at + 8 * i) == paging::peek(at + 1024 + 8 * i));
    r.want("kept", kept, true);
}

/// Fills an FXSAVE image: control words that are legal, and patterns.
fn pattern(at: u64) {
    for i in 0..1024 {
        paging::poke::<u8>(at + i, 0);
    }
    paging::poke::<u16>(at, 0x037F); // FCW
    paging::poke::<u8>(at + 4, 0xFF); // all registers valid
    paging::poke::<u32>(at + 24, 0x1F80); // MXCSR
    for register in 0..8u64 {
        for byte in 0..10 {
            paging::poke::<u8>(at + 32 + 16 * register + byte, (0x11 * (register + 1)) as u8);
        }
    }
    for byte in 0..256u64 {
        paging::poke::<u8>(at + 160 + byte, (byte * 7 + 1) as u8);
    }
}

/// The x87 registers (10 bytes each) and XMM0 to XMM15 of two images agree.
fn images_agree(one: u64, other: u64) -> bool {
    let same = |at: u64| paging::peek::<u8>(one + at) == paging::peek::<u8>(other + at);
    let x87 = (0..8u64).flat_map(|n| (0..10).map(move |byte| 32 + 16 * n + byte));
    x87.chain(160..416).all(same)
}

fn x87_sse(r: &mut Report) {
    pattern(area(0));
    let fault = paging::with_control(
        CR0,
        CR4,
        || with_exits!(["fxrstor64 [rsi]"], ["fxsave64 [rsi + 1024]"], in("rsi") area(0)),
    );
    r.want("fault", fault, None);
    r.want("kept", images_agree(area(0), area(1)), true);
    let words = (paging::peek::<u16>(area(1)), paging::peek::<u32>(area(1) + 24));
    r.want("control", words, (0x37F, 0x1F80));
}

/// Whether there is AVX, which is told if not.
fn has_avx(r: &mut Report) -> bool {
    let has = core::arch::x86_64::__cpuid(1).ecx >> 28 & 1 != 0;
    if !has {
        r.skip("no AVX");
    }
    has
}

/// Fills an XSAVE image in the standard form: x87, SSE and AVX.
fn pattern_avx(at: u64) {
    pattern(at);
    for byte in 0..256u64 {
        paging::poke::<u8>(at + 576 + byte, (byte * 5 + 3) as u8);
    }
    paging::poke::<u64>(at + 512, 7); // XSTATE_BV
}

/// Whether the upper halves of YMM0 to YMM15 in two images agree.
fn upper_halves_agree(one: u64, other: u64) -> bool {
    (576..832).all(|at| paging::peek::<u8>(one + at) == paging::peek::<u8>(other + at))
}

/// Sets XCR0.
fn set_xcr0(value: u32) -> Option<Fault> {
    attempt!(["xsetbv"] in("ecx") 0, in("eax") value, in("edx") 0)
}

fn avx(r: &mut Report) {
    if !has_avx(r) {
        return;
    }
    pattern_avx(area(0));
    let fault = paging::with_control(CR0, (CR4.0 | OSXSAVE, 0), || {
        r.want("xcr0", set_xcr0(7), None);
        let fault = with_exits!(
            ["mov eax, 7", "xor edx, edx", "xrstor64 [rsi]"],
            ["mov eax, 7", "xor edx, edx", "xsave64 [rsi + 1024]"],
            in("rsi") area(0)
        );
        r.want("back", set_xcr0(1), None);
        fault
    });
    r.want("fault", fault, None);
    r.want("kept", images_agree(area(0), area(1)), true);
    r.want("upper-halves", upper_halves_agree(area(0), area(1)), true);
    r.want("present", paging::peek::<u64>(area(1) + 512) & 7, 7);
}

/// Loads the first image, saves it to the second area by one instruction,
/// forgets it, loads it from there by another, and saves that to the third.
macro_rules! through {
    ($save:literal, $load:literal) => {
        attempt!([
            "mov eax, 7",
            "xor edx, edx",
            "xrstor64 [rsi]",
            concat!($save, " [rsi + 1024]"),
            "fninit",
            "vzeroall",
            concat!($load, " [rsi + 1024]"),
            "xsave64 [rsi + 2048]",
        ] out("eax") _, out("edx") _, in("rsi") area(0))
    };
}

/// One form of XSAVE, there and back.
type Form = fn() -> Option<Fault>;

/// What each form of XSAVE that the processor offers has saved is what comes
/// back: a system chooses one by CPUID.
fn forms(r: &mut Report) {
    if !has_avx(r) {
        return;
    }
    let offers = core::arch::x86_64::__cpuid_count(0xD, 1).eax;
    let forms: [(u32, Form); 4] = [
        (1, || through!("xsave64", "xrstor64")),
        (offers & 1, || through!("xsaveopt64", "xrstor64")),
        (offers & 1 << 1, || through!("xsavec64", "xrstor64")),
        (offers & 1 << 3, || through!("xsaves64", "xrstors64")),
    ];
    let mut came_back = true;
    for (_, form) in forms.into_iter().filter(|&(offered, _)| offered != 0) {
        pattern(area(1));
        pattern(area(2));
        pattern_avx(area(0));
        let fault = paging::with_control(CR0, (CR4.0 | OSXSAVE, 0), || {
            let _ = set_xcr0(7);
            let fault = form();
            let _ = set_xcr0(1);
            fault
        });
        came_back &= fault.is_none()
            && images_agree(area(0), area(2))
            && upper_halves_agree(area(0), area(2));
    }
    r.want("came-back", came_back, true);
}

/// MXCSR and FCW that are not the usual ones.
fn control(r: &mut Report) {
    let at = area(0);
    paging::poke::<u32>(at, 0x7FA0 | 1 << 13);
    paging::poke::<u16>(at + 8, 0x0C7F);
    let fault = paging::with_control(CR0, CR4, || {
        with_exits!(["ldmxcsr [rsi]", "fninit", "fldcw [rsi + 8]"],
            ["stmxcsr [rsi + 16]", "fnstcw [rsi + 24]"], in("rsi") at)
    });
    r.want("fault", fault, None);
    let seen = (paging::peek::<u32>(at + 16), paging::peek::<u16>(at + 24));
    r.want("seen", seen, (0x7FA0, 0x0C7F));
    let bad = paging::with_control(CR0, CR4, || {
        paging::poke::<u32>(at, 1 << 16);
        attempt!(["ldmxcsr [rsi]"] in("rsi") at)
    });
    let why = "MXCSR takes reserved bits";
    r.except("reserved", bad, trap::PROTECTION, (crate::report::Emulator::Tcg, None), why);
    let _ = paging::with_control(CR0, CR4, || {
        paging::poke::<u32>(at, 0x1F80);
        attempt!(["ldmxcsr [rsi]", "fninit"] in("rsi") at)
    });
}

/// FXSAVE over a border whose second page is away, or not there.
fn fxsave_border(r: &mut Report) {
    let border = paging::map(0, paging::arena(0), P | W) + 4096;
    paging::map(1, remote::page(9), P | W);
    pattern(area(0));
    let save = |at: u64| -> Option<Fault> {
        paging::with_control(
            CR0,
            CR4,
            || attempt!(["fxrstor64 [rsi]", "fxsave64 [rdi]"] in("rsi") area(0), in("rdi") at),
        )
    };
    r.hold("sent", remote::send(remote::page(9), 1));
    r.want("save", save(border - 256), None);
    r.want("same", images_agree(area(0), border - 256), true);
    r.hold("sent", remote::send(remote::page(9), 1));
    let load = paging::with_control(
        CR0,
        CR4,
        || attempt!(["fxrstor64 [rdi]", "fxsave64 [rsi]"] in("rsi") area(1), in("rdi") border - 256),
    );
    r.want("load", load, None);
    r.want("same", images_agree(area(0), area(1)), true);
    r.want("unaligned", save(border - 248), trap::PROTECTION);
    paging::unmap(1);
    r.want("absent", save(border - 256), trap::page(2, border));
    paging::map(1, remote::page(9), P | W);
}

/// Unmasked exceptions of both units: #MF and #XM.
fn exceptions(r: &mut Report) {
    let at = area(0);
    paging::poke::<u16>(at, 0x037B); // x87: divide by zero unmasked
    paging::poke::<u32>(at + 8, 0x1D80); // SSE: the same
    let x87 = paging::with_control((CR0.0 | 1 << 5, CR0.1), CR4, || {
        let fault = attempt!(["fninit", "fldcw [rsi]", "fld1", "fldz", "fdivp", "fwait"]
            in("rsi") at);
        let _ = attempt!(["fnclex", "fninit"]);
        fault
    });
    r.want("x87", x87, trap::plain(16));
    let sse = paging::with_control(CR0, CR4, || {
        let fault = attempt!(["ldmxcsr [rsi + 8]", "xorps xmm1, xmm1", "mov eax, 0x3F800000",
            "movd xmm0, eax", "divss xmm0, xmm1"] in("rsi") at, out("eax") _);
        paging::poke::<u32>(at, 0x1F80);
        let _ = attempt!(["ldmxcsr [rsi]"] in("rsi") at);
        fault
    });
    let why = "SSE raises no exceptions";
    r.except("sse", sse, trap::plain(19), (crate::report::Emulator::Tcg, None), why);
}
