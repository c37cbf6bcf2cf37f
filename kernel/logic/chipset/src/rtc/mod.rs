//! MC146818 real-time clock and CMOS memory (Motorola MC146818A datasheet).
//!
//! Time is the configured start plus the TSC. What the guest sets becomes an
//! offset. An update takes no time; the update-in-progress bit shows in the
//! last 2 ms of a second. Leaving the divider's reset starts a second half a
//! second before its end, as the chip does. The date alarm does not exist;
//! the century is at 0x32 as the FADT tells.

mod date;
#[cfg(test)]
mod tests;

use crate::{map, time::Rate};
use date::{DAY, Date};

/// Bytes of CMOS memory, registers included.
pub const CMOS: usize = 128;
/// CMOS byte that holds the century.
pub const CENTURY: u8 = 0x32;

const SECOND: usize = 0;
const SECOND_ALARM: usize = 1;
const MINUTE: usize = 2;
const MINUTE_ALARM: usize = 3;
const HOUR: usize = 4;
const HOUR_ALARM: usize = 5;
const WEEKDAY: usize = 6;
const DAY_OF_MONTH: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const A: usize = 10;
const B: usize = 11;
const C: usize = 12;
const D: usize = 13;

const A_UPDATE: u8 = 1 << 7;
/// Divider field: 32.768 kHz crystal, running.
const A_RUNNING: u8 = 2 << 4;
/// Divider held in reset: 11x.
const A_RESET: u8 = 6 << 4;
/// 1024 Hz, as firmware sets it.
const A_RATE_DEFAULT: u8 = 6;

const B_SET: u8 = 1 << 7;
const B_PERIODIC: u8 = 1 << 6;
const B_ALARM: u8 = 1 << 5;
const B_UPDATE: u8 = 1 << 4;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;

const C_PERIODIC: u8 = 1 << 6;
const C_ALARM: u8 = 1 << 5;
const C_UPDATE: u8 = 1 << 4;
const C_IRQ: u8 = 1 << 7;

/// RAM and time are valid.
const D_VALID: u8 = 1 << 7;

const HOUR_PM: u8 = 1 << 7;
/// An alarm byte from here on matches everything.
const ALARM_ANY: u8 = 0xC0;

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
    index: u8,
    /// NVRAM; the time bytes are only true while SET holds the clock.
    bytes: [u8; CMOS],
    /// Seconds since 1970 at TSC `origin`.
    base: i64,
    origin: u64,
    /// Second and periodic tick up to which flags have been set.
    seen_second: i64,
    seen_periodic: u64,
}

impl Rtc {
    /// A running clock: 24 hours, BCD.
    #[must_use]
    pub fn new(config: Config) -> Rtc {
        assert!(config.tsc_hz != 0, "clock without frequency");
        let mut bytes = [0; CMOS];
        bytes[A] = A_RUNNING | A_RATE_DEFAULT;
        bytes[B] = B_24_HOURS;
        bytes[D] = D_VALID;
        let base = Date::from_unix(i64::try_from(config.start_unix).unwrap_or(i64::MAX)).to_unix();
        Rtc {
            config,
            index: 0,
            bytes,
            base,
            origin: config.start_tsc,
            seen_second: base,
            seen_periodic: 0,
        }
    }

    const fn set(&self) -> bool {
        self.bytes[B] & B_SET != 0
    }

    /// Whole seconds since `origin`, and TSC ticks into the next.
    fn elapsed(&self, now: u64) -> (i64, u64) {
        let ticks = now.saturating_sub(self.origin);
        ((ticks / self.config.tsc_hz) as i64, ticks % self.config.tsc_hz)
    }

    fn unix(&self, now: u64) -> i64 {
        self.base.saturating_add(self.elapsed(now).0)
    }

