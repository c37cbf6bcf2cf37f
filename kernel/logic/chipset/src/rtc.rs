//! MC146818 real-time clock and CMOS memory.
/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TSC ticks a second.
    pub tsc_hz: u64,
    /// Seconds since 1970-01-01 00:00 UTC when the TSC reads `start_tsc`.
    pub start_unix: u64,
    /// TSC at `start_unix`.
    pub start_tsc: u64,
}
/// The clock, ports [`crate::map::RTC`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtc {
    config: Config,
}
impl Rtc {
    /// A running clock.
    #[must_use]
    pub fn new(config: Config) -> Rtc {
        Rtc { config }
    }
    /// Reads a byte at port 0x70 or 0x71.
    pub fn read(&mut self, _port: u16, _now: u64) -> u8 {
        self.config.start_unix as u8
    }
    /// Writes a byte at port 0x70 or 0x71.
    pub fn write(&mut self, _port: u16, _value: u8, _now: u64) {}
    /// Level of IRQ8.
    #[must_use]
    pub fn line(&self) -> bool {
        false
    }
    /// When [`Rtc::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
    /// Does what is due.
    pub fn tick(&mut self, _now: u64) {}
}
