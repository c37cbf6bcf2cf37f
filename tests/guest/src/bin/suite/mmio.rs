//! Device memory by every instruction that the machine emulates, and what it
//! does where an operand faults.
//!
//! An instruction on a device's register must do to registers and flags what
//! it does on memory that holds the same. The local APIC's initial count (its
//! timer is masked) holds all 32 bits that it is given, the configuration
//! space can be read by bytes.

use crate::report::Report;
use crate::trap::{self, attempt, page};
use crate::{Test, apic, msrs, paging, remote};
use paging::{P, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("mmio.moves", moves),
    ("mmio.extensions", extensions),
    ("mmio.arithmetic", arithmetic),
    ("mmio.registers", to_registers),
    ("mmio.compare", compare),
    ("mmio.exchange", exchange),
    ("mmio.bits", bits),
    ("mmio.unary", unary),
    ("mmio.stack", stack),
    ("mmio.widths", widths),
    ("mmio.strings", strings),
    ("mmio.string-scans", string_scans),
    ("mmio.string-faults", string_faults),
    ("mmio.faults", faults),
    ("mmio.borders", borders),
    ("mmio.persistent", persistent),
];

/// Flags that arithmetic sets: CF, PF, AF, ZF, SF, OF.
const STATUS: u64 = 0x8D5;
/// Those that logic leaves defined: all but AF.
const LOGIC: u64 = STATUS & !0x10;

/// Where the configuration space of 00:00.0 lies.
fn ecam() -> u64 {
    if remote::is_pangaea() { 0xE000_0000 } else { 0xB000_0000 }
}

/// A register that keeps 32 bits, in xAPIC mode for the time of `work`.
fn with_register(r: &mut Report, work: impl FnOnce(&mut Report, u64)) {
    let base = msrs::read(apic::BASE).unwrap_or(0);
    apic::write(apic::TIMER, apic::MASKED);
    let off = base & !(apic::X2APIC | apic::ENABLED);
    if base & apic::X2APIC != 0 {
        let _ = msrs::write(apic::BASE, off);
        let _ = msrs::write(apic::BASE, off | apic::ENABLED);
    }
    apic::sync();
    apic::write(apic::SPURIOUS, 0x1FF);
    apic::write(apic::TIMER, apic::MASKED);
    work(r, apic::PLACE + u64::from(apic::INITIAL_COUNT));
    apic::write(apic::INITIAL_COUNT, 0);
    if base & apic::X2APIC != 0 {
        // Back by way of xAPIC mode: from off there is none to x2APIC.
        let _ = msrs::write(apic::BASE, base);
    }
    apic::install();
    r.hold("the APIC is back", msrs::read(apic::BASE) == Ok(base));
}

/// RAM to compare with.
fn ram() -> u64 {
    paging::arena(1)
}

/// What an instruction left: memory, RAX, RCX, flags, and what it raised.
type Left = (u32, u64, u64, u64, Option<trap::Fault>);

/// Runs one line on the register and on RAM. RDI is the address, RAX and RCX
/// its operands; flags beside `$mask` do not count.
macro_rules! both {
    ($r:ident, $at:ident, $what:literal, $value:expr, $mask:expr, $line:expr) => {{
        let run = |address: u64| -> Left {
            paging::poke::<u32>(address, $value);
            let (mut rax, mut rcx) = (0x1122_3344_8000_0005u64, 0x5566_7788_0F0F_00F3u64);
            let flags: u64;
            let fault = attempt!(["pushfq", "and dword ptr [rsp], 0xFFFFF72A", "popfq", "stc",
                $line, "pushfq", "pop {f}"] f = lateout(reg) flags, in("rdi") address,
                inout("rax") rax, inout("rcx") rcx);
            (paging::peek(address), rax, rcx, flags & $mask, fault)
        };
        let want = run(ram());
        let got = run($at);
        $r.want($what, got, want);
    }};
}

