//! Leaves from 0x8000_0000 on.

use super::{Query, bits as b};

/// Highest extended leaf that is ever answered.
const MAX_EXTENDED: u32 = 0x8000_0021;
/// Physical address bits where the host does not tell: those of every
/// processor with long mode.
const PHYS_BITS_MIN: u32 = 36;

impl Query<'_> {
    fn max_extended(&self) -> u32 {
        (self.host)(0x8000_0000, 0)[0].clamp(0x8000_0008, MAX_EXTENDED)
    }

    pub(super) fn extended(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        if leaf > self.max_extended() {
            return [0; 4];
        }
        match leaf {
            0x8000_0000 => {
                let [_, b, c, d] = self.host(leaf, 0);
                [self.max_extended(), b, c, d]
            }
            0x8000_0001 => self.extended_features(),
            // Name; caches and TLBs; TLBs of 1 GiB pages; optimization hints.
            0x8000_0002..=0x8000_0006 | 0x8000_0019 | 0x8000_001A => self.host(leaf, 0),
            0x8000_0007 => [0, 0, 0, b::INVARIANT_TSC],
            0x8000_0008 => self.sizes(),
            0x8000_001D => self.amd_cache(subleaf),
            0x8000_001E if self.has_topoext() => {
                let core = self.topology.core(self.apic_id) & 0xFF;
                [self.apic_id, core, self.topology.package(self.apic_id) & 0xFF, 0]
            }
            0x8000_0021 => [self.host(leaf, 0)[0] & b::EAX_8021, 0, 0, 0],
            // 0xA: SVM; 0x1B: IBS; 0x1C: LWP; 0x1F: memory encryption; ...
            _ => [0; 4],
        }
    }

    fn extended_features(&self) -> [u32; 4] {
        let [a, ebx, c, d] = self.host(0x8000_0001, 0);
        let mut ecx = c & b::ECX_8001;
        if self.topology.cores > 1 {
            ecx |= b::CMP_LEGACY;
        }
        // Intel leaves the bits that repeat leaf 1 zero.
        let repeated = if d & 1 != 0 { b::EDX_8001_SET } else { 0 };
        [a, ebx, ecx, (d & b::EDX_8001) | repeated]
    }

    fn has_topoext(&self) -> bool {
        self.host(0x8000_0001, 0)[2] & (1 << 22) != 0
    }

    /// Physical address bits of the guest.
    pub(crate) fn phys_bits(&self) -> u32 {
        (self.host(0x8000_0008, 0)[0] & 0xFF).clamp(PHYS_BITS_MIN, 52)
    }

    /// Feature bits of leaf 0x8000_0001 EDX that the guest sees.
    pub(crate) fn extended_edx(&self) -> u32 {
        self.extended_features()[3]
    }

    fn sizes(&self) -> [u32; 4] {
        let [a, ebx, _, _] = self.host(0x8000_0008, 0);
        let linear = ((a >> 8) & 0xFF).max(48);
        let cores = (self.topology.cores - 1).min(0xFF);
        let ecx = cores | (self.topology.core_bits.min(0xF) << 12);
        [self.phys_bits() | (linear << 8), ebx & b::EBX_8008, ecx, 0]
    }

    /// Leaf 0x8000_001D, of AMD processors, in the form of leaf 4.
    fn amd_cache(&self, subleaf: u32) -> [u32; 4] {
        let [a, b, c, d] = self.host(0x8000_001D, subleaf);
        if a & 0x1F == 0 || !self.has_topoext() {
            return [0; 4];
        }
        let sharing = if (a >> 5) & 7 >= 3 { self.sharing() } else { 0 };
        [(a & 0x3FFF) | (sharing << 14), b, c, d]
    }
}
