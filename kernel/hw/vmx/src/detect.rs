//! Can this processor run guests, and what to tell its owner if not.

use crate::control::{Allowed, Controls, secondary};
use crate::msr;
use bitflags::bitflags;

bitflags! {
    /// IA32_FEATURE_CONTROL (SDM 24.7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FeatureControl: u64 {
        /// The register cannot be written any more.
        const LOCK = 1 << 0;
        /// VMXON is allowed outside SMX.
        const VMX = 1 << 2;
        /// Every other bit.
        const _ = !0;
    }
}

bitflags! {
    /// IA32_VMX_EPT_VPID_CAP (SDM A.10).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct EptCapability: u64 {
        /// Walks of four levels.
        const FOUR_LEVELS = 1 << 6;
        /// Tables may be write-back.
        const WRITE_BACK = 1 << 14;
        /// 2 MiB pages.
        const LARGE_PAGES = 1 << 16;
        /// INVEPT.
        const INVEPT = 1 << 20;
        /// INVEPT of one EPT pointer.
        const INVEPT_SINGLE = 1 << 25;
        /// INVEPT of all.
        const INVEPT_ALL = 1 << 26;
        /// Every other bit.
        const _ = !0;
    }
}

/// What the processor offers, as far as this backend cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// VMCS revision identifier.
    pub revision: u32,
    /// The controls of a virtual processor.
    pub controls: Controls,
    /// Whether INVEPT can be told one EPT pointer.
    pub invept_single: bool,
    /// Bits that are 1 in CR0 under VMX, and bits that may be.
    pub cr0_fixed: [u64; 2],
    /// Bits that are 1 in CR4 under VMX, and bits that may be.
    pub cr4_fixed: [u64; 2],
    /// XSAVE and XSETBV.
    pub xsave: bool,
    /// The bits of XCR0 that may be set.
    pub xcr0: u64,
}

impl Features {
    /// Whether a guest can have RDTSCP and RDPID, and with them TSC_AUX.
    #[must_use]
    pub const fn has_rdtscp(&self) -> bool {
        self.controls.secondary & secondary::RDTSCP != 0
    }

    /// Whether a guest can have INVPCID.
    #[must_use]
    pub const fn has_invpcid(&self) -> bool {
        self.controls.secondary & secondary::INVPCID != 0
    }

    /// A leaf of the host's CPUID without what a guest cannot have, although
    /// the host has it: instructions that are undefined in a guest as long as
    /// a control does not enable them.
    #[must_use]
    pub fn mask_cpuid(&self, leaf: u32, subleaf: u32, [a, b, c, d]: [u32; 4]) -> [u32; 4] {
        let off = |has: bool, bit: u32| if has { !0 } else { !(1 << bit) };
        match (leaf, subleaf) {
            (7, 0) => [a, b & off(self.has_invpcid(), 10), c & off(self.has_rdtscp(), 22), d],
            (0x8000_0001, _) => [a, b, c, d & off(self.has_rdtscp(), 27)],
            _ => [a, b, c, d],
        }
    }
}

/// Why a processor cannot be used. Its `Display` says what to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsupported {
    /// CPUID shows no VMX.
    NoVmx,
    /// IA32_FEATURE_CONTROL is locked without VMX.
    LockedOff,
    /// There are no secondary controls, hence no EPT.
    NoSecondaryControls,
    /// There is no EPT.
    NoEpt,
    /// Guests cannot be in real mode.
    NoUnrestrictedGuest,
    /// EPT has no write-back tables of four levels, 2 MiB pages and INVEPT.
    EptTooPlain,
    /// A control named so does not exist.
    Control(&'static str),
    /// A control that has to be off cannot be.
    Forced,
    /// VMXON failed although all is there.
    Refused,
}

