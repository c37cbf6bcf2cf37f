//! SRAT and SLIT: which memory and processors are near each other
//! (ACPI 6.5, 5.2.16 and 5.2.17).

use crate::{Config, Cpu, OEM, OEM_REVISION, OEM_TABLE, table};
use acpi_tables::sdt::Sdt;
use acpi_tables::slit::SLIT;
use alloc::vec::Vec;

const ENABLED: u32 = 1;
/// Distance to another node. 10 is to itself. Above 30 Linux would stop to
/// balance and reclaim across nodes, so the truth (thousands) is not told.
const REMOTE: u8 = 20;
/// With more nodes no SLIT is made; it would take all room to say the same
/// that an operating system assumes without.
const SLIT_NODES_MAX: usize = 128;

/// The SRAT: processors, then memory.
pub(crate) fn srat(config: &Config<'_>) -> Sdt {
    let mut body = Vec::new();
    // Reserved; must be 1, then 0.
    body.extend(1u32.to_le_bytes());
    body.extend(0u64.to_le_bytes());
    for cpu in config.cpus {
        processor(&mut body, cpu);
    }
    for range in config.layout.ranges() {
        let start = range.start.start().0;
        let bytes = range.end.start().0 - start;
        body.extend([1, 40]);
        body.extend(u32::from(range.home.0).to_le_bytes());
        body.extend([0; 2]);
        body.extend(start.to_le_bytes());
        body.extend(bytes.to_le_bytes());
        body.extend([0; 4]);
        body.extend(ENABLED.to_le_bytes());
        body.extend([0; 8]);
    }
    table(*b"SRAT", 3, &body)
}

/// The same split of ids as in the MADT.
fn processor(body: &mut Vec<u8>, cpu: &Cpu) {
    let domain = u32::from(cpu.node.0).to_le_bytes();
    match u8::try_from(cpu.apic_id) {
        Ok(short @ ..=254) => {
            body.extend([0, 16, domain[0], short]);
            body.extend(ENABLED.to_le_bytes());
            body.extend([0, domain[1], domain[2], domain[3]]);
            body.extend([0; 4]);
        }
        _ => {
            body.extend([2, 24, 0, 0]);
            body.extend(domain);
            body.extend(cpu.apic_id.to_le_bytes());
            body.extend(ENABLED.to_le_bytes());
            body.extend([0; 8]);
        }
    }
}

/// The SLIT, unless there are too many nodes.
pub(crate) fn slit(nodes: usize) -> Option<SLIT> {
    if nodes > SLIT_NODES_MAX {
        return None;
    }
    let mut slit = SLIT::new(OEM, OEM_TABLE, OEM_REVISION, nodes as u32);
    for a in 0..nodes {
        for b in 0..a {
            slit.set_distance(a, b, REMOTE);
        }
    }
    Some(slit)
}
