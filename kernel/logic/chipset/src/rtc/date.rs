//! Civil dates and the seconds since 1970, both ways (proleptic Gregorian).

/// A date and time of day in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Date {
    pub(super) year: u32,
    /// 1 to 12.
    pub(super) month: u32,
    /// 1 to 31.
    pub(super) day: u32,
    pub(super) hour: u32,
    pub(super) minute: u32,
    pub(super) second: u32,
    /// 1 is Sunday, as the chip counts.
    pub(super) weekday: u32,
}

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;
/// Days in 400 years.
const DAYS_400: i64 = 146_097;
/// Last second of the year 9999.
const LAST: i64 = 253_402_300_799;

const fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 0000-01-01 to the first of January of `year` (0 to 9999).
const fn days_before_year(year: i64) -> i64 {
    if year == 0 {
        return 0;
    }
    let past = year - 1;
    year * 365 + past / 4 - past / 100 + past / 400 + 1
}

/// Days from 0000-01-01 to 1970-01-01.
const EPOCH: i64 = days_before_year(1970);

impl Date {
    /// The date of `unix`, which is brought into the years 0 to 9999.
    pub(super) fn from_unix(unix: i64) -> Date {
        let unix = unix.clamp(-EPOCH * DAY, LAST);
        let days = unix.div_euclid(DAY) + EPOCH;
        let time = unix.rem_euclid(DAY) as u32;
        // A year guessed from the mean length is at most one too late.
        let mut year = days * 400 / DAYS_400;
        if days_before_year(year) > days {
            year -= 1;
        } else if days_before_year(year + 1) <= days {
            year += 1;
        }
        let mut day = days - days_before_year(year);
        let mut month = 1;
        while day >= month_length(year, month) {
            day -= month_length(year, month);
            month += 1;
        }
        Date {
            year: year as u32,
            month: month as u32,
            day: day as u32 + 1,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
            // 0000-01-01 was a Saturday.
            weekday: ((days + 6) % 7) as u32 + 1,
        }
    }

    /// Seconds since 1970. Any values are taken: fields out of range carry.
    pub(super) fn to_unix(self) -> i64 {
        let year = i64::from(self.year.min(9999));
        let month = i64::from(self.month.clamp(1, 12));
        let months: i64 = (1..month).map(|m| month_length(year, m)).sum();
        let days = days_before_year(year) + months + i64::from(self.day) - 1 - EPOCH;
        let time = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60;
        days * DAY + time + i64::from(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let d = Date::from_unix(1_709_251_199);
        assert_eq!((d.year, d.month, d.day, d.weekday), (2024, 2, 29, 5));
        assert_eq!((d.hour, d.minute, d.second), (23, 59, 59));
        let d = Date::from_unix(0);
        assert_eq!((d.year, d.month, d.day, d.weekday), (1970, 1, 1, 5));
    }

    #[test]
    fn all_days_round_trip() {
        let first = if cfg!(miri) { LAST / DAY - 800 } else { -EPOCH };
        let mut last = Date::from_unix(first * DAY).weekday;
        for day in first + 1..LAST / DAY {
            let date = Date::from_unix(day * DAY + 4711);
            assert_eq!(date.to_unix(), day * DAY + 4711);
            assert_eq!(date.weekday, last % 7 + 1);
            last = date.weekday;
        }
        assert_eq!(Date::from_unix(i64::MAX).year, 9999);
        assert_eq!(Date::from_unix(i64::MIN).year, 0);
    }
}
