//! RSDP, XSDT or RSDT, FADT, MADT, MCFG.

use super::sleep;
use crate::pci::EcamRegion;
use alloc::vec::Vec;
use boot::pvh::Physical;

/// Largest table that is looked at.
const TABLE_MAX: usize = 4 << 20;
/// Most tables that are looked at.
const TABLES_MAX: usize = 128;
/// Most processors that are listed.
const CPUS_MAX: usize = 4096;
const HEADER_SIZE: usize = 36;

/// A processor of the node, from the MADT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its local APIC identity.
    pub apic_id: u32,
    /// Whether it can be used (else it may be plugged in later).
    pub enabled: bool,
}

/// A generic address structure (ACPI 6.5, 5.2.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// In system memory.
    Memory(u64),
    /// An I/O port.
    Port(u16),
}

/// What the tables say, as far as the node uses it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Whether a valid RSDP was found.
    pub found: bool,
    /// OEM identity of the RSDP.
    pub oem: [u8; 6],
    /// Processors of the node.
    pub cpus: Vec<Cpu>,
    /// Port of the PM timer.
    pub pm_timer: Option<u16>,
    /// Port of the PM1a control register.
    pub pm1a_control: Option<u16>,
    /// Port of the PM1b control register.
    pub pm1b_control: Option<u16>,
    /// Port and value that hand the hardware over to ACPI.
    pub enable: Option<(u16, u8)>,
    /// Register and value that reset the machine.
    pub reset: Option<(Register, u8)>,
    /// SLP_TYPa and SLP_TYPb of the state S5.
    pub s5: Option<(u8, u8)>,
    /// Memory mapped PCI configuration space of segment 0.
    pub ecam: Option<EcamRegion>,
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)) == 0
}

fn is_rsdp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RSD PTR ") && bytes.get(..20).is_some_and(sums_to_zero)
}

/// Finds an RSDP on a 16-byte boundary; empty if there is none.
#[must_use]
pub fn find_rsdp(area: &[u8]) -> &[u8] {
    (0..area.len()).step_by(16).map(|at| &area[at..]).find(|b| is_rsdp(b)).unwrap_or(&[])
}

/// Reads a whole table; `None` if its length or checksum is wrong.
fn table(memory: &impl Physical, address: u64) -> Option<&[u8]> {
    let len = u32_at(memory.bytes(address, HEADER_SIZE)?, 4)? as usize;
    if !(HEADER_SIZE..=TABLE_MAX).contains(&len) {
        return None;
    }
    memory.bytes(address, len).filter(|t| sums_to_zero(t))
}

/// Reads the tables from an RSDP on. What is missing or broken is left out.
#[must_use]
pub fn parse(memory: &impl Physical, rsdp: &[u8]) -> Tables {
    let mut found = Tables::default();
    if !is_rsdp(rsdp) {
        return found;
    }
    found.found = true;
    found.oem.copy_from_slice(&rsdp[9..15]);
    let extended = rsdp[15] >= 2 && rsdp.get(..36).is_some_and(sums_to_zero);
    let xsdt = if extended { u64_at(rsdp, 24).filter(|&a| a != 0) } else { None };
    let (root, width) = match xsdt.and_then(|a| table(memory, a)) {
        Some(root) => (root, 8),
        None => match u32_at(rsdp, 16).and_then(|a| table(memory, u64::from(a))) {
            Some(root) => (root, 4),
            None => return found,
        },
    };
    for entry in root[HEADER_SIZE..].chunks_exact(width).take(TABLES_MAX) {
        let address = u64_at(entry, 0).or_else(|| u32_at(entry, 0).map(u64::from)).unwrap_or(0);
        let Some(t) = table(memory, address) else { continue };
        match &t[..4] {
            b"FACP" => read_fadt(memory, t, &mut found),
            b"APIC" => read_madt(t, &mut found),
            b"MCFG" => read_mcfg(t, &mut found),
            b"SSDT" => found.s5 = found.s5.or_else(|| sleep::s5(&t[HEADER_SIZE..])),
            _ => {}
        }
    }
    found
}

