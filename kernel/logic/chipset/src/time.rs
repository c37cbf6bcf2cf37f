//! Exact conversion between TSC ticks and a device's own clock.

/// A device clock of `hz` that reads zero when the TSC reads `origin`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// TSC ticks a second; never zero.
    pub tsc_hz: u64,
    /// Device ticks a second; never zero.
    pub hz: u64,
}

impl Rate {
    /// A device clock of `hz` beside a TSC of `tsc_hz`.
    ///
    /// # Panics
    /// If either is zero: the machine's configuration is broken.
    #[must_use]
    pub const fn new(tsc_hz: u64, hz: u64) -> Rate {
        assert!(tsc_hz != 0 && hz != 0, "clock without frequency");
        Rate { tsc_hz, hz }
    }

    /// Whole device ticks in `tsc` TSC ticks.
    #[must_use]
    pub const fn ticks(self, tsc: u64) -> u64 {
        (tsc as u128 * self.hz as u128 / self.tsc_hz as u128) as u64
    }

    /// Smallest number of TSC ticks that holds `ticks` device ticks;
    /// saturates.
    #[must_use]
    pub const fn tsc(self, ticks: u64) -> u64 {
        let tsc = (ticks as u128 * self.tsc_hz as u128).div_ceil(self.hz as u128);
        if tsc > u64::MAX as u128 { u64::MAX } else { tsc as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn the_deadline_of_a_tick_is_its_first_instant() {
        for (tsc_hz, hz) in [(2_600_000_000, 1_193_182), (1_000_000, 3_579_545), (7, 7)] {
            let rate = Rate::new(tsc_hz, hz);
            for ticks in [1, 2, 1000, 65_535, 1 << 33] {
                let tsc = rate.tsc(ticks);
                assert!(rate.ticks(tsc) >= ticks);
                assert!(rate.ticks(tsc - 1) < ticks);
            }
        }
        assert_eq!(Rate::new(u64::MAX, 1).tsc(u64::MAX), u64::MAX);
    }
}