    /// Reads a byte at port 0x70 or 0x71. The index cannot be read.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        if port == *map::RTC.start() {
            return 0xFF;
        }
        self.tick(now);
        let index = usize::from(self.index);
        match index {
            SECOND | MINUTE | HOUR | WEEKDAY..=YEAR => self.time_byte(index, now),
            A => self.bytes[A] | self.update_in_progress(now),
            C => {
                let flags = self.bytes[C] | if self.line() { C_IRQ } else { 0 };
                self.bytes[C] = 0;
                flags
            }
            _ if self.index == CENTURY => self.time_byte(index, now),
            _ => self.bytes[index],
        }
    }

    fn update_in_progress(&self, now: u64) -> u8 {
        let left = self.config.tsc_hz - self.elapsed(now).1;
        if !self.set() && left <= self.config.tsc_hz / 500 { A_UPDATE } else { 0 }
    }

    fn time_byte(&self, index: usize, now: u64) -> u8 {
        if self.set() {
            return self.bytes[index];
        }
        self.encode(Date::from_unix(self.unix(now)), index)
    }

    fn encode_number(&self, value: u32) -> u8 {
        let value = value % 100;
        let coded =
            if self.bytes[B] & B_BINARY != 0 { value } else { value / 10 * 16 + value % 10 };
        coded as u8
    }

    fn decode_number(&self, byte: u8) -> u32 {
        let byte = u32::from(byte);
        if self.bytes[B] & B_BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 15) }
    }

    fn encode(&self, date: Date, index: usize) -> u8 {
        match index {
            SECOND => self.encode_number(date.second),
            MINUTE => self.encode_number(date.minute),
            HOUR if self.bytes[B] & B_24_HOURS != 0 => self.encode_number(date.hour),
            HOUR => {
                let hour = (date.hour + 11) % 12 + 1;
                self.encode_number(hour) | if date.hour >= 12 { HOUR_PM } else { 0 }
            }
            WEEKDAY => self.encode_number(date.weekday),
            DAY_OF_MONTH => self.encode_number(date.day),
            MONTH => self.encode_number(date.month),
            YEAR => self.encode_number(date.year),
            _ => self.encode_number(date.year / 100),
        }
    }

    fn decode_hour(&self, byte: u8) -> u32 {
        if self.bytes[B] & B_24_HOURS != 0 {
            return self.decode_number(byte);
        }
        let hour = self.decode_number(byte & !HOUR_PM) % 12;
        if byte & HOUR_PM != 0 { hour + 12 } else { hour }
    }

    /// Copies the running time into the bytes.
    fn freeze(&mut self, now: u64) {
        let date = Date::from_unix(self.unix(now));
        for index in [SECOND, MINUTE, HOUR, WEEKDAY, DAY_OF_MONTH, MONTH, YEAR, CENTURY as usize] {
            self.bytes[index] = self.encode(date, index);
        }
    }

    /// Makes the bytes the running time.
    fn thaw(&mut self, now: u64) {
        let number = |index: usize| self.decode_number(self.bytes[index]);
        let date = Date {
            year: number(CENTURY as usize) * 100 + number(YEAR),
            month: number(MONTH),
            day: number(DAY_OF_MONTH),
            hour: self.decode_hour(self.bytes[HOUR]),
            minute: number(MINUTE),
            second: number(SECOND),
            weekday: 1,
        };
        let unix = Date::from_unix(date.to_unix()).to_unix();
        self.base = unix.saturating_sub(self.elapsed(now).0);
        self.seen_second = unix;
    }

    /// Writes a byte at port 0x70 or 0x71 (bit 7 of the index masks NMI and
    /// is not kept).
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        if port == *map::RTC.start() {
            self.index = value & 0x7F;
            return;
        }
        self.tick(now);
        let index = usize::from(self.index);
        match index {
            SECOND | MINUTE | HOUR | WEEKDAY..=YEAR => self.write_time(index, value, now),
            A => self.write_a(value, now),
            B => self.write_b(value, now),
            C | D => {}
            _ if self.index == CENTURY => self.write_time(index, value, now),
            _ => self.bytes[index] = value,
        }
    }

    fn write_time(&mut self, index: usize, value: u8, now: u64) {
        if self.set() {
            self.bytes[index] = value;
        } else {
            self.freeze(now);
            self.bytes[index] = value;
            self.thaw(now);
        }
    }

    fn write_a(&mut self, value: u8, now: u64) {
        let was_reset = self.bytes[A] & A_RESET == A_RESET;
        self.bytes[A] = value & !A_UPDATE;
        if was_reset && value & A_RESET != A_RESET {
            self.base = self.unix(now);
            self.origin = now.saturating_sub(self.config.tsc_hz / 2);
        }
        self.seen_periodic = self.periodic(now);
    }

    /// SET takes effect in the old format, its end in the new one. SET also
    /// clears the update interrupt's enable.
    fn write_b(&mut self, value: u8, now: u64) {
        let was_set = self.set();
        if value & B_SET != 0 {
            if !was_set {
                self.freeze(now);
            }
            self.bytes[B] = value & !B_UPDATE;
        } else {
            self.bytes[B] = value;
            if was_set {
                self.thaw(now);
            }
        }
    }

    /// Rate of the periodic flag: 32.768 kHz over 2 to the rate less one,
    /// where rates 1 and 2 are 8 and 9.
    fn periodic_rate(&self) -> Option<Rate> {
        let hz = match self.bytes[A] & 15 {
            0 => return None,
            rate @ (1 | 2) => 512 >> rate,
            rate => 65_536 >> rate,
        };
        Some(Rate::new(self.config.tsc_hz, hz))
    }

    fn periodic(&self, now: u64) -> u64 {
        self.periodic_rate().map_or(0, |r| r.ticks(now.saturating_sub(self.config.start_tsc)))
    }

    /// Seconds from second `from` of a day to the next that the alarm
    /// matches, 1 to a day.
    fn to_alarm(&self, from: i64) -> Option<i64> {
        let field = |index: usize| {
            let byte = self.bytes[index];
            (byte < ALARM_ANY).then(|| match index {
                HOUR_ALARM => i64::from(self.decode_hour(byte)),
                _ => i64::from(self.decode_number(byte)),
            })
        };
        let (hour, minute, second) = (field(HOUR_ALARM), field(MINUTE_ALARM), field(SECOND_ALARM));
        let differs = |wanted: Option<i64>, is: i64| wanted.is_some_and(|w| w != is);
        let mut at = from + 1;
        // Each step passes an hour, a minute or a second that cannot match,
        // so there are at most 24, 60 and 60 of them, twice for the wrap.
        while at <= from + DAY {
            if differs(hour, at / 3600 % 24) {
                at = (at / 3600 + 1) * 3600;
            } else if differs(minute, at / 60 % 60) {
                at = (at / 60 + 1) * 60;
            } else if differs(second, at % 60) {
                at += 1;
            } else {
                return Some(at - from);
            }
        }
        None
    }

    /// Level of IRQ8.
    #[must_use]
    pub fn line(&self) -> bool {
        self.bytes[C] & self.bytes[B] & (C_PERIODIC | C_ALARM | C_UPDATE) != 0
    }

    /// When [`Rtc::tick`] is due, in TSC ticks: only for interrupts that the
    /// guest has enabled and that do not wait already.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let wanted = self.bytes[B] & !self.bytes[C] & (B_UPDATE | B_ALARM | B_PERIODIC);
        if wanted == 0 {
            return None;
        }
        let second_at = |unix: i64| {
            let seconds = u64::try_from(unix.saturating_sub(self.base)).unwrap_or(0);
            self.origin.saturating_add(seconds.saturating_mul(self.config.tsc_hz))
        };
        let running = !self.set();
        let update = (running && wanted & B_UPDATE != 0)
            .then(|| second_at(self.seen_second.saturating_add(1)));
        let alarm = (running && wanted & B_ALARM != 0)
            .then(|| self.to_alarm(self.seen_second.rem_euclid(DAY)))
            .flatten()
            .map(|seconds| second_at(self.seen_second.saturating_add(seconds)));
        let periodic = self.periodic_rate().filter(|_| wanted & B_PERIODIC != 0).map(|rate| {
            self.config.start_tsc.saturating_add(rate.tsc(self.seen_periodic.saturating_add(1)))
        });
        [update, alarm, periodic].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        let periodic = self.periodic(now);
        if periodic != self.seen_periodic {
            self.seen_periodic = periodic;
            self.bytes[C] |= C_PERIODIC;
        }
        let second = self.unix(now);
        if self.set() || second <= self.seen_second {
            return;
        }
        let passed = second.saturating_sub(self.seen_second);
        if self.to_alarm(self.seen_second.rem_euclid(DAY)).is_some_and(|s| s <= passed) {
            self.bytes[C] |= C_ALARM;
        }
        self.seen_second = second;
        self.bytes[C] |= C_UPDATE;
    }
}
