//! MADT: local APICs, the I/O APIC, ISA overrides (ACPI 6.5, 5.2.12).

use crate::{Cpu, table};
use acpi_tables::sdt::Sdt;
use alloc::vec::Vec;
use chipset::map;

/// The machine also has a pair of 8259s.
const PCAT_COMPAT: u32 = 1;
const ENABLED: u32 = 1;
/// MPS INTI flags: active high, level.
const HIGH_LEVEL: u16 = 0b1101;
/// MPS INTI flags: as the bus conforms (ISA: active high, edge).
const CONFORMS: u16 = 0;
/// Local interrupt input that NMI is wired to.
const NMI_LINT: u8 = 1;

/// Ids below this must have the short entry.
const SHORT_IDS: u32 = 255;

/// The MADT.
pub(crate) fn madt(cpus: &[Cpu]) -> Sdt {
    let mut body = Vec::new();
    body.extend((map::LAPIC_BASE as u32).to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    for cpu in cpus {
        processor(&mut body, cpu.apic_id);
    }
    io_apic(&mut body);
    isa_override(&mut body, map::IRQ_PIT, map::GSI_PIT, CONFORMS);
    isa_override(&mut body, map::IRQ_SCI, map::IRQ_SCI, HIGH_LEVEL);
    // Local APIC NMI, all processors by short entry.
    body.extend([4, 6, 0xFF, 0, 0, NMI_LINT]);
    if cpus.iter().any(|c| c.apic_id >= SHORT_IDS) {
        // Local x2APIC NMI, all processors.
        body.extend([0xA, 12, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, NMI_LINT, 0, 0, 0]);
    }
    table(*b"APIC", 5, &body)
}

fn processor(body: &mut Vec<u8>, id: u32) {
    match u8::try_from(id) {
        Ok(short) if id < SHORT_IDS => {
            body.extend([0, 8, short, short]);
            body.extend(ENABLED.to_le_bytes());
        }
        _ => {
            body.extend([9, 16, 0, 0]);
            for field in [id, ENABLED, id] {
                body.extend(field.to_le_bytes());
            }
        }
    }
}

fn io_apic(body: &mut Vec<u8>) {
    body.extend([1, 12, map::IOAPIC_ID, 0]);
    body.extend((map::IOAPIC_BASE as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
}

fn isa_override(body: &mut Vec<u8>, source: u8, interrupt: u8, flags: u16) {
    body.extend([2, 10, 0, source]);
    body.extend(u32::from(interrupt).to_le_bytes());
    body.extend(flags.to_le_bytes());
}
