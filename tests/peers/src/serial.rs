//! A serial port for the bare guest: what it writes goes to standard output
//! in whole lines. Nothing can be read from it.

use std::io::Write;

/// I/O base of COM1.
pub(crate) const BASE: u16 = 0x3F8;
/// Registers of a 16550.
pub(crate) const REGISTERS: u16 = 8;
/// Line status: the transmitter is empty (PC16550D, section 8.6.3).
const LINE_STATUS: u16 = 5;
const TRANSMITTER_EMPTY: u8 = 0x60;
/// Line control: its top bit puts the divisor in the first two registers.
const LINE_CONTROL: usize = 3;
const DIVISOR: u8 = 0x80;

/// The port.
#[derive(Default)]
pub(crate) struct Serial {
    registers: [u8; REGISTERS as usize],
    line: Vec<u8>,
}

impl Serial {
    /// The guest writes a register.
    pub(crate) fn write(&mut self, register: u16, value: u8) {
        let is_divisor = self.registers[LINE_CONTROL] & DIVISOR != 0;
        self.registers[usize::from(register)] = value;
        if register != 0 || is_divisor || value == b'\r' {
            return;
        }
        self.line.push(value);
        if value == b'\n' {
            // Without a reader there is nobody to tell.
            let _ = std::io::stdout().write_all(&self.line);
            self.line.clear();
        }
    }

    /// The guest reads a register.
    pub(crate) fn read(&self, register: u16) -> u8 {
        match register {
            LINE_STATUS => TRANSMITTER_EMPTY,
            _ => self.registers[usize::from(register)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_make_lines_and_a_divisor_does_not() {
        let mut serial = Serial::default();
        serial.write(3, 0x83);
        serial.write(0, b'x');
        serial.write(3, 3);
        b"ab\r".iter().for_each(|&b| serial.write(0, b));
        assert_eq!(serial.line, b"ab");
        assert_eq!(serial.read(5), 0x60);
        assert_eq!(serial.read(3), 3);
    }
}