fn moves(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "load", 0x8899_AABB, STATUS, "mov eax, [rdi]");
        both!(r, at, "store", 0x8899_AABB, STATUS, "mov [rdi], eax");
        both!(r, at, "immediate", 0x8899_AABB, STATUS, "mov dword ptr [rdi], 0x76543210");
        both!(r, at, "movnti", 0x8899_AABB, STATUS, "movnti [rdi], ecx");
        both!(r, at, "indexed", 0x8899_AABB, STATUS, "mov eax, 2\nmov ecx, [rdi + rax * 4 - 8]");
        both!(r, at, "absolute", 0x8899_AABB, STATUS, "mov ecx, dword ptr [edi]");
    });
}

fn extensions(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "movsxd", 0x8899_AABB, STATUS, "movsxd rax, dword ptr [rdi]");
    });
    // Bytes and words: of the configuration space against ports.
    let at = ecam();
    let [mut a, mut b, mut c, mut d] = [u64::MAX; 4];
    let fault = attempt!(["movzx eax, byte ptr [rdi + 1]", "movzx ecx, word ptr [rdi]",
        "movsx rdx, byte ptr [rdi + 1]", "movsx esi, word ptr [rdi]"] in("rdi") at,
        inout("rax") a, inout("rcx") b, inout("rdx") c, inout("rsi") d);
    let id = u64::from(paging::peek::<u32>(at));
    r.hold("there is a device", id & 0xFFFF != 0xFFFF);
    let byte = id >> 8 & 0xFF;
    let word = id & 0xFFFF;
    let wanted = [byte, word, i64::from(byte as i8) as u64, (word as i16) as u32 as u64];
    r.want("fault", fault, None);
    r.hold("values", [a, b, c, d] == wanted);
}

fn arithmetic(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "add", 0x8000_0000, STATUS, "add [rdi], eax");
        both!(r, at, "adc", 0x7FFF_FFFF, STATUS, "adc dword ptr [rdi], 0");
        both!(r, at, "sub", 1, STATUS, "sub [rdi], ecx");
        both!(r, at, "sbb", 5, STATUS, "sbb [rdi], eax");
        both!(r, at, "and", 0xFFFF_0000, LOGIC, "and [rdi], ecx");
        both!(r, at, "or", 0x0000_FFFF, LOGIC, "or dword ptr [rdi], -128");
        both!(r, at, "xor", 0x1234_5678, LOGIC, "xor [rdi], eax");
        both!(r, at, "lock-add", 0xFFFF_FFFF, STATUS, "lock add dword ptr [rdi], 1");
        both!(r, at, "lock-or", 3, LOGIC, "lock or [rdi], ecx");
    });
}

fn to_registers(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "add", 0x8000_0000, STATUS, "add eax, [rdi]");
        both!(r, at, "sbb", 0x8000_0005, STATUS, "sbb eax, [rdi]");
        both!(r, at, "and", 0xFF, LOGIC, "and ecx, [rdi]");
        both!(r, at, "cmov", 7, STATUS, "cmovc eax, [rdi]");
        both!(r, at, "cmovn", 7, STATUS, "cmovnc ecx, [rdi]");
    });
}

fn compare(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "cmp", 0x8000_0005, STATUS, "cmp [rdi], eax");
        both!(r, at, "cmp-immediate", 4, STATUS, "cmp dword ptr [rdi], 5");
        both!(r, at, "cmp-register", 0x8000_0006, STATUS, "cmp eax, [rdi]");
        both!(r, at, "test", 0xF0, LOGIC, "test [rdi], ecx");
        both!(r, at, "test-immediate", 0xF0, LOGIC, "test dword ptr [rdi], 0xF");
    });
}

fn exchange(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "xchg", 0x1111_2222, STATUS, "xchg [rdi], eax");
        both!(r, at, "xadd", 0x1111_2222, STATUS, "lock xadd [rdi], eax");
        both!(r, at, "cmpxchg", 0x8000_0005, STATUS, "lock cmpxchg [rdi], ecx");
        both!(r, at, "cmpxchg-not", 0x8000_0006, STATUS, "cmpxchg [rdi], ecx");
    });
}

