//! ACPI fixed hardware: PM1a, PM timer, an empty GPE0 (ACPI 6.5, 4.8).
use crate::PowerRequest;
/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TSC ticks a second.
    pub tsc_hz: u64,
}
/// The ACPI fixed hardware block, ports [`crate::map::PM`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pm {
    config: Config,
}
impl Pm {
    /// The block after reset at TSC 0.
    #[must_use]
    pub fn new(config: Config) -> Pm {
        Pm { config }
    }
    /// Reads `size` (1, 2, 4) bytes at a port of [`crate::map::PM`].
    pub fn read(&mut self, _port: u16, _size: u8, now: u64) -> u32 {
        (now % self.config.tsc_hz) as u32
    }
    /// Writes `size` (1, 2, 4) bytes at a port of [`crate::map::PM`].
    pub fn write(&mut self, _port: u16, _size: u8, _value: u32, _now: u64) -> Option<PowerRequest> {
        None
    }
    /// Level of the SCI.
    #[must_use]
    pub fn line(&self) -> bool {
        false
    }
    /// Presses the power button: the guest's orderly shutdown.
    pub fn press_power_button(&mut self) {}
    /// When [`Pm::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
    /// Does what is due.
    pub fn tick(&mut self, _now: u64) {}
}
