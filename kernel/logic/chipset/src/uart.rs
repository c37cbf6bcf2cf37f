//! 16550A serial port.
/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TSC ticks a second.
    pub tsc_hz: u64,
}
/// A serial port with 8 registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    config: Config,
}
impl Uart {
    /// A port after reset.
    #[must_use]
    pub fn new(config: Config) -> Uart {
        Uart { config }
    }
    /// Reads register `offset` (0 to 7).
    pub fn read(&mut self, _offset: u16, _now: u64) -> u8 {
        self.config.tsc_hz as u8
    }
    /// Writes register `offset` (0 to 7).
    pub fn write(&mut self, _offset: u16, _value: u8, _now: u64) {}
    /// Level of the interrupt line (gated by OUT2).
    #[must_use]
    pub fn line(&self) -> bool {
        false
    }
    /// Next byte that the guest sent.
    pub fn take_output(&mut self) -> Option<u8> {
        None
    }
    /// Bytes waiting in the output ring.
    #[must_use]
    pub fn output_len(&self) -> usize {
        0
    }
    /// Offers a byte to the guest; false if there is no room for it.
    pub fn input(&mut self, _byte: u8, _now: u64) -> bool {
        false
    }
    /// Bytes that [`Uart::input`] would take now.
    #[must_use]
    pub fn input_room(&self) -> usize {
        0
    }
    /// When [`Uart::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
    /// Does what is due.
    pub fn tick(&mut self, _now: u64) {}
}
