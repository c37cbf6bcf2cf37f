//! CR0 and CR4: which bits the host owns, and what the guest sees of them
//! (SDM 25.6.6, 26.3).
//!
//! A guest's MOV to CR0 or CR4 exits only if it would change an owned bit as
//! the guest sees it. Then the new value of the owned bits goes to the read
//! shadow and the instruction is executed again: now it changes no owned bit,
//! and the processor does all the rest of it (loading PDPTEs, switching to
//! long mode, faults) as it always does.

/// CR0.PE.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.ET, which always reads as one.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE: a must under VMX (SDM 24.8).
pub const CR0_NE: u64 = 1 << 5;
/// CR0.NW.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;

/// Bits of CR0 that the host owns: NE, and those that would turn the host's
/// caches off, since entries and exits leave them alone (SDM 27.3.2.1).
pub const CR0_OWNED: u64 = CR0_NE | CR0_NW | CR0_CD;

/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE: the host's, or a machine check while the guest runs would shut
/// the node down.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.VMXE: a must under VMX (SDM 24.8).
pub const CR4_VMXE: u64 = 1 << 13;
/// CR4.PCIDE.
pub const CR4_PCIDE: u64 = 1 << 17;

/// Bits of CR4 that a guest may set: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE,
/// PCE, OSFXSR, OSXMMEXCPT, UMIP, LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP.
/// The others belong to features that the machine does not show: VMX, SMX,
/// protection keys, control-flow enforcement, user interrupts, key locker.
const CR4_GUEST: u64 =
    0x7FF | 1 << 11 | 1 << 12 | 1 << 16 | CR4_PCIDE | 1 << 18 | 1 << 20 | 1 << 21;

/// Bits of CR4 that the host owns.
pub const CR4_OWNED: u64 = !CR4_GUEST | CR4_MCE;

/// The register as it is in the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Real(pub u64);

/// CR0 in the processor for a guest that sees `seen`.
#[must_use]
pub const fn real_cr0(seen: u64) -> Real {
    Real(seen & !CR0_OWNED | CR0_NE | CR0_ET)
}

/// CR4 in the processor for a guest that sees `seen`.
#[must_use]
pub const fn real_cr4(seen: u64) -> Real {
    Real(seen & !CR4_OWNED | CR4_VMXE | CR4_MCE)
}

/// What the guest sees of a register with these bits owned.
#[must_use]
pub const fn seen(real: u64, shadow: u64, owned: u64) -> u64 {
    real & !owned | shadow & owned
}

/// The read shadow after a MOV of `value` to CR0 that would change an owned
/// bit, or `None` if the MOV raises #GP (SDM vol. 2, MOV to control
/// registers). What does not concern owned bits is left to the processor, but
/// for what has to fail before the shadow changes.
#[must_use]
pub const fn write_cr0(value: u64, cr4: u64) -> Option<u64> {
    let upper = value >> 32 != 0;
    let uncached = value & CR0_NW != 0 && value & CR0_CD == 0;
    let unprotected = value & CR0_PG != 0 && value & CR0_PE == 0;
    let tagged = value & CR0_PG == 0 && cr4 & CR4_PCIDE != 0;
    if upper || uncached || unprotected || tagged { None } else { Some(value) }
}

/// The same for CR4: the guest may change MCE alone of what the host owns.
#[must_use]
pub const fn write_cr4(value: u64) -> Option<u64> {
    if value & !CR4_GUEST != 0 { None } else { Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_sees_what_it_wrote_and_not_what_the_host_needs() {
        for value in [0x6000_0010, 0x8005_0033, 0x8000_0011, 0x10] {
            let Real(real) = real_cr0(value);
            assert_eq!(real & (CR0_NE | CR0_CD | CR0_NW), CR0_NE);
            assert_eq!(seen(real, value, CR0_OWNED), value);
        }
        for value in [0, 0x20, 0x6F0, 0x37_06F0] {
            let Real(real) = real_cr4(value);
            assert_eq!(real & (CR4_VMXE | CR4_MCE), CR4_VMXE | CR4_MCE);
            assert_eq!(seen(real, value, CR4_OWNED), value);
        }
    }

    #[test]
    fn a_write_that_would_fault_changes_nothing() {
        assert_eq!(write_cr0(0x8005_0033, 0x20), Some(0x8005_0033));
        assert_eq!(write_cr0(0x6000_0010, 0), Some(0x6000_0010));
        assert_eq!(write_cr0(1 << 32 | 0x33, 0), None);
        assert_eq!(write_cr0(CR0_NW | 0x11, 0), None);
        assert_eq!(write_cr0(CR0_PG | CR0_NE, 0), None);
        assert_eq!(write_cr0(0x4000_0031, CR4_PCIDE), None);
        assert_eq!(write_cr4(0x20 | CR4_MCE), Some(0x60));
        for bit in [13, 14, 15, 19, 22, 23, 24, 25, 32, 63] {
            assert_eq!(write_cr4(1 << bit), None, "{bit}");
        }
    }
}
