//! 8254 interval timer with port 0x61.
/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TSC ticks a second.
    pub tsc_hz: u64,
}
/// The timer, ports [`crate::map::PIT`] and [`crate::map::PORT_B`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pit {
    config: Config,
}
impl Pit {
    /// The timer with no counter programmed.
    #[must_use]
    pub fn new(config: Config) -> Pit {
        Pit { config }
    }
    /// Reads a byte at 0x40 to 0x43 or 0x61.
    pub fn read(&mut self, _port: u16, _now: u64) -> u8 {
        self.config.tsc_hz as u8
    }
    /// Writes a byte at 0x40 to 0x43 or 0x61.
    pub fn write(&mut self, _port: u16, _value: u8, _now: u64) {}
    /// True once for each rising edge of OUT0 that `tick` saw (edges that
    /// were not taken merge into one): pulse IRQ0, low then high.
    pub fn take_irq(&mut self) -> bool {
        false
    }
    /// When [`Pit::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
    /// Does what is due.
    pub fn tick(&mut self, _now: u64) {}
}
