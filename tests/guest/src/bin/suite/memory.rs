//! Page sizes, accessed and dirty flags, global pages, and supervisor-mode
//! protection.

use crate::report::{Emulator::Tcg, Report};
use crate::trap::{self, Fault, attempt, page};
use crate::{Test, paging, remote};
use paging::{A, D, G, LARGE, P, U, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("memory.flags", flags),
    ("memory.flags-levels", flags_levels),
    ("memory.flags-device", flags_device),
    ("memory.large", large),
    ("memory.huge", huge),
    ("memory.levels", levels),
    ("memory.stale", stale),
    ("memory.global", global),
    ("memory.remote-tables", remote_tables),
    ("memory.smep", smep),
    ("memory.smap", smap),
    ("memory.locked", locked),
    ("memory.wide", wide),
    ("memory.across", across),
];

fn read(address: u64) -> Option<Fault> {
    attempt!(["mov {v}, [{a}]"] a = in(reg) address, v = out(reg) _)
}

fn write(address: u64) -> Option<Fault> {
    attempt!(["mov byte ptr [{a}], 1"] a = in(reg) address)
}

/// A and D of an entry.
fn marks(entry: *mut u64) -> u64 {
    paging::get(entry) & (A | D)
}

fn flags(r: &mut Report) {
    let entry = paging::entry_of(3);
    let at = paging::map(3, remote::page(10), P | W);
    r.hold("sent", remote::send(remote::page(10), 1));
    r.want("none", marks(entry), 0);
    r.want("read", (read(at), marks(entry)), (None, A));
    r.want("write", (write(at), marks(entry)), (None, A | D));
    paging::map(3, remote::page(10), P | W);
    let fault = attempt!(["lock cmpxchg [{a}], ecx"] a = in(reg) at, in("ecx") 0,
        inout("eax") -1 => _);
    r.want("modify", (fault, marks(entry)), (None, A | D));
    // A fault sets nothing (AMD APM volume 2, 5.4.2).
    paging::map(3, remote::page(10), P);
    let fault = paging::with_control((1 << 16, 0), (0, 0), || write(at));
    let seen = (fault, marks(entry) & D);
    r.want("refused", seen, (page(3, at), 0));
}

/// Upper levels get A only.
fn flags_levels(r: &mut Report) {
    let at = paging::map(3, paging::arena(0), P | W);
    let entry = paging::directory_entry(0);
    paging::set(entry, paging::get(entry) & !(A | D));
    paging::reload();
    r.want("read", (read(at), marks(entry)), (None, A));
    r.want("write", (write(at), marks(entry)), (None, A));
    let root = paging::root_entry(0);
    paging::set(root, paging::get(root) & !A);
    paging::reload();
    r.want("root", (write(at), marks(root) & A), (None, A));
}

/// An emulated access marks its pages like any other.
fn flags_device(r: &mut Report) {
    let entry = paging::entry_of(3);
    let at = paging::map(3, 0xFEC0_0000, P | W);
    let fault = attempt!(["mov {v:e}, [{a}]"] a = in(reg) at, v = out(reg) _);
    r.want("read", (fault, marks(entry)), (None, A));
    let fault = attempt!(["mov dword ptr [{a}], 0"] a = in(reg) at);
    r.want("write", (fault, marks(entry)), (None, A | D));
    paging::unmap(3);
}

