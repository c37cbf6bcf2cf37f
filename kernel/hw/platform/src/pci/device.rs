//! One function: identity, base address registers, capabilities, commands.

use super::{Address, ConfigSpace, capability, config};
use crate::address_space::{MapError, map_device_memory, map_mmio};

const COMMAND: u16 = 0x04;
const COMMAND_IO: u16 = 1 << 0;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTX: u16 = 1 << 10;
const STATUS_CAPABILITIES: u32 = 1 << 20;
/// Most capabilities that fit into 192 bytes.
const CAPABILITIES_MAX: usize = 48;

/// A function that answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its place.
    pub address: Address,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Subsystem vendor identifier, 0 for bridges.
    pub subsystem_vendor: u16,
    /// Subsystem identifier, 0 for bridges.
    pub subsystem: u16,
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
    /// Revision.
    pub revision: u8,
    /// Header type without the multifunction bit: 0 endpoint, 1 bridge.
    pub header: u8,
}

/// What a base address register decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// Memory.
    Memory {
        /// Physical address; 0 where the firmware assigned none.
        address: u64,
        /// Bytes, a power of two.
        size: u64,
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// I/O ports.
    Io {
        /// First port; 0 where the firmware assigned none.
        port: u16,
        /// Number of ports, a power of two.
        size: u32,
    },
}

impl Device {
    /// Reads a function's identity; `None` where nothing answers.
    pub(super) fn probe(config: &impl ConfigSpace, address: Address) -> Option<Device> {
        let id = config.read(address, 0);
        if id & 0xFFFF == 0xFFFF || id == 0 {
            return None;
        }
        let class = config.read(address, 8);
        let header = (config.read(address, 0x0C) >> 16) as u8 & 0x7F;
        let subsystem = if header == 0 { config.read(address, 0x2C) } else { 0 };
        Some(Device {
            address,
            vendor: id as u16,
            device: (id >> 16) as u16,
            subsystem_vendor: subsystem as u16,
            subsystem: (subsystem >> 16) as u16,
            class: (class >> 24) as u8,
            subclass: (class >> 16) as u8,
            interface: (class >> 8) as u8,
            revision: class as u8,
            header,
        })
    }

    /// Reads the 32-bit word at a multiple of four.
    #[must_use]
    pub fn read32(&self, offset: u16) -> u32 {
        config().read(self.address, offset)
    }

    /// Reads a 16-bit word at an even offset.
    #[must_use]
    pub fn read16(&self, offset: u16) -> u16 {
        (self.read32(offset & !3) >> (8 * (offset & 2))) as u16
    }

    /// Reads a byte.
    #[must_use]
    pub fn read8(&self, offset: u16) -> u8 {
        (self.read32(offset & !3) >> (8 * (offset & 3))) as u8
    }

    /// Writes the 32-bit word at a multiple of four.
    pub fn write32(&self, offset: u16, value: u32) {
        config().write(self.address, offset, value);
    }

    fn command(&self, config: &impl ConfigSpace) -> u16 {
        config.read(self.address, COMMAND) as u16
    }

    /// Writes the command register; zeroes leave the status bits beside it
    /// as they are (they clear when written with one).
    fn set_command(&self, config: &impl ConfigSpace, value: u16) {
        config.write(self.address, COMMAND, u32::from(value));
    }

    /// Turns on decoding and bus mastering: from now on the device may read
    /// and write the node's memory.
    pub fn enable(&self) {
        let command = self.command(config());
        self.set_command(config(), command | COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    }

    /// Stops the device's access to memory.
    pub fn disable_bus_master(&self) {
        let command = self.command(config());
        self.set_command(config(), command & !COMMAND_MASTER);
    }

    pub(super) fn disable_intx(&self) {
        let command = self.command(config());
        self.set_command(config(), command | COMMAND_NO_INTX);
    }

    /// The base address register `index` (0 to 5); `None` where there is
    /// none, or only the upper half of the one before. Decoding is off while
    /// the size is read.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.read_bar(config(), index)
    }