fn bits(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "bt", 0x0008_0000, 1, "bt dword ptr [rdi], 19");
        both!(r, at, "bt-register", 0x0008_0000, 1, "mov eax, 19\nbt [rdi], eax");
        both!(r, at, "bts", 1, 1, "lock bts dword ptr [rdi], 31");
        both!(r, at, "btr", 0xFFFF_FFFF, 1, "btr dword ptr [rdi], 7");
        both!(r, at, "btc", 0xFFFF_FFFF, 1, "btc dword ptr [rdi], 40");
    });
}

fn unary(r: &mut Report) {
    with_register(r, |r, at| {
        both!(r, at, "inc", 0x7FFF_FFFF, STATUS, "inc dword ptr [rdi]");
        both!(r, at, "dec", 0, STATUS, "lock dec dword ptr [rdi]");
        both!(r, at, "not", 0x1234_5678, STATUS, "not dword ptr [rdi]");
        both!(r, at, "neg", 0x8000_0000, STATUS, "neg dword ptr [rdi]");
        both!(r, at, "not-all", 0, STATUS, "lock not dword ptr [rdi]");
    });
}

/// PUSH from a device, POP to one, and a stack on another node.
fn stack(r: &mut Report) {
    let at = ecam();
    let whole: u64 = paging::peek(at);
    let top = paging::map(0, remote::page(8), P | W) + 4096;
    r.hold("sent", remote::send(remote::page(8), 1));
    let (value, moved): (u64, u64);
    // SAFETY: as in `attempt!`; the stack is memory of the tests.
    let fault = unsafe {
        core::arch::asm!(
            "lea {recover}, [rip + 2f]",
            "mov qword ptr [rip + {place}], {recover}",
            "mov {kept}, rsp",
            "mov rsp, {top}",
            "push qword ptr [rdi]",
            "mov {moved}, rsp",
            "pop {value}",
            "2:",
            "mov rsp, {kept}",
            recover = out(reg) _,
            place = sym trap::RECOVER,
            kept = out(reg) _,
            top = in(reg) top,
            moved = out(reg) moved,
            value = out(reg) value,
            in("rdi") at,
        );
        trap::outcome()
    };
    r.want("push", (fault, top.wrapping_sub(moved)), (None, 8));
    r.hold("value", value == whole);
}

/// All widths and alignments of a read are parts of the same bytes.
fn widths(r: &mut Report) {
    let at = ecam();
    let bytes: [u8; 16] = core::array::from_fn(|i| paging::peek(at + i as u64));
    let whole = u128::from_le_bytes(bytes);
    let mut right = true;
    for offset in 0..8 {
        let shifted = whole >> (8 * offset);
        right &= paging::peek::<u8>(at + offset) == shifted as u8;
        right &= peek_16(at + offset) == shifted as u16;
        right &= peek_32(at + offset) == shifted as u32;
        right &= peek_64(at + offset) == shifted as u64;
    }
    r.want("all", right, true);
    let mut kept = 0x1111_2222_3333_4444u64;
    let fault = attempt!(["mov al, [rdi]", "mov ah, [rdi + 1]"] in("rdi") at, inout("rax") kept);
    let wanted = 0x1111_2222_3333_0000 | u64::from(whole as u16);
    r.want("halves", (fault, kept == wanted), (None, true));
}

fn peek_16(address: u64) -> u16 {
    let value;
    let _ = attempt!(["mov {v:x}, [{a}]"] a = in(reg) address, v = out(reg) value);
    value
}

fn peek_32(address: u64) -> u32 {
    let value;
    let _ = attempt!(["mov {v:e}, [{a}]"] a = in(reg) address, v = out(reg) value);
    value
}

fn peek_64(address: u64) -> u64 {
    let value;
    let _ = attempt!(["mov {v}, [{a}]"] a = in(reg) address, v = out(reg) value);
    value
}

