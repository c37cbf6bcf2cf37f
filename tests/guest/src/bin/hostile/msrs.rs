//! Every MSR of the architectural, AMD and hypervisor ranges.

use crate::Verdict;
use crate::random::Random;
use crate::trap::{Fault, PROTECTION, attempt};

/// First and last of the ranges.
const RANGES: [(u32, u32); 7] = [
    (0, 0x1FFF),
    (0x4000_0000, 0x4000_01FF),
    (0x4B56_4D00, 0x4B56_4D0F),
    (0x8000_0000, 0x8000_000F),
    (0xC000_0000, 0xC000_11FF),
    (0xC001_0000, 0xC001_1FFF),
    (0xFFFF_FFF0, 0xFFFF_FFFF),
];
/// x2APIC's interrupt command register and self IPI: the try `apic` is theirs.
const INTERRUPT_COMMANDS: [u32; 2] = [0x830, 0x83F];

/// RDMSR.
pub(crate) fn read(msr: u32) -> Result<u64, Fault> {
    let (low, high): (u32, u32);
    let fault = attempt!(["rdmsr"] in("ecx") msr, inout("eax") 0u32 => low,
        inout("edx") 0u32 => high);
    match fault {
        None => Ok(u64::from(high) << 32 | u64::from(low)),
        Some(fault) => Err(fault),
    }
}

/// WRMSR.
pub(crate) fn write(msr: u32, value: u64) -> Option<Fault> {
    attempt!(["wrmsr"] in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// Reads each register, writes nonsense to it, and puts its value back.
pub(crate) fn scan() -> Verdict {
    let mut random = Random::new(2);
    let (mut there, mut written) = (0u32, 0u32);
    for (first, last) in RANGES {
        for msr in first..=last {
            let before = read(msr);
            if before.is_err_and(|fault| fault != PROTECTION) {
                return Err("RDMSR has raised something else than #GP(0)");
            }
            there += u32::from(before.is_ok());
            if INTERRUPT_COMMANDS.contains(&msr) {
                continue;
            }
            let values = [u64::MAX, random.next(), 1 << (random.next() & 63), 0];
            for value in values.into_iter().chain(before.ok()) {
                match write(msr, value) {
                    None => written += 1,
                    Some(PROTECTION) => {}
                    Some(_) => return Err("WRMSR has raised something else than #GP(0)"),
                }
            }
            if msr == 0x1B {
                // The APIC may have come to lie anywhere.
                let _ = write(0x1B, 0xFEE0_0900);
            }
        }
    }
    guests::println!("{there} registers can be read, {written} writes were taken");
    if there < 50 || written < 50 { Err("too few registers are there") } else { Ok(()) }
}
