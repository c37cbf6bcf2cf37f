//! Ways to reach configuration space.

use super::Address;
use crate::address_space::map_mmio;
use crate::cpu::{inl, outl};
use spin::Mutex;

/// Reads and writes aligned 32-bit words of configuration space. An absent
/// function reads as all ones.
pub trait ConfigSpace {
    /// Reads the word at `offset` (a multiple of four).
    fn read(&self, at: Address, offset: u16) -> u32;
    /// Writes the word at `offset` (a multiple of four).
    fn write(&self, at: Address, offset: u16, value: u32);
}

/// A memory mapped region of segment 0, from the MCFG table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EcamRegion {
    /// Physical address of bus 0's first byte, even if bus 0 is not in it.
    pub base: u64,
    /// First bus in the region.
    pub first_bus: u8,
    /// Last bus in the region.
    pub last_bus: u8,
}

/// The node's configuration space.
pub struct Config {
    ecam: Option<EcamRegion>,
    ports: Mutex<()>,
}

const CONFIG_ADDRESS: u16 = 0xCF8;
const CONFIG_DATA: u16 = 0xCFC;

impl Config {
    pub(super) fn new(ecam: Option<EcamRegion>) -> Config {
        // A region that cannot be mapped is as good as none.
        let ecam = ecam.filter(|r| {
            let start = r.base.checked_add(u64::from(r.first_bus) << 20);
            let buses = u64::from(r.last_bus.saturating_sub(r.first_bus)) + 1;
            r.first_bus <= r.last_bus && start.is_some_and(|s| map_mmio(s, buses << 20).is_ok())
        });
        Config { ecam, ports: Mutex::new(()) }
    }

    /// Whether a function's extended space (4 KiB) can be reached.
    #[must_use]
    pub fn has_ecam(&self) -> bool {
        self.ecam.is_some()
    }

    fn pointer(&self, at: Address, offset: u16) -> Option<*mut u32> {
        let region = self.ecam.filter(|r| (r.first_bus..=r.last_bus).contains(&at.bus))?;
        let function = u64::from(at.bus) << 20
            | u64::from(at.device & 31) << 15
            | u64::from(at.function & 7) << 12;
        Some((region.base + function + u64::from(offset & 0xFFC)) as *mut u32)
    }
}

fn port_address(at: Address, offset: u16) -> u32 {
    1 << 31
        | u32::from(at.bus) << 16
        | u32::from(at.device & 31) << 11
        | u32::from(at.function & 7) << 8
        | u32::from(offset & 0xFC)
}

impl ConfigSpace for Config {
    fn read(&self, at: Address, offset: u16) -> u32 {
        if let Some(register) = self.pointer(at, offset) {
            // SAFETY: `new` mapped the region of these buses uncached; reads
            // of configuration space have no side effect.
            return unsafe { register.read_volatile() };
        }
        if offset > 0xFF {
            return u32::MAX;
        }
        let _held = self.ports.lock();
        // SAFETY: the port pair is used by this module only, under the lock.
        unsafe {
            outl(CONFIG_ADDRESS, port_address(at, offset));
            inl(CONFIG_DATA)
        }
    }

    fn write(&self, at: Address, offset: u16, value: u32) {
        if let Some(register) = self.pointer(at, offset) {
            // SAFETY: as in `read`; what a write does to the device is the
            // driver's business and cannot reach this program's memory
            // unless the driver programs DMA, for which it answers itself.
            unsafe { register.write_volatile(value) };
        } else if offset <= 0xFF {
            let _held = self.ports.lock();
            // SAFETY: as in `read`.
            unsafe {
                outl(CONFIG_ADDRESS, port_address(at, offset));
                outl(CONFIG_DATA, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_words() {
        let at = Address { bus: 2, device: 31, function: 7 };
        assert_eq!(port_address(at, 0x3E), 0x8002_FF3C);
    }
}
