//! 8254 interval timer with port 0x61 (Intel 8254 datasheet; ICH9 datasheet,
//! 13.7.1).
//!
//! Counter 0 makes IRQ0, counter 1 was the memory refresh and does nothing,
//! counter 2 is gated by port 0x61 and read back there, which is how operating
//! systems measure other clocks.

mod counter;

use crate::{map, time::Rate};
use counter::Counter;

/// Frequency of the counters' clock.
pub const CLOCK_HZ: u64 = 1_193_182;
/// Counter 0 interrupts at most so often in a second; faster edges merge.
const EDGES_HZ_MAX: u64 = 20_000;
/// The refresh bit of port 0x61 turns every 15.085 us.
const REFRESH_HZ: u64 = 66_291;

const PORT_B_GATE2: u8 = 1 << 0;
const PORT_B_REFRESH: u8 = 1 << 4;
const PORT_B_OUT2: u8 = 1 << 5;
/// Gate, speaker and the two error masks hold what is written.
const PORT_B_KEPT: u8 = 0x0F;

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
    counters: [Counter; 3],
    port_b: u8,
    /// Rising edges of OUT0 of this count that have been seen.
    edges: u64,
    not_before: u64,
    irq: bool,
}

impl Pit {
    /// The timer with no counter programmed.
    #[must_use]
    pub fn new(config: Config) -> Pit {
        let rate = Rate::new(config.tsc_hz, CLOCK_HZ);
        let counter = |gate| Counter::new(rate, gate);
        Pit {
            config,
            counters: [counter(true), counter(true), counter(false)],
            port_b: 0,
            edges: 0,
            not_before: 0,
            irq: false,
        }
    }