/// A generic address structure; `None` if it is zero or of another space.
fn register(t: &[u8], at: usize) -> Option<Register> {
    let address = u64_at(t, at + 4).filter(|&a| a != 0)?;
    match t.get(at)? {
        0 => Some(Register::Memory(address)),
        1 => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

/// The port of a register block: the extended field, else the old one.
fn block(t: &[u8], extended: usize, old: usize) -> Option<u16> {
    match register(t, extended) {
        Some(Register::Port(port)) => Some(port),
        _ => u16::try_from(u32_at(t, old)?).ok().filter(|&p| p != 0),
    }
}

/// ACPI 6.5, table 5.9.
fn read_fadt(memory: &impl Physical, t: &[u8], found: &mut Tables) {
    const RESET_SUPPORTED: u32 = 1 << 10;
    const HARDWARE_REDUCED: u32 = 1 << 20;
    let flags = u32_at(t, 112).unwrap_or(0);
    if flags & HARDWARE_REDUCED == 0 {
        found.pm_timer = block(t, 208, 76);
        found.pm1a_control = block(t, 172, 64);
        found.pm1b_control = block(t, 184, 68);
        let port = u32_at(t, 48).and_then(|p| u16::try_from(p).ok()).filter(|&p| p != 0);
        found.enable = port.zip(t.get(52).copied().filter(|&v| v != 0));
    }
    if flags & RESET_SUPPORTED != 0 {
        found.reset = register(t, 116).zip(t.get(128).copied());
    }
    let dsdt = u64_at(t, 140).filter(|&a| a != 0);
    let dsdt = dsdt.or_else(|| u32_at(t, 40).map(u64::from)).and_then(|a| table(memory, a));
    if let Some(s5) = dsdt.and_then(|d| sleep::s5(&d[HEADER_SIZE..])) {
        found.s5 = Some(s5);
    }
}

/// ACPI 6.5, 5.2.12.
fn read_madt(t: &[u8], found: &mut Tables) {
    let mut rest = t.get(44..).unwrap_or(&[]);
    while let &[kind, len, ..] = rest {
        let Some(entry) = rest.get(..usize::from(len)).filter(|e| e.len() >= 2) else { return };
        let (apic_id, flags) = match kind {
            0 => (entry.get(3).map(|&id| u32::from(id)), u32_at(entry, 4)),
            9 => (u32_at(entry, 4), u32_at(entry, 8)),
            _ => (None, None),
        };
        if let (Some(apic_id), Some(flags)) = (apic_id, flags)
            && found.cpus.len() < CPUS_MAX
        {
            found.cpus.push(Cpu { apic_id, enabled: flags & 1 != 0 });
        }
        rest = &rest[entry.len()..];
    }
}

/// PCI Firmware Specification 3.2, 4.1.2.
fn read_mcfg(t: &[u8], found: &mut Tables) {
    for entry in t.get(44..).unwrap_or(&[]).chunks_exact(16) {
        if let (Some(base), Some(0)) = (u64_at(entry, 0), u16_at(entry, 8)) {
            let (first_bus, last_bus) = (entry[10], entry[11]);
            found.ecam.get_or_insert(EcamRegion { base, first_bus, last_bus });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

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
            &sdt(
                b"XSDT",
                60,
                &[(36, &address(0x100)), (44, &address(0x300)), (52, &address(0x400))],
            ),
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
        let s5 = [0x08, b'_', b'S', b'5', b'_', 0x12, 6, 4, 0x0A, 5, 0, 0, 0];
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
        assert_eq!(
            t.cpus,
            [Cpu { apic_id: 7, enabled: true }, Cpu { apic_id: 256, enabled: false },]
        );
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
            for v in [0, 1, 0x7F, 0xFF] {
                let mut m = Fake(good.0.clone());
                m.0[at] = v;
                // Make the damage count: put the checksums right again.
                for (start, len) in
                    [(0x40, 60), (0x100, 244), (0x300, 80), (0x400, 60), (0x500, 49)]
                {
                    fix(&mut m.0[start..start + len], 9);
                }
                let _ = parse(&m, &m.0[..36]);
            }
        }
        assert!(!parse(&good, b"RSD PTR ").found);
    }
}
