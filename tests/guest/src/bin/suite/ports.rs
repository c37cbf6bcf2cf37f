//! Port exits: widths, registers, and strings over page borders.

use crate::report::Report;
use crate::trap::{self, PROTECTION, attempt};
use crate::{Test, paging, remote};
use paging::{P, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("port.widths", widths),
    ("port.registers", whole_registers),
    ("port.immediate", immediate),
    ("port.strings", strings),
    ("port.backwards", backwards),
    ("port.address-size", address_size),
    ("port.repeat", repeat),
    ("port.string-faults", string_faults),
    ("port.string-segments", string_segments),
];

/// PCI configuration (PCI local bus specification 3.0, 3.2.2.3.2).
const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;
/// Index of the real-time clock's memory.
const RTC: u16 = 0x70;
/// An address that says nothing to anybody, but is kept.
const PATTERN: u32 = 0x8000_0000 | 0x00FF_F8A4;

/// OUT of a dword.
fn out_32(port: u16, value: u32) {
    let _ = attempt!(["out dx, eax"] in("dx") port, in("eax") value);
}

/// IN of a dword.
fn in_32(port: u16) -> u32 {
    let value: u32;
    let _ = attempt!(["in eax, dx"] in("dx") port, out("eax") value);
    value
}

/// Writes a byte of the clock's memory that keeps what it is given.
fn set_clock(index: u8, value: u8) {
    let _ = attempt!(["out dx, al", "inc edx", "mov al, {v}", "out dx, al"]
        v = in(reg_byte) value, inout("dx") RTC => _, inout("al") index => _);
}

fn widths(r: &mut Report) {
    out_32(ADDRESS, PATTERN);
    r.want("dword", in_32(ADDRESS), PATTERN);
    // The first function of the host bridge: its vendor, by all widths.
    out_32(ADDRESS, 0x8000_0000);
    let whole = in_32(DATA);
    let mut parts = [0u32; 4];
    for (port, part) in (DATA..).zip(&mut parts) {
        let byte: u8;
        let _ = attempt!(["in al, dx"] in("dx") port, out("al") byte);
        *part = u32::from(byte);
    }
    let bytes = parts.iter().rev().fold(0, |sum, part| sum << 8 | part);
    let (low, high): (u16, u16);
    let _ = attempt!(["in ax, dx"] in("dx") DATA, out("ax") low);
    let _ = attempt!(["in ax, dx"] in("dx") DATA + 2, out("ax") high);
    r.hold("a device", whole & 0xFFFF != 0xFFFF);
    r.hold("bytes", bytes == whole);
    r.hold("words", u32::from(high) << 16 | u32::from(low) == whole);
    // A port that nobody listens at.
    let (mut byte, mut word) = (0u8, 0u16);
    let _ = attempt!(["in al, dx"] in("dx") 0xE0, inout("al") byte);
    let _ = attempt!(["in ax, dx"] in("dx") 0xE0, inout("ax") word);
    r.want("nobody", (byte, word, in_32(0xE0)), (0xFF, 0xFFFF, 0xFFFF_FFFF));
}

fn whole_registers(r: &mut Report) {
    let all = 0x1111_2222_3333_4444u64;
    let mut seen = [all; 3];
    let _ = attempt!(["in al, dx"] in("dx") 0xE0, inout("rax") seen[0]);
    let _ = attempt!(["in ax, dx"] in("dx") 0xE0, inout("rax") seen[1]);
    let _ = attempt!(["in eax, dx"] in("dx") 0xE0, inout("rax") seen[2]);
    r.want("kept", seen, [0x1111_2222_3333_44FF, 0x1111_2222_3333_FFFF, 0xFFFF_FFFF]);
    // The port is DX, whatever is above; a REX.W prefix changes nothing.
    out_32(ADDRESS, PATTERN);
    let mut value = all;
    let fault = attempt!([".byte 0x48, 0xED"] in("rdx") 0x5555_0000 | u64::from(ADDRESS),
        inout("rax") value);
    r.want("rex", (fault, value), (None, u64::from(PATTERN)));
    // Flags stay.
    let flags: u64;
    let fault = attempt!(["stc", "in al, dx", "pushfq", "pop {f}"] in("dx") 0xE0, out("al") _,
        f = out(reg) flags);
    r.want("flags", (fault, flags & 1), (None, 1));
}

