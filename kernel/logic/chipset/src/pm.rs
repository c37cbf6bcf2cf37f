//! ACPI fixed hardware (ACPI 6.5, 4.8): PM1a, PM timer, an empty GPE0.
//!
//! The machine is always in ACPI mode (no SMI_CMD; SCI_EN reads 1). The PM
//! timer counts 32 bits (TMR_VAL_EXT) and sets its status when bit 31 turns.

use crate::{PowerRequest, map, time::Rate};

/// Frequency of the PM timer.
pub const TIMER_HZ: u64 = 3_579_545;

const TIMER: u16 = 1 << 0;
const GLOBAL: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_BUTTON: u16 = 1 << 9;
const RTC: u16 = 1 << 10;
/// Events that can be enabled.
const ENABLES: u16 = TIMER | GLOBAL | POWER_BUTTON | SLEEP_BUTTON | RTC;
/// Control: bits that hold what is written (BM_RLD, SLP_TYP).
const CONTROL_KEPT: u16 = 1 << 1 | 7 << 10;
const CONTROL_SCI_EN: u16 = 1;
const CONTROL_SLP_EN: u16 = 1 << 13;

/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TSC ticks a second.
    pub tsc_hz: u64,
}

/// The ACPI fixed hardware block, ports [`crate::map::PM`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pm {
    rate: Rate,
    status: u16,
    enable: u16,
    control: u16,
    gpe_enable: u16,
    /// Turns of timer bit 31 that the status has seen.
    turns: u64,
}

impl Pm {
    /// The block after reset at TSC 0.
    #[must_use]
    pub fn new(config: Config) -> Pm {
        let rate = Rate::new(config.tsc_hz, TIMER_HZ);
        Pm { rate, status: 0, enable: 0, control: 0, gpe_enable: 0, turns: 0 }
    }

    /// Reads `size` (1, 2, 4) bytes at a port of [`crate::map::PM`].
    pub fn read(&mut self, port: u16, size: u8, now: u64) -> u32 {
        self.tick(now);
        let mut value = 0;
        for n in 0..u16::from(size.min(4)) {
            let byte = self.byte(port.wrapping_add(n), now);
            value |= u32::from(byte) << (8 * n);
        }
        value
    }

    fn byte(&self, port: u16, now: u64) -> u8 {
        let of = |value: u32, base: u16| (value >> (8 * (port - base))) as u8;
        let event = u32::from(self.status) | u32::from(self.enable) << 16;
        let timer = self.rate.ticks(now) as u32;
        const EVENT_END: u16 = map::PM1A_EVENT + 3;
        const CONTROL_END: u16 = map::PM1A_CONTROL + 1;
        const TIMER_END: u16 = map::PM_TIMER + 3;
        const GPE_END: u16 = map::GPE0 + 3;
        match port {
            map::PM1A_EVENT..=EVENT_END => of(event, map::PM1A_EVENT),
            map::PM1A_CONTROL..=CONTROL_END => {
                of(u32::from(self.control | CONTROL_SCI_EN), map::PM1A_CONTROL)
            }
            map::PM_TIMER..=TIMER_END => of(timer, map::PM_TIMER),
            map::GPE0..=GPE_END => of(u32::from(self.gpe_enable) << 16, map::GPE0),
            _ => 0,
        }
    }

    /// Writes `size` (1, 2, 4) bytes at a port of [`crate::map::PM`].
    pub fn write(&mut self, port: u16, size: u8, value: u32, now: u64) -> Option<PowerRequest> {
        self.tick(now);
        let mut request = None;
        for n in 0..u16::from(size.min(4)) {
            let byte = (value >> (8 * n)) as u8;
            request = request.or(self.write_byte(port.wrapping_add(n), byte));
        }
        request
    }

    fn write_byte(&mut self, port: u16, value: u8) -> Option<PowerRequest> {
        let (high, word) = (port & 1 == 1, u16::from(value));
        let (mask, word) = if high { (0xFF00, word << 8) } else { (0x00FF, word) };
        let merged = |old: u16| (old & !mask) | word;
        match port & !1 {
            map::PM1A_EVENT => self.status &= !word,
            p if p == map::PM1A_EVENT + 2 => self.enable = merged(self.enable) & ENABLES,
            map::PM1A_CONTROL => {
                self.control = merged(self.control) & CONTROL_KEPT;
                if word & CONTROL_SLP_EN != 0 {
                    return self.sleep();
                }
            }
            p if p == map::GPE0 + 2 => self.gpe_enable = merged(self.gpe_enable),
            _ => {}
        }
        None
    }