impl core::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Unsupported::NoVmx => {
                "this processor shows no VT-x (VMX): use one that has it, or, if this is a \
                 virtual machine, turn on nested virtualisation for it"
            }
            Unsupported::LockedOff => {
                "VT-x (VMX) is turned off and locked: turn it on in the firmware's setup"
            }
            Unsupported::NoSecondaryControls => {
                "VT-x of this processor has no secondary controls, hence no EPT: use a processor \
                 of the Nehalem generation or later"
            }
            Unsupported::NoEpt => {
                "VT-x of this processor has no EPT: use one that has it (Nehalem or later), or, \
                 if this is a virtual machine, turn on EPT for it"
            }
            Unsupported::NoUnrestrictedGuest => {
                "VT-x of this processor has no unrestricted guest: use one that has it (Westmere \
                 or later), or, if this is a virtual machine, turn it on"
            }
            Unsupported::EptTooPlain => {
                "EPT of this processor lacks write-back tables of four levels, 2 MiB pages or \
                 INVEPT: if this is a virtual machine, give it a processor model with EPT in full"
            }
            Unsupported::Control(name) => {
                return write!(
                    f,
                    "VT-x of this processor lacks \"{name}\": use a newer one, or, if this is a \
                     virtual machine, give it a processor model with VT-x in full"
                );
            }
            Unsupported::Forced => {
                "VT-x of this processor cannot run a guest without needless exits: use one with \
                 the true capability registers (Nehalem or later)"
            }
            Unsupported::Refused => {
                "VT-x refuses to be turned on: if this is a virtual machine, its host's nested \
                 virtualisation is at fault"
            }
        })
    }
}

impl core::error::Error for Unsupported {}

/// Whether CPUID shows VMX (SDM 24.6).
#[must_use]
pub fn has_vmx(cpuid: impl Fn(u32, u32) -> [u32; 4]) -> bool {
    cpuid(1, 0)[2] & 1 << 5 != 0
}

/// What IA32_FEATURE_CONTROL has to be set to, if anything (SDM 24.7).
///
/// # Errors
/// [`Unsupported::LockedOff`].
pub fn feature_control(now: FeatureControl) -> Result<Option<FeatureControl>, Unsupported> {
    match (now.contains(FeatureControl::LOCK), now.contains(FeatureControl::VMX)) {
        (true, true) => Ok(None),
        (true, false) => Err(Unsupported::LockedOff),
        (false, _) => Ok(Some(now | FeatureControl::LOCK | FeatureControl::VMX)),
    }
}

/// Reads the features from CPUID, given as a function of leaf and subleaf, and
/// from the capability MSRs (SDM appendix A), given as a function of the
/// number. Only MSRs that exist by what was read before are asked for.
///
/// # Errors
/// [`Unsupported`], but for what IA32_FEATURE_CONTROL says: see
/// [`feature_control`].
pub fn features(
    cpuid: impl Fn(u32, u32) -> [u32; 4],
    read: impl Fn(u32) -> u64,
) -> Result<Features, Unsupported> {
    if !has_vmx(&cpuid) {
        return Err(Unsupported::NoVmx);
    }
    let basic = read(msr::VMX_BASIC);
    let controls = Controls::choose(&allowed(basic, &read))?;
    let ept = EptCapability::from_bits_retain(read(msr::VMX_EPT_VPID));
    let needed = EptCapability::FOUR_LEVELS
        | EptCapability::WRITE_BACK
        | EptCapability::LARGE_PAGES
        | EptCapability::INVEPT;
    let invept = EptCapability::INVEPT_SINGLE | EptCapability::INVEPT_ALL;
    if !ept.contains(needed) || !ept.intersects(invept) {
        return Err(Unsupported::EptTooPlain);
    }
    let xsave = cpuid(1, 0)[2] & 1 << 26 != 0;
    let xcr0 = if xsave {
        let [low, _, _, high] = cpuid(0xD, 0);
        u64::from(high) << 32 | u64::from(low)
    } else {
        1
    };
    Ok(Features {
        revision: basic as u32 & 0x7FFF_FFFF,
        controls,
        invept_single: ept.contains(EptCapability::INVEPT_SINGLE),
        cr0_fixed: [read(msr::VMX_CR0_FIXED0), read(msr::VMX_CR0_FIXED1)],
        cr4_fixed: [read(msr::VMX_CR4_FIXED0), read(msr::VMX_CR4_FIXED1)],
        xsave,
        xcr0,
    })
}

