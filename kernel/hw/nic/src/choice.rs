//! Which of the node's links to drive: Ethernet functions and shared memory.
//!
//! The order of [`Kind`] is the order of preference: it follows the page
//! round trips measured under emulation, where an e1000's transmit runs at
//! once and virtio's passes through another thread.

use crate::{e1000, shm, virtio};
use alloc::vec::Vec;
use platform::pci::{Address, Device};

const VENDOR_INTEL: u16 = 0x8086;

/// A driver of this crate, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Shared memory (ivshmem).
    Shared,
    /// Intel 8254x.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// virtio-net.
    Virtio,
}

impl Kind {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Shared => "shm",
            Kind::E1000 => "e1000",
            Kind::E1000e => "e1000e",
            Kind::Virtio => "virtio",
        }
    }

    /// The driver for a function, if there is one.
    #[must_use]
    pub fn of(device: &Device) -> Option<Kind> {
        if (device.vendor, device.device) == (shm::VENDOR, shm::DEVICE) {
            return Some(Kind::Shared);
        }
        if device.vendor == virtio::VENDOR && virtio::DEVICES.contains(&device.device) {
            return Some(Kind::Virtio);
        }
        if device.vendor != VENDOR_INTEL {
            return None;
        }
        e1000::Family::of(device.device).map(|family| match family {
            e1000::Family::I8254x => Kind::E1000,
            e1000::Family::I82574 => Kind::E1000e,
        })
    }
}

/// The functions with a driver that fit the wish, best first.
pub(crate) fn candidates(devices: &[Device], wanted: Option<&str>) -> Vec<(Kind, Device)> {
    let fits = |kind: Kind, device: &Device| match wanted {
        None => true,
        Some(wish) => wish == kind.name() || is_address(wish, device.address),
    };
    let mut found: Vec<(Kind, Device)> = devices
        .iter()
        .filter_map(|device| Some((Kind::of(device)?, *device)))
        .filter(|(kind, device)| fits(*kind, device))
        .collect();
    found.sort_by_key(|(kind, device)| (*kind, device.address));
    found
}

/// Whether `text` (`00:02.0`) is this address.
fn is_address(text: &str, address: Address) -> bool {
    let parse = || {
        let (bus, rest) = text.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let number = |digits| u8::from_str_radix(digits, 16).ok();
        Some(Address { bus: number(bus)?, device: number(device)?, function: number(function)? })
    };
    parse() == Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(device: u8, vendor: u16, id: u16) -> Device {
        Device {
            address: Address { bus: 0, device, function: 0 },
            vendor,
            device: id,
            subsystem_vendor: 0,
            subsystem: 0,
            class: 2,
            subclass: 0,
            interface: 0,
            revision: 0,
            header: 0,
        }
    }

    fn node() -> [Device; 5] {
        [
            function(1, 0x10EC, 0x8168),
            function(2, virtio::VENDOR, 0x1041),
            function(3, VENDOR_INTEL, 0x10D3),
            function(4, VENDOR_INTEL, 0x100F),
            function(5, VENDOR_INTEL, 0x100E),
        ]
    }

    fn places(wanted: Option<&str>) -> Vec<u8> {
        candidates(&node(), wanted).iter().map(|(_, d)| d.address.device).collect()
    }

    #[test]
    fn shared_memory_is_preferred() {
        let mut devices = node().to_vec();
        devices.push(function(6, shm::VENDOR, shm::DEVICE));
        let best = candidates(&devices, None)[0];
        assert_eq!((best.0, best.1.address.device), (Kind::Shared, 6));
        assert_eq!(candidates(&devices, Some("shm")).len(), 1);
    }

    #[test]
    fn the_best_comes_first_and_a_wish_narrows() {
        assert_eq!(places(None), [4, 5, 3, 2]);
        assert_eq!(places(Some("virtio")), [2]);
        assert_eq!(places(Some("e1000")), [4, 5]);
        assert_eq!(places(Some("e1000e")), [3]);
        assert_eq!(places(Some("00:05.0")), [5]);
        for wish in ["00:01.0", "01:05.0", "00:05.1", "00:05", ":.", "", "rtl8168", "00:500.0"] {
            assert_eq!(places(Some(wish)), [], "{wish}");
        }
    }
}
