//! EFER: the guest's value, without SVME.

use crate::cpuid::bits;
use crate::stop::Stop;
use crate::{Context, Machine};

/// Extended feature enable register.
pub(crate) const EFER: u32 = 0xC000_0080;
const SCE: u64 = 1;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const NXE: u64 = 1 << 11;
const FFXSR: u64 = 1 << 14;
const CR0_PG: u64 = 1 << 31;

/// What EFER becomes when the guest writes `value`; `None` is #GP. `edx` is
/// the guest's CPUID leaf 0x8000_0001 EDX. LMA follows CR0.PG and cannot be
/// written (AMD APM vol. 2, 3.1.7).
fn next(old: u64, value: u64, cr0: u64, edx: u32) -> Option<u64> {
    let mut legal = SCE | LME | LMA;
    if edx & bits::NX != 0 {
        legal |= NXE;
    }
    if edx & bits::FFXSR != 0 {
        legal |= FFXSR;
    }
    let moves_mode = (old ^ value) & LME != 0 && cr0 & CR0_PG != 0;
    (value & !legal == 0 && !moves_mode).then_some((value & !LMA) | (old & LMA))
}

impl Machine {
    pub(super) fn write_efer(&mut self, at: &mut Context<'_>, value: u64) -> Result<(), Stop> {
        let edx = self.with_query(at, |query| query.extended_edx());
        let mut system = at.vcpu.system();
        let efer = next(system.efer, value, system.cr0, edx).ok_or(Stop::PROTECTION)?;
        if efer != system.efer {
            system.efer = efer;
            at.vcpu.set_system(&system);
            at.vcpu.flush();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legality() {
        let all = bits::NX | bits::FFXSR;
        assert_eq!(next(0, LME | NXE | SCE, 0, all), Some(LME | NXE | SCE));
        assert_eq!(next(0, NXE, 0, 0), None);
        assert_eq!(next(0, 1 << 12, 0, all), None, "SVME");
        assert_eq!(next(LME | LMA, 0, CR0_PG, all), None, "LME while paging");
        assert_eq!(next(LME | LMA, LME, CR0_PG, all), Some(LME | LMA), "LMA stays");
        assert_eq!(next(LME, LME | LMA, 0, all), Some(LME), "LMA cannot be set");
    }
}
