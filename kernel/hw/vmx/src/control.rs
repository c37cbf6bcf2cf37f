//! The controls (SDM 25.6 to 25.8), and their choice by what the processor
//! allows (SDM appendix A.2 to A.5).

use crate::detect::Unsupported;

/// Pin-based controls.
pub mod pin {
    /// External-interrupt exiting.
    pub const EXTERNAL_INTERRUPT: u32 = 1 << 0;
    /// NMI exiting.
    pub const NMI: u32 = 1 << 3;
    /// Virtual NMIs: the processor keeps count of a guest's NMI in service.
    pub const VIRTUAL_NMIS: u32 = 1 << 5;
}

/// Primary processor-based controls.
pub mod primary {
    /// Interrupt-window exiting.
    pub const INTERRUPT_WINDOW: u32 = 1 << 2;
    /// Use TSC offsetting.
    pub const TSC_OFFSET: u32 = 1 << 3;
    /// HLT exiting.
    pub const HLT: u32 = 1 << 7;
    /// MWAIT exiting.
    pub const MWAIT: u32 = 1 << 10;
    /// RDPMC exiting.
    pub const RDPMC: u32 = 1 << 11;
    /// Use TPR shadow: CR8 without exits.
    pub const TPR_SHADOW: u32 = 1 << 21;
    /// NMI-window exiting.
    pub const NMI_WINDOW: u32 = 1 << 22;
    /// Unconditional I/O exiting.
    pub const IO: u32 = 1 << 24;
    /// Use MSR bitmaps.
    pub const MSR_BITMAPS: u32 = 1 << 28;
    /// MONITOR exiting.
    pub const MONITOR: u32 = 1 << 29;
    /// Activate secondary controls.
    pub const SECONDARY: u32 = 1 << 31;
}

/// Secondary processor-based controls.
pub mod secondary {
    /// Enable EPT.
    pub const EPT: u32 = 1 << 1;
    /// Enable RDTSCP, and RDPID with it.
    pub const RDTSCP: u32 = 1 << 3;
    /// Enable VPID.
    pub const VPID: u32 = 1 << 5;
    /// WBINVD exiting.
    pub const WBINVD: u32 = 1 << 6;
    /// Unrestricted guest: real mode, and protected mode without paging.
    pub const UNRESTRICTED: u32 = 1 << 7;
    /// Enable INVPCID.
    pub const INVPCID: u32 = 1 << 12;
}

/// VM-exit controls.
pub mod exit {
    /// Save debug controls.
    pub const SAVE_DEBUG: u32 = 1 << 2;
    /// Host address-space size: 64-bit.
    pub const HOST_64: u32 = 1 << 9;
    /// Save IA32_PAT.
    pub const SAVE_PAT: u32 = 1 << 18;
    /// Load IA32_PAT.
    pub const LOAD_PAT: u32 = 1 << 19;
    /// Save IA32_EFER.
    pub const SAVE_EFER: u32 = 1 << 20;
    /// Load IA32_EFER.
    pub const LOAD_EFER: u32 = 1 << 21;
}

/// VM-entry controls.
pub mod entry {
    /// Load debug controls.
    pub const LOAD_DEBUG: u32 = 1 << 2;
    /// IA-32e mode guest: follows the guest's EFER.LMA. An exit stores LMA
    /// here on every processor with unrestricted guest (SDM A.6).
    pub const LONG_MODE: u32 = 1 << 9;
    /// Load IA32_PAT.
    pub const LOAD_PAT: u32 = 1 << 14;
    /// Load IA32_EFER.
    pub const LOAD_EFER: u32 = 1 << 15;
}

