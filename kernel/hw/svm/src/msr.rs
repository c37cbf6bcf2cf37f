//! The MSR permission map (APM 15.11) and the MSRs this backend itself uses.

use bitflags::bitflags;

/// EFER.
pub const EFER: u32 = 0xC000_0080;
/// TSC_RATIO: scales the guest's TSC where offered (APM 15.30.5).
pub const TSC_RATIO: u32 = 0xC000_0104;
/// TSC_AUX, what RDTSCP puts into ECX.
pub const TSC_AUX: u32 = 0xC000_0103;
/// VM_CR: SVM's own lock (APM 15.30.1).
pub const VM_CR: u32 = 0xC001_0114;
/// VM_HSAVE_PA: where VMRUN keeps the host's state (APM 15.30.4).
pub const VM_HSAVE_PA: u32 = 0xC001_0117;

bitflags! {
    /// VM_CR (APM 15.30.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct VmCr: u64 {
        /// LOCK: this bit and SVMDIS cannot be written any more.
        const LOCK = 1 << 3;
        /// SVMDIS: EFER.SVME cannot be set.
        const SVMDIS = 1 << 4;
    }
}

/// MSRs that the guest reads and writes itself. All of them are swapped by
/// VMLOAD and VMSAVE or VMRUN, but TSC_AUX, which the hypervisor never uses.
///
/// Not here, for a reason: TSC (the manual promises TSC_OFFSET for RDTSC and
/// RDTSCP only), PAT and EFER (reserved bits and SVME are checked above),
/// DEBUGCTL (not swapped without last-branch virtualisation).
pub const PASSED: [u32; 11] = [
    0x0000_0174, // SYSENTER_CS
    0x0000_0175, // SYSENTER_ESP
    0x0000_0176, // SYSENTER_EIP
    0xC000_0081, // STAR
    0xC000_0082, // LSTAR
    0xC000_0083, // CSTAR
    0xC000_0084, // SFMASK
    0xC000_0100, // FS.Base
    0xC000_0101, // GS.Base
    0xC000_0102, // KernelGSbase
    TSC_AUX,
];

/// Bytes in the map: two pages.
pub const MAP_BYTES: usize = 0x2000;

/// Where the map keeps an MSR: byte, and shift of its read bit (the write bit
/// is the next). `None` for an MSR outside the map, which always exits.
#[must_use]
pub const fn place(msr: u32) -> Option<(usize, u32)> {
    let base = match msr {
        0x0000_0000..=0x0000_1FFF => 0x0000,
        0xC000_0000..=0xC000_1FFF => 0x0800,
        0xC001_0000..=0xC001_1FFF => 0x1000,
        _ => return None,
    };
    let index = msr & 0x1FFF;
    Some((base + (index / 4) as usize, index % 4 * 2))
}

/// Fills the map: everything exits but [`PASSED`].
pub fn fill(map: &mut [u8; MAP_BYTES]) {
    map.fill(0xFF);
    for (byte, shift) in PASSED.iter().filter_map(|&msr| place(msr)) {
        map[byte] &= !(0b11 << shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_manual() {
        assert_eq!(place(0), Some((0, 0)));
        assert_eq!(place(0x174), Some((0x5D, 0)));
        assert_eq!(place(0x1FFF), Some((0x7FF, 6)));
        assert_eq!(place(0x2000), None);
        assert_eq!(place(0xC000_0000), Some((0x800, 0)));
        assert_eq!(place(0xC000_0102), Some((0x840, 4)));
        assert_eq!(place(0xC001_1FFF), Some((0x17FF, 6)));
        assert_eq!(place(0xC001_2000), None);
        assert_eq!(place(0x4000_0000), None);
    }

    #[test]
    fn only_the_listed_registers_pass() {
        let mut map = [0; MAP_BYTES];
        fill(&mut map);
        let open: u32 = map.iter().map(|b| b.count_zeros()).sum();
        assert_eq!(open as usize, 2 * PASSED.len());
        for msr in PASSED {
            let (byte, shift) = place(msr).unwrap();
            assert_eq!(map[byte] >> shift & 0b11, 0, "{msr:x}");
        }
        for msr in [0x10, 0x1B, 0x277, EFER, VM_CR, VM_HSAVE_PA, TSC_RATIO] {
            let (byte, shift) = place(msr).unwrap();
            assert_eq!(map[byte] >> shift & 0b11, 0b11, "{msr:x}");
        }
    }
}
