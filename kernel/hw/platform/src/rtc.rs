//! The calendar clock (MC146818A, ports 0x70 and 0x71), read once at start.
//!
//! Source: Motorola MC146818A datasheet; ACPI 6.5, FADT `CENTURY`. The clock
//! is taken to run in UTC.

use crate::cpu::{inb, outb};

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const UPDATING: u8 = 0x80;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;
const AFTERNOON: u8 = 0x80;
/// An update takes 2 ms at most; a poll 1 us at least on hardware.
const POLLS_MAX: u32 = 100_000;
const READS_MAX: u32 = 8;

/// The clock's registers as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Registers {
    /// Seconds, minutes, hours, day, month, year.
    fields: [u8; 6],
    status_b: u8,
}

fn read(register: u8) -> u8 {
    // SAFETY: the CMOS index and data ports are this module's alone; bit 7
    // clear keeps NMIs enabled.
    unsafe {
        outb(0x70, register);
        inb(0x71)
    }
}

fn read_all() -> Registers {
    let fields = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR].map(read);
    Registers { fields, status_b: read(STATUS_B) }
}

/// Seconds since 1970-01-01 00:00 UTC; `None` if the clock is absent or
/// holds no date.
#[must_use]
pub fn unix_seconds() -> Option<u64> {
    // Two equal readings outside an update are one instant.
    let mut last = None;
    for _ in 0..READS_MAX {
        (0..POLLS_MAX).find(|_| read(STATUS_A) & UPDATING == 0)?;
        let now = read_all();
        if last == Some(now) {
            return decode(now);
        }
        last = Some(now);
    }
    None
}

fn decode(registers: Registers) -> Option<u64> {
    let Registers { fields, status_b } = registers;
    let number = |value: u8| {
        let bcd = value & 0xF < 10 && value >> 4 < 10;
        match status_b & BINARY != 0 {
            true => Some(u64::from(value)),
            false => bcd.then(|| u64::from(value >> 4) * 10 + u64::from(value & 0xF)),
        }
    };
    let afternoon = status_b & HOURS_24 == 0 && fields[2] & AFTERNOON != 0;
    let hour_field = if status_b & HOURS_24 == 0 { fields[2] & !AFTERNOON } else { fields[2] };
    let hour = match (status_b & HOURS_24 == 0, number(hour_field)?) {
        (true, 12) => 0,
        (_, hour) => hour,
    } + if afternoon { 12 } else { 0 };
    let (second, minute) = (number(fields[0])?, number(fields[1])?);
    let (day, month, year) = (number(fields[3])?, number(fields[4])?, number(fields[5])?);
    let valid = second < 60 && minute < 60 && hour < 24;
    if !valid || !(1..=31).contains(&day) || !(1..=12).contains(&month) || year > 99 {
        return None;
    }
    // No node is older than this program: two digits mean 2000 to 2099.
    let days = days_since_1970(2000 + year, month, day);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a date of the years 1970 to 2099, in which every
/// fourth year is a leap year.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = (year - 1969) / 4 + u64::from(year.is_multiple_of(4) && month > 2);
    (year - 1970) * 365 + leap_days + BEFORE[month as usize - 1] + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(2024, 12, 31), 20_088);
    }

    #[test]
    fn encodings() {
        let bcd = [0x56, 0x34, 0x12, 0x23, 0x11, 0x26];
        let expected = Some(1_795_437_296);
        assert_eq!(decode(Registers { fields: bcd, status_b: HOURS_24 }), expected);
        let binary = [56, 34, 12, 23, 11, 26];
        assert_eq!(decode(Registers { fields: binary, status_b: HOURS_24 | BINARY }), expected);
        let noon = [0x56, 0x34, 0x92, 0x23, 0x11, 0x26];
        assert_eq!(decode(Registers { fields: noon, status_b: 0 }), expected);
        let midnight = [0x56, 0x34, 0x12, 0x23, 0x11, 0x26];
        let twelve = 12 * 3600;
        assert_eq!(
            decode(Registers { fields: midnight, status_b: 0 }),
            expected.map(|s| s - twelve)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for fields in [[0xFF; 6], [0; 6], [0x60, 0, 0, 1, 1, 0], [0x5A, 0, 0, 1, 1, 0]] {
            assert_eq!(decode(Registers { fields, status_b: HOURS_24 }), None);
        }
    }
}