/// Pages of 2 MiB: over the same memory as 4 KiB ones, with flags of their own.
fn large(r: &mut Report) {
    let entry = paging::directory_entry(1);
    let base = remote::page(11) & !((2 << 20) - 1);
    let offset = remote::page(11) - base;
    paging::set(entry, base | LARGE | W | P);
    let at = paging::LARGE_WINDOW + offset;
    paging::flush(at);
    paging::poke(remote::page(11), 0x1234_5678_u32);
    r.hold("sent", remote::send(remote::page(11), 1));
    r.want("read", (paging::peek::<u32>(at), marks(entry)), (0x1234_5678, A));
    r.want("write", (write(at), marks(entry)), (None, A | D));
    r.want("same", paging::peek::<u8>(remote::page(11)), 1);
    paging::set(entry, base | LARGE | P);
    paging::flush(at);
    let fault = paging::with_control((1 << 16, 0), (0, 0), || write(at));
    r.want("read-only", fault, page(3, at));
    // Bit 13 of a large entry is reserved.
    paging::set(entry, base | 1 << 13 | LARGE | W | P);
    paging::flush(at);
    let why = "the page counts as absent where a reserved bit is set";
    r.except("reserved", read(at), page(9, at), (Tcg, page(8, at)), why);
    paging::set(entry, 0);
    paging::flush(at);
    r.want("absent", read(at), page(0, at));
}

/// Pages of 1 GiB.
fn huge(r: &mut Report) {
    if core::arch::x86_64::__cpuid(0x8000_0001).edx >> 26 & 1 == 0 {
        return r.skip("no 1 GiB pages");
    }
    let entry = paging::pointer_entry(4);
    paging::set(entry, LARGE | W | P);
    let at = paging::HUGE_WINDOW + remote::page(11);
    paging::poke(remote::page(11), 0x8765_4321_u32);
    r.hold("sent", remote::send(remote::page(11), 1));
    r.want("read", (paging::peek::<u32>(at), marks(entry)), (0x8765_4321, A));
    r.want("write", (write(at), marks(entry)), (None, A | D));
    r.want("same", paging::peek::<u8>(remote::page(11)), 1);
    paging::set(entry, 0);
    paging::reload();
    // Where the page lies differs from machine to machine.
    r.want("absent", read(paging::HUGE_WINDOW), page(0, paging::HUGE_WINDOW));
}

/// No fifth level: an address of 57 bits is not canonical.
fn levels(r: &mut Report) {
    let offered = core::arch::x86_64::__cpuid_count(7, 0).ecx >> 16 & 1;
    r.hold("LA57 and the linear bits agree", {
        let bits = core::arch::x86_64::__cpuid(0x8000_0008).eax >> 8 & 0xFF;
        (offered == 1) == (bits == 57)
    });
    r.want("la57-clear", paging::cr4() >> 12 & 1, 0);
    r.want("57-bits", read(1 << 50), trap::PROTECTION);
    r.want("48-bits", read(1 << 46), page(0, 1 << 46));
    r.want("top", read(0xFFFF_8000_0000_0000), page(0, 0xFFFF_8000_0000_0000));
}

/// A translation that was changed is new after INVLPG, and after CR3.
fn stale(r: &mut Report) {
    let at = paging::map(3, paging::arena(0), P | W);
    paging::poke(paging::arena(0), 0xAAu8);
    paging::poke(remote::page(12), 0xBBu8);
    r.want("first", paging::peek::<u8>(at), 0xAA);
    r.hold("sent", remote::send(remote::page(12), 1));
    paging::set(paging::entry_of(3), remote::page(12) | P | W);
    paging::flush(at);
    r.want("invlpg", paging::peek::<u8>(at), 0xBB);
    paging::set(paging::entry_of(3), paging::arena(0) | P | W);
    paging::reload();
    r.want("cr3", paging::peek::<u8>(at), 0xAA);
    // An absent page that becomes present needs no flush.
    paging::unmap(3);
    r.want("absent", read(at), page(0, at));
    paging::set(paging::entry_of(3), remote::page(12) | P | W);
    r.want("present", paging::peek::<u8>(at), 0xBB);
    // Nor does one that is read-only and becomes writable, after its fault.
    paging::map(3, remote::page(12), P);
    let fault = paging::with_control((1 << 16, 0), (0, 0), || {
        let first = write(at);
        paging::set(paging::entry_of(3), remote::page(12) | P | W);
        (first, write(at))
    });
    r.want("writable", fault, (page(3, at), None));
}

