//! Code at level 3 and 32-bit and 16-bit code in long mode: what it may do,
//! and how it comes and goes.

use crate::debug::EARLY;
use crate::leave::{Start, leave};
use crate::report::{
    Emulator::{Bochs, Tcg},
    Report,
};
use crate::tables::{self, CODE_32, DATA, SPARE, USER_CODE, USER_CODE_32, USER_DATA};
use crate::trap::{self, Fault, Frame, LEAVE, PROTECTION, coded, page, plain};
use crate::{Test, apic, msrs, paging, remote};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use paging::{P, U, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("ring.return", returns),
    ("ring.privileged", privileged),
    ("ring.page-faults", page_faults),
    ("ring.exits", exits),
    ("ring.ports", ports),
    ("ring.device", device),
    ("ring.interrupt", interrupt),
    ("ring.syscall", syscall),
    ("ring.time", time),
    ("ring.alignment", alignment),
    ("ring.step", step),
    ("compatibility.code", compatibility),
    ("compatibility.exceptions", compatibility_exceptions),
    ("compatibility.segments", compatibility_segments),
    ("compatibility.exits", compatibility_exits),
    ("compatibility.16-bit", sixteen),
];

/// Pages of the window: code, stack.
const CODE_PAGE: usize = 8;
const STACK_PAGE: usize = 9;
/// The I/O APIC.
const IOAPIC: u64 = 0xFEC0_0000;
/// INT 0x80, the way back.
const BACK: [u8; 2] = [0xCD, 0x80];

/// Where the code is.
fn place() -> u64 {
    paging::address(CODE_PAGE)
}

/// Maps code, which is away then, and a stack; a start there at level 3.
fn start(code: &[u8]) -> Start {
    paging::map(CODE_PAGE, remote::page(26), P | W | U);
    paging::map(STACK_PAGE, remote::page(27), P | W | U);
    paging::put(place(), code);
    paging::put(place() + code.len() as u64, &BACK);
    let _ = remote::send(remote::page(26), 2);
    Start {
        rip: place(),
        cs: u64::from(USER_CODE),
        rflags: 2,
        rsp: paging::address(STACK_PAGE) + 0xFF0,
        ss: u64::from(USER_DATA),
        ds: u64::from(USER_DATA),
        ..Start::default()
    }
}

/// Runs code at level 3.
fn user(code: &[u8]) -> (Option<Fault>, Frame) {
    let (fault, frame) = leave(&start(code));
    (Some(fault), frame)
}

/// The way back by INT 0x80.
const LEFT: Option<Fault> = plain(LEAVE);

