//! Can this processor run guests, and what to tell its owner if not.

use crate::msr::VmCr;
use bitflags::bitflags;

bitflags! {
    /// CPUID Fn8000_000A EDX: what this SVM can do (APM vol. 3, E.4.9).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SvmFlags: u32 {
        /// Nested paging.
        const NESTED_PAGING = 1 << 0;
        /// SVM lock: SVMDIS may be locked with a key.
        const LOCK = 1 << 2;
        /// The address of the next instruction is saved on an exit.
        const NEXT_RIP = 1 << 3;
        /// TSC_RATIO.
        const TSC_RATIO = 1 << 4;
        /// VMCB clean bits.
        const CLEAN = 1 << 5;
        /// TLB_CONTROL can flush one guest's entries.
        const FLUSH_BY_ASID = 1 << 6;
        /// Instruction bytes are saved on an exit.
        const DECODE_ASSISTS = 1 << 7;
        /// Every other bit.
        const _ = !0;
    }
}

/// What the processor offers, as far as this backend cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Features of SVM.
    pub svm: SvmFlags,
    /// Number of address space identifiers, with the host's.
    pub asids: u32,
    /// XSAVE and XSETBV.
    pub xsave: bool,
    /// The bits of XCR0 that may be set.
    pub xcr0: u64,
    /// RDTSCP, and with it TSC_AUX.
    pub tsc_aux: bool,
    /// No-execute pages.
    pub no_execute: bool,
}

/// Why a processor cannot be used. Its `Display` says what to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsupported {
    /// CPUID shows no SVM.
    NoSvm,
    /// VM_CR.SVMDIS is set and locked.
    Disabled,
    /// SVM has no nested paging.
    NoNestedPaging,
    /// There is no address space identifier for a guest.
    NoAsid,
}

impl core::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Unsupported::NoSvm => {
                "this processor shows no SVM (AMD-V): use one that has it, or, if this is a \
                 virtual machine, turn on nested virtualisation for it"
            }
            Unsupported::Disabled => {
                "SVM (AMD-V) is turned off and locked: turn it on in the firmware's setup"
            }
            Unsupported::NoNestedPaging => {
                "this processor has no nested paging: use one that has it (AMD family 10h or \
                 later), or, if this is a virtual machine, turn on nested paging for it"
            }
            Unsupported::NoAsid => {
                "this processor offers no address space identifier for a guest: if this is a \
                 virtual machine, give it a processor model with SVM in full"
            }
        })
    }
}

impl core::error::Error for Unsupported {}

/// Reads the features from CPUID, given as a function of leaf and subleaf
/// (APM 15.4).
///
/// # Errors
/// [`Unsupported`], but for what VM_CR says: see [`must_unlock`].
pub fn features(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> Result<Features, Unsupported> {
    const SVM: u32 = 1 << 2;
    let extended = |leaf| {
        if cpuid(0x8000_0000, 0)[0] >= leaf { cpuid(leaf, 0) } else { [0; 4] }
    };
    let [_, _, ecx1, edx1] = extended(0x8000_0001);
    if ecx1 & SVM == 0 {
        return Err(Unsupported::NoSvm);
    }
    let [_, asids, _, flags] = extended(0x8000_000A);
    let svm = SvmFlags::from_bits_retain(flags);
    if !svm.contains(SvmFlags::NESTED_PAGING) {
        return Err(Unsupported::NoNestedPaging);
    }
    if asids <= crate::vmcb::ASID {
        return Err(Unsupported::NoAsid);
    }
    let xsave = cpuid(1, 0)[2] & 1 << 26 != 0;
    let xcr0 = if xsave {
        let [low, _, _, high] = cpuid(0xD, 0);
        u64::from(high) << 32 | u64::from(low)
    } else {
        1
    };
    Ok(Features {
        svm,
        asids,
        xsave,
        xcr0,
        tsc_aux: edx1 & 1 << 27 != 0,
        no_execute: edx1 & 1 << 20 != 0,
    })
}

/// Whether SVMDIS is set and has to be cleared first (APM 15.30.1).
///
/// # Errors
/// [`Unsupported::Disabled`] where it is set and locked.
pub fn must_unlock(vm_cr: VmCr) -> Result<bool, Unsupported> {
    if !vm_cr.contains(VmCr::SVMDIS) {
        Ok(false)
    } else if vm_cr.contains(VmCr::LOCK) {
        Err(Unsupported::Disabled)
    } else {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    /// A processor with everything, of which a test takes something away.
    fn full(leaf: u32, _: u32) -> [u32; 4] {
        match leaf {
            1 => [0, 0, 1 << 26, 0],
            0xD => [7, 0, 0, 1],
            0x8000_0000 => [0x8000_001F, 0, 0, 0],
            0x8000_0001 => [0, 0, 1 << 2, 1 << 27 | 1 << 20],
            0x8000_000A => [1, 16, 0, 0xFF],
            _ => [0; 4],
        }
    }

    fn with(leaf: u32, value: [u32; 4]) -> Result<Features, Unsupported> {
        features(|l, s| if l == leaf { value } else { full(l, s) })
    }

    #[test]
    fn a_full_processor_is_taken() {
        let f = features(full).unwrap();
        assert!(f.svm.contains(SvmFlags::NEXT_RIP | SvmFlags::FLUSH_BY_ASID));
        assert_eq!((f.asids, f.xcr0), (16, 0x1_0000_0007));
        assert!(f.xsave && f.tsc_aux && f.no_execute);
    }

    #[test]
    fn each_lack_has_its_own_reason() {
        assert_eq!(with(0x8000_0000, [0x8000_0000, 0, 0, 0]), Err(Unsupported::NoSvm));
        assert_eq!(with(0x8000_0001, [0, 0, 0, 0]), Err(Unsupported::NoSvm));
        assert_eq!(with(0x8000_0000, [0x8000_0008, 0, 0, 0]), Err(Unsupported::NoNestedPaging));
        assert_eq!(with(0x8000_000A, [1, 16, 0, 0xFE]), Err(Unsupported::NoNestedPaging));
        assert_eq!(with(0x8000_000A, [1, 1, 0, 0xFF]), Err(Unsupported::NoAsid));
        assert_eq!(with(0x8000_000A, [1, 2, 0, 1]).map(|f| f.asids), Ok(2));
        assert_eq!(with(1, [0; 4]).map(|f| (f.xsave, f.xcr0)), Ok((false, 1)));
    }

    #[test]
    fn a_lock_matters_only_when_svm_is_off() {
        assert_eq!(must_unlock(VmCr::empty()), Ok(false));
        assert_eq!(must_unlock(VmCr::LOCK), Ok(false));
        assert_eq!(must_unlock(VmCr::SVMDIS), Ok(true));
        assert_eq!(must_unlock(VmCr::SVMDIS | VmCr::LOCK), Err(Unsupported::Disabled));
    }

    #[test]
    fn reasons_are_single_sentences_that_say_what_to_do() {
        for reason in [
            Unsupported::NoSvm,
            Unsupported::Disabled,
            Unsupported::NoNestedPaging,
            Unsupported::NoAsid,
        ] {
            let text = reason.to_string();
            assert!(text.contains(": ") && !text.contains("  ") && !text.contains('.'), "{text}");
        }
    }
}