fn strings(r: &mut Report) {
    let at = ecam();
    let bytes: [u8; 16] = core::array::from_fn(|i| paging::peek(at + i as u64));
    // To memory over a border, the second page away.
    let border = paging::map(0, paging::arena(0), P | W) + 4096;
    paging::map(1, remote::page(8), P | W);
    for (width, count) in [(1u64, 16u64), (2, 8), (4, 4), (8, 2)] {
        paging::fill(border, 0);
        r.hold("sent", remote::send(remote::page(8), 1));
        let start = border - 7;
        let (mut rsi, mut rdi, mut rcx) = (at, start, count);
        let fault = match width {
            1 => attempt!(["rep movsb"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx),
            2 => attempt!(["rep movsw"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx),
            4 => attempt!(["rep movsd"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx),
            _ => attempt!(["rep movsq"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx),
        };
        let end = (fault, rsi - at, rdi - start, rcx);
        r.want("movs", (width, end), (width, (None, 16, 16, 0)));
        r.hold("bytes", paging::peek::<[u8; 16]>(start) == bytes);
    }
    let (mut rsi, mut rax) = (at + 8, u64::MAX);
    let fault = attempt!(["std", "lodsw", "cld"] inout("rsi") rsi, inout("rax") rax);
    let low = u64::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    r.want("lods", (fault, rsi - at, rax == u64::MAX << 16 | low), (None, 6, true));
    with_register(r, |r, at| {
        let (mut rdi, mut rcx) = (at, 1u64);
        let fault = attempt!(["rep stosd"] inout("rdi") rdi, inout("rcx") rcx,
            in("eax") 0x1357_9BDF);
        let value: u32 = paging::peek(at);
        r.want("stos", (fault, rdi - at, rcx, value), (None, 4, 0, 0x1357_9BDF));
        paging::poke(ram(), 0x2468_ACE0u32);
        let (mut rsi, mut rdi) = (ram(), at);
        let fault = attempt!(["movsd"] inout("rsi") rsi, inout("rdi") rdi);
        let value: u32 = paging::peek(at);
        r.want("movs-to", (fault, rsi - ram(), rdi - at, value), (None, 4, 4, 0x2468_ACE0));
    });
}

fn string_scans(r: &mut Report) {
    let at = ecam();
    let bytes: [u8; 16] = core::array::from_fn(|i| paging::peek(at + i as u64));
    paging::put(ram(), &bytes);
    paging::poke(ram() + 9, !bytes[9]);
    let run = |first: u64, second: u64| {
        let (mut rsi, mut rdi, mut rcx) = (first, second, 16u64);
        let flags: u64;
        let fault = attempt!(["repe cmpsb", "pushfq", "pop {f}"] inout("rsi") rsi,
            inout("rdi") rdi, inout("rcx") rcx, f = lateout(reg) flags);
        (fault, rsi - first, rdi - second, rcx, flags >> 6 & 1)
    };
    r.want("cmps", run(at, ram()), (None, 10, 10, 6, 0));
    r.want("cmps-same", run(at, at), (None, 16, 16, 0, 1));
    let (mut rdi, mut rcx) = (at, 16u64);
    let fault = attempt!(["repne scasb"] inout("rdi") rdi, inout("rcx") rcx, in("al") bytes[1]);
    // The first byte that is equal: the second, or one before it.
    let wanted = if bytes[0] == bytes[1] { 1 } else { 2 };
    r.hold("scas", fault.is_none() && rdi - at == wanted && rcx == 16 - wanted);
}

/// An element whose other end is not there: what came before is done, and
/// registers and CR2 tell how far.
fn string_faults(r: &mut Report) {
    let at = ecam();
    let border = paging::map(0, paging::arena(0), P | W) + 4096;
    paging::unmap(1);
    let (mut rsi, mut rdi, mut rcx) = (at, border - 8, 4u64);
    let fault = attempt!(["rep movsd"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx);
    r.want("to", (fault, rsi - at, border - rdi, rcx), (page(2, border), 8, 0, 2));
    let (mut rsi, mut rdi, mut rcx) = (at, border - 2, 4u64);
    let fault = attempt!(["rep movsd"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx);
    r.want("to-across", (fault, rsi - at, border - rdi, rcx), (page(2, border), 0, 2, 4));
    with_register(r, |r, at| {
        let (mut rsi, mut rdi, mut rcx) = (border - 2, at, 1u64);
        let fault = attempt!(["rep movsd"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx);
        r.want("from", (fault, border - rsi, rdi - at, rcx), (page(0, border), 2, 0, 1));
    });
    // Device memory next to a page that is not there: STOS and LODS across.
    let entry = paging::map(2, at, P | W) + 4096;
    paging::unmap(3);
    let (mut rdi, mut rcx) = (entry - 4, 2u64);
    let fault = attempt!(["rep stosq"] inout("rdi") rdi, inout("rcx") rcx, in("rax") 0);
    r.want("device-to", (fault, entry - rdi, rcx), (page(2, entry), 4, 2));
    let mut rsi = entry - 2;
    let fault = attempt!(["lodsd"] inout("rsi") rsi, inout("rax") 0u64 => _);
    r.want("device-from", (fault, entry - rsi), (page(0, entry), 2));
}

/// Operands that fault while the hypervisor emulates.
fn faults(r: &mut Report) {
    let at = ecam();
    // The mapping is read-only.
    let place = paging::map(2, at, P);
    let wp =
        |work: &dyn Fn() -> Option<trap::Fault>| paging::with_control((1 << 16, 0), (0, 0), work);
    r.want("read", attempt!(["mov eax, [rdi]"] in("rdi") place, out("eax") _), None);
    let fault = wp(&|| attempt!(["mov [rdi], eax"] in("rdi") place, in("eax") 0));
    r.want("write", fault, page(3, place));
    let fault = wp(&|| attempt!(["or [rdi], eax"] in("rdi") place, in("eax") 0));
    r.want("modify", fault, page(3, place));
    // The stack is not there.
    let border = paging::unmap(4);
    let fault: Option<trap::Fault>;
    // SAFETY: as in `attempt!`; RSP is put right at label 2.
    unsafe {
        core::arch::asm!(
            "lea {recover}, [rip + 2f]",
            "mov qword ptr [rip + {place}], {recover}",
            "mov {kept}, rsp",
            "mov rsp, {top}",
            "push qword ptr [rdi]",
            "2:",
            "mov rsp, {kept}",
            recover = out(reg) _,
            place = sym trap::RECOVER,
            kept = out(reg) _,
            top = in(reg) border + 64,
            in("rdi") at,
        );
        fault = trap::outcome();
    }
    // The exception cannot be delivered on that stack.
    r.want("push", fault, trap::coded(8, 0));
}

/// An operand half in memory, half in a device.
fn borders(r: &mut Report) {
    let at = ecam();
    let id: u32 = paging::peek(at);
    let border = paging::map(0, remote::page(8), P | W) + 4096;
    paging::map(1, at, P | W);
    paging::poke(border - 2, 0x77u8);
    paging::poke(border - 1, 0x66u8);
    r.hold("sent", remote::send(remote::page(8), 1));
    let value = peek_32(border - 2);
    r.hold("memory first", value == id << 16 | 0x6677);
    r.hold("sent", remote::send(remote::page(8), 1));
    let fault = attempt!(["mov [rdi], eax"] in("rdi") border - 2, in("eax") 0x1111_2233);
    r.want("write", (fault, paging::peek::<[u8; 2]>(border - 2)), (None, [0x33, 0x22]));
    // The last bytes of configuration space, then memory.
    let border = paging::map(0, at, P | W) + 4096;
    paging::map(1, remote::page(8), P | W);
    paging::poke(border, 0x55u8);
    let last: [u8; 2] = [paging::peek(border - 2), paging::peek(border - 1)];
    r.hold("sent", remote::send(remote::page(8), 1));
    let value = peek_32(border - 2).to_le_bytes();
    r.hold("device first", value[..3] == [last[0], last[1], 0x55]);
    // Both pages devices.
    paging::map(1, at, P | W);
    let value = peek_32(border - 2).to_le_bytes();
    let id = id.to_le_bytes();
    r.hold("devices", value == [last[0], last[1], id[0], id[1]]);
}

/// An access that the machine does not emulate gives a fault each time, and
/// never ends a guest that handles it.
fn persistent(r: &mut Report) {
    if !remote::is_pangaea() {
        return r.skip("nothing is left out");
    }
    let mut same = true;
    for _ in 0..10_100 {
        same &= attempt!(["fnsave [rdi]"] in("rdi") 0xD000_0000u64) == trap::PROTECTION;
    }
    r.want("faults", same, true);
}
