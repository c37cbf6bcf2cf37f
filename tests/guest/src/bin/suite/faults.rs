//! Exceptions with the right vector, error code and CR2.

use crate::report::Emulator::Tcg;
use crate::report::Report;
use crate::trap::{
    self, DIVIDE, NOT_AVAILABLE, PROTECTION, UNDEFINED, attempt, coded, page, plain,
};
use crate::{Test, msrs, paging, remote, tables};
use paging::{NX, P, U, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("fault.page", page_kinds),
    ("fault.page-write-protect", write_protect),
    ("fault.page-reserved", reserved_bits),
    ("fault.page-fetch", fetches),
    ("fault.page-across", across),
    ("fault.canonical", canonical),
    ("fault.divide", divide),
    ("fault.undefined", undefined),
    ("fault.traps", traps),
    ("fault.device", device_not_available),
    ("fault.segments", segments),
    ("fault.gates", gates),
    ("fault.double", double_fault),
    ("fault.registers", frame),
];

/// CR0.WP.
const WP: (u64, u64) = (1 << 16, 0);
const NOTHING: (u64, u64) = (0, 0);
const EFER: u32 = 0xC000_0080;

fn read(address: u64) -> Option<trap::Fault> {
    attempt!(["mov {v}, [{a}]"] a = in(reg) address, v = out(reg) _)
}

fn write(address: u64) -> Option<trap::Fault> {
    attempt!(["mov byte ptr [{a}], 1"] a = in(reg) address)
}

/// A call: the code there must be a RET.
fn call(address: u64) -> Option<trap::Fault> {
    attempt!(["mov {s}, rsp", "call {a}", "nop"] a = in(reg) address, s = out(reg) _)
}

fn page_kinds(r: &mut Report) {
    let at = paging::unmap(3) + 0x123;
    r.want("read", read(at), page(0, at));
    r.want("write", write(at), page(2, at));
    // A compare is no write, an exchange that does not take place is one.
    r.want("compare", attempt!(["cmp dword ptr [{a}], 0"] a = in(reg) at), page(0, at));
    let modified = [
        attempt!(["inc dword ptr [{a}]"] a = in(reg) at),
        attempt!(["lock or dword ptr [{a}], 0"] a = in(reg) at),
        attempt!(["lock cmpxchg [{a}], ecx"] a = in(reg) at, in("ecx") 0, inout("eax") 1 => _),
    ];
    r.except(
        "modify",
        modified,
        [page(2, at); 3],
        (Tcg, [page(0, at); 3]),
        "what reads and writes is reported as a read",
    );
    r.want("push", attempt!(["push qword ptr [{a}]"] a = in(reg) at), page(0, at));
    paging::map(3, paging::arena(0), P | W);
    r.want("mapped", (read(at), write(at)), (None, None));
    // A remote page that is there faults nobody.
    paging::map(3, remote::page(1), P | W);
    r.hold("sent", remote::send(remote::page(1), 1));
    r.want("remote", (read(at), write(at)), (None, None));
}

fn write_protect(r: &mut Report) {
    let at = paging::map(3, remote::page(1), P);
    r.hold("sent", remote::send(remote::page(1), 1));
    let seen = paging::with_control(WP, NOTHING, || (read(at), write(at)));
    r.want("on", seen, (None, page(3, at)));
    let seen = paging::with_control((0, 1 << 16), NOTHING, || (read(at), write(at)));
    r.want("off", seen, (None, None));
    // The directory's right counts as well.
    let entry = paging::directory_entry(0);
    let before = paging::get(entry);
    paging::map(3, remote::page(1), P | W);
    paging::set(entry, before & !W);
    paging::flush(at);
    let seen = paging::with_control(WP, NOTHING, || (read(at), write(at)));
    paging::set(entry, before);
    paging::flush(at);
    r.want("directory", seen, (None, page(3, at)));
}

/// What QEMU 7.2 does with reserved bits.
const RESERVED: &str = "the page counts as absent where a reserved bit is set";

fn reserved_bits(r: &mut Report) {
    let at = paging::map(3, paging::arena(0) | 1 << 51, P | W);
    let bits = core::arch::x86_64::__cpuid(0x8000_0008).eax & 0xFF;
    if bits < 52 {
        r.except(
            "frame",
            (read(at), write(at)),
            (page(9, at), page(0xB, at)),
            (Tcg, (page(8, at), page(0xA, at))),
            RESERVED,
        );
    }
    // NX without EFER.NXE is reserved.
    let efer = msrs::read(EFER).unwrap_or(0);
    paging::map(3, paging::arena(0), P | W | NX);
    let _ = msrs::write(EFER, efer & !(1 << 11));
    paging::flush(at);
    let off = read(at);
    let _ = msrs::write(EFER, efer | 1 << 11);
    paging::flush(at);
    let on = read(at);
    let _ = msrs::write(EFER, efer);
    r.except("nx", (off, on), (page(9, at), None), (Tcg, (page(8, at), None)), RESERVED);
    paging::unmap(3);
}