    /// SLP_EN: only S5 is offered; another type does nothing.
    fn sleep(&self) -> Option<PowerRequest> {
        let kind = (self.control >> 10) & 7;
        (kind == u16::from(map::SLP_TYP_S5)).then_some(PowerRequest::Off)
    }

    /// Level of the SCI.
    #[must_use]
    pub fn line(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Presses the power button: the guest's orderly shutdown.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// When [`Pm::tick`] is due, in TSC ticks: never, unless the guest wants
    /// the timer's interrupt.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        (self.enable & TIMER != 0 && self.status & TIMER == 0)
            .then(|| self.rate.tsc(self.turns.saturating_add(1).saturating_mul(1 << 31)))
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        let turns = self.rate.ticks(now) >> 31;
        if turns != self.turns {
            self.turns = turns;
            self.status |= TIMER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_600_000_000;

    #[test]
    fn the_timer_counts() {
        let mut pm = Pm::new(Config { tsc_hz: HZ });
        assert_eq!(pm.read(map::PM_TIMER, 4, HZ), TIMER_HZ as u32);
        assert_eq!(pm.read(map::PM_TIMER + 1, 1, HZ), (TIMER_HZ as u32 >> 8) & 0xFF);
        pm.write(map::PM1A_EVENT + 2, 2, 1, HZ);
        let due = pm.deadline().unwrap();
        assert_eq!(due, pm.rate.tsc(1 << 31));
        assert!(!pm.line());
        pm.tick(due);
        assert!(pm.line());
        pm.write(map::PM1A_EVENT, 2, 1, due);
        assert!(!pm.line());
        assert_eq!(pm.deadline(), Some(pm.rate.tsc(1 << 32)));
    }

    #[test]
    fn soft_off_needs_the_type_and_the_enable() {
        let mut pm = Pm::new(Config { tsc_hz: HZ });
        assert_eq!(pm.read(map::PM1A_CONTROL, 2, 0), 1, "ACPI mode is on");
        assert_eq!(pm.write(map::PM1A_CONTROL, 2, 5 << 10, 0), None);
        assert_eq!(pm.read(map::PM1A_CONTROL, 2, 0), 5 << 10 | 1);
        let off = Some(PowerRequest::Off);
        assert_eq!(pm.write(map::PM1A_CONTROL, 2, 5 << 10 | 1 << 13, 0), off);
        assert_eq!(pm.write(map::PM1A_CONTROL, 2, 1 << 10 | 1 << 13, 0), None);
        assert_eq!(pm.write(map::PM1A_CONTROL + 1, 1, 0x34, 0), off);
    }

    #[test]
    fn the_power_button_raises_the_sci() {
        let mut pm = Pm::new(Config { tsc_hz: HZ });
        pm.press_power_button();
        assert!(!pm.line());
        pm.write(map::PM1A_EVENT, 4, 0x0100_0000, 0);
        assert!(pm.line());
        assert_eq!(pm.read(map::PM1A_EVENT, 4, 0), 0x0100_0100);
        pm.write(map::PM1A_EVENT, 2, 0x0100, 0);
        assert!(!pm.line());
    }

    #[test]
    fn empty_places_and_odd_sizes() {
        let mut pm = Pm::new(Config { tsc_hz: HZ });
        pm.write(map::GPE0, 4, u32::MAX, 0);
        assert_eq!(pm.read(map::GPE0, 4, 0), 0xFFFF_0000);
        assert_eq!(pm.read(map::PM_BASE + 0x10, 4, 0), 0);
        for (port, size) in [(0xFFFF, 4), (0, 255), (map::PM1A_EVENT + 3, 4)] {
            pm.read(port, size, u64::MAX);
            pm.write(port, size, u32::MAX, u64::MAX);
        }
    }
}
