//! Message signalled interrupts.
//!
//! Sources: PCI Local Bus Specification 3.0, section 6.8 (MSI and MSI-X
//! capabilities); Intel SDM volume 3, 11.11 (message address and data).

use super::{Bar, Device, capability};
use crate::address_space::map_mmio;
use crate::apic;

const MSI_ENABLE: u32 = 1 << 16;
const MSI_MULTIPLE_ENABLE: u32 = 0b111 << 20;
const MSI_64BIT: u32 = 1 << 23;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;

/// Where a message goes: fixed delivery, edge, to this processor.
fn message_address() -> u32 {
    // Eight bits of APIC identity fit; the boot processor's is below 255.
    0xFEE0_0000 | (apic::id() & 0xFF) << 12
}

impl Device {
    /// Makes the device signal `vector` by MSI; `false` if it cannot.
    pub fn enable_msi(&self, vector: u8) -> bool {
        let Some(at) = self.capability(capability::MSI) else { return false };
        let control = self.read32(at) & !(MSI_ENABLE | MSI_MULTIPLE_ENABLE);
        self.write32(at, control);
        self.write32(at + 4, message_address());
        let data = if control & MSI_64BIT != 0 {
            self.write32(at + 8, 0);
            at + 12
        } else {
            at + 8
        };
        // The upper half of the word is reserved (or extended data): zero.
        self.write32(data, u32::from(vector));
        self.disable_intx();
        self.write32(at, control | MSI_ENABLE);
        true
    }

    /// Makes entry `entry` of the device's MSI-X table signal `vector` and
    /// turns MSI-X on; `false` if the device has no such entry. Entries that
    /// were not set up stay masked.
    pub fn enable_msix(&self, entry: u16, vector: u8) -> bool {
        self.msix_entry(entry, vector).is_some()
    }

    fn msix_entry(&self, entry: u16, vector: u8) -> Option<()> {
        let at = self.capability(capability::MSIX)?;
        let control = self.read32(at);
        if u32::from(entry) > (control >> 16 & 0x7FF) {
            return None;
        }
        let table = self.read32(at + 4);
        let Some(Bar::Memory { address, size, .. }) = self.bar((table & 0b111) as u8) else {
            return None;
        };
        let offset = u64::from(table & !0b111) + 16 * u64::from(entry);
        if address == 0 || offset + 16 > size {
            return None;
        }
        let words = map_mmio(address.checked_add(offset)?, 16).ok()?.cast::<u32>();
        self.write32(at, control | MSIX_ENABLE | MSIX_FUNCTION_MASK);
        let values = [message_address(), 0, u32::from(vector), 0];
        for (i, value) in values.into_iter().enumerate() {
            // SAFETY: `words` is the 16-byte entry, four-aligned, inside the
            // device's own BAR and mapped uncached just above.
            unsafe { words.add(i).write_volatile(value) };
        }
        self.disable_intx();
        self.write32(at, (control | MSIX_ENABLE) & !MSIX_FUNCTION_MASK);
        Some(())
    }
}
