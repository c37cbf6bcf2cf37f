//! PCI host bridge: configuration mechanism 1 and ECAM.

/// Bus, device and function: bus in bits 8 to 15, device 3 to 7, function 0
/// to 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf(pub u16);

/// Configuration space of one function.
pub trait PciDevice {
    /// Reads `size` (1, 2, 4) bytes at `offset` (0 to 4095, aligned to
    /// `size`).
    fn config_read(&mut self, offset: u16, size: u8) -> u32;
    /// Writes `size` (1, 2, 4) bytes at `offset` (0 to 4095, aligned to
    /// `size`).
    fn config_write(&mut self, offset: u16, size: u8, value: u32);
}

/// The functions behind the host bridge, owned by the machine.
pub trait PciFunctions {
    /// The function at `bdf`, if there is one. 00:00.0 is never asked for.
    fn function(&mut self, bdf: Bdf) -> Option<&mut dyn PciDevice>;
}

/// No functions.
impl PciFunctions for () {
    fn function(&mut self, _bdf: Bdf) -> Option<&mut dyn PciDevice> {
        None
    }
}

/// The host bridge 00:00.0 and the ways to configuration space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PciHost {
    address: u32,
}

impl PciHost {
    /// Reads `size` (1, 2, 4) bytes at a port 0xCF8 to 0xCFF.
    pub fn read_port(&mut self, _bus: &mut dyn PciFunctions, _port: u16, _size: u8) -> u32 {
        self.address
    }
    /// Writes `size` (1, 2, 4) bytes at a port 0xCF8 to 0xCFF.
    pub fn write_port(&mut self, _bus: &mut dyn PciFunctions, _port: u16, _size: u8, value: u32) {
        self.address = value;
    }
    /// Reads `size` (1, 2, 4) bytes at `offset` in the ECAM.
    pub fn read_ecam(&mut self, _bus: &mut dyn PciFunctions, _offset: u64, _size: u8) -> u32 {
        u32::MAX
    }
    /// Writes `size` (1, 2, 4) bytes at `offset` in the ECAM.
    pub fn write_ecam(
        &mut self,
        _bus: &mut dyn PciFunctions,
        _offset: u64,
        _size: u8,
        _value: u32,
    ) {
    }
}