fn fetches(r: &mut Report) {
    let at = paging::map(3, remote::page(2), P | W);
    paging::fill(at, 0xC3);
    r.hold("sent", remote::send(remote::page(2), 1));
    r.want("run", call(at), None);
    let efer = msrs::read(EFER).unwrap_or(0);
    let _ = msrs::write(EFER, efer | 1 << 11);
    paging::map(3, remote::page(2), P | W | NX);
    r.want("nx", (read(at), call_lost(at)), (None, page(0x11, at)));
    paging::unmap(3);
    r.want("absent", call_lost(at), page(0x10, at));
    let _ = msrs::write(EFER, efer & !(1 << 11));
    // Without NX and SMEP the I bit stays clear.
    r.want("without-nx", call_lost(at), page(0, at));
    let _ = msrs::write(EFER, efer);
}

/// A call that does not come back: the stack is put right.
fn call_lost(address: u64) -> Option<trap::Fault> {
    attempt!(["mov {s}, rsp", "jmp {a}"] a = in(reg) address, s = out(reg) _)
}

fn across(r: &mut Report) {
    let first = paging::map(3, paging::arena(0), P | W);
    let border = paging::unmap(4);
    r.want("read", read(border - 4), page(0, border));
    let fault = attempt!(["mov [{a}], {a}"] a = in(reg) border - 4);
    r.want("write", fault, page(2, border));
    // An instruction whose end is missing.
    paging::put(border - 1, &[0x48]);
    r.want("fetch", call_lost(border - 1), page(fetch_bit(), border));
    paging::put(border - 1, &[0xC3]);
    r.want("last-byte", call(border - 1), None);
    paging::map(4, remote::page(3), P | W);
    r.hold("sent", remote::send(remote::page(3), 1));
    r.want("both", (read(border - 4), read(first)), (None, None));
}

/// The I bit, if EFER.NXE or CR4.SMEP have it told.
fn fetch_bit() -> u32 {
    if msrs::read(EFER).unwrap_or(0) & 1 << 11 != 0 { 0x10 } else { 0 }
}

fn canonical(r: &mut Report) {
    let bad = 0x0000_8000_0000_0000u64;
    r.want("read", read(bad), PROTECTION);
    r.want("write", write(bad), PROTECTION);
    // RBP is the stack's: #SS.
    r.except(
        "stack",
        stack_fault(bad),
        coded(12, 0),
        (Tcg, PROTECTION),
        "an address by RBP that is not canonical raises #GP",
    );
    r.want("jump", attempt!(["jmp {a}"] a = in(reg) bad), PROTECTION);
}

/// Reads by RBP, and puts RBP right whatever comes.
fn stack_fault(address: u64) -> Option<trap::Fault> {
    let kept: u64;
    // SAFETY: as in `attempt!`; RBP is put right at label 2.
    unsafe {
        core::arch::asm!(
            "lea {recover}, [rip + 2f]",
            "mov qword ptr [rip + {place}], {recover}",
            "mov {kept}, rbp",
            "mov rbp, {address}",
            "mov {recover}, [rbp]",
            "2:",
            "mov rbp, {kept}",
            recover = out(reg) _,
            kept = out(reg) kept,
            address = in(reg) address,
            place = sym trap::RECOVER,
        );
    }
    let _ = kept;
    trap::outcome()
}

fn divide(r: &mut Report) {
    let by = |divisor: u32| {
        attempt!(["div {d:e}"] d = in(reg) divisor, inout("eax") 1u32 => _,
        inout("edx") 1u32 => _)
    };
    // By zero, and a quotient that does not fit.
    r.want("div", [by(0), by(1), by(2)], [DIVIDE, DIVIDE, None]);
    let fault = attempt!(["idiv {d:e}"] d = in(reg) u32::MAX, inout("eax") 0x8000_0000u32 => _,
        inout("edx") u32::MAX => _);
    r.want("idiv", fault, DIVIDE);
}