fn immediate(r: &mut Report) {
    set_clock(0x50, 0x5A);
    let value: u8;
    let fault = attempt!(["mov al, 0x50", "out 0x70, al", "in al, 0x71"] out("al") value);
    r.want("byte", (fault, value), (None, 0x5A));
    let mut word = 0u32;
    let fault = attempt!(["in eax, 0xE0"] inout("eax") word);
    r.want("dword", (fault, word), (None, 0xFFFF_FFFF));
}

/// Two pages of the window, the second at home on another node and away.
fn two_pages() -> u64 {
    let start = paging::map(0, paging::arena(0), P | W);
    paging::map(1, remote::page(0), P | W);
    paging::fill(start, 0x77);
    paging::fill(start + 4096, 0x77);
    start + 4096
}

fn strings(r: &mut Report) {
    let border = two_pages();
    out_32(ADDRESS, PATTERN);
    for (width, count) in [(1u64, 5u64), (2, 3), (4, 3)] {
        paging::fill(border, 0x77);
        r.hold("sent", remote::send(remote::page(0), 1));
        // One element before the border and half of one.
        let start = border - width - width / 2;
        let (mut rdi, mut rcx) = (start, count);
        let fault = match width {
            1 => attempt!(["rep insb"] in("dx") ADDRESS, inout("rdi") rdi, inout("rcx") rcx),
            2 => attempt!(["rep insw"] in("dx") ADDRESS, inout("rdi") rdi, inout("rcx") rcx),
            _ => attempt!(["rep insd"] in("dx") ADDRESS, inout("rdi") rdi, inout("rcx") rcx),
        };
        r.want("ins", (width, fault, rdi - start, rcx), (width, None, width * count, 0));
        if width == 4 {
            let got = [0, 4, 8].map(|at| paging::peek::<[u8; 4]>(start + at));
            r.want("data", got.map(u32::from_le_bytes), [PATTERN; 3]);
        }
        r.want("behind", paging::peek::<u8>(rdi), 0x77);
    }
    // OUTS: the last of the elements stays.
    let start = border - 6;
    for (i, value) in [(0, 0x8000_0010u32), (4, 0x8000_0020), (8, 0x8000_0034)] {
        paging::put(start + i, &value.to_le_bytes());
    }
    r.hold("sent", remote::send(remote::page(0), 1));
    let (mut rsi, mut rcx) = (start, 3u64);
    let fault = attempt!(["rep outsd"] in("dx") ADDRESS, inout("rsi") rsi, inout("rcx") rcx);
    r.want("outs", (fault, rsi - start, rcx), (None, 12, 0));
    r.want("last", in_32(ADDRESS), 0x8000_0034);
}

fn backwards(r: &mut Report) {
    let border = two_pages();
    out_32(ADDRESS, PATTERN);
    r.hold("sent", remote::send(remote::page(0), 1));
    let (mut rdi, mut rcx) = (border + 2, 2u64);
    let fault = attempt!(["std", "rep insd", "cld"] in("dx") ADDRESS, inout("rdi") rdi,
        inout("rcx") rcx);
    r.want("ins", (fault, border - rdi, rcx), (None, 6, 0));
    let got = [border + 2, border - 2].map(|at| u32::from_le_bytes(paging::peek(at)));
    r.want("data", got, [PATTERN; 2]);
    r.want("before", paging::peek::<u8>(border - 3), 0x77);
    paging::put(border - 2, &0x8000_0040u32.to_le_bytes());
    r.hold("sent", remote::send(remote::page(0), 1));
    let (mut rsi, mut rcx) = (border + 2, 2u64);
    let fault = attempt!(["std", "rep outsd", "cld"] in("dx") ADDRESS, inout("rsi") rsi,
        inout("rcx") rcx);
    r.want("outs", (fault, border - rsi, rcx), (None, 6, 0));
    r.want("last", in_32(ADDRESS), 0x8000_0040);
}