/// Reads the capability MSRs of the controls.
fn allowed(basic: u64, read: impl Fn(u32) -> u64) -> Allowed {
    /// IA32_VMX_BASIC: there are the TRUE capability MSRs (SDM A.1).
    const TRUE: u64 = 1 << 55;
    let [pin, primary, exit, entry] =
        if basic & TRUE != 0 { msr::VMX_TRUE_CONTROLS } else { msr::VMX_CONTROLS }.map(&read);
    let has_secondary = primary >> 63 != 0;
    let secondary = if has_secondary { read(msr::VMX_SECONDARY) } else { 0 };
    Allowed { pin, primary, secondary, exit, entry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{capabilities, cpuid};
    use std::string::ToString;

    fn with_msr(msr: u32, value: u64) -> Result<Features, Unsupported> {
        features(cpuid, |m| if m == msr { value } else { capabilities(m) })
    }

    #[test]
    fn a_full_processor_is_taken() {
        let f = features(cpuid, capabilities).unwrap();
        assert_eq!((f.revision, f.xcr0, f.invept_single), (0x2B, 0x7, true));
        assert!(f.xsave && f.has_rdtscp() && f.has_invpcid() && f.controls.has_vpid());
    }

    #[test]
    fn each_lack_has_its_own_reason() {
        let none = features(|_, _| [0; 4], |msr| panic!("{msr:x} does not exist"));
        assert_eq!(none, Err(Unsupported::NoVmx));
        // Without secondary controls, their MSR and that of EPT do not exist.
        let plain = features(cpuid, |m| match m {
            msr::VMX_SECONDARY | msr::VMX_EPT_VPID => panic!("{m:x} does not exist"),
            m if m == msr::VMX_TRUE_CONTROLS[1] => capabilities(m) & !(1 << 63),
            m => capabilities(m),
        });
        assert_eq!(plain, Err(Unsupported::NoSecondaryControls));
        assert_eq!(with_msr(msr::VMX_SECONDARY, 0xFD << 32), Err(Unsupported::NoEpt));
        assert_eq!(with_msr(msr::VMX_SECONDARY, 0x7F << 32), Err(Unsupported::NoUnrestrictedGuest));
        let ept = capabilities(msr::VMX_EPT_VPID);
        for bit in [6, 14, 16, 20] {
            assert_eq!(
                with_msr(msr::VMX_EPT_VPID, ept & !(1 << bit)),
                Err(Unsupported::EptTooPlain),
                "{bit}"
            );
        }
        assert_eq!(with_msr(msr::VMX_EPT_VPID, ept & !(3 << 25)), Err(Unsupported::EptTooPlain));
        let all_only = with_msr(msr::VMX_EPT_VPID, ept & !(1 << 25));
        assert!(!all_only.unwrap().invept_single);
    }

    #[test]
    fn without_the_true_capabilities_the_others_are_read() {
        let old = features(cpuid, |m| match m {
            msr::VMX_BASIC => 0x2B,
            m if msr::VMX_TRUE_CONTROLS.contains(&m) => panic!("{m:x} does not exist"),
            m => capabilities(m),
        });
        assert_eq!(old, Err(Unsupported::Forced), "they force CR3 accesses to exit");
    }

    #[test]
    fn a_lock_is_set_where_there_is_none() {
        let bits = FeatureControl::from_bits_retain;
        assert_eq!(feature_control(bits(0)), Ok(Some(bits(5))));
        assert_eq!(feature_control(bits(0x10_0000)), Ok(Some(bits(0x10_0005))));
        assert_eq!(feature_control(bits(5)), Ok(None));
        assert_eq!(feature_control(bits(1)), Err(Unsupported::LockedOff));
        assert_eq!(feature_control(bits(3)), Err(Unsupported::LockedOff), "SMX only");
    }

    #[test]
    fn a_guest_does_not_see_what_no_control_enables() {
        let full = features(cpuid, capabilities).unwrap();
        let mut plain = full;
        plain.controls.secondary &= !(secondary::RDTSCP | secondary::INVPCID);
        for leaf in [(7, 0), (0x8000_0001, 0)] {
            assert_eq!(full.mask_cpuid(leaf.0, leaf.1, [!0; 4]), [!0; 4]);
        }
        assert_eq!(plain.mask_cpuid(7, 0, [!0; 4]), [!0, !(1 << 10), !(1 << 22), !0]);
        assert_eq!(plain.mask_cpuid(7, 1, [!0; 4]), [!0; 4]);
        assert_eq!(plain.mask_cpuid(0x8000_0001, 0, [!0; 4]), [!0, !0, !0, !(1 << 27)]);
    }

    #[test]
    fn reasons_are_single_sentences_that_say_what_to_do() {
        for reason in [
            Unsupported::NoVmx,
            Unsupported::LockedOff,
            Unsupported::NoSecondaryControls,
            Unsupported::NoEpt,
            Unsupported::NoUnrestrictedGuest,
            Unsupported::EptTooPlain,
            Unsupported::Control("use TPR shadow"),
            Unsupported::Forced,
            Unsupported::Refused,
        ] {
            let text = reason.to_string();
            assert!(text.contains(": ") && !text.contains("  ") && !text.contains('.'), "{text}");
        }
    }
}