fn undefined(r: &mut Report) {
    r.want("ud2", attempt!(["ud2"]), UNDEFINED);
    // LOCK where it cannot be; 64-bit code has no PUSH ES.
    r.want("lock", attempt!([".byte 0xF0, 0x90"]), UNDEFINED);
    r.want("push-es", attempt!([".byte 0x06"]), UNDEFINED);
    let fault = attempt!([".byte 0xF0, 0x89, 0xC0"] inout("rax") 0u64 => _);
    r.except("lock-register", fault, UNDEFINED, (Tcg, None), "LOCK MOV between registers runs");
    // 16 bytes of instruction are too many.
    let fault = attempt!([".rept 15", ".byte 0x66", ".endr", ".byte 0x90"]);
    r.except("long", fault, PROTECTION, (Tcg, UNDEFINED), "too long an instruction raises #UD");
    // SYSRET with EFER.SCE clear, and SWAPGS is there.
    let efer = msrs::read(EFER).unwrap_or(0);
    let _ = msrs::write(EFER, efer & !1);
    r.want("syscall", attempt!(["syscall"] out("rcx") _, out("r11") _), UNDEFINED);
    let _ = msrs::write(EFER, efer);
    r.want("swapgs", attempt!(["swapgs", "swapgs"]), None);
}

/// Exceptions of instructions that make them.
fn traps(r: &mut Report) {
    r.want("int3", attempt!(["int3"]), plain(3));
    r.want("int-3", attempt!([".byte 0xCD, 3"]), plain(3));
    r.except("int1", attempt!([".byte 0xF1"]), plain(1), (Tcg, UNDEFINED), "there is no INT1");
    r.want("int-6", attempt!([".byte 0xCD, 6"]), UNDEFINED);
    trap::take_dr6();
}

fn device_not_available(r: &mut Report) {
    let x87 = || attempt!(["fnop"]);
    let sse = || attempt!(["movaps xmm0, xmm0"]);
    let wait = || attempt!(["wait"]);
    // CR0: TS 8, EM 4, MP 2. CR4.OSFXSR.
    let seen = paging::with_control((8, 6), (1 << 9, 0), || [x87(), sse(), wait()]);
    r.want("ts", seen, [NOT_AVAILABLE, NOT_AVAILABLE, None]);
    let seen = paging::with_control((0xA, 4), (1 << 9, 0), || [x87(), sse(), wait()]);
    r.want("ts-mp", seen, [NOT_AVAILABLE; 3]);
    let seen = paging::with_control((4, 10), (1 << 9, 0), || [x87(), sse()]);
    r.want("em", seen, [NOT_AVAILABLE, UNDEFINED]);
    let seen = paging::with_control((2, 12), (1 << 9, 0), || [x87(), sse()]);
    r.want("on", seen, [None; 2]);
    let seen = paging::with_control((2, 12), (0, 1 << 9), || [x87(), sse()]);
    r.want("osfxsr", seen, [None, UNDEFINED]);
}

/// Loads DS with a selector, and puts it right.
fn load(selector: u16) -> Option<trap::Fault> {
    let fault = attempt!(["mov ds, {s:e}"] s = in(reg) u32::from(selector));
    let _ = attempt!(["mov ds, {s:e}"] s = in(reg) u32::from(tables::DATA));
    fault
}

fn load_stack(selector: u16) -> Option<trap::Fault> {
    let fault = attempt!(["mov ss, {s:e}"] s = in(reg) u32::from(selector));
    let _ = attempt!(["mov ss, {s:e}"] s = in(reg) u32::from(tables::DATA));
    fault
}

