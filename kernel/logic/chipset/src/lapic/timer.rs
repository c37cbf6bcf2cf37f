//! The APIC timer (Intel SDM vol. 3, 11.5.4).
//!
//! One-shot and periodic counts run at [`super::TIMER_HZ`] over the divider;
//! the deadline mode compares with the guest's TSC itself.

use super::TIMER_HZ;
use crate::time::Rate;

/// Mode field of the timer's LVT entry, bits 17 and 18.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
}

impl TimerMode {
    /// Decodes an LVT entry; `None` for the reserved encoding.
    pub(super) const fn of(lvt: u32) -> Option<TimerMode> {
        match (lvt >> 17) & 3 {
            0 => Some(TimerMode::OneShot),
            1 => Some(TimerMode::Periodic),
            2 => Some(TimerMode::TscDeadline),
            _ => None,
        }
    }
}

/// Shortest time between two interrupts of the periodic mode, as a part of a
/// second (20 us). A guest that asks for less gets its periods merged, or it
/// would do nothing but take interrupts.
const PERIODS_HZ_MAX: u64 = 50_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Timer {
    rate: Rate,
    mode: TimerMode,
    /// Divide configuration register.
    divide: u32,
    /// Initial count register.
    initial: u32,
    /// Count that the run in progress started from.
    count: u32,
    /// TSC when it started.
    origin: u64,
    /// Whether a run is in progress.
    running: bool,
    /// Periods of this run that have ended and interrupted.
    periods: u64,
    /// Earliest TSC for the next periodic interrupt.
    not_before: u64,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    tsc_deadline: u64,
}

impl Timer {
    pub(super) const fn new(tsc_hz: u64) -> Timer {
        Timer {
            rate: Rate::new(tsc_hz, TIMER_HZ),
            mode: TimerMode::OneShot,
            divide: 0,
            initial: 0,
            count: 0,
            origin: 0,
            running: false,
            periods: 0,
            not_before: 0,
            tsc_deadline: 0,
        }
    }

    /// log2 of the divider: bits 0, 1 and 3 of the register, 7 is "by one".
    const fn shift(&self) -> u32 {
        let code = (self.divide & 3) | ((self.divide >> 1) & 4);
        (code + 1) & 7
    }

    /// Counts since `origin`.
    fn elapsed(&self, now: u64) -> u64 {
        self.rate.ticks(now.saturating_sub(self.origin)) >> self.shift()
    }

    /// Length of one period or of the one shot, never zero while running.
    fn length(&self) -> u64 {
        u64::from(self.count.max(1))
    }

    fn start(&mut self, count: u32, now: u64) {
        self.count = count;
        self.origin = now;
        self.periods = 0;
        self.not_before = 0;
        self.running = count != 0;
    }

    /// A change to or from the deadline mode disarms the timer.
    pub(super) fn set_mode(&mut self, mode: TimerMode, now: u64) {
        if mode == self.mode {
            return;
        }
        if mode == TimerMode::TscDeadline || self.mode == TimerMode::TscDeadline {
            self.running = false;
            self.initial = 0;
            self.tsc_deadline = 0;
        } else if self.running {
            let left = self.current(now);
            self.start(left, now);
        }
        self.mode = mode;
    }

    pub(super) const fn divide(&self) -> u32 {
        self.divide
    }

    /// A new divider counts on from the current count.
    pub(super) fn set_divide(&mut self, value: u32, now: u64) {
        let left = self.current(now);
        self.divide = value & 0xB;
        if self.running {
            self.start(left, now);
        }
    }

    pub(super) const fn initial(&self) -> u32 {
        self.initial
    }

    /// Starts (or with 0 stops) the count; ignored in deadline mode.
    pub(super) fn set_initial(&mut self, value: u32, now: u64) {
        if self.mode != TimerMode::TscDeadline {
            self.initial = value;
            self.start(value, now);
        }
    }

    /// Current count register.
    pub(super) fn current(&self, now: u64) -> u32 {
        if !self.running {
            return 0;
        }
        let elapsed = self.elapsed(now);
        let length = self.length();
        let left = match self.mode {
            TimerMode::Periodic => self.periodic_left(elapsed, length),
            TimerMode::OneShot | TimerMode::TscDeadline => length.saturating_sub(elapsed),
        };
        left as u32
    }

    /// After its first run-out a periodic count restarts from the initial
    /// count, which differs from `count` after a change of the divider.
    fn periodic_left(&self, elapsed: u64, length: u64) -> u64 {
        if elapsed < length {
            return length - elapsed;
        }
        let period = u64::from(self.initial.max(1));
        period - (elapsed - length) % period
    }

    /// Periods that have ended `elapsed` counts after the start.
    fn ended(&self, elapsed: u64) -> u64 {
        match elapsed.checked_sub(self.length()) {
            None => 0,
            Some(rest) => (rest / u64::from(self.initial.max(1))).saturating_add(1),
        }
    }

    pub(super) const fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Ignored outside deadline mode.
    pub(super) fn set_tsc_deadline(&mut self, value: u64) {
        if self.mode == TimerMode::TscDeadline {
            self.tsc_deadline = value;
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match self.mode {
            TimerMode::TscDeadline => (self.tsc_deadline != 0).then_some(self.tsc_deadline),
            TimerMode::OneShot | TimerMode::Periodic => {
                if !self.running {
                    return None;
                }
                let period = u64::from(self.initial.max(1));
                let counts = self.length().saturating_add(self.periods.saturating_mul(period));
                let ticks = counts.saturating_mul(1 << self.shift());
                Some(self.origin.saturating_add(self.rate.tsc(ticks)).max(self.not_before))
            }
        }
    }

    /// True if the timer interrupts now.
    pub(super) fn tick(&mut self, now: u64) -> bool {
        if self.deadline().is_none_or(|d| d > now) {
            return false;
        }
        match self.mode {
            TimerMode::TscDeadline => self.tsc_deadline = 0,
            TimerMode::OneShot => self.running = false,
            TimerMode::Periodic => {
                self.periods = self.ended(self.elapsed(now));
                self.not_before = now.saturating_add(self.rate.tsc_hz / PERIODS_HZ_MAX);
            }
        }
        true
    }
}