/// With an address size of 32 bits only EDI and ECX count, and the upper
/// halves become zero.
fn address_size(r: &mut Report) {
    let border = two_pages();
    let high = 0x5_0000_0000u64;
    let (mut rdi, mut rcx) = (high | border, high | 2);
    let fault = attempt!(["rep insb byte ptr es:[edi], dx"] in("dx") 0xE0, inout("rdi") rdi,
        inout("rcx") rcx);
    r.want("ins", (fault, rdi, rcx), (None, border + 2, 0));
    r.want("data", paging::peek::<[u8; 3]>(border), [0xFF, 0xFF, 0x77]);
}

fn repeat(r: &mut Report) {
    let border = two_pages();
    // No element: nothing is touched, not even a bad address.
    let (mut rdi, mut rcx) = (1u64 << 63, 0u64);
    let fault = attempt!(["rep insb"] in("dx") 0xE0, inout("rdi") rdi, inout("rcx") rcx);
    r.want("none", (fault, rdi, rcx), (None, 1 << 63, 0));
    // Without REP, RCX does not count.
    let (mut rdi, mut rcx) = (border, 7u64);
    let fault = attempt!(["insb"] in("dx") 0xE0, inout("rdi") rdi, inout("rcx") rcx);
    r.want("once", (fault, rdi - border, rcx), (None, 1, 7));
    // More than is done in one go.
    let (mut rdi, mut rcx) = (border - 4096, 4096u64);
    let fault = attempt!(["rep insb"] in("dx") 0xE0, inout("rdi") rdi, inout("rcx") rcx);
    r.want("page", (fault, rdi - border, rcx), (None, 0, 0));
    r.hold("all of it", (0..4096).all(|i| paging::peek::<u8>(border - 4096 + i) == 0xFF));
}

fn string_faults(r: &mut Report) {
    let border = two_pages();
    // The second page is not there: what came before is done.
    paging::unmap(1);
    let (mut rdi, mut rcx) = (border - 2, 5u64);
    let fault = attempt!(["rep insb"] in("dx") 0xE0, inout("rdi") rdi, inout("rcx") rcx);
    r.want("ins", (fault, border - rdi, rcx), (trap::page(2, border), 0, 3));
    let (mut rsi, mut rcx) = (border - 2, 5u64);
    let fault = attempt!(["rep outsb"] in("dx") 0xE0, inout("rsi") rsi, inout("rcx") rcx);
    r.want("outs", (fault, border - rsi, rcx), (trap::page(0, border), 0, 3));
    // An element that lies on both pages faults at the border.
    let (mut rdi, mut rcx) = (border - 2, 1u64);
    let fault = attempt!(["rep insd"] in("dx") ADDRESS, inout("rdi") rdi, inout("rcx") rcx);
    r.want("across", (fault, border - rdi, rcx), (trap::page(2, border), 2, 1));
    // Read-only, with CR0.WP.
    paging::map(1, remote::page(0), P);
    let (mut rdi, mut rcx) = (border, 1u64);
    let fault = paging::with_control(
        (1 << 16, 0),
        (0, 0),
        || attempt!(["rep insb"] in("dx") 0xE0, inout("rdi") rdi, inout("rcx") rcx),
    );
    r.want("read-only", (fault, border - rdi, rcx), (trap::page(3, border), 0, 1));
    let (mut rdi, mut rcx) = (1u64 << 63, 1u64);
    let fault = attempt!(["rep insb"] in("dx") 0xE0, inout("rdi") rdi, inout("rcx") rcx);
    r.want("not-canonical", (fault, rdi, rcx), (PROTECTION, 1 << 63, 1));
}

/// OUTS takes a segment override; INS always writes to ES.
fn string_segments(r: &mut Report) {
    let border = two_pages();
    paging::put(border, &0x8000_0050u32.to_le_bytes());
    let before = crate::msrs::read(0xC000_0100).unwrap_or(0);
    let _ = crate::msrs::write(0xC000_0100, border - 0x1000);
    let mut rsi = 0x1000u64;
    let fault = attempt!(["outsd dx, dword ptr fs:[rsi]"] in("dx") ADDRESS, inout("rsi") rsi);
    r.want("outs", (fault, rsi, in_32(ADDRESS)), (None, 0x1004, 0x8000_0050));
    let _ = crate::msrs::write(0xC000_0100, before);
}