    /// Reads a byte at 0x40 to 0x43 or 0x61. The control word at 0x43 cannot
    /// be read.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        if port == map::PORT_B {
            return self.read_port_b(now);
        }
        match port.wrapping_sub(*map::PIT.start()) {
            n @ 0..=2 => self.counters[usize::from(n)].read(now),
            _ => 0xFF,
        }
    }

    fn read_port_b(&self, now: u64) -> u8 {
        let turns = Rate::new(self.config.tsc_hz, REFRESH_HZ).ticks(now);
        let refresh = if turns & 1 != 0 { PORT_B_REFRESH } else { 0 };
        let out2 = if self.counters[2].output(now) { PORT_B_OUT2 } else { 0 };
        self.port_b | refresh | out2
    }

    /// Writes a byte at 0x40 to 0x43 or 0x61.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        self.tick(now);
        if port == map::PORT_B {
            self.port_b = value & PORT_B_KEPT;
            self.counters[2].set_gate(value & PORT_B_GATE2 != 0, now);
            return;
        }
        match port.wrapping_sub(*map::PIT.start()) {
            n @ 0..=2 => self.counters[usize::from(n)].write(value, now),
            3 => self.command(value, now),
            _ => {}
        }
        // A control word or a count starts counter 0 anew.
        let control = port == *map::PIT.end() && value >> 6 == 0 && value & 0x30 != 0;
        if control || port == *map::PIT.start() {
            self.edges = self.counters[0].edges(now);
        }
    }

    fn command(&mut self, word: u8, now: u64) {
        let counter = usize::from(word >> 6);
        if counter == 3 {
            self.read_back(word, now);
        } else if word & 0x30 == 0 {
            self.counters[counter].latch_count(now);
        } else {
            self.counters[counter].control(word);
        }
    }

    /// Read-back: bits 5 and 4 low select count and status.
    fn read_back(&mut self, word: u8, now: u64) {
        for (n, counter) in self.counters.iter_mut().enumerate() {
            if word & 2 << n != 0 {
                if word & 0x20 == 0 {
                    counter.latch_count(now);
                }
                if word & 0x10 == 0 {
                    counter.latch_status(now);
                }
            }
        }
    }

    /// True once for each rising edge of OUT0 that `tick` saw (edges that
    /// were not taken merge into one): pulse IRQ0, low then high.
    pub fn take_irq(&mut self) -> bool {
        core::mem::take(&mut self.irq)
    }

    /// When [`Pit::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.counters[0].edge_after(self.edges).map(|at| at.max(self.not_before))
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.edges = self.counters[0].edges(now);
            self.not_before = now.saturating_add(self.config.tsc_hz / EDGES_HZ_MAX);
            self.irq = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 TSC ticks a clock.
    const HZ: u64 = CLOCK_HZ * 100;

    fn pit() -> Pit {
        Pit::new(Config { tsc_hz: HZ })
    }

    fn word(p: &mut Pit, port: u16, now: u64) -> u16 {
        let low = p.read(port, now);
        u16::from_le_bytes([low, p.read(port, now)])
    }

    #[test]
    fn periodic_ticks_keep_their_phase() {
        let mut p = pit();
        p.write(0x43, 0x34, 0);
        p.write(0x40, 0xA9, 0);
        p.write(0x40, 0x12, 0);
        let period = 0x12A9 * 100;
        for n in 1..=3 {
            assert_eq!(p.deadline(), Some(n * period));
            p.tick(n * period - 1);
            assert!(!p.take_irq());
            p.tick(n * period + 500);
            assert!(p.take_irq() && !p.take_irq());
        }
        p.tick(100 * period);
        assert!(p.take_irq());
        assert_eq!(p.deadline(), Some(101 * period));
        p.write(0x43, 0, 100 * period + 300);
        assert_eq!(word(&mut p, 0x40, u64::MAX), 0x12A9 - 3, "latched");
    }

    #[test]
    fn one_shot_modes_fire_once() {
        for (control, extra) in [(0x30, 0), (0x38, 1)] {
            let mut p = pit();
            p.write(0x43, control, 0);
            p.write(0x40, 0x00, 10);
            assert_eq!(p.deadline(), None);
            p.write(0x40, 0x10, 10);
            assert_eq!(p.deadline(), Some(10 + (0x1000 + extra) * 100));
            p.tick(p.deadline().unwrap());
            assert!(p.take_irq());
            assert_eq!(p.deadline(), None);
            assert_eq!(word(&mut p, 0x40, 10 + 0x1001 * 100), 0xFFFF, "counts on");
        }
    }

    #[test]
    fn counter_2_measures_time_as_linux_does() {
        let mut p = pit();
        p.write(0x61, 1, 0);
        p.write(0x43, 0xB0, 0);
        p.write(0x42, 0xFF, 0);
        p.write(0x42, 0xFF, 0);
        assert_eq!(p.read(0x61, 0) & 0x21, 1);
        assert_eq!(word(&mut p, 0x42, 100 * 0x1234), 0xFFFF - 0x1234);
        assert_eq!(p.read(0x61, 100 * 0xFFFE) & 0x20, 0);
        assert_eq!(p.read(0x61, 100 * 0xFFFF) & 0x20, 0x20);
        p.write(0x61, 0, 100 * 0x100);
        assert_eq!(word(&mut p, 0x42, 100 * 0x5000), 0xFFFF - 0x100, "the gate stops it");
        p.write(0x61, 1, 100 * 0x5000);
        assert_eq!(word(&mut p, 0x42, 100 * 0x5010), 0xFFFF - 0x110);
        assert_ne!((p.read(0x61, 0) ^ p.read(0x61, HZ / 66_000)) & 0x10, 0);
    }

    #[test]
    fn square_wave_and_read_back() {
        let mut p = pit();
        p.write(0x61, 1, 0);
        p.write(0x43, 0xB6, 0);
        p.write(0x42, 10, 0);
        p.write(0x42, 0, 0);
        let high: std::vec::Vec<bool> =
            (0..10).map(|n| p.read(0x61, n * 100) & 0x20 != 0).collect();
        assert!(high[..5].iter().all(|&h| h) && !high[5..].iter().any(|&h| h));
        p.write(0x43, 0xC8, 600);
        assert_eq!(p.read(0x42, 600), 0x36);
        assert_eq!(word(&mut p, 0x42, 9999), 8);
        p.write(0x43, 0x15, 0);
        p.write(0x43, 0xE2, 0);
        assert_eq!(p.read(0x40, 0), 0x40 | 0x15 | 0x80, "null count, low byte, mode 2, BCD");
    }

    #[test]
    fn binary_coded_decimal() {
        let mut p = pit();
        p.write(0x43, 0x31, 0);
        p.write(0x40, 0x00, 0);
        p.write(0x40, 0x10, 0);
        assert_eq!(word(&mut p, 0x40, 100), 0x0999);
        assert_eq!(word(&mut p, 0x40, 100 * 1001), 0x9999);
    }

    #[test]
    fn a_storm_is_held_back_and_nothing_panics() {
        let mut p = pit();
        p.write(0x43, 0x14, 0);
        p.write(0x40, 1, 0);
        p.tick(1000);
        assert!(p.deadline().unwrap() >= 1000 + HZ / EDGES_HZ_MAX);
        let mut seed = 7u64;
        for step in 0..if cfg!(miri) { 500 } else { 200_000 } {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let now = if step % 4 == 0 { seed } else { step };
            let port = [0x40, 0x41, 0x42, 0x43, 0x61][(seed >> 33) as usize % 5];
            p.write(port, (seed >> 40) as u8, now);
            p.read(port, now);
            if let Some(at) = p.deadline() {
                p.tick(at);
                assert!(p.deadline().is_none_or(|next| next > at || at == u64::MAX));
            }
        }
    }
}