    fn read_bar(&self, config: &impl ConfigSpace, index: u8) -> Option<Bar> {
        let count = if self.header == 0 { 6 } else { 2 };
        if index >= count || self.header > 1 || self.is_upper_half(config, index) {
            return None;
        }
        let offset = 0x10 + 4 * u16::from(index);
        let command = self.command(config);
        self.set_command(config, command & !(COMMAND_IO | COMMAND_MEMORY));
        let low = config.read(self.address, offset);
        let wide = low & 0b111 == 0b100 && index + 1 < count;
        let mask_low = self.size_mask(config, offset);
        let (high, mask_high) = if wide {
            (config.read(self.address, offset + 4), self.size_mask(config, offset + 4))
        } else {
            (0, u32::MAX)
        };
        self.set_command(config, command);
        if low & 1 == 1 {
            // The upper half of an I/O register may be fixed to zero.
            let mask = (mask_low & !0b11) as u16;
            let size = 1u32.checked_shl(mask.trailing_zeros()).filter(|_| mask != 0)?;
            return Some(Bar::Io { port: (low & !0b11) as u16, size });
        }
        let mask = u64::from(mask_high) << 32 | u64::from(mask_low & !0xF);
        if mask_low & !0xF == 0 && (!wide || mask_high == 0) {
            return None;
        }
        let address = u64::from(high) << 32 | u64::from(low & !0xF);
        let size = 1u64 << mask.trailing_zeros();
        Some(Bar::Memory { address, size, prefetchable: low & 0b1000 != 0 })
    }

    /// Writes ones, reads which of them stayed, and restores the register.
    fn size_mask(&self, config: &impl ConfigSpace, offset: u16) -> u32 {
        let old = config.read(self.address, offset);
        config.write(self.address, offset, u32::MAX);
        let mask = config.read(self.address, offset);
        config.write(self.address, offset, old);
        mask
    }

    /// Whether register `index` is the upper half of a 64-bit one.
    fn is_upper_half(&self, config: &impl ConfigSpace, index: u8) -> bool {
        let mut at = 0;
        while at < index {
            let low = config.read(self.address, 0x10 + 4 * u16::from(at));
            at += if low & 0b111 == 0b100 { 2 } else { 1 };
        }
        at > index
    }

    /// Maps a memory BAR uncached; its address and size.
    ///
    /// # Errors
    /// [`MapError`]; [`MapError::Range`] if it is not a memory BAR or has no
    /// address.
    pub fn map_bar(&self, index: u8) -> Result<(*mut u8, u64), MapError> {
        match self.bar(index) {
            Some(Bar::Memory { address, size, .. }) => Ok((map_mmio(address, size)?, size)),
            _ => Err(MapError::Range),
        }
    }

    /// Maps a memory BAR that behaves like RAM (shared memory), cached.
    ///
    /// # Errors
    /// As [`Device::map_bar`].
    pub fn map_bar_cached(&self, index: u8) -> Result<(*mut u8, u64), MapError> {
        match self.bar(index) {
            Some(Bar::Memory { address, size, .. }) => {
                Ok((map_device_memory(address, size)?, size))
            }
            _ => Err(MapError::Range),
        }
    }

    /// The ISA line that the firmware routed the device's INTx pin to.
    #[must_use]
    pub fn interrupt_line(&self) -> Option<u8> {
        let word = self.read32(0x3C);
        let (line, pin) = (word as u8, (word >> 8) as u8);
        (pin != 0 && line < 16).then_some(line)
    }

