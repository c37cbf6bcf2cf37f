//! What the node takes from its firmware's ACPI tables.
//!
//! Source: ACPI Specification 6.5, chapter 5. The acpi crate decodes the
//! tables and evaluates `\_S5`. Tables are bytes from outside, which the crate
//! trusts, so it is given checked copies only: `guard` makes them, [`tables`]
//! and `sleep` take out what a node needs; nothing panics.
//!
//! The crate uses the unstable feature allocator_api: `RUSTC_BOOTSTRAP` in the
//! workspace's `.cargo/config.toml` lets a stable compiler build this one
//! crate with it.

mod guard;
mod sleep;
pub mod tables;
#[cfg(test)]
mod tables_tests;

use crate::address_space::map_firmware;
use boot::pvh::Physical;
use boot::{BootInfo, Range, Rsdp};
use spin::Once;
pub use tables::{Cpu, Register, Tables};

/// The BIOS area in which an RSDP may lie (ACPI 6.5, 5.2.5.1). The other
/// place, the extended BIOS data area, is not searched: both loaders say
/// where the RSDP is.
const BIOS_AREA: Range = Range::new(0xE_0000, 0x10_0000);

/// Firmware memory, mapped when it is read.
struct Firmware;

impl Physical for Firmware {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let bytes = map_firmware(address, len as u64).ok()?;
        // SAFETY: just mapped, and never unmapped; any pattern is a valid u8;
        // the firmware's tables are not written to by anybody.
        Some(unsafe { core::slice::from_raw_parts(bytes, len) })
    }
}

static TABLES: Once<Tables> = Once::new();

/// Reads the tables. The node's own page tables and heap have to be there.
pub(crate) fn start(info: &BootInfo) -> &'static Tables {
    TABLES.call_once(|| {
        let memory = Firmware;
        match info.rsdp {
            Rsdp::Copy(copy) => tables::parse(&memory, &copy),
            Rsdp::Address(at) => tables::parse(&memory, memory.bytes(at, 36).unwrap_or(&[])),
            Rsdp::Unknown => {
                let area = memory.bytes(BIOS_AREA.start, BIOS_AREA.len() as usize);
                tables::parse(&memory, tables::find_rsdp(area.unwrap_or(&[])))
            }
        }
    })
}

/// What the tables said, once they have been read.
#[must_use]
pub fn get() -> Option<&'static Tables> {
    TABLES.get()
}