/// A control that this backend needs, by the manual's name.
type Needed = (u32, &'static str);

/// One vector of controls.
struct Vector {
    /// Bits that have to be 1.
    needed: &'static [Needed],
    /// Bits that are 1 where they can be.
    wanted: u32,
    /// Bits that change at run time, and have to be able to be 1.
    changing: &'static [Needed],
    /// Reserved bits that the manual has as 1 (the default1 class) and that
    /// mean nothing.
    reserved: u32,
}

const PIN: Vector = Vector {
    needed: &[
        (pin::EXTERNAL_INTERRUPT, "external-interrupt exiting"),
        (pin::NMI, "NMI exiting"),
        (pin::VIRTUAL_NMIS, "virtual NMIs"),
    ],
    wanted: 0,
    changing: &[],
    reserved: 1 << 1 | 1 << 2 | 1 << 4,
};

const PRIMARY: Vector = Vector {
    needed: &[
        (primary::TSC_OFFSET, "use TSC offsetting"),
        (primary::HLT, "HLT exiting"),
        (primary::MWAIT, "MWAIT exiting"),
        (primary::RDPMC, "RDPMC exiting"),
        (primary::TPR_SHADOW, "use TPR shadow"),
        (primary::IO, "unconditional I/O exiting"),
        (primary::MSR_BITMAPS, "use MSR bitmaps"),
        (primary::MONITOR, "MONITOR exiting"),
        (primary::SECONDARY, "activate secondary controls"),
    ],
    wanted: 0,
    changing: &[
        (primary::INTERRUPT_WINDOW, "interrupt-window exiting"),
        (primary::NMI_WINDOW, "NMI-window exiting"),
    ],
    reserved: 1 << 1 | 7 << 4 | 1 << 8 | 3 << 13 | 1 << 26,
};

const SECONDARY: Vector = Vector {
    needed: &[
        (secondary::EPT, "enable EPT"),
        (secondary::UNRESTRICTED, "unrestricted guest"),
        (secondary::WBINVD, "WBINVD exiting"),
    ],
    wanted: secondary::RDTSCP | secondary::VPID | secondary::INVPCID,
    changing: &[],
    reserved: 0,
};

const EXIT: Vector = Vector {
    needed: &[
        (exit::SAVE_DEBUG, "save debug controls"),
        (exit::HOST_64, "host address-space size"),
        (exit::SAVE_PAT, "save IA32_PAT"),
        (exit::LOAD_PAT, "load IA32_PAT"),
        (exit::SAVE_EFER, "save IA32_EFER"),
        (exit::LOAD_EFER, "load IA32_EFER"),
    ],
    wanted: 0,
    changing: &[],
    reserved: 0x0003_6DFB,
};

const ENTRY: Vector = Vector {
    needed: &[
        (entry::LOAD_DEBUG, "load debug controls"),
        (entry::LOAD_PAT, "load IA32_PAT"),
        (entry::LOAD_EFER, "load IA32_EFER"),
    ],
    wanted: 0,
    changing: &[(entry::LONG_MODE, "IA-32e mode guest")],
    reserved: 0x0000_11FB,
};

impl Vector {
    /// Chooses the value, given a capability MSR: the bits that must be 1 in
    /// its lower half, those that may be 1 in its upper.
    fn choose(&self, capability: u64) -> Result<u32, Unsupported> {
        let must = capability as u32;
        let may = (capability >> 32) as u32;
        for &(bit, name) in self.needed.iter().chain(self.changing) {
            if may & bit == 0 {
                return Err(Unsupported::Control(name));
            }
        }
        let needed = self.needed.iter().fold(0, |bits, (bit, _)| bits | bit);
        let value = must | needed | (self.wanted & may);
        let forced = must & !(self.reserved | needed | self.wanted);
        if forced != 0 {
            return Err(Unsupported::Forced);
        }
        Ok(value)
    }
}

/// What the processor allows: the four or five capability MSRs, the TRUE ones
/// where there are any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Pin-based controls.
    pub pin: u64,
    /// Primary processor-based controls.
    pub primary: u64,
    /// Secondary ones; zero where there are none.
    pub secondary: u64,
    /// VM-exit controls.
    pub exit: u64,
    /// VM-entry controls.
    pub entry: u64,
}

