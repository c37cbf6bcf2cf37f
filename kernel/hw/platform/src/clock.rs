//! Time: the time stamp counter.

/// Microseconds since the clock was started; 0 before.
#[must_use]
pub fn uptime_us() -> u64 {
    0
}
