//! Real mode, protected mode with and without paging, and back to long mode:
//! the trip of `modes.s`.

use crate::report::Report;
use crate::{Test, paging, remote, tables, trap};
use core::arch::asm;
use paging::{LARGE, P, W};

/// The tests.
pub(crate) const TESTS: &[Test] = &[("mode.trip", trip), ("mode.again", again)];

/// Where the trip's code, its results and its tables are (`modes.s`).
const AT: u64 = 0x8000;
const SEEN: u64 = 0x9000;
const PAE_ROOT: u64 = 0xA000;
const LEGACY_ROOT: u64 = 0xB000;
/// EFER.LME and LMA.
const LME: u32 = 1 << 8;
const LMA: u32 = 1 << 10;

unsafe extern "C" {
    static modes_begin: u8;
    static modes_end: u8;
}

/// Copies the code and makes the tables of both legacy modes.
fn prepare() {
    let begin = &raw const modes_begin as u64;
    let end = &raw const modes_end as u64;
    for i in 0..end - begin {
        paging::poke(AT + i, paging::peek::<u8>(begin + i));
    }
    for i in (0..0x200).step_by(4) {
        paging::poke(SEEN + i, 0xEEEE_EEEEu32);
    }
    // The four directories of long mode serve PAE as well.
    for i in 0..4 {
        let entry = paging::get(paging::pointer_entry(i as usize));
        paging::poke(PAE_ROOT + 8 * i, entry & !0xFFF | P);
    }
    // 4 MiB pages to themselves, but 0x40000000 to the first.
    for i in 0..1024u32 {
        let base = if i == 0x100 { 0 } else { i << 22 };
        paging::poke(LEGACY_ROOT + 4 * u64::from(i), base | (LARGE | W | P) as u32);
    }
}

/// Goes there and comes back.
fn travel() {
    // SAFETY: the code keeps what a call keeps; the tables are loaded anew.
    unsafe {
        asm!(
            "call {at}",
            at = in(reg) AT,
            in("rdi") paging::root(),
            in("rsi") PAE_ROOT,
            in("rdx") LEGACY_ROOT,
            clobber_abi("sysv64"),
        );
    }
    tables::reload();
    trap::reload();
}

fn seen(offset: u64) -> u32 {
    paging::peek(SEEN + offset)
}

fn trip(r: &mut Report) {
    prepare();
    travel();
    check(r);
}

fn check(r: &mut Report) {
    let modes = [0, 4, 8, 52, 84, 88].map(|at| seen(at) & (LME | LMA));
    r.want("efer", modes, [LME | LMA, LME, 0, 0, 0, LME | LMA]);
    let features = core::arch::x86_64::__cpuid(1).edx;
    r.want("cpuid", [12, 64].map(|at| seen(at) == features), [true; 2]);
    r.want("in", [16, 32, 44].map(seen), [u32::MAX; 3]);
    r.want("device", [20, 36, 48].map(seen), [0x12; 3]);
    r.want("insb", (seen(24), seen(28)), (u32::MAX, 0));
    r.want("alias", seen(40), 0x12);
    r.want("real-cr0", seen(56) & 0x8000_0001, 0);
    r.want("real-int", seen(60), 0x1235);
    r.want("real-in", seen(68) & 0xFFFF, 0xFFFF);
    r.want("real-insb", (seen(72), seen(76) & 0xFFFF), (0x00FF_FFFF, 0));
    r.want("real-divide", seen(80), 0xD1);
}

/// Once more, with the code's page away on another node if it can be: the
/// first megabyte is at home here, and sent off.
fn again(r: &mut Report) {
    prepare();
    for round in 0..3 {
        r.hold("sent", remote::send(AT, 4));
        travel();
        r.want("round", (round, seen(60), seen(80)), (round, 0x1235, 0xD1));
    }
    check(r);
}
