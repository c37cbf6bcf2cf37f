//! The MSR bitmap (SDM 25.6.9) and the MSRs this backend itself uses.

/// IA32_FEATURE_CONTROL.
pub const FEATURE_CONTROL: u32 = 0x3A;
/// IA32_SYSENTER_CS; _ESP and _EIP follow.
pub const SYSENTER_CS: u32 = 0x174;
/// IA32_PAT.
pub const PAT: u32 = 0x277;
/// IA32_VMX_BASIC.
pub const VMX_BASIC: u32 = 0x480;
/// IA32_VMX_PINBASED_CTLS, _PROCBASED_CTLS, _EXIT_CTLS, _ENTRY_CTLS.
pub const VMX_CONTROLS: [u32; 4] = [0x481, 0x482, 0x483, 0x484];
/// IA32_VMX_CR0_FIXED0.
pub const VMX_CR0_FIXED0: u32 = 0x486;
/// IA32_VMX_CR0_FIXED1.
pub const VMX_CR0_FIXED1: u32 = 0x487;
/// IA32_VMX_CR4_FIXED0.
pub const VMX_CR4_FIXED0: u32 = 0x488;
/// IA32_VMX_CR4_FIXED1.
pub const VMX_CR4_FIXED1: u32 = 0x489;
/// IA32_VMX_PROCBASED_CTLS2.
pub const VMX_SECONDARY: u32 = 0x48B;
/// IA32_VMX_EPT_VPID_CAP.
pub const VMX_EPT_VPID: u32 = 0x48C;
/// The TRUE forms of [`VMX_CONTROLS`].
pub const VMX_TRUE_CONTROLS: [u32; 4] = [0x48D, 0x48E, 0x48F, 0x490];
/// IA32_EFER.
pub const EFER: u32 = 0xC000_0080;
/// IA32_FS_BASE.
pub const FS_BASE: u32 = 0xC000_0100;
/// IA32_GS_BASE.
pub const GS_BASE: u32 = 0xC000_0101;
/// IA32_TSC_AUX, what RDTSCP puts into ECX.
pub const TSC_AUX: u32 = 0xC000_0103;

/// MSRs that the guest reads and writes itself. SYSENTER's and the bases are
/// swapped by entries and exits; the rest the hypervisor never uses.
///
/// Not here, for a reason: TSC (a write would move the host's), PAT and EFER
/// (reserved bits are checked above), DEBUGCTL (branch records would show the
/// host).
pub const PASSED: [u32; 11] = [
    SYSENTER_CS,
    0x0000_0175, // SYSENTER_ESP
    0x0000_0176, // SYSENTER_EIP
    0xC000_0081, // STAR
    0xC000_0082, // LSTAR
    0xC000_0083, // CSTAR
    0xC000_0084, // FMASK
    FS_BASE,
    GS_BASE,
    0xC000_0102, // KERNEL_GS_BASE
    TSC_AUX,
];

/// Bytes in the bitmap: one page.
pub const MAP_BYTES: usize = 0x1000;
/// Bytes from a read bit to the write bit of the same MSR.
const WRITES: usize = 0x800;

/// Where the bitmap keeps the read bit of an MSR: byte and bit. `None` for an
/// MSR outside the bitmap, which always exits.
#[must_use]
pub const fn place(msr: u32) -> Option<(usize, u32)> {
    let base = match msr {
        0x0000_0000..=0x0000_1FFF => 0x000,
        0xC000_0000..=0xC000_1FFF => 0x400,
        _ => return None,
    };
    let index = msr & 0x1FFF;
    Some((base + (index / 8) as usize, index % 8))
}

/// Fills the bitmap: everything exits but [`PASSED`].
pub fn fill(map: &mut [u8; MAP_BYTES]) {
    map.fill(0xFF);
    for (byte, bit) in PASSED.iter().filter_map(|&msr| place(msr)) {
        map[byte] &= !(1 << bit);
        map[byte + WRITES] &= !(1 << bit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_manual() {
        assert_eq!(place(0), Some((0, 0)));
        assert_eq!(place(0x174), Some((0x2E, 4)));
        assert_eq!(place(0x1FFF), Some((0x3FF, 7)));
        assert_eq!(place(0x2000), None);
        assert_eq!(place(0xC000_0000), Some((0x400, 0)));
        assert_eq!(place(0xC000_0102), Some((0x420, 2)));
        assert_eq!(place(0xC001_0015), None);
    }

    #[test]
    fn only_the_listed_registers_pass() {
        let mut map = [0; MAP_BYTES];
        fill(&mut map);
        let open: u32 = map.iter().map(|b| b.count_zeros()).sum();
        assert_eq!(open as usize, 2 * PASSED.len());
        let exits = |msr| {
            let (byte, bit) = place(msr).unwrap();
            [map[byte], map[byte + WRITES]].map(|b| b >> bit & 1 != 0)
        };
        assert!(PASSED.iter().all(|&msr| exits(msr) == [false; 2]));
        for msr in [0x10, 0x1B, 0x1D9, PAT, EFER, FEATURE_CONTROL, VMX_BASIC] {
            assert_eq!(exits(msr), [true; 2], "{msr:x}");
        }
    }
}
