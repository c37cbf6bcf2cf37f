//! I/O APIC (82093AA programming model, version 0x20).
use crate::Message;
/// Number of pins.
pub const PINS: usize = 24;
/// The I/O APIC, page [`crate::map::IOAPIC_BASE`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IoApic {
    index: u8,
}
impl IoApic {
    /// Reads 32 bits at an offset in the page.
    #[must_use]
    pub fn read(&self, _offset: u32) -> u32 {
        u32::from(self.index)
    }
    /// Writes 32 bits at an offset in the page.
    pub fn write(&mut self, _offset: u32, value: u32) {
        self.index = value as u8;
    }
    /// Sets the level of a pin (0 to 23).
    pub fn set_line(&mut self, _pin: u8, _high: bool) {}
    /// A local APIC broadcast the end of level-triggered `vector`.
    pub fn end_of_interrupt(&mut self, _vector: u8) {}
    /// Next message to deliver. Ask until `None` after every `write`,
    /// `set_line` and `end_of_interrupt`. At most [`PINS`] come at a time.
    pub fn take_message(&mut self) -> Option<Message> {
        None
    }
}