/// INVLPG drops global pages too, and so does clearing CR4.PGE.
fn global(r: &mut Report) {
    paging::poke(paging::arena(0), 0xAAu8);
    paging::poke(paging::arena(2), 0xCCu8);
    paging::with_control((0, 0), (1 << 7, 0), || {
        let at = paging::map(3, paging::arena(0), P | W | G);
        r.want("first", paging::peek::<u8>(at), 0xAA);
        paging::set(paging::entry_of(3), paging::arena(2) | P | W | G);
        paging::flush(at);
        r.want("invlpg", paging::peek::<u8>(at), 0xCC);
        paging::set(paging::entry_of(3), paging::arena(0) | P | W | G);
        paging::with_control((0, 0), (0, 1 << 7), || ());
        r.want("pge", paging::peek::<u8>(at), 0xAA);
        paging::map(3, paging::arena(0), P | W);
    });
}

/// Page tables that are away on another node themselves.
fn remote_tables(r: &mut Report) {
    let entry = paging::directory_entry(1);
    let table = remote::page(13);
    for i in 0..512 {
        paging::poke(table + 8 * i, 0u64);
    }
    paging::poke(table + 8 * 5, remote::page(14) | P | W);
    paging::poke(remote::page(14), 0x5Au8);
    paging::set(entry, table | P | W);
    let at = paging::LARGE_WINDOW + 5 * 4096;
    for (what, write_too) in [("read", false), ("write", true)] {
        paging::flush(at);
        r.hold("sent", remote::send(remote::page(13), 2));
        let fault = if write_too { write(at) } else { read(at) };
        let mark = paging::peek::<u64>(table + 8 * 5) & (A | D);
        r.want(what, (fault, mark), (None, if write_too { A | D } else { A }));
    }
    let absent = paging::LARGE_WINDOW + 6 * 4096;
    r.hold("sent", remote::send(remote::page(13), 1));
    r.want("absent", read(absent), page(0, absent));
    paging::set(entry, 0);
    paging::flush(at);
}

fn smep(r: &mut Report) {
    if core::arch::x86_64::__cpuid_count(7, 0).ebx >> 7 & 1 == 0 {
        return r.skip("no SMEP");
    }
    let at = paging::map(3, paging::arena(0), P | W | U);
    paging::put(at, &[0xC3]);
    let jump = |cr4: (u64, u64)| paging::with_control((0, 0), cr4, || enter(at));
    r.want("off", jump((0, 1 << 20)), None);
    r.want("on", jump((1 << 20, 0)), page(0x11, at));
    // Reading it is no fetch.
    r.want("read", paging::with_control((0, 0), (1 << 20, 0), || read(at)), None);
    paging::map(3, paging::arena(0), P | W);
    r.want("supervisor", jump((1 << 20, 0)), None);
}

/// Calls an address; the stack is put right whatever comes.
fn enter(address: u64) -> Option<Fault> {
    let kept: u64;
    // SAFETY: as in `attempt!`; RSP is put right at label 2.
    unsafe {
        core::arch::asm!(
            "lea {recover}, [rip + 2f]",
            "mov qword ptr [rip + {place}], {recover}",
            "mov {kept}, rsp",
            "call {address}",
            "2:",
            "mov rsp, {kept}",
            recover = out(reg) _,
            kept = out(reg) kept,
            address = in(reg) address,
            place = sym trap::RECOVER,
        );
    }
    let _ = kept;
    trap::outcome()
}

