//! PCI and PCI Express: which devices there are and how to set them up.
//!
//! Sources: PCI Local Bus Specification 3.0, chapters 3.2.2.3.2 (CF8/CFC) and
//! 6 (configuration space); PCI Express Base Specification 3.0, 7.2.2 (ECAM).
//!
//! Use: [`devices`] lists what is there; a driver takes its [`Device`], maps
//! registers with [`Device::map_bar`], calls [`Device::enable`], and gets
//! interrupts by [`Device::enable_msix`], [`Device::enable_msi`] or
//! [`Device::interrupt_line`]. A device's registers are bytes from outside:
//! odd values end a walk, none panics. (Written here because the pci_types
//! crate panics on a reserved BAR type, sizes BARs that are decoding, and
//! follows a looping capability list for ever.)

mod config;
mod device;
mod msi;

pub use config::{Config, ConfigSpace, EcamRegion};
pub use device::{Bar, CapabilityIterator, Device};

use alloc::vec::Vec;
use spin::Once;

/// Most functions that are listed.
const DEVICES_MAX: usize = 256;

/// Capability identifiers (PCI Code and ID Assignment Specification).
pub mod capability {
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor specific: virtio describes its registers here.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// Message signalled interrupts, extended.
    pub const MSIX: u8 = 0x11;
}

/// A function's place on segment 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// Bus, 0 to 255.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

static CONFIG: Once<Config> = Once::new();

/// Decides how configuration space is reached: memory mapped where the ACPI
/// tables give a region, by ports elsewhere.
pub(crate) fn start(ecam: Option<EcamRegion>) {
    CONFIG.call_once(|| Config::new(ecam));
}

/// The node's configuration space.
#[must_use]
pub fn config() -> &'static Config {
    CONFIG.call_once(|| Config::new(None))
}

/// Lists the functions of all buses.
#[must_use]
pub fn devices() -> Vec<Device> {
    enumerate(config())
}

/// Stops the memory access of network, storage and USB controllers, which a
/// boot loader may have left running: their buffers are the node's now. A
/// driver turns its device on again by [`Device::enable`].
pub(crate) fn quiesce() {
    const NETWORK: u8 = 2;
    const STORAGE: u8 = 1;
    const SERIAL_BUS: (u8, u8) = (0x0C, 3);
    for d in devices() {
        let usb = (d.class, d.subclass) == SERIAL_BUS;
        if d.header == 0 && (d.class == NETWORK || d.class == STORAGE || usb) {
            d.disable_bus_master();
        }
    }
}

/// Lists functions bus by bus; a bus that answers to nothing costs 32 reads.
fn enumerate(config: &impl ConfigSpace) -> Vec<Device> {
    let mut found = Vec::new();
    for bus in 0..=255 {
        for device in 0..32 {
            let first = Address { bus, device, function: 0 };
            let functions = match Device::probe(config, first) {
                None => 0,
                Some(_) if config.read(first, 0x0C) & 0x80_0000 == 0 => 1,
                Some(_) => 8,
            };
            let addresses = (0..functions).map(|function| Address { bus, device, function });
            found.extend(addresses.filter_map(|a| Device::probe(config, a)));
            if found.len() >= DEVICES_MAX {
                found.truncate(DEVICES_MAX);
                return found;
            }
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod fake {
    //! A bus with one configuration space of 256 bytes a function.
    extern crate std;
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashMap;

    /// Registers, and for each the bits that can be written.
    #[derive(Default)]
    pub(crate) struct FakeBus(pub(crate) RefCell<HashMap<(Address, u16), (u32, u32)>>);

    impl FakeBus {
        pub(crate) fn set(&self, at: Address, offset: u16, value: u32, writable: u32) {
            self.0.borrow_mut().insert((at, offset), (value, writable));
        }
    }

    impl ConfigSpace for FakeBus {
        fn read(&self, at: Address, offset: u16) -> u32 {
            let present = self.0.borrow().contains_key(&(at, 0));
            let absent = if present { 0 } else { u32::MAX };
            self.0.borrow().get(&(at, offset)).map_or(absent, |r| r.0)
        }
        fn write(&self, at: Address, offset: u16, value: u32) {
            if let Some(r) = self.0.borrow_mut().get_mut(&(at, offset)) {
                r.0 = r.0 & !r.1 | value & r.1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeBus;
    use super::*;

    #[test]
    fn finds_functions_on_all_buses() {
        let bus = FakeBus::default();
        let at = |bus, device, function| Address { bus, device, function };
        for (a, header) in
            [(at(0, 0, 0), 0), (at(0, 31, 0), 0x80_0000), (at(0, 31, 3), 0), (at(255, 1, 0), 0)]
        {
            bus.set(a, 0, 0x100E_8086, 0);
            bus.set(a, 8, 0x0200_0003, 0);
            bus.set(a, 0x0C, header, 0);
        }
        // A function behind one that is not multifunction does not exist.
        bus.set(at(0, 0, 5), 0, 0x100E_8086, 0);
        let found = enumerate(&bus);
        let places: Vec<_> = found.iter().map(|d| d.address).collect();
        assert_eq!(places, [at(0, 0, 0), at(0, 31, 0), at(0, 31, 3), at(255, 1, 0)]);
        assert_eq!((found[0].vendor, found[0].device, found[0].class), (0x8086, 0x100E, 2));
    }
}