fn returns(r: &mut Report) {
    // MOV RAX, 0x1122334455667788.
    let (fault, frame) = user(&[0x48, 0xB8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    r.want("int", (fault, frame.rax()), (LEFT, 0x1122_3344_5566_7788));
    r.want("cs-ss", (frame.cs, frame.ss), (0x43, 0x3B));
    r.want("rip-rsp", (frame.rip - place(), frame.rsp & 0xFFF), (12, 0xFF0));
    // An exception leaves RIP where it was.
    let (fault, frame) = user(&[0x90, 0x0F, 0x0B]);
    r.want("ud", (fault, frame.rip - place()), (trap::UNDEFINED, 1));
    let (fault, _) = user(&[0xCC]);
    r.want("int3", fault, plain(3));
}

fn privileged(r: &mut Report) {
    let codes: [(&str, &[u8]); 14] = [
        ("hlt", &[0xF4]),
        ("cli", &[0xFA]),
        ("sti", &[0xFB]),
        ("in", &[0xE4, 0xE0]),
        ("out", &[0xE6, 0xE0]),
        ("insb", &[0x6C]),
        ("rdmsr", &[0x0F, 0x32]),
        ("wrmsr", &[0x0F, 0x30]),
        ("wbinvd", &[0x0F, 0x09]),
        ("invlpg", &[0x0F, 0x01, 0x3F]),
        ("mov-cr0", &[0x0F, 0x20, 0xC0]),
        ("mov-cr8", &[0x44, 0x0F, 0x22, 0xC0]),
        ("mov-dr7", &[0x0F, 0x21, 0xF8]),
        ("lidt", &[0x0F, 0x01, 0x1F]),
    ];
    for (what, code) in codes {
        let (fault, frame) = user(code);
        r.want(what, (fault, frame.rip - place()), (PROTECTION, 0));
    }
    // A gate of level 0: the error code names it.
    let (want, seen) = (coded(13, 0x20 << 3 | 2), user(&[0xCD, 0x20]).0);
    let why = "the error code has the gate's offset";
    r.except("int-0x20", seen, want, (Tcg, coded(13, 0x20 << 4 | 2)), why);
}

fn page_faults(r: &mut Report) {
    let supervisor = paging::map(10, paging::arena(0), P | W);
    let absent = paging::unmap(11);
    let reading = paging::map(12, paging::arena(0), P | U);
    // MOV EAX, [RDI]; MOV [RDI], EAX; JMP RDI.
    let at = |code: &[u8], rdi: u64| Some(leave(&Start { rdi, ..start(code) }).0);
    let (load, store, jump) = ([0x8B, 0x07], [0x89, 0x07], [0xFF, 0xE7]);
    let got =
        [at(&load, supervisor), at(&store, supervisor), at(&load, absent), at(&store, absent)];
    r.want(
        "data",
        got,
        [page(5, supervisor), page(7, supervisor), page(4, absent), page(6, absent)],
    );
    r.want("read-only", [at(&load, reading), at(&store, reading)], [LEFT, page(7, reading)]);
    let efer = msrs::read(0xC000_0080).unwrap_or(0);
    let _ = msrs::write(0xC000_0080, efer | 1 << 11);
    r.want(
        "fetch",
        [at(&jump, supervisor), at(&jump, absent)],
        [page(0x15, supervisor), page(0x14, absent)],
    );
    let _ = msrs::write(0xC000_0080, efer);
}

/// Instructions that exit are no different at level 3.
fn exits(r: &mut Report) {
    // XOR EAX, EAX; CPUID.
    let (fault, frame) = user(&[0x31, 0xC0, 0x0F, 0xA2]);
    let vendor = core::arch::x86_64::__cpuid(0);
    let same = (frame.rbx(), frame.rcx(), frame.rdx())
        == (u64::from(vendor.ebx), u64::from(vendor.ecx), u64::from(vendor.edx));
    r.want("cpuid", (fault, same), (LEFT, true));
}

/// IOPL and the I/O permission bitmap.
fn ports(r: &mut Report) {
    let with = |code: &[u8], iopl: u64| {
        let (fault, frame) = leave(&Start { rflags: 2 | iopl << 12, rdx: 0xE0, ..start(code) });
        (Some(fault), frame.rax() & 0xFF)
    };
    // IN AL, DX; IN EAX, DX.
    r.want("iopl", [with(&[0xEC], 3), with(&[0xEC], 2)], [(LEFT, 0xFF), (PROTECTION, 0)]);
    tables::set_port(0xE0, true);
    r.want("bitmap", [with(&[0xEC], 0), with(&[0xED], 0)], [(LEFT, 0xFF), (PROTECTION, 0)]);
    for port in 0xE1..0xE4 {
        tables::set_port(port, true);
    }
    r.want("dword", with(&[0xED], 0), (LEFT, 0xFF));
    for port in 0xE0..0xE4 {
        tables::set_port(port, false);
    }
    // INSB to a page of level 0, and to one of its own.
    let supervisor = paging::map(10, paging::arena(0), P | W);
    let string = |rdi: u64| {
        let flags = 2 | 3 << 12;
        Some(leave(&Start { rflags: flags, rdx: 0xE0, rdi, ..start(&[0x6C]) }).0)
    };
    let own = paging::address(STACK_PAGE);
    r.want("insb", [string(supervisor), string(own)], [page(7, supervisor), LEFT]);
}

/// Device memory that is mapped for level 3, and some that is not.
fn device(r: &mut Report) {
    let open = paging::map(10, IOAPIC, P | W | U);
    let closed = paging::map(11, IOAPIC, P | W);
    let at = |code: &[u8], rdi: u64| Some(leave(&Start { rdi, ..start(code) }).0);
    let (load, store) = ([0x8B, 0x07], [0x89, 0x07]);
    r.want("open", [at(&load, open), at(&store, open)], [LEFT, LEFT]);
    r.want("closed", [at(&load, closed), at(&store, closed)], [page(5, closed), page(7, closed)]);
    paging::unmap(10);
    paging::unmap(11);
}

static SEEN: AtomicU32 = AtomicU32::new(0);

fn note(frame: &mut Frame) -> bool {
    if frame.vector == 0x46 {
        SEEN.store(frame.cs as u32, Relaxed);
    }
    false
}

/// An interrupt at level 3 comes and goes.
fn interrupt(r: &mut Report) {
    SEEN.store(0, Relaxed);
    trap::hook(Some(note));
    apic::interrupt(0x46);
    r.hold_that("it waits", apic::read(apic::PPR), apic::bit(apic::IRR, 0x46));
    let (fault, frame) = leave(&Start { rflags: 0x202, rax: 7, ..start(&[0x90, 0x90, 0x90]) });
    trap::hook(None);
    r.want("back", (Some(fault), frame.rax(), SEEN.load(Relaxed)), (LEFT, 7, 0x43));
}

/// Gives back what SYSCALL has left.
#[unsafe(naked)]
unsafe extern "C" fn serve() {
    naked_asm!("mov rax, rcx", "mov rdx, r11", "mov ebx, cs", "mov esi, ss", "sysretq")
}

fn syscall(r: &mut Report) {
    let efer = msrs::read(0xC000_0080).unwrap_or(0);
    let _ = msrs::write(0xC000_0080, efer | 1);
    // SYSCALL takes CS 8; SYSRET takes SS 0x3B and CS 0x43.
    let star = 0x08u64 << 32 | 0x33 << 48;
    let _ = msrs::write(0xC000_0081, star);
    let _ = msrs::write(0xC000_0082, serve as *const () as u64);
    let _ = msrs::write(0xC000_0084, 0x600);
    let (fault, frame) = leave(&Start { rflags: 0x403, ..start(&[0x0F, 0x05]) });
    let seen = (Some(fault), frame.rax() - place(), frame.rdx(), frame.rbx(), frame.rsi());
    r.want("there", seen, (LEFT, 2, 0x403, 8, 0x10));
    r.want("back", (frame.cs, frame.ss, frame.rflags & 0x403), (0x43, 0x3B, 0x403));
    let _ = msrs::write(0xC000_0080, efer);
    r.want("off", user(&[0x0F, 0x05]).0, trap::UNDEFINED);
}

/// CR4.TSD concerns level 3.
fn time(r: &mut Report) {
    // RDTSC; RDTSCP.
    let both = || [user(&[0x0F, 0x31]).0, user(&[0x0F, 0x01, 0xF9]).0];
    r.want("open", both(), [LEFT; 2]);
    let closed = paging::with_control((0, 0), (1 << 2, 0), both);
    r.want("closed", closed, [PROTECTION; 2]);
}

/// CR0.AM and RFLAGS.AC.
fn alignment(r: &mut Report) {
    let with = |flags: u64| {
        // MOV EAX, [RSP + 1].
        Some(leave(&Start { rflags: flags, ..start(&[0x8B, 0x44, 0x24, 0x01]) }).0)
    };
    let got = paging::with_control((1 << 18, 0), (0, 0), || [with(2 | 1 << 18), with(2)]);
    let want = [coded(17, 0), LEFT];
    r.except("load", got, want, (Tcg, [LEFT, LEFT]), "alignment is not checked");
}

/// A single step at level 3, over an instruction that exits.
fn step(r: &mut Report) {
    for (what, code, len) in [("nop", &[0x90][..], 1), ("cpuid", &[0x0F, 0xA2], 2)] {
        trap::take_dr6();
        let (fault, frame) = leave(&Start { rflags: 2 | trap::RFLAGS_TF, ..start(code) });
        let dr6 = trap::take_dr6() & 0xE00F;
        let seen = (Some(fault), frame.rip - place(), dr6);
        let known = (Bochs, (plain(1), 0, 1 << 14));
        r.except(what, seen, (plain(1), len, 1 << 14), known, EARLY);
    }
}

/// Runs 32-bit code, at level 3 or 0.
fn narrow(code: &[u8], level: u8) -> (Option<Fault>, Frame) {
    let (cs, ds) = if level == 3 { (USER_CODE_32, USER_DATA) } else { (CODE_32, DATA) };
    let (cs, ds) = (u64::from(cs), u64::from(ds));
    let user = if level == 3 { U } else { 0 };
    let start = Start { cs, ss: ds, ds, ..start(code) };
    paging::map(CODE_PAGE, remote::page(26), P | W | user);
    paging::map(STACK_PAGE, remote::page(27), P | W | user);
    let (fault, frame) = leave(&start);
    (Some(fault), frame)
}

fn compatibility(r: &mut Report) {
    // MOV EAX, 0xFFFFFFFF; INC EAX (a REX prefix in 64-bit code).
    for level in [3, 0] {
        let (fault, frame) = narrow(&[0xB8, 0xFF, 0xFF, 0xFF, 0xFF, 0x40], level);
        r.want("inc", (level, fault, frame.rax() as u32), (level, LEFT, 0));
    }
    // PUSH 5; POP ECX: four bytes of stack.
    let (fault, frame) = narrow(&[0x6A, 5, 0x89, 0xE0, 0x59], 3);
    r.want("stack", (fault, frame.rcx() as u32, frame.rax() & 0xFFF), (LEFT, 5, 0xFEC));
    // There is no SYSRET to 64-bit code from here; LAR of CS says 32 bit.
    let (fault, frame) = narrow(&[0x8C, 0xC8, 0x0F, 0x02, 0xC0], 3);
    r.want("lar", (fault, frame.rax() as u32 & 0xF0_FF00), (LEFT, 0xC0_FB00));
}

fn compatibility_exceptions(r: &mut Report) {
    // MOV AL, 0x7F; ADD AL, 1; INTO.
    r.want("into", narrow(&[0xB0, 0x7F, 4, 1, 0xCE], 3).0, plain(4));
    r.want("into-not", narrow(&[0xB0, 1, 4, 1, 0xCE], 3).0, LEFT);
    // AAM 0; BOUND EAX, [ESP] with nothing between its bounds.
    r.want("aam", narrow(&[0xD4, 0], 3).0, trap::DIVIDE);
    r.want("bound", narrow(&[0x6A, 1, 0x6A, 1, 0x31, 0xC0, 0x62, 0x04, 0x24], 3).0, plain(5));
    // SYSCALL exists or not by vendor; PUSH CS is fine, LOCK NOP is not.
    r.want("lock", narrow(&[0xF0, 0x90], 3).0, trap::UNDEFINED);
    // JMP FAR to 64-bit code and on: INT 0x80 there.
    let mut code = [0; 7];
    code[0] = 0xEA;
    code[1..5].copy_from_slice(&(place() as u32 + 7).to_le_bytes());
    code[5..].copy_from_slice(&USER_CODE.to_le_bytes());
    let (fault, frame) = narrow(&code, 3);
    r.want("far", (fault, frame.cs), (LEFT, u64::from(USER_CODE)));
}

/// A segment with a base and a limit.
fn compatibility_segments(r: &mut Report) {
    let base = paging::map(13, paging::arena(3), P | W | U);
    paging::poke::<u32>(base, 0x1234_5678);
    paging::poke::<u32>(base + 0xFC, 0x8765_4321);
    // Level 3, writable, limit 0xFF in bytes.
    let low = 0xFF | (base & 0xFF_FFFF) << 16 | 0xF3 << 40 | 0x4 << 52 | (base >> 24 & 0xFF) << 56;
    tables::set_spare(low);
    let selector = (SPARE | 3) as u8;
    // MOV ECX, selector; MOV ES, ECX; MOV EAX, ES:[disp].
    let at = |disp: u8| {
        let code = [0xB9, selector, 0, 0, 0, 0x8E, 0xC1, 0x26, 0xA1, disp, 0, 0, 0];
        let (fault, frame) = narrow(&code, 3);
        (fault, frame.rax() as u32)
    };
    r.want("inside", [at(0), at(0xFC)], [(LEFT, 0x1234_5678), (LEFT, 0x8765_4321)]);
    // QEMU does not check limits outside of call gates and the like.
    let beyond = at(0xFD).0;
    r.except("beyond", beyond, PROTECTION, (Tcg, LEFT), "segment limits are not checked");
    // INSB to it, over IN of the bitmap: ES's base counts.
    tables::set_port(0xE0, true);
    let code = [0xB9, selector, 0, 0, 0, 0x8E, 0xC1, 0xBF, 8, 0, 0, 0, 0xBA, 0xE0, 0, 0, 0, 0x6C];
    paging::poke::<u32>(base + 8, 0);
    let (fault, _) = narrow(&code, 3);
    tables::set_port(0xE0, false);
    r.want("insb", (fault, paging::peek::<u32>(base + 8)), (LEFT, 0xFF));
    tables::set_spare(0);
}

/// CPUID, IN and device memory by 32-bit code of level 0.
fn compatibility_exits(r: &mut Report) {
    let (fault, frame) = narrow(&[0x31, 0xC0, 0x0F, 0xA2], 0);
    let vendor = core::arch::x86_64::__cpuid(0);
    r.want("cpuid", (fault, frame.rbx() == u64::from(vendor.ebx)), (LEFT, true));
    let (fault, frame) = narrow(&[0xE5, 0xE0], 0);
    r.want("in", (fault, frame.rax() as u32), (LEFT, u32::MAX));
    // MOV EAX, 0x10; MOV [0xFEC00000], EAX; MOV ECX, [0xFEC00000].
    let code = [0xB8, 0x10, 0, 0, 0, 0xA3, 0, 0, 0xC0, 0xFE, 0x8B, 0x0D, 0, 0, 0xC0, 0xFE];
    let (fault, frame) = narrow(&code, 0);
    r.want("device", (fault, frame.rcx() as u32 & 0xFF), (LEFT, 0x10));
}

/// 16-bit code with a base.
fn sixteen(r: &mut Report) {
    // Level 0, code, 16 bit, base of the code page, limit 0xFFFF.
    let base = place();
    let low = 0xFFFF | (base & 0xFF_FFFF) << 16 | 0x9B << 40 | (base >> 24 & 0xFF) << 56;
    tables::set_spare(low);
    let run = |code: &[u8]| {
        let start = Start {
            rip: 0,
            cs: u64::from(SPARE),
            ss: u64::from(DATA),
            ds: u64::from(DATA),
            ..start(code)
        };
        paging::map(CODE_PAGE, remote::page(26), P | W);
        paging::map(STACK_PAGE, remote::page(27), P | W);
        let (fault, frame) = leave(&start);
        (Some(fault), frame)
    };
    // MOV AX, 0x1234; INC AX.
    let (fault, frame) = run(&[0xB8, 0x34, 0x12, 0x40]);
    r.want("inc", (fault, frame.rax() as u16, frame.rip), (LEFT, 0x1235, 6));
    // XOR EAX, EAX; CPUID; IN AX, 0xE0.
    let (fault, frame) = run(&[0x66, 0x31, 0xC0, 0x0F, 0xA2, 0xE5, 0xE0]);
    let vendor = core::arch::x86_64::__cpuid(0);
    let seen = (fault, frame.rbx() == u64::from(vendor.ebx), frame.rax() as u16, frame.rip);
    r.want("exits", seen, (LEFT, true, 0xFFFF, 9));
    // MOV EAX, [0xFEC00000] with an address of 32 bits.
    let (fault, _) = run(&[0x67, 0x66, 0xA1, 0, 0, 0xC0, 0xFE]);
    r.want("device", fault, LEFT);
    tables::set_spare(0);
}
