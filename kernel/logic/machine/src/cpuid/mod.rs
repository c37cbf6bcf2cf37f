//! CPUID as the guest sees it: a function of the host's.
//!
//! What a leaf says is one of three things. Facts about instructions that run
//! natively are the host's, through a mask of the bits this machine supports
//! ([`bits`]): a new feature stays hidden until someone adds it. Facts about
//! the machine (APIC ids, topology, timer features) are computed. Leaves for
//! things the guest does not have (virtualization, performance counters,
//! power management, MONITOR) are zero. Numbers are those of AMD APM vol. 3,
//! appendix E, and Intel SDM vol. 2, CPUID.

pub(crate) mod bits;
mod extended;
mod hypervisor;
mod xsave;

pub use hypervisor::{PANGAEA_BASE, PANGAEA_SIGNATURE};

use crate::topology::Topology;
use bits as b;

/// What the answer depends on.
pub(crate) struct Query<'a> {
    /// The host's CPUID.
    pub(crate) host: &'a dyn Fn(u32, u32) -> [u32; 4],
    /// The machine's processors.
    pub(crate) topology: &'a Topology,
    /// The asking processor.
    pub(crate) apic_id: u32,
    /// Its CR4.
    pub(crate) cr4: u64,
    /// Its XCR0.
    pub(crate) xcr0: u64,
    /// TSC ticks a second.
    pub(crate) tsc_hz: u64,
    /// Nodes in the machine.
    pub(crate) nodes: u32,
    /// The node the asking processor is on.
    pub(crate) node: u32,
}

/// CR4.OSXSAVE.
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
/// Highest basic leaf that is ever answered.
const MAX_BASIC: u32 = 0xD;

impl Query<'_> {
    /// The host's leaf, zeroes if it has none.
    pub(crate) fn host(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let [max, ..] = (self.host)(leaf & 0x8000_0000, 0);
        if leaf <= max { (self.host)(leaf, subleaf) } else { [0; 4] }
    }

    /// Whether the host's vendor is Intel, by the name in leaf 0.
    pub(crate) fn is_intel(&self) -> bool {
        let [_, b, c, d] = self.host(0, 0);
        [b, d, c] == [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
    }

    /// Highest basic leaf: the topology leaf is always there.
    fn max_basic(&self) -> u32 {
        (self.host)(0, 0)[0].clamp(0xB, MAX_BASIC)
    }

    /// EAX, EBX, ECX, EDX of a leaf.
    pub(crate) fn answer(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            0x4000_0000..=0x4FFF_FFFF => self.hypervisor(leaf),
            0x8000_0000..=0x8FFF_FFFF => self.extended(leaf, subleaf),
            _ if leaf > self.max_basic() => [0; 4],
            _ => self.basic(leaf, subleaf),
        }
    }

    fn basic(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match leaf {
            0x0 => {
                let [_, b, c, d] = self.host(0, 0);
                [self.max_basic(), b, c, d]
            }
            0x1 => self.features(),
            0x2 => self.host(leaf, 0),
            0x4 => self.intel_cache(subleaf),
            0x6 => [b::ARAT, 0, 0, 0],
            0x7 => self.structured_features(subleaf),
            0xB => self.extended_topology(subleaf),
            0xD => self.xsave(subleaf),
            // 3: serial number; 5: MONITOR; 9: DCA; 0xA: performance counters.
            _ => [0; 4],
        }
    }

    fn features(&self) -> [u32; 4] {
        let [a, ebx, c, d] = self.host(1, 0);
        let logical = self.topology.cores.min(255);
        let ebx = (self.apic_id << 24) | (logical << 16) | (ebx & 0xFF00);
        let mut ecx = (c & b::ECX_1) | b::ECX_1_SET;
        if self.cr4 & CR4_OSXSAVE != 0 && ecx & b::XSAVE != 0 {
            ecx |= b::OSXSAVE;
        }
        let mut edx = (d & b::EDX_1) | b::EDX_1_SET;
        if logical > 1 {
            edx |= b::HTT;
        }
        [a, ebx, ecx, edx]
    }

    /// Leaf 4, of Intel processors: all caches but the last level are a
    /// core's own.
    fn intel_cache(&self, subleaf: u32) -> [u32; 4] {
        let [a, b, c, d] = self.host(4, subleaf);
        if a & 0x1F == 0 {
            return [0; 4];
        }
        let package = ((1 << self.topology.core_bits) - 1u32).min(0x3F);
        let sharing = if (a >> 5) & 7 >= 3 { self.sharing() } else { 0 };
        [(a & 0x3FFF) | (sharing << 14) | (package << 26), b, c, d]
    }

    /// APIC ids that share the last-level cache, less one, in 12 bits.
    fn sharing(&self) -> u32 {
        ((1 << self.topology.core_bits) - 1u32).min(0xFFF)
    }

    fn structured_features(&self, subleaf: u32) -> [u32; 4] {
        match subleaf {
            0 => {
                let [_, ebx, c, d] = self.host(7, 0);
                let max = self.host(7, 0)[0].min(1);
                [max, (ebx & b::EBX_7) | b::EBX_7_SET, c & b::ECX_7, d & b::EDX_7]
            }
            1 if self.host(7, 0)[0] >= 1 => [self.host(7, 1)[0] & b::EAX_7_1, 0, 0, 0],
            _ => [0; 4],
        }
    }

    /// Leaf 0xB: one thread a core, the node's cores in a package.
    fn extended_topology(&self, subleaf: u32) -> [u32; 4] {
        const THREAD: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        match subleaf {
            0 => [0, 1, THREAD, self.apic_id],
            1 => [self.topology.core_bits, self.topology.cores, 1 | CORE, self.apic_id],
            n => [0, 0, n & 0xFF, self.apic_id],
        }
    }
}

#[cfg(test)]
mod tests;
