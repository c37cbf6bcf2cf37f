//! Leaves from 0x4000_0000 on: the KVM interface for operating systems that
//! know it, and Pangaea's own for its benchmark guests.

use super::Query;

/// First leaf of the KVM interface (Linux
/// Documentation/virt/kvm/x86/cpuid.rst).
pub(super) const KVM_BASE: u32 = 0x4000_0000;
/// First leaf of Pangaea's own range: EAX the last leaf, EBX, ECX, EDX the
/// signature. The next leaf: EAX the TSC's frequency in kHz, EBX the number
/// of nodes, ECX of processors, EDX the node this processor runs on.
pub const PANGAEA_BASE: u32 = 0x4000_0100;
/// Signature of Pangaea's own range.
pub const PANGAEA_SIGNATURE: &[u8; 12] = b"PangaeaPanga";

/// KVM_FEATURE_NOP_IO_DELAY, KVM_FEATURE_CLOCKSOURCE2,
/// KVM_FEATURE_CLOCKSOURCE_STABLE_BIT.
const KVM_FEATURES: u32 = (1 << 1) | (1 << 3) | (1 << 24);

fn signature(max: u32, text: &[u8; 12]) -> [u32; 4] {
    let word = |i: usize| u32::from_le_bytes([text[i], text[i + 1], text[i + 2], text[i + 3]]);
    [max, word(0), word(4), word(8)]
}

impl Query<'_> {
    pub(super) fn hypervisor(&self, leaf: u32) -> [u32; 4] {
        match leaf {
            KVM_BASE => signature(KVM_BASE + 1, b"KVMKVMKVM\0\0\0"),
            0x4000_0001 => [KVM_FEATURES, 0, 0, 0],
            PANGAEA_BASE => signature(PANGAEA_BASE + 1, PANGAEA_SIGNATURE),
            0x4000_0101 => [
                u32::try_from(self.tsc_hz / 1000).unwrap_or(u32::MAX),
                self.nodes,
                self.topology.cpus().len() as u32,
                self.node,
            ],
            _ => [0; 4],
        }
    }
}