/// The controls of a virtual processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    /// Pin-based controls.
    pub pin: u32,
    /// Primary processor-based controls.
    pub primary: u32,
    /// Secondary processor-based controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls.
    pub entry: u32,
}

impl Controls {
    /// Chooses the controls. What a processor may lack and its owner can do
    /// something about has its own error; any other lack is told by name.
    ///
    /// # Errors
    /// [`Unsupported`] names what lacks.
    pub fn choose(allowed: &Allowed) -> Result<Controls, Unsupported> {
        let may = |capability: u64, bit: u32| (capability >> 32) as u32 & bit != 0;
        if !may(allowed.primary, primary::SECONDARY) {
            return Err(Unsupported::NoSecondaryControls);
        }
        if !may(allowed.secondary, secondary::EPT) {
            return Err(Unsupported::NoEpt);
        }
        if !may(allowed.secondary, secondary::UNRESTRICTED) {
            return Err(Unsupported::NoUnrestrictedGuest);
        }
        Ok(Controls {
            pin: PIN.choose(allowed.pin)?,
            primary: PRIMARY.choose(allowed.primary)?,
            secondary: SECONDARY.choose(allowed.secondary)?,
            exit: EXIT.choose(allowed.exit)?,
            entry: ENTRY.choose(allowed.entry)?,
        })
    }

    /// Whether the guest's translations are told apart from the host's.
    #[must_use]
    pub const fn has_vpid(&self) -> bool {
        self.secondary & secondary::VPID != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::ALLOWED;

    fn with(change: impl FnOnce(&mut Allowed)) -> Result<Controls, Unsupported> {
        let mut allowed = ALLOWED;
        change(&mut allowed);
        Controls::choose(&allowed)
    }

    #[test]
    fn a_full_processor_gets_what_is_needed_and_nothing_that_exits_besides() {
        let c = Controls::choose(&ALLOWED).unwrap();
        assert_eq!(c.pin, 0x3F);
        // No INVLPG, RDTSC, CR3, CR8, MOV DR or PAUSE exiting, no window yet.
        let exiting = 1 << 7 | 1 << 10 | 1 << 11 | 1 << 24 | 1 << 29;
        let used = 1 << 3 | 1 << 21 | 1 << 28 | 1 << 31;
        assert_eq!(c.primary, exiting | used | PRIMARY.reserved);
        assert_eq!(c.secondary, 0x10EA);
        assert_eq!(c.exit, 0x0003_6DFF | 0x003C_0200);
        assert_eq!(c.entry, 0x0000_11FF | 0xC000);
        assert!(c.has_vpid());
    }

    #[test]
    fn what_may_lack_is_left_out() {
        let optional = u64::from(SECONDARY.wanted) << 32;
        let c = with(|a| a.secondary &= !optional).unwrap();
        assert_eq!(c.secondary, 0xC2);
        assert!(!c.has_vpid());
    }

    #[test]
    fn each_lack_is_named() {
        let off = |bit: u32| !(u64::from(bit) << 32);
        assert_eq!(
            with(|a| a.primary &= off(primary::SECONDARY)),
            Err(Unsupported::NoSecondaryControls)
        );
        assert_eq!(with(|a| a.secondary = 0), Err(Unsupported::NoEpt));
        assert_eq!(
            with(|a| a.secondary &= off(secondary::UNRESTRICTED)),
            Err(Unsupported::NoUnrestrictedGuest)
        );
        for vector in [&PIN, &PRIMARY, &SECONDARY, &EXIT, &ENTRY] {
            for &(bit, name) in vector.needed.iter().chain(vector.changing) {
                assert_eq!(
                    vector.choose(0xFFFF_FFFF_0000_0000 & off(bit)),
                    Err(Unsupported::Control(name))
                );
            }
        }
    }

    #[test]
    fn a_control_that_cannot_be_off_is_refused() {
        // Without the TRUE capabilities, CR3 accesses have to exit.
        assert_eq!(with(|a| a.primary |= 1 << 15), Err(Unsupported::Forced));
    }
}