fn segments(r: &mut Report) {
    let absent = u32::from(tables::ABSENT);
    r.want("absent", load(tables::ABSENT), coded(11, absent));
    r.want("absent-stack", load_stack(tables::ABSENT), coded(12, absent));
    // Beyond the table; a TSS; the null selector, which is none for DS.
    r.want("beyond", load(0x1000), coded(13, 0x1000));
    r.want("task", load(0x48), coded(13, 0x48));
    r.want("null", load(0), None);
    r.want("local", load(0x0C), coded(13, 0x0C));
    r.want(
        "user-stack",
        load_stack(tables::USER_DATA),
        coded(13, u32::from(tables::USER_DATA) & !3),
    );
    r.want("code-stack", load_stack(tables::CODE), coded(13, 8));
    // LTR of a busy TSS, and of what is none.
    let ltr = |s: u16| attempt!(["ltr {s:x}"] s = in(reg) s);
    r.want("ltr", [ltr(0x48), ltr(0x10)], [coded(13, 0x48), coded(13, 0x10)]);
    r.unless("ltr-null", Tcg, "LTR takes the null selector", PROTECTION, || ltr(0));
    // A far return to data, and to what is absent.
    let far = |selector: u64| {
        let kept: u64;
        // SAFETY: as in `attempt!`; RSP is put right at label 2.
        unsafe {
            core::arch::asm!(
                "lea {recover}, [rip + 2f]",
                "mov qword ptr [rip + {place}], {recover}",
                "mov {kept}, rsp",
                "push {selector}",
                "push {recover}",
                "retfq",
                "2:",
                "mov rsp, {kept}",
                recover = out(reg) _,
                kept = out(reg) kept,
                selector = in(reg) selector,
                place = sym trap::RECOVER,
            );
        }
        let _ = kept;
        trap::outcome()
    };
    let got = [far(0x10), far(0), far(0x1000), far(u64::from(tables::CODE))];
    r.want("far", got, [coded(13, 0x10), PROTECTION, coded(13, 0x1000), None]);
    tables::set_spare(0x00AF_1B00_0000_FFFF);
    r.want("far-absent", far(u64::from(tables::SPARE)), coded(11, u32::from(tables::SPARE)));
    // 64-bit and 32-bit code at once.
    tables::set_spare(0x00EF_9B00_0000_FFFF);
    let why = "code with L and D set can be loaded";
    r.unless("l-and-d", Tcg, why, coded(13, u32::from(tables::SPARE)), || {
        far(u64::from(tables::SPARE))
    });
    tables::set_spare(0);
}

/// What QEMU 7.2 does in long mode.
const GATE: &str = "the error code has the gate's offset, and EXT is not set";

/// Gates that are not there: the error code names the gate (IDT, bit 1).
fn gates(r: &mut Report) {
    trap::set_gate(0x70, false);
    let want = coded(11, 0x70 << 3 | 2);
    r.except("int", attempt!(["int 0x70"]), want, (Tcg, coded(11, 0x70 << 4 | 2)), GATE);
    trap::set_gate(0x70, true);
    // A fault while another is delivered: #UD's gate is away.
    trap::set_gate(6, false);
    // EXT says that an event, not the program, met the gate.
    r.except("ud", attempt!(["ud2"]), coded(11, 6 << 3 | 3), (Tcg, coded(11, 6 << 4 | 2)), GATE);
    trap::set_gate(6, true);
}

/// A page fault whose gate is not there, and a fault on a stack that is not.
fn double_fault(r: &mut Report) {
    let at = paging::unmap(3);
    trap::set_gate(14, false);
    r.want("gate", read(at), coded(8, 0));
    trap::set_gate(14, true);
    r.want("stack", on_stack(at + 64), coded(8, 0));
    // The same with a stack away on another node: no double fault.
    paging::map(3, remote::page(1), P | W);
    r.hold("sent", remote::send(remote::page(1), 1));
    r.want("remote-stack", on_stack(at + 4096), UNDEFINED);
    r.want(
        "user-page",
        {
            paging::map(3, remote::page(1), P | W | U);
            on_stack(at + 4096)
        },
        UNDEFINED,
    );
}

/// #UD with a stack of one's own.
fn on_stack(stack: u64) -> Option<trap::Fault> {
    let kept: u64;
    // SAFETY: as in `attempt!`; RSP is put right at label 2.
    unsafe {
        core::arch::asm!(
            "lea {recover}, [rip + 2f]",
            "mov qword ptr [rip + {place}], {recover}",
            "mov {kept}, rsp",
            "mov rsp, {stack}",
            "ud2",
            "2:",
            "mov rsp, {kept}",
            recover = out(reg) _,
            kept = out(reg) kept,
            stack = in(reg) stack,
            place = sym trap::RECOVER,
        );
    }
    let _ = kept;
    trap::outcome()
}

/// What the frame of a fault holds.
fn frame(r: &mut Report) {
    let at: u64;
    let fault = attempt!(["stc", "lea {at}, [rip + 3f]", "3:", "ud2"] at = out(reg) at);
    let frame = trap::frame();
    r.want("fault", fault, UNDEFINED);
    r.hold("RIP at the instruction", frame.rip == at);
    r.want("cs-ss", (frame.cs, frame.ss), (8, 0x10));
    // A fault pushes RF set (AMD APM volume 2, 13.1.1.3), CF as it was.
    let flags = frame.rflags & (trap::RFLAGS_RF | 0x203);
    r.except("flags", flags, trap::RFLAGS_RF | 3, (Tcg, 3), "a fault does not push RF set");
}
