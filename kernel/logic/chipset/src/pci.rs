//! PCI host bridge: configuration mechanism 1 and ECAM (PCI Local Bus 3.0,
//! 3.2.2.3.2; PCI Express Base 5.0, 7.2.2).
//!
//! The host bridge answers for 00:00.0 itself. All other functions belong to
//! the machine, which hands them in as [`PciFunctions`]. A function that does
//! not exist reads all ones.

/// Bus, device and function: bus in bits 8 to 15, device 3 to 7, function 0
/// to 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf(pub u16);

impl Bdf {
    /// The host bridge.
    pub const HOST_BRIDGE: Bdf = Bdf(0);

    /// From its parts; device and function are cut to 5 and 3 bits.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Bdf {
        Bdf((bus as u16) << 8 | ((device & 31) as u16) << 3 | (function & 7) as u16)
    }
}

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

/// Cuts a value to `size` bytes.
#[must_use]
pub const fn truncate(value: u32, size: u8) -> u32 {
    match size {
        1 => value & 0xFF,
        2 => value & 0xFFFF,
        _ => value,
    }
}

/// Configuration header of the host bridge: an Intel Q35 memory controller
/// hub by its numbers (8086:29C0), read-only, without registers of its own.
const fn host_bridge(register: u16) -> u32 {
    match register {
        0x00 => 0x29C0_8086,
        // Command: memory and bus master, fixed.
        0x04 => 0x0000_0006,
        // Class: bridge, host; revision 0.
        0x08 => 0x0600_0000,
        _ => 0,
    }
}

/// Enable bit of the configuration address.
const ADDRESS_ENABLE: u32 = 1 << 31;
/// Bits of the configuration address that hold what is written.
const ADDRESS_BITS: u32 = 0x80FF_FFFC;

/// The host bridge 00:00.0 and the ways to configuration space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PciHost {
    address: u32,
}

/// Whether an access has a size and an alignment that configuration space
/// takes.
const fn fits(offset: u16, size: u8) -> bool {
    matches!(size, 1 | 2 | 4) && offset & (size as u16 - 1) == 0
}

fn read(bus: &mut dyn PciFunctions, bdf: Bdf, offset: u16, size: u8) -> u32 {
    let ones = truncate(u32::MAX, size);
    if !fits(offset, size) {
        return ones;
    }
    if bdf == Bdf::HOST_BRIDGE {
        return truncate(host_bridge(offset & !3) >> (8 * u32::from(offset & 3)), size);
    }
    bus.function(bdf).map_or(ones, |f| truncate(f.config_read(offset, size), size))
}

fn write(bus: &mut dyn PciFunctions, bdf: Bdf, offset: u16, size: u8, value: u32) {
    if !fits(offset, size) || bdf == Bdf::HOST_BRIDGE {
        return;
    }
    if let Some(function) = bus.function(bdf) {
        function.config_write(offset, size, truncate(value, size));
    }
}

impl PciHost {
    /// Function and offset that the address register and a data port select.
    fn selected(&self, port: u16) -> Option<(Bdf, u16)> {
        let address = self.address;
        (address & ADDRESS_ENABLE != 0)
            .then_some((Bdf((address >> 8) as u16), (address & 0xFC) as u16 | (port & 3)))
    }

    /// Reads `size` (1, 2, 4) bytes at a port 0xCF8 to 0xCFF. The address
    /// register is a dword: smaller accesses to it read all ones.
    pub fn read_port(&mut self, bus: &mut dyn PciFunctions, port: u16, size: u8) -> u32 {
        match port {
            0xCF8 if size == 4 => self.address,
            0xCFC..=0xCFF => match self.selected(port) {
                Some((bdf, offset)) => read(bus, bdf, offset, size),
                None => truncate(u32::MAX, size),
            },
            _ => truncate(u32::MAX, size),
        }
    }

    /// Writes `size` (1, 2, 4) bytes at a port 0xCF8 to 0xCFF. The address
    /// register is a dword: smaller accesses to it do nothing.
    pub fn write_port(&mut self, bus: &mut dyn PciFunctions, port: u16, size: u8, value: u32) {
        match port {
            0xCF8 if size == 4 => self.address = value & ADDRESS_BITS,
            0xCFC..=0xCFF => {
                if let Some((bdf, offset)) = self.selected(port) {
                    write(bus, bdf, offset, size, value);
                }
            }
            _ => {}
        }
    }

