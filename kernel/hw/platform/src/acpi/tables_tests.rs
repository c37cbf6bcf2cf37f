//! Tests of the table reader against a made-up firmware.

use super::tables::{Cpu, Register, find_rsdp, parse};
use crate::pci::EcamRegion;
use alloc::vec;
use alloc::vec::Vec;
use boot::pvh::Physical;

const BASE: u64 = 0x8000;

struct Fake(Vec<u8>);

impl Physical for Fake {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(at..at.checked_add(len)?)
    }
}

fn fix(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |s, &b| s.wrapping_sub(b));
}

fn sdt(signature: &[u8; 4], len: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut t = vec![0; len];
    t[..4].copy_from_slice(signature);
    t[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    for (at, bytes) in fields {
        t[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    fix(&mut t, 9);
    t
}

/// RSDP at 0, XSDT at 0x40, FADT 0x100, MADT 0x300, MCFG 0x400, DSDT 0x500.
fn firmware() -> Fake {
    let mut m = vec![0u8; 0x600];
    let mut put = |at: usize, bytes: &[u8]| m[at..at + bytes.len()].copy_from_slice(bytes);
    let address = |offset: u64| (BASE + offset).to_le_bytes();
    put(
        0x40,
        &sdt(b"XSDT", 60, &[(36, &address(0x100)), (44, &address(0x300)), (52, &address(0x400))]),
    );
    let mut reset = [0u8; 12];
    reset[0] = 1;
    reset[4..6].copy_from_slice(&0xCF9u16.to_le_bytes());
    put(
        0x100,
        &sdt(
            b"FACP",
            244,
            &[
                (40, &(BASE as u32 + 0x500).to_le_bytes()),
                (48, &0xB2u32.to_le_bytes()),
                (52, &[2]),
                (64, &0x604u32.to_le_bytes()),
                (76, &0x608u32.to_le_bytes()),
                (88, &[4, 2, 0, 4]),
                (112, &(1u32 << 10).to_le_bytes()),
                (116, &reset),
                (128, &[0xF]),
            ],
        ),
    );
    put(
        0x300,
        &sdt(
            b"APIC",
            44 + 8 + 16 + 12,
            &[
                (44, &[0, 8, 0, 7, 1, 0, 0, 0]),
                (52, &[1, 12, 0, 0]),
                (64, &[9, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
            ],
        ),
    );
    put(0x400, &sdt(b"MCFG", 60, &[(44, &0xB000_0000u64.to_le_bytes()), (54, &[0, 255])]));
    let s5 = [0x08, b'_', b'S', b'5', b'_', 0x12, 7, 4, 0x0A, 5, 0, 0, 0];
    put(0x500, &sdt(b"DSDT", 49, &[(36, &s5)]));
    let mut rsdp = [0u8; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(b"BOCHS ");
    rsdp[15] = 2;
    rsdp[20] = 36;
    rsdp[24..32].copy_from_slice(&address(0x40));
    fix(&mut rsdp[..20], 8);
    fix(&mut rsdp, 32);
    put(0, &rsdp);
    Fake(m)
}

#[test]
fn reads_what_the_node_needs() {
    let m = firmware();
    let t = parse(&m, find_rsdp(&m.0));
    assert!(t.found);
    assert_eq!(t.cpus, [Cpu { apic_id: 7, enabled: true }, Cpu { apic_id: 256, enabled: false },]);
    assert_eq!((t.pm_timer, t.pm1a_control, t.pm1b_control), (Some(0x608), Some(0x604), None));
    assert_eq!(t.enable, Some((0xB2, 2)));
    assert_eq!(t.reset, Some((Register::Port(0xCF9), 0xF)));
    assert_eq!(t.s5, Some((5, 0)));
    assert_eq!(t.ecam, Some(EcamRegion { base: 0xB000_0000, first_bus: 0, last_bus: 255 }));
}

#[test]
fn survives_hostile_tables() {
    let good = firmware();
    for len in 0..good.0.len() {
        let m = Fake(good.0[..len].to_vec());
        let _ = parse(&m, find_rsdp(&m.0));
    }
    for at in 0..good.0.len() {
        for v in [0, 1, 36, 0x7F, 0xFF] {
            let mut m = Fake(good.0.clone());
            m.0[at] = v;
            // Make the damage count: put the checksums right again.
            for start in [0x40, 0x100, 0x300, 0x400, 0x500] {
                let len = u16::from_le_bytes([m.0[start + 4], m.0[start + 5]]).into();
                if let Some(table) = m.0[start..].get_mut(..len).filter(|t| t.len() > 9) {
                    fix(table, 9);
                }
            }
            let _ = parse(&m, &m.0[..36]);
        }
    }
    assert!(!parse(&good, b"RSD PTR ").found);
}

#[test]
fn without_a_sound_xsdt_the_rsdt_counts() {
    let mut m = firmware();
    m.0[0x40 + 44] ^= 1;
    assert_eq!(parse(&m, &m.0[..36]).pm_timer, None);
    let fadt = (BASE as u32 + 0x100).to_le_bytes();
    m.0[0x80..0x80 + 40].copy_from_slice(&sdt(b"RSDT", 40, &[(36, &fadt)]));
    m.0[16..20].copy_from_slice(&(BASE as u32 + 0x80).to_le_bytes());
    fix(&mut m.0[..20], 8);
    assert_eq!(parse(&m, &m.0[..36]).pm_timer, Some(0x608));
    // Version 1.0 ends before the XSDT's address.
    assert_eq!(parse(&m, &m.0[..20]).s5, Some((5, 0)));
}

#[test]
fn an_entry_without_length_ends_the_processors() {
    for kind in [0, 9, 0x20, 0xFF] {
        let mut m = firmware();
        m.0[0x300 + 52..][..2].copy_from_slice(&[kind, 0]);
        fix(&mut m.0[0x300..0x300 + 80], 9);
        assert_eq!(parse(&m, &m.0[..36]).cpus, [Cpu { apic_id: 7, enabled: true }]);
    }
}
