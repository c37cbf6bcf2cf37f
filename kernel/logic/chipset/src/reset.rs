//! Ways to reset a PC: port 0xCF9 and the keyboard controller's pulse.
use crate::PowerRequest;
/// Reset control register and the remains of the keyboard controller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResetControl {
    control: u8,
}
impl ResetControl {
    /// Reads a byte at 0xCF9, 0x60 or 0x64.
    #[must_use]
    pub fn read(&self, _port: u16) -> u8 {
        self.control
    }
    /// Writes a byte at 0xCF9, 0x60 or 0x64.
    pub fn write(&mut self, _port: u16, value: u8) -> Option<PowerRequest> {
        self.control = value;
        None
    }
}