    /// Reads `size` (1, 2, 4) bytes at `offset` in the ECAM.
    pub fn read_ecam(&mut self, bus: &mut dyn PciFunctions, offset: u64, size: u8) -> u32 {
        match ecam(offset) {
            Some((bdf, register)) => read(bus, bdf, register, size),
            None => truncate(u32::MAX, size),
        }
    }

    /// Writes `size` (1, 2, 4) bytes at `offset` in the ECAM.
    pub fn write_ecam(&mut self, bus: &mut dyn PciFunctions, offset: u64, size: u8, value: u32) {
        if let Some((bdf, register)) = ecam(offset) {
            write(bus, bdf, register, size, value);
        }
    }
}

/// Function and register at an offset in the ECAM.
fn ecam(offset: u64) -> Option<(Bdf, u16)> {
    (offset < crate::map::ECAM_SIZE)
        .then_some((Bdf((offset >> 12) as u16), (offset & 0xFFF) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One([u8; 4096]);

    impl PciDevice for One {
        fn config_read(&mut self, offset: u16, size: u8) -> u32 {
            let at = usize::from(offset);
            let bytes = &self.0[at..at + usize::from(size)];
            bytes.iter().rev().fold(0, |v, &b| v << 8 | u32::from(b))
        }
        fn config_write(&mut self, offset: u16, size: u8, value: u32) {
            for n in 0..usize::from(size) {
                self.0[usize::from(offset) + n] = (value >> (8 * n)) as u8;
            }
        }
    }

    impl PciFunctions for One {
        fn function(&mut self, bdf: Bdf) -> Option<&mut dyn PciDevice> {
            assert_ne!(bdf, Bdf::HOST_BRIDGE);
            (bdf == Bdf::new(2, 3, 1)).then_some(self)
        }
    }

    #[test]
    fn linux_finds_mechanism_1() {
        let mut host = PciHost::default();
        host.write_port(&mut (), 0xCFB, 1, 1);
        host.write_port(&mut (), 0xCF8, 4, 0x8000_0000);
        assert_eq!(host.read_port(&mut (), 0xCF8, 4), 0x8000_0000);
        assert_eq!(host.read_port(&mut (), 0xCFC, 4), 0x29C0_8086);
        assert_eq!(host.read_port(&mut (), 0xCFE, 2), 0x29C0);
        host.write_port(&mut (), 0xCF8, 4, 0x8000_0008);
        assert_eq!(host.read_port(&mut (), 0xCFE, 2), 0x0600);
        assert_eq!(host.read_port(&mut (), 0xCFF, 2), 0xFFFF, "across a dword");
        host.write_port(&mut (), 0xCF8, 4, 8);
        assert_eq!(host.read_port(&mut (), 0xCFC, 4), u32::MAX, "not enabled");
    }

    #[test]
    fn both_ways_reach_the_same_function() {
        let (mut host, mut one) = (PciHost::default(), One([0; 4096]));
        host.write_port(&mut one, 0xCF8, 4, 0x8002_1910);
        host.write_port(&mut one, 0xCFD, 1, 0xABCD);
        assert_eq!(host.read_ecam(&mut one, 0x21_9010, 4), 0xCD00);
        host.write_ecam(&mut one, 0x21_9FFE, 2, 0x1_1234);
        assert_eq!(host.read_ecam(&mut one, 0x21_9FFF, 1), 0x12);
        assert_eq!(host.read_ecam(&mut one, 0x21_9FFF, 4), u32::MAX);
        assert_eq!(host.read_ecam(&mut one, 0x21_8000, 2), 0xFFFF, "absent");
        assert_eq!(host.read_ecam(&mut one, u64::MAX, 4), u32::MAX);
        assert_eq!(host.read_ecam(&mut one, 0x21_9000, 8), u32::MAX);
        host.write_ecam(&mut one, 0x21_9000, 0, 1);
    }
}
