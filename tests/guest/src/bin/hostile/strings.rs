//! String I/O to bad addresses.

use crate::trap::{Fault, attempt};
use crate::{Verdict, trap};

/// A port that nobody listens at.
const NOBODY: u16 = 0xE0;
/// Not mapped: the loader maps the first 4 GiB.
const UNMAPPED: u64 = 0x40_0000_0000;
/// Not canonical.
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// Last bytes of what is mapped; behind them nothing is.
const EDGE: u64 = (4 << 30) - 16;
/// Device memory that nobody answers at, and an APIC.
const DEVICES: [u64; 3] = [0xD000_0000, 0xFEC0_0010, 0xFFFF_F000];
/// RAM that this program does not use.
const RAM: u64 = 12 << 20;

/// INS to an address, `count` times.
fn input(address: u64, count: u64, backwards: bool) -> Option<Fault> {
    if backwards {
        return attempt!(["std", "rep insd", "cld"] inout("rdi") address => _,
            inout("rcx") count => _, in("dx") NOBODY);
    }
    attempt!(["rep insb"] inout("rdi") address => _, inout("rcx") count => _, in("dx") NOBODY)
}

/// OUTS from an address, `count` times.
fn output(address: u64, count: u64, wide: bool) -> Option<Fault> {
    if wide {
        return attempt!(["rep outsd"] inout("rsi") address => _, inout("rcx") count => _,
            in("dx") NOBODY);
    }
    attempt!(["rep outsb"] inout("rsi") address => _, inout("rcx") count => _, in("dx") NOBODY)
}

/// All kinds of strings at all kinds of addresses.
pub(crate) fn string_io() -> Verdict {
    let is = |fault: Option<Fault>, vector| fault.is_some_and(|f| f.vector == vector);
    for count in [1, 7, 4096, u64::MAX] {
        if !is(input(UNMAPPED, count, false), 14) || !is(output(UNMAPPED, count, false), 14) {
            return Err("an unmapped address raised no #PF");
        }
        let bad = [input(NOT_CANONICAL, count, false), output(NOT_CANONICAL, count, true)];
        if !bad.into_iter().all(|fault| is(fault, 13)) {
            return Err("an address that is not canonical raised no #GP");
        }
        for address in DEVICES {
            // Any answer will do; the rest is checked by who runs this.
            let count = count.min(4096);
            let _ = input(address, count, false);
            let _ = input(address, count, true);
            let _ = output(address, count, false);
            let _ = output(address, count, true);
        }
    }
    let edge = [output(EDGE, 100, false), output(EDGE, 100, true)];
    if !edge.into_iter().all(|fault| is(fault, 14)) {
        guests::println!("{edge:?}");
        return Err("a string that runs off what is mapped raised no #PF");
    }
    if input(RAM, 0, false).is_some() || output(UNMAPPED, 0, false).is_some() {
        return Err("a string of no length has faulted");
    }
    // Across many pages that other nodes may hold, both ways.
    for (address, count) in [(RAM + 4090, 40_000), (RAM + 3, 4096 * 3)] {
        if input(address, count, false).is_some() || output(address, count, false).is_some() {
            return Err("a string in memory has faulted");
        }
    }
    wrapped();
    let (attempts, _) = trap::counts();
    if attempts < 40 { Err("attempts are missing") } else { Ok(()) }
}

/// Addresses of 32 bits that wrap around, and segments that are odd.
fn wrapped() {
    for count in [3u64, 100] {
        attempt!(["rep insb byte ptr es:[edi], dx"] inout("rdi") 0xFFFF_FFFEu64 => _,
            inout("rcx") count => _, in("dx") NOBODY);
        attempt!(["rep outsb dx, byte ptr gs:[rsi]"] inout("rsi") RAM => _,
            inout("rcx") count => _, in("dx") NOBODY);
        attempt!(["rep outsw dx, word ptr fs:[esi]"] inout("rsi") RAM => _,
            inout("rcx") count => _, in("dx") NOBODY);
    }
}