    /// The capabilities: identifier and offset of each, bounded.
    #[must_use]
    pub fn capabilities(&self) -> CapabilityIterator<'static, super::Config> {
        CapabilityIterator::new(config(), self.address)
    }

    /// Offset of the first capability with this identifier.
    #[must_use]
    pub fn capability(&self, id: u8) -> Option<u16> {
        self.capabilities().find(|c| c.0 == id).map(|c| c.1)
    }

    /// Whether the device can signal interrupts by MSI-X.
    #[must_use]
    pub fn has_msix(&self) -> bool {
        self.capability(capability::MSIX).is_some()
    }
}

/// Walks the capability list of a function.
pub struct CapabilityIterator<'a, C> {
    config: &'a C,
    address: Address,
    next: u8,
    left: usize,
}

impl<'a, C: ConfigSpace> CapabilityIterator<'a, C> {
    fn new(config: &'a C, address: Address) -> Self {
        let has = config.read(address, COMMAND) & STATUS_CAPABILITIES != 0;
        let next = if has { config.read(address, 0x34) as u8 } else { 0 };
        CapabilityIterator { config, address, next, left: CAPABILITIES_MAX }
    }
}

impl<C: ConfigSpace> Iterator for CapabilityIterator<'_, C> {
    type Item = (u8, u16);

    fn next(&mut self) -> Option<(u8, u16)> {
        let offset = u16::from(self.next & !3);
        if offset < 0x40 || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let word = self.config.read(self.address, offset);
        self.next = (word >> 8) as u8;
        Some((word as u8, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeBus;
    use super::*;

    const AT: Address = Address { bus: 0, device: 3, function: 0 };

    fn device() -> (FakeBus, Device) {
        let bus = FakeBus::default();
        bus.set(AT, 0, 0x100E_8086, 0);
        bus.set(AT, 4, 0x0010_0007, 0xFFFF);
        bus.set(AT, 0x10, 0xFEB8_0000, 0xFFFE_0000);
        bus.set(AT, 0x14, 0xC001, 0xFFFF_FFC0);
        bus.set(AT, 0x18, 0x0000_000C, 0);
        bus.set(AT, 0x1C, 0x8, 0xFFFF_FFFC);
        bus.set(AT, 0x20, 0x0000_0006, 0xFFFF_F000);
        let device = Device::probe(&bus, AT).unwrap();
        (bus, device)
    }

    #[test]
    fn bars_are_sized_and_restored() {
        let (bus, d) = device();
        let io = Bar::Io { port: 0xC000, size: 64 };
        let small = Bar::Memory { address: 0xFEB8_0000, size: 0x2_0000, prefetchable: false };
        let huge = Bar::Memory { address: 8 << 32, size: 4 << 32, prefetchable: true };
        assert_eq!(d.read_bar(&bus, 0), Some(small));
        assert_eq!(d.read_bar(&bus, 1), Some(io));
        assert_eq!(d.read_bar(&bus, 2), Some(huge));
        assert_eq!(d.read_bar(&bus, 3), None);
        assert_eq!(bus.read(AT, 0x10), 0xFEB8_0000);
        assert_eq!(bus.read(AT, 0x1C), 8);
        assert_eq!(bus.read(AT, 4) & 7, 7);
        // A reserved type and an absent register do not end in a panic.
        let _ = d.read_bar(&bus, 4);
        assert_eq!(d.read_bar(&bus, 5), None);
        assert_eq!(d.read_bar(&bus, 6), None);
    }

    #[test]
    fn a_looping_capability_list_ends() {
        let (bus, _) = device();
        bus.set(AT, 0x34, 0x40, 0);
        bus.set(AT, 0x40, 0x5009, 0);
        bus.set(AT, 0x50, 0x4011, 0);
        let mut list = CapabilityIterator::new(&bus, AT);
        assert_eq!((list.next(), list.next()), (Some((9, 0x40)), Some((0x11, 0x50))));
        assert_eq!(list.count(), CAPABILITIES_MAX - 2);
        bus.set(AT, 0x34, 0x3C, 0);
        assert_eq!(CapabilityIterator::new(&bus, AT).count(), 0);
    }
}
