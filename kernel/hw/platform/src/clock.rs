//! Time: the time stamp counter, its frequency, and the calendar clock.
//!
//! The TSC is calibrated once against the ACPI PM timer (ACPI 6.5, 4.8.3.3;
//! 3.579545 MHz) or, where there is none, against channel 2 of the 8254 PIT
//! (1.193182 MHz).

use crate::cpu::{self, inb, inl, outb};
use spin::Once;

/// Frequency of the ACPI PM timer.
const PM_HZ: u64 = 3_579_545;
/// Frequency of the PIT.
const PIT_HZ: u64 = 1_193_182;
/// How long the calibration takes.
const CALIBRATION_MS: u64 = 50;
/// Readings of which the quickest counts.
const SAMPLES: u32 = 64;
/// Polls before a timer that does not move is given up; each takes 100 ns at
/// least (port I/O).
const POLLS_MAX: u32 = 20_000_000;
/// What a node assumes that has neither timer.
const FALLBACK_HZ: u64 = 1_000_000_000;

/// Converts between ticks and nanoseconds by a multiplication and a shift;
/// products are 128 bits wide, so nothing overflows in 500 years.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    hz: u64,
    /// Nanoseconds for a tick, 32.32 fixed point.
    ns_per_tick: u64,
    /// Ticks for a nanosecond, 32.32 fixed point.
    ticks_per_ns: u64,
}

impl Scale {
    /// The scale of a counter of `hz`, 1 MHz to 100 GHz.
    #[must_use]
    pub const fn new(hz: u64) -> Scale {
        assert!(hz >= 1_000_000 && hz <= 100_000_000_000);
        let ns_per_tick = ((1_000_000_000u128 << 32) / hz as u128) as u64;
        let ticks_per_ns = (((hz as u128) << 32) / 1_000_000_000) as u64;
        Scale { hz, ns_per_tick, ticks_per_ns }
    }

    /// Ticks as nanoseconds.
    #[must_use]
    pub const fn ns(&self, ticks: u64) -> u64 {
        ((ticks as u128 * self.ns_per_tick as u128) >> 32) as u64
    }

    /// Nanoseconds as ticks.
    #[must_use]
    pub const fn ticks(&self, ns: u64) -> u64 {
        ((ns as u128 * self.ticks_per_ns as u128) >> 32) as u64
    }
}

struct Clock {
    scale: Scale,
    start: u64,
}

static CLOCK: Once<Clock> = Once::new();

/// Starts the clock; `pm_timer` is the port of the ACPI PM timer. Returns
/// what it was calibrated against.
pub(crate) fn start(pm_timer: Option<u16>) -> &'static str {
    let start = cpu::rdtsc();
    let pm = pm_timer.and_then(against_pm_timer).map(|hz| (hz, "ACPI PM timer"));
    let found = pm.or_else(|| against_pit().map(|hz| (hz, "PIT")));
    let (hz, by) = found.unwrap_or((FALLBACK_HZ, "nothing: 1 GHz assumed"));
    CLOCK.call_once(|| Clock { scale: Scale::new(hz), start });
    by
}

fn plausible(ticks: u64, timer_ticks: u64, timer_hz: u64) -> Option<u64> {
    let hz = u128::from(ticks) * u128::from(timer_hz) / u128::from(timer_ticks.max(1));
    let hz = u64::try_from(hz).ok()?;
    (1_000_000..=100_000_000_000).contains(&hz).then_some(hz)
}

/// Reads a timer and the TSC at one instant: the reading that took the least
/// of several, and the middle of the time it took. An emulator's or a
/// firmware's pause then costs a sample, not the calibration.
fn sample(timer: impl Fn() -> u64) -> (u64, u64) {
    let samples = (0..SAMPLES).map(|_| {
        let before = cpu::rdtsc();
        let value = timer();
        (cpu::rdtsc().wrapping_sub(before), value, before)
    });
    let best = samples.min_by_key(|s| s.0).unwrap_or_default();
    (best.1, best.2.wrapping_add(best.0 / 2))
}

