//! Control registers: every bit, and nonsense.

use crate::random::Random;
use crate::trap::{PROTECTION, UNDEFINED, attempt};
use crate::{Verdict, msrs};

/// EFER.
const EFER: u32 = 0xC000_0080;
/// CR4.OSXSAVE.
const OSXSAVE: u64 = 1 << 18;
/// Bits of CR0 and CR4 that every processor has and that can be changed while
/// this program runs. The others are [`reserved`]'s.
const CR0_KNOWN: u64 = 0x4005_003E;
const CR4_KNOWN: u64 = 0x0004_07DF;
/// CR4.PAE.
const PAE: u64 = 1 << 5;
/// CR4.LA57.
const LA57: u64 = 1 << 12;
/// CR0.PE.
const PE: u64 = 1;
/// CR0.NW, which without CD is illegal.
const NW: u64 = 1 << 29;
/// CR0.PG.
const PG: u64 = 1 << 31;

/// Writes a control register and puts the old value back in one go, so that
/// no code runs under the new one.
macro_rules! flip {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        attempt!([
            concat!("mov {old}, ", $register),
            concat!("mov ", $register, ", {new}"),
            concat!("mov ", $register, ", {old}"),
        ] old = out(reg) _, new = in(reg) value)
    }};
}

/// Reads a control register.
macro_rules! current {
    ($register:literal) => {{
        let value: u64;
        attempt!([concat!("mov {value}, ", $register)] value = out(reg) value);
        value
    }};
}

/// CR0, CR3, CR4, CR8, EFER and the debug registers; but for the bits that
/// hold up long mode itself, which are [`unpaged`] and its neighbours'.
pub(crate) fn registers() -> Verdict {
    let (cr0, cr3, cr4) = (current!("cr0"), current!("cr3"), current!("cr4"));
    for bit in (0..64).map(|b| 1 << b) {
        if bit & CR0_KNOWN != 0 {
            let _ = flip!("cr0", cr0 ^ bit);
        }
        if bit & CR4_KNOWN != 0 {
            let _ = flip!("cr4", cr4 ^ bit);
        }
        let _ = msrs::write(EFER, msrs::read(EFER).unwrap_or(0) ^ bit);
    }
    // SVM and VMX are not for guests; long mode cannot be left with paging on.
    let efer = msrs::read(EFER).map_err(|_| "EFER cannot be read")?;
    for bad in [efer | 1 << 12, efer & !(1 << 8), efer | 1 << 40] {
        if msrs::write(EFER, bad) != Some(PROTECTION) {
            return Err("EFER took what it must refuse");
        }
    }
    let mut random = Random::new(5);
    for _ in 0..200 {
        let (value, bit) = (random.next(), random.next() & 63);
        let _ = flip!("cr0", value & CR0_KNOWN | PE | PG);
        let _ = flip!("cr4", value & CR4_KNOWN | PAE);
        let _ = flip!("cr8", value >> bit);
        let _ = flip!("cr2", value);
        let _ = attempt!(["mov dr0, {v}", "mov dr6, {v}"] v = in(reg) value);
        // Breakpoints off: bits 0 to 7, and 13 (general detect).
        let _ = attempt!(["mov dr7, {v}"] v = in(reg) value >> 32 & !0x20FF);
        let _ = msrs::write(EFER, value);
        // Caching bits and PCID around the right table.
        let _ = flip!("cr3", cr3 | value & 0xFFF);
    }
    if flip!("cr8", 15u64).is_some() {
        return Err("CR8 does not take 15");
    }
    Ok(())
}

/// Paging off in 64-bit mode: #GP or the guest's end.
pub(crate) fn unpaged() -> Verdict {
    let _ = flip!("cr0", current!("cr0") & !PG);
    Ok(())
}

/// Protection off with paging on: #GP or the guest's end.
pub(crate) fn unprotected() -> Verdict {
    let _ = flip!("cr0", current!("cr0") & !PE);
    let _ = flip!("cr0", current!("cr0") | NW);
    Ok(())
}

/// PAE off in long mode: #GP or the guest's end.
pub(crate) fn without_pae() -> Verdict {
    let _ = flip!("cr4", current!("cr4") & !PAE);
    let _ = flip!("cr4", current!("cr4") ^ LA57);
    Ok(())
}

/// Reserved bits of CR0, CR3 and CR4: #GP or the guest's end.
pub(crate) fn reserved() -> Verdict {
    for bit in (1..64).map(|b| 1 << b) {
        let _ = flip!("cr0", current!("cr0") | bit & !CR0_KNOWN);
        let _ = flip!("cr4", current!("cr4") | bit & !CR4_KNOWN & !LA57);
        let _ = flip!("cr3", current!("cr3") | bit & 0xFFFF_0000_0000_0FFF);
    }
    Ok(())
}

/// XSETBV of one value.
fn xsetbv(register: u32, value: u64) -> Option<crate::trap::Fault> {
    attempt!(["xsetbv"] in("ecx") register, in("eax") value as u32,
        in("edx") (value >> 32) as u32)
}

/// XCR0 and what stands for it.
pub(crate) fn extended() -> Verdict {
    let cr4 = current!("cr4");
    let off = attempt!(["mov cr4, {v}"] v = in(reg) cr4 & !OSXSAVE);
    if off.is_some() || xsetbv(0, 1) != Some(UNDEFINED) {
        return Err("XSETBV without OSXSAVE raised no #UD");
    }
    if attempt!(["mov cr4, {v}"] v = in(reg) cr4 | OSXSAVE).is_some() {
        return Err("OSXSAVE cannot be set");
    }
    if xsetbv(0, 3).is_some() || xsetbv(0, 1).is_some() {
        return Err("XCR0 takes neither x87 nor SSE");
    }
    // x87 cannot be off; AVX needs SSE; no other register (SDM vol. 1, 13.3).
    let mut random = Random::new(6);
    for (register, value) in [(0, 0), (0, 2), (0, 5), (0, 1 << 63), (0, u64::MAX), (1, 1), (7, 3)] {
        if xsetbv(register, value) != Some(PROTECTION) {
            return Err("XSETBV took what it must refuse");
        }
    }
    for _ in 0..500 {
        let _ = xsetbv(0, random.next() >> (random.next() & 63));
        let _ = attempt!(["xgetbv"] in("ecx") random.next() as u32, out("eax") _, out("edx") _);
    }
    Ok(())
}
