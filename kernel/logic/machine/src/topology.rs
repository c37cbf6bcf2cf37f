//! Processors, and how their APIC ids tell packages from cores.

use addr::NodeId;
use alloc::vec::Vec;

/// One processor of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuPlace {
    /// x2APIC id.
    pub apic_id: u32,
    /// The node it runs on: its package and NUMA node.
    pub node: NodeId,
}

/// The split of APIC ids into package and core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Topology {
    cpus: Vec<CpuPlace>,
    /// Low bits of an APIC id that tell cores of one package apart.
    pub(crate) core_bits: u32,
    /// Most processors on one node.
    pub(crate) cores: u32,
}

impl Topology {
    /// Finds the split: the fewest core bits such that two processors share
    /// the bits above exactly if they share the node. `None` if there is no
    /// such split, no processor, or an APIC id twice or reserved.
    pub(crate) fn new(cpus: &[CpuPlace]) -> Option<Topology> {
        let mut sorted: Vec<CpuPlace> = cpus.to_vec();
        sorted.sort_by_key(|c| c.apic_id);
        if sorted.is_empty()
            || sorted.windows(2).any(|w| w[0].apic_id == w[1].apic_id)
            || sorted.iter().any(|c| c.apic_id == u32::MAX)
        {
            return None;
        }
        let fits = |bits: u32| {
            let consistent = sorted.windows(2).all(|w| {
                (w[0].apic_id >> bits == w[1].apic_id >> bits) == (w[0].node == w[1].node)
            });
            // A node whose ids are not next to each other would pass the
            // comparison of neighbours.
            let mut nodes: Vec<NodeId> = sorted.iter().map(|c| c.node).collect();
            nodes.dedup();
            let runs = nodes.len();
            nodes.sort();
            nodes.dedup();
            consistent && runs == nodes.len()
        };
        let core_bits = (0..16).find(|&bits| fits(bits))?;
        let cores = sorted.chunk_by(|a, b| a.node == b.node).map(<[CpuPlace]>::len).max()?;
        Some(Topology { cpus: cpus.to_vec(), core_bits, cores: cores as u32 })
    }

    /// All processors, in the machine's order.
    pub(crate) fn cpus(&self) -> &[CpuPlace] {
        &self.cpus
    }

    /// The package that an APIC id belongs to.
    pub(crate) fn package(&self, apic_id: u32) -> u32 {
        apic_id >> self.core_bits
    }

    /// The core's number in its package.
    pub(crate) fn core(&self, apic_id: u32) -> u32 {
        apic_id & ((1 << self.core_bits) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(list: &[(u32, u16)]) -> Option<Topology> {
        let cpus: Vec<_> =
            list.iter().map(|&(apic_id, n)| CpuPlace { apic_id, node: NodeId(n) }).collect();
        Topology::new(&cpus)
    }

    #[test]
    fn core_bits_follow_the_ids() {
        assert_eq!(place(&[(0, 0)]).unwrap().core_bits, 0);
        let two = place(&[(0, 0), (1, 0), (2, 1), (3, 1)]).unwrap();
        assert_eq!((two.core_bits, two.cores), (1, 2));
        assert_eq!((two.package(3), two.core(3)), (1, 1));
        let gaps = place(&[(0, 0), (1, 0), (2, 0), (8, 1)]).unwrap();
        assert_eq!((gaps.core_bits, gaps.cores), (2, 3));
        assert_eq!(place(&[(0, 0), (1, 1)]).unwrap().core_bits, 0);
    }

    #[test]
    fn ids_that_cannot_be_split() {
        assert_eq!(place(&[]), None);
        assert_eq!(place(&[(1, 0), (1, 1)]), None);
        assert_eq!(place(&[(0, 0), (1, 1), (2, 0)]), None);
        assert_eq!(place(&[(u32::MAX, 0)]), None);
    }
}
