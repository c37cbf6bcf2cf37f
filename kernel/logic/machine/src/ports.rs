//! The port bus: which port leads to which device.

use crate::{Machine, Power};
use chipset::map;

impl Machine {
    /// Reads 1, 2 or 4 bytes at a port. `time` is the machine's.
    pub(crate) fn read_port(&mut self, port: u16, size: u8, time: u64) -> u32 {
        match port {
            p if map::PM.contains(&p) => self.devices.pm.read(p, size, time),
            p if is_pci(p, size) => self.devices.pci.read_port(&mut (), p, size),
            _ => {
                let mut value = 0;
                for i in 0..u16::from(size) {
                    let byte = self.read_port_byte(port.wrapping_add(i), time);
                    value |= u32::from(byte) << (8 * i);
                }
                value
            }
        }
    }

    /// Writes 1, 2 or 4 bytes at a port.
    pub(crate) fn write_port(&mut self, port: u16, size: u8, value: u32, time: u64) {
        match port {
            p if map::PM.contains(&p) => {
                let request = self.devices.pm.write(p, size, value, time);
                self.request_power(request);
            }
            p if is_pci(p, size) => self.devices.pci.write_port(&mut (), p, size, value),
            _ => {
                for (i, byte) in (0u16..).zip(&value.to_le_bytes()[..usize::from(size)]) {
                    self.write_port_byte(port.wrapping_add(i), *byte, time);
                }
            }
        }
    }

    fn read_port_byte(&mut self, port: u16, time: u64) -> u8 {
        let d = &mut self.devices;
        if let Some((uart, offset)) = uart_of(port) {
            return d.uarts[uart].read(offset, time);
        }
        match port {
            p if is_pic(p) => d.pic.read(p),
            p if is_pit(p) => d.pit.read(p, time),
            p if map::RTC.contains(&p) => d.rtc.read(p, time),
            map::RESET_CONTROL | map::I8042_DATA | map::I8042_COMMAND => d.reset.read(port),
            POST | DELAY => d.post,
            PORT_A => PORT_A_VALUE,
            _ => {
                self.counters.unknown_ports.count(port);
                u8::MAX
            }
        }
    }

    fn write_port_byte(&mut self, port: u16, value: u8, time: u64) {
        let d = &mut self.devices;
        if let Some((uart, offset)) = uart_of(port) {
            return d.uarts[uart].write(offset, value, time);
        }
        match port {
            p if is_pic(p) => d.pic.write(p, value),
            p if is_pit(p) => d.pit.write(p, value, time),
            p if map::RTC.contains(&p) => d.rtc.write(p, value, time),
            map::RESET_CONTROL | map::I8042_DATA | map::I8042_COMMAND => {
                let request = d.reset.write(port, value);
                self.request_power(request);
            }
            POST | DELAY => d.post = value,
            // Bit 0 resets the processor, which resets the machine.
            PORT_A if value & 1 != 0 => self.power = Some(Power::Reset),
            PORT_A => {}
            _ => self.counters.unknown_ports.count(port),
        }
    }

    fn request_power(&mut self, request: Option<chipset::PowerRequest>) {
        match request {
            Some(chipset::PowerRequest::Off) => self.power = Some(Power::Off),
            Some(chipset::PowerRequest::Reset) => self.power = Some(Power::Reset),
            None => {}
        }
    }
}

/// Diagnostic port, written for a delay.
const POST: u16 = 0x80;
/// Another port used for delays.
const DELAY: u16 = 0xED;
/// System control port A: A20 gate (always open) and fast reset.
const PORT_A: u16 = 0x92;
const PORT_A_VALUE: u8 = 2;

fn is_pic(port: u16) -> bool {
    map::PIC_MASTER.contains(&port)
        || map::PIC_SLAVE.contains(&port)
        || map::PIC_ELCR.contains(&port)
}

fn is_pit(port: u16) -> bool {
    map::PIT.contains(&port) || port == map::PORT_B
}

/// The address register answers only whole dwords; single bytes there are
/// other devices'. An access must not leave its dword.
fn is_pci(port: u16, size: u8) -> bool {
    let inside = (port & 3) + u16::from(size) <= 4;
    (*map::PCI_ADDRESS.start() == port && size == 4) || (map::PCI_DATA.contains(&port) && inside)
}

fn uart_of(port: u16) -> Option<(usize, u16)> {
    [map::COM1, map::COM2, map::COM3]
        .iter()
        .position(|range| range.contains(&port))
        .map(|index| (index, port & 7))
}