/// TSC frequency by the PM timer, of which 24 bits are always there.
fn against_pm_timer(port: u16) -> Option<u64> {
    let now = || {
        // SAFETY: the FADT names the port as the PM timer's, which is
        // read-only and has no side effects.
        u64::from(unsafe { inl(port) } & 0xFF_FFFF)
    };
    let span = PM_HZ * CALIBRATION_MS / 1000;
    let (first, start) = sample(now);
    let passed = |t: u64| t.wrapping_sub(first) & 0xFF_FFFF;
    (0..POLLS_MAX).find(|_| passed(now()) >= span)?;
    let (last, end) = sample(now);
    plausible(end.wrapping_sub(start), passed(last), PM_HZ)
}

/// TSC frequency by one countdown of the PIT's channel 2 (mode 0).
fn against_pit() -> Option<u64> {
    let count = PIT_HZ * CALIBRATION_MS / 1000;
    // SAFETY: the PIT and port 0x61 are this function's during start-up;
    // bit 0 gates channel 2, bit 1 (the speaker) stays off.
    unsafe {
        outb(0x61, inb(0x61) & !0b11);
        outb(0x43, 0b1011_0000);
        outb(0x42, count as u8);
        outb(0x42, (count >> 8) as u8);
        outb(0x61, inb(0x61) & !0b10 | 0b01);
    }
    let start = cpu::rdtsc();
    // SAFETY: as above; bit 5 is channel 2's output.
    (0..POLLS_MAX).find(|_| unsafe { inb(0x61) } & 0x20 != 0)?;
    plausible(cpu::rdtsc().wrapping_sub(start), count, PIT_HZ)
}

/// The time stamp counter now.
#[inline]
#[must_use]
pub fn now_tsc() -> u64 {
    cpu::rdtsc()
}

/// The scale of the TSC; 1 GHz until the clock is started.
#[must_use]
pub fn scale() -> Scale {
    CLOCK.get().map_or(const { Scale::new(FALLBACK_HZ) }, |c| c.scale)
}

/// TSC ticks in a second.
#[must_use]
pub fn tsc_hz() -> u64 {
    scale().hz
}

/// TSC ticks as nanoseconds.
#[must_use]
pub fn tsc_to_ns(ticks: u64) -> u64 {
    scale().ns(ticks)
}

/// Nanoseconds as TSC ticks.
#[must_use]
pub fn ns_to_tsc(ns: u64) -> u64 {
    scale().ticks(ns)
}

/// Nanoseconds since the clock was started; 0 before.
#[must_use]
pub fn uptime_ns() -> u64 {
    CLOCK.get().map_or(0, |c| c.scale.ns(now_tsc().wrapping_sub(c.start)))
}

/// Microseconds since the clock was started; 0 before.
#[must_use]
pub fn uptime_us() -> u64 {
    uptime_ns() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_agree_over_years() {
        for hz in [1_000_000_000, 2_600_000_000, 3_999_999_937, 25_000_000] {
            let s = Scale::new(hz);
            let day = 86_400 * hz;
            let ns = s.ns(day);
            // 32 fractional bits: better than 1e-8 at these rates.
            assert!(ns.abs_diff(86_400_000_000_000) < 2_000_000, "{hz}: {ns}");
            let ticks = s.ticks(86_400_000_000_000);
            assert!(ticks.abs_diff(day) <= day / 10_000_000, "{hz}: {ticks}");
            let century = 36_525 * 86_400 * 1_000_000_000;
            assert!(s.ticks(century) > s.ticks(century - 1_000_000_000));
        }
    }

    #[test]
    fn calibrations_that_cannot_be() {
        assert_eq!(plausible(104_000_000, PM_HZ / 25, PM_HZ).map(|hz| hz / 1_000_000), Some(2600));
        assert_eq!(plausible(0, 100, PM_HZ), None);
        assert_eq!(plausible(u64::MAX, 0, PM_HZ), None);
    }
}
