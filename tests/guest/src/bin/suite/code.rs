//! Code that changes, on pages of other nodes and over their borders.

use crate::report::{Emulator::Tcg, Report};
use crate::trap::{self, attempt};
use crate::{Test, paging, remote};
use paging::{P, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("code.changed", changed),
    ("code.changed-itself", changed_itself),
    ("code.border", border),
    ("code.border-changed", border_changed),
    ("code.border-exits", border_exits),
    ("code.alias", alias),
];

/// Calls an address; what RAX is then.
fn call(address: u64) -> (Option<trap::Fault>, u64) {
    let mut value = 0u64;
    let fault = attempt!(["call {a}"] a = in(reg) address, inout("rax") value,
        out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _);
    (fault, value)
}

/// MOV EAX, `value`; RET.
fn code(value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [0xB8, a, b, c, d, 0xC3]
}

fn changed(r: &mut Report) {
    let at = remote::page(22) + 0x40;
    let mut right = true;
    for round in 0..20u32 {
        paging::put(at, &code(round * 3));
        if round % 2 == 0 {
            right &= remote::send(remote::page(22), 1);
        }
        right &= call(at) == (None, u64::from(round * 3));
        // And once more, without a change, from wherever it now is.
        if round % 4 == 1 {
            right &= remote::send(remote::page(22), 1);
        }
        right &= call(at) == (None, u64::from(round * 3));
    }
    r.want("right", right, true);
}

/// Code that writes the instruction behind it.
fn changed_itself(r: &mut Report) {
    let at = remote::page(22) + 0x80;
    let [mut written, mut right] = [true; 2];
    for round in 0..10u8 {
        // MOV BYTE PTR [RIP + 1], round; MOV EAX, 0 (its first byte changes);
        // RET. The write goes to the byte behind the opcode B8.
        paging::put(at, &[0xC6, 0x05, 1, 0, 0, 0, round, 0xB8, 0, 0, 0, 0, 0xC3]);
        r.hold("sent", remote::send(remote::page(22), 1));
        right &= call(at) == (None, u64::from(round));
        written &= paging::peek::<u8>(at + 8) == round;
    }
    r.want("written", written, true);
    // It is so for a page that never moves, too, if only the write exits.
    let why = "code changed by the instruction before it runs stale if the write exited";
    r.except("right", right, true, (Tcg, false), why);
}

/// An instruction whose second half is on another page, which is away.
fn border(r: &mut Report) {
    let end = remote::page(23);
    let mut right = true;
    for split in 1..6u64 {
        paging::put(end - split, &code(0x0102_0304));
        right &= remote::send(remote::page(22), 2);
        right &= call(end - split) == (None, 0x0102_0304);
        right &= remote::send(remote::page(23), 1);
        right &= call(end - split) == (None, 0x0102_0304);
    }
    r.want("right", right, true);
}

/// Only the second half changes.
fn border_changed(r: &mut Report) {
    let end = remote::page(23);
    paging::put(end - 3, &code(0x0102_0304));
    let mut right = call(end - 3) == (None, 0x0102_0304);
    for round in 1..10u32 {
        paging::poke(end, round as u8);
        right &= remote::send(remote::page(23), 1);
        right &= call(end - 3) == (None, u64::from(0x0100_0304 | round << 16));
    }
    r.want("right", right, true);
}

/// Instructions that exit, over a border: their length has to be found out
/// from both pages.
fn border_exits(r: &mut Report) {
    let start = paging::map(0, paging::arena(0), P | W);
    let end = start + 4096;
    paging::map(1, remote::page(23), P | W);
    // PUSH RBX; CPUID; POP RBX; RET.  IN EAX, 0xE0; RET.  MOV ECX, 0x277;
    // RDMSR; RET with prefixes.  MOV EAX, [0xFEC00000] by a far displacement.
    let codes: [(&str, &[u8], u64); 4] = [
        ("cpuid", &[0x53, 0x0F, 0xA2, 0x5B, 0xC3], 2),
        ("in", &[0xE5, 0xE0, 0xC3], 1),
        ("in-prefix", &[0x66, 0x66, 0xE5, 0xE0, 0xC3], 3),
        ("rdmsr", &[0xB9, 0x77, 2, 0, 0, 0x0F, 0x32, 0xC3], 6),
    ];
    for (what, code, split) in codes {
        paging::put(end - split, code);
        r.hold("sent", remote::send(remote::page(23), 1));
        r.want(what, call(end - split).0, None);
    }
    // The second half is not there: a page fault of the fetch, not of the exit.
    paging::put(end - 1, &[0x0F]);
    paging::unmap(1);
    let fault = attempt!(["mov {s}, rsp", "jmp {a}"] a = in(reg) end - 1, s = out(reg) _);
    r.hold("absent", fault.is_some_and(|f| (f.vector, f.cr2) == (14, end)));
}

/// Code written through one address and run at another.
fn alias(r: &mut Report) {
    let one = paging::map(0, remote::page(24), P | W);
    let two = paging::map(1, remote::page(24), P | W);
    let mut right = true;
    for round in 0..10u32 {
        paging::put(one + 0x10, &code(round));
        if round % 3 == 0 {
            right &= remote::send(remote::page(24), 1);
        }
        right &= call(two + 0x10) == (None, u64::from(round));
    }
    r.want("right", right, true);
}
