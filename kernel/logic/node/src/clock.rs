//! TSC ticks and nanoseconds.

/// Turns TSC ticks of a fixed frequency into nanoseconds and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    hz: u64,
    /// Nanoseconds a tick, times 2^32: no division on the fault path.
    ns_per_tick: u64,
    /// Ticks a nanosecond, times 2^32, rounded up.
    ticks_per_ns: u64,
}

impl Clock {
    /// A clock of `hz` ticks a second.
    ///
    /// # Panics
    /// If `hz` is zero.
    #[must_use]
    pub fn new(hz: u64) -> Clock {
        assert!(hz > 0, "a TSC that runs");
        let ns_per_tick = ((1_000_000_000u128 << 32) / u128::from(hz)) as u64;
        let ticks_per_ns = (u128::from(hz) << 32).div_ceil(1_000_000_000) as u64;
        Clock { hz, ns_per_tick, ticks_per_ns }
    }

    /// Ticks a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// Nanoseconds of `ticks`.
    #[must_use]
    pub fn ns(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.ns_per_tick)) >> 32) as u64
    }

    /// Ticks of `ns` nanoseconds, rounded up.
    #[must_use]
    pub fn ticks(&self, ns: u64) -> u64 {
        ((u128::from(ns) * u128::from(self.ticks_per_ns) + u128::from(u32::MAX)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_is_a_year_to_a_millionth() {
        for hz in [1_000_000_000, 2_599_998_321, 100_000_000] {
            let clock = Clock::new(hz);
            let year = 365 * 86_400;
            let ns = clock.ns(year * hz);
            assert!(ns.abs_diff(year * 1_000_000_000) < year * 1000, "{ns}");
            assert!(clock.ns(clock.ticks(12_345)).abs_diff(12_345) < 20);
        }
    }

    #[test]
    fn ticks_are_rounded_up() {
        let exact = Clock::new(1_000_000_000);
        assert_eq!((exact.hz(), exact.ticks(7), exact.ns(7)), (1_000_000_000, 7, 7));
        assert_eq!(Clock::new(2_500_000_000).ticks(1), 3);
    }
}