fn smap(r: &mut Report) {
    if core::arch::x86_64::__cpuid_count(7, 0).ebx >> 20 & 1 == 0 {
        return r.skip("no SMAP");
    }
    let at = paging::map(3, paging::arena(0), P | W | U);
    paging::with_control((0, 0), (1 << 21, 0), || {
        r.want("on", (read(at), write(at)), (page(1, at), page(3, at)));
        let open = attempt!(["stac", "mov {v}, [{a}]", "mov [{a}], {v}", "clac"] a = in(reg) at,
            v = out(reg) _);
        r.want("stac", open, None);
        r.want("clac", read(at), page(1, at));
        // An emulated access is checked the same way.
        let to = paging::map(4, 0xFEC0_0000, P | W | U);
        let device = attempt!(["mov {v:e}, [{a}]"] a = in(reg) to, v = out(reg) _);
        r.want("device", device, page(1, to));
        // So is a string's memory.
        let mut rcx = 1u64;
        let string = attempt!(["rep insb"] inout("rdi") at => _, inout("rcx") rcx, in("dx") 0xE0);
        r.want("string", (string, rcx), (page(3, at), 1));
    });
    paging::unmap(4);
}

/// Locked operations on pages that are away.
fn locked(r: &mut Report) {
    let at = remote::page(15) + 0x100;
    let away = || remote::send(remote::page(15), 1);
    paging::poke(at, 5u64);
    let mut sent = away();
    let mut value = 7u64;
    let _ = attempt!(["lock xadd [{a}], {v}"] a = in(reg) at, v = inout(reg) value);
    r.want("xadd", (value, paging::peek::<u64>(at)), (5, 12));
    sent &= away();
    let mut old = 12u64;
    let _ = attempt!(["lock cmpxchg [{a}], {v}"] a = in(reg) at, v = in(reg) 99u64,
        inout("rax") old);
    r.want("cmpxchg", (old, paging::peek::<u64>(at)), (12, 99));
    sent &= away();
    old = 1;
    let _ = attempt!(["lock cmpxchg [{a}], {v}"] a = in(reg) at, v = in(reg) 3u64,
        inout("rax") old);
    r.want("cmpxchg-not", (old, paging::peek::<u64>(at)), (99, 99));
    sent &= away();
    let _ = attempt!(["lock bts qword ptr [{a}], 60"] a = in(reg) at);
    r.want("bts", paging::peek::<u64>(at), 99 | 1 << 60);
    sent &= away();
    value = 0x42;
    let _ = attempt!(["xchg [{a}], {v}"] a = in(reg) at, v = inout(reg) value);
    r.want("xchg", (value, paging::peek::<u64>(at)), (99 | 1 << 60, 0x42));
    // Across two pages that are both away.
    let border = remote::page(16);
    paging::poke(border - 4, 0xFFFF_FFFFu32);
    paging::poke(border, 0u32);
    sent &= remote::send(remote::page(15), 2);
    let fault = attempt!(["lock inc qword ptr [{a}]"] a = in(reg) border - 4);
    let halves = (paging::peek::<u32>(border - 4), paging::peek::<u32>(border));
    r.want("split", (fault, halves), (None, (0, 1)));
    r.hold("sent", sent);
}

/// CMPXCHG16B.
fn wide(r: &mut Report) {
    if core::arch::x86_64::__cpuid(1).ecx >> 13 & 1 == 0 {
        return r.skip("no CMPXCHG16B");
    }
    let at = remote::page(15) + 0x200;
    paging::poke(at, 1u64);
    paging::poke(at + 8, 2u64);
    let exchange = |at: u64, low: u64, high: u64| {
        let (mut rax, mut rdx) = (low, high);
        let flags: u64;
        let fault = attempt!(["xchg {b}, rbx", "lock cmpxchg16b [rsi]", "xchg {b}, rbx", "pushfq",
            "pop {f}"] b = inout(reg) 3u64 => _, f = lateout(reg) flags, in("rsi") at,
            inout("rax") rax, inout("rdx") rdx, in("rcx") 4u64);
        (fault, rax, rdx, flags >> 6 & 1)
    };
    r.hold("sent", remote::send(remote::page(15), 1));
    r.want("not", exchange(at, 9, 9), (None, 1, 2, 0));
    r.hold("sent", remote::send(remote::page(15), 1));
    r.want("equal", exchange(at, 1, 2), (None, 1, 2, 1));
    r.want("memory", (paging::peek::<u64>(at), paging::peek::<u64>(at + 8)), (3, 4));
    let fault = attempt!(["lock cmpxchg16b [rsi]"] in("rsi") at + 8, inout("rax") 0u64 => _,
        inout("rdx") 0u64 => _, in("rcx") 0u64);
    r.except("unaligned", fault, trap::PROTECTION, (Tcg, None), "any address is taken");
}

