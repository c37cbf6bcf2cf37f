use super::*;
use crate::topology::CpuPlace;
use addr::NodeId;
use alloc::vec::Vec;

/// A generous AMD host: every bit set, except where a number is expected.
fn host(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (0, _) => [0x10, u32::from_le_bytes(*b"Auth"), 0x444D_4163, 0x6974_6E65],
        (1, _) => [0x0080_0F12, 0x0508_0800, u32::MAX, u32::MAX],
        (7, 0) => [1, u32::MAX, u32::MAX, u32::MAX],
        (0xD, 0) => [0x2FF, 0, 0, 0],
        (0xD, 1) => [0x1F, 0, 0, 0],
        (0xD, 2) => [256, 576, 0, 0],
        (0xD, 5) => [64, 1088, 2, 0],
        (0xD, 6) => [512, 1152, 2, 0],
        (0xD, 7) => [1024, 1664, 2, 0],
        (0x8000_0000, _) => [0x8000_0028, 0, 0, 0],
        (0x8000_0008, _) => [0x3030, u32::MAX, 0x7007, 0],
        (0x8000_001D, 0..=3) => [0xFFFF_C001 | ((subleaf + 1).min(3) << 5), 0, 0, 0],
        _ => [u32::MAX; 4],
    }
}

fn ask(cpus: &[(u32, u16)], which: usize, leaf: u32, subleaf: u32) -> [u32; 4] {
    let cpus: Vec<_> =
        cpus.iter().map(|&(apic_id, n)| CpuPlace { apic_id, node: NodeId(n) }).collect();
    let topology = Topology::new(&cpus).unwrap();
    let query = Query {
        host: &host,
        topology: &topology,
        apic_id: cpus[which].apic_id,
        cr4: CR4_OSXSAVE,
        xcr0: 7,
        tsc_hz: 2_600_000_000,
        nodes: 2,
        node: u32::from(cpus[which].node.0),
    };
    query.answer(leaf, subleaf)
}

const ONE: &[(u32, u16)] = &[(0, 0)];
const FOUR: &[(u32, u16)] = &[(0, 0), (1, 0), (4, 1), (5, 1)];

#[test]
fn what_the_guest_must_not_use_is_hidden() {
    let [_, _, c, d] = ask(ONE, 0, 1, 0);
    for hidden in [2, 3, 4, 5, 6, 15] {
        assert_eq!(c & (1 << hidden), 0, "leaf 1 ECX {hidden}");
    }
    assert_eq!(d & (1 << 28), 0, "one processor has no HTT");
    for shown in [17, 21, 24, 26, 27, 31] {
        assert_ne!(c & (1 << shown), 0, "leaf 1 ECX {shown}");
    }
    let [_, _, c, _] = ask(ONE, 0, 0x8000_0001, 0);
    for hidden in [2, 3, 10, 12, 13, 15, 23, 24, 28, 29] {
        assert_eq!(c & (1 << hidden), 0, "leaf 0x80000001 ECX {hidden}");
    }
    for leaf in [5, 9, 0xA, 0xE, 0x8000_000A, 0x8000_001B, 0x8000_001C, 0x8000_001F] {
        assert_eq!(ask(ONE, 0, leaf, 0), [0; 4], "leaf {leaf:#x}");
    }
    assert_eq!(ask(ONE, 0, 7, 0)[3] & 0xFC00_0000, 0, "no speculation controls");
}

#[test]
fn topology_leaves_agree() {
    for (n, &(apic_id, node)) in FOUR.iter().enumerate() {
        let [_, b, _, d] = ask(FOUR, n, 1, 0);
        assert_eq!((b >> 24, (b >> 16) & 0xFF), (apic_id, 2));
        assert_ne!(d & (1 << 28), 0);
        assert_eq!(ask(FOUR, n, 0xB, 0), [0, 1, 0x100, apic_id]);
        let [shift, count, level, id] = ask(FOUR, n, 0xB, 1);
        assert_eq!((count, level, id), (2, 0x201, apic_id));
        assert_eq!(ask(FOUR, n, 0xB, 2)[..3], [0, 0, 2]);
        let [a, b, c, _] = ask(FOUR, n, 0x8000_001E, 0);
        assert_eq!((a, b, c), (apic_id, apic_id & ((1 << shift) - 1), apic_id >> shift));
        assert_eq!(c != 0, node != 0);
        let [.., c, _] = ask(FOUR, n, 0x8000_0008, 0);
        assert_eq!((c & 0xFF, c >> 12), (1, shift));
        assert_eq!((ask(FOUR, n, 0x8000_001D, 0)[0] >> 14) & 0xFFF, 0);
        assert_eq!((ask(FOUR, n, 0x8000_001D, 2)[0] >> 14) & 0xFFF, (1 << shift) - 1);
    }
}

#[test]
fn extended_state_is_cut_to_avx512() {
    let [mask, size, max, high] = ask(ONE, 0, 0xD, 0);
    assert_eq!((mask, size, max, high), (0xE7, 832, 2688, 0));
    assert_eq!(ask(ONE, 0, 0xD, 1), [7, 832, 0, 0]);
    assert_eq!(ask(ONE, 0, 0xD, 9), [0; 4], "protection keys");
}

#[test]
fn hypervisors_are_announced() {
    assert_eq!(ask(ONE, 0, 0x4000_0000, 0), [0x4000_0001, 0x4B4D_564B, 0x564B_4D56, 0x4D]);
    assert_eq!(ask(ONE, 0, 0x4000_0001, 0)[0], 0x0100_000A);
    assert_eq!(ask(ONE, 0, 0x4000_0101, 0), [2_600_000, 2, 1, 0]);
    assert_eq!(ask(ONE, 0, 0x4000_0200, 0), [0; 4]);
}

#[test]
fn leaves_beyond_the_last_are_zero() {
    assert_eq!(ask(ONE, 0, 0, 0)[0], 0xD);
    assert_eq!(ask(ONE, 0, 0x8000_0000, 0)[0], 0x8000_0021);
    for leaf in [0xE, 0x1F, 0x8000_0022, 0x1234_5678, 0xFFFF_FFFF] {
        assert_eq!(ask(ONE, 0, leaf, 0), [0; 4]);
    }
}
