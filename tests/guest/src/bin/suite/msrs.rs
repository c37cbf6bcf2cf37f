//! RDMSR and WRMSR.

use crate::trap::{Fault, attempt};

/// RDMSR.
pub(crate) fn read(msr: u32) -> Result<u64, Option<Fault>> {
    let (low, high): (u32, u32);
    let fault = attempt!(["rdmsr"] in("ecx") msr, inout("eax") 0u32 => low,
        inout("edx") 0u32 => high);
    if fault.is_some() { Err(fault) } else { Ok(u64::from(high) << 32 | u64::from(low)) }
}

/// WRMSR.
pub(crate) fn write(msr: u32, value: u64) -> Option<Fault> {
    attempt!(["wrmsr"] in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
}