/// Instructions that need several pages at once, all of them away.
fn across(r: &mut Report) {
    let (one, two) = (remote::page(17), remote::page(19));
    let away = || remote::send(remote::page(17), 4);
    // A string from border to border.
    for i in 0..16 {
        paging::poke::<u8>(one + 4088 + i, i as u8 + 1);
    }
    paging::fill(two, 0);
    paging::fill(two + 4096, 0);
    let mut sent = away();
    let (mut rsi, mut rdi, mut rcx) = (one + 4088, two + 4090, 2u64);
    let fault = attempt!(["rep movsq"] inout("rsi") rsi, inout("rdi") rdi, inout("rcx") rcx);
    r.want("movs", (fault, rsi - one, rdi - two, rcx), (None, 4104, 4106, 0));
    let same = (0..16).all(|i| paging::peek::<u8>(two + 4090 + i) == i as u8 + 1);
    r.want("bytes", same, true);
    // A call through a pointer over a border, with a stack over another, to
    // code over a third.
    let code = remote::page(18) - 2;
    // MOV EAX, 0x11223344; RET.
    paging::put(code, &[0xB8, 0x44, 0x33, 0x22, 0x11, 0xC3]);
    let pointer = remote::page(20) - 4;
    paging::poke(pointer, code);
    sent &= away();
    let (value, kept): (u64, u64);
    // SAFETY: as in `attempt!`; RSP is put right at label 2.
    let fault = unsafe {
        core::arch::asm!(
            "lea {recover}, [rip + 2f]",
            "mov qword ptr [rip + {place}], {recover}",
            "mov {kept}, rsp",
            "mov rsp, {stack}",
            "call qword ptr [{pointer}]",
            "2:",
            "mov rsp, {kept}",
            recover = out(reg) _,
            kept = out(reg) kept,
            stack = in(reg) remote::page(21) + 4,
            pointer = in(reg) pointer,
            place = sym trap::RECOVER,
            out("rax") value,
        );
        trap::outcome()
    };
    let _ = kept;
    r.want("call", (fault, value), (None, 0x1122_3344));
    // A far pointer over a border: LSS, and a far return.
    let far = remote::page(20) - 3;
    paging::poke(far, 0x1234_5678u32);
    paging::poke(far + 4, crate::tables::DATA);
    sent &= away();
    let offset: u64;
    let fault = attempt!(["lfs {v:e}, [{a}]"] a = in(reg) far, v = out(reg) offset);
    r.want("lfs", (fault, offset), (None, 0x1234_5678));
    let _ = attempt!(["mov fs, {z:e}"] z = in(reg) 0);
    // A descriptor table that is away: LGDT, and a segment loaded by it.
    let table = remote::page(17);
    let old = crate::tables::gdt();
    for i in 0..u64::from(old.limit + 1) / 8 {
        paging::poke(table + 8 * i, paging::peek::<u64>(old.base + 8 * i));
    }
    sent &= away();
    let new = guests::trap::Pointer { base: table, ..old };
    let fault = attempt!(["lgdt [{p}]", "mov ds, {d:e}"] p = in(reg) &new,
        d = in(reg) u32::from(crate::tables::DATA));
    crate::tables::reload();
    r.want("gdt", fault, None);
    r.hold("sent", sent);
}
