//! The pair of 8259A interrupt controllers.
/// Both controllers, ports `PIC_MASTER`, `PIC_SLAVE`, `PIC_ELCR` of
/// [`crate::map`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pic {
    elcr: [u8; 2],
}
impl Pic {
    /// Reads a byte at one of the six ports.
    pub fn read(&mut self, port: u16) -> u8 {
        self.elcr[usize::from(port & 1)]
    }
    /// Writes a byte at one of the six ports.
    pub fn write(&mut self, port: u16, value: u8) {
        self.elcr[usize::from(port & 1)] = value;
    }
    /// Sets the level of ISA interrupt `irq` (0 to 15).
    pub fn set_line(&mut self, _irq: u8, _high: bool) {}
    /// The INTR output (to LINT0 of the bootstrap processor as ExtINT).
    #[must_use]
    pub fn output(&self) -> bool {
        false
    }
    /// Interrupt acknowledge: the vector (a spurious one if nothing waits).
    pub fn acknowledge(&mut self) -> u8 {
        7
    }
}
