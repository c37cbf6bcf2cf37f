//! Ways to reset a PC: the reset control register at 0xCF9 (ICH9 datasheet,
//! 13.7.5), the keyboard controller's pulse of its reset line, and port 0x92.
//!
//! There is no keyboard controller otherwise: its ports read 0xFF.

use crate::{PowerRequest, map};

const SYSTEM_RESET: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;
const FULL_RESET: u8 = 1 << 3;

/// Reset control register and the remains of the keyboard controller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResetControl {
    control: u8,
}

impl ResetControl {
    /// Reads a byte at 0xCF9, 0x60, 0x64 or 0x92.
    #[must_use]
    pub fn read(&self, port: u16) -> u8 {
        match port {
            map::RESET_CONTROL => self.control,
            map::PORT_A => map::PORT_A_A20,
            _ => 0xFF,
        }
    }

    /// Writes a byte at 0xCF9, 0x60, 0x64 or 0x92.
    pub fn write(&mut self, port: u16, value: u8) -> Option<PowerRequest> {
        let reset = match port {
            map::RESET_CONTROL => {
                let rising = value & !self.control & RESET_CPU != 0;
                self.control = value & (SYSTEM_RESET | RESET_CPU | FULL_RESET);
                rising
            }
            // Commands 0xF0 to 0xFF pulse output lines low; line 0 is reset.
            map::I8042_COMMAND => value & 0xF1 == 0xF0,
            map::PORT_A => value & 1 != 0,
            _ => false,
        };
        reset.then_some(PowerRequest::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_reset() {
        let mut r = ResetControl::default();
        assert_eq!(r.write(map::RESET_CONTROL, 2), None);
        assert_eq!(r.read(map::RESET_CONTROL), 2);
        assert_eq!(r.write(map::RESET_CONTROL, map::RESET_VALUE), Some(PowerRequest::Reset));
        assert_eq!(r.write(map::I8042_COMMAND, 0xD1), None);
        assert_eq!(r.write(map::I8042_COMMAND, 0xFE), Some(PowerRequest::Reset));
        assert_eq!(r.write(map::I8042_DATA, 0xFE), None);
        assert_eq!((r.read(map::I8042_COMMAND), r.read(map::PORT_A)), (0xFF, 2));
        assert_eq!(r.write(map::PORT_A, 2), None);
        assert_eq!(r.write(map::PORT_A, 3), Some(PowerRequest::Reset));
    }
}
