//! Round-trip time and retransmission time-out, after RFC 6298 section 2,
//! in nanoseconds. Samples come only from frames sent once (Karn, section 3). What an
//! acknowledgement may be kept for at most is added to the time-out, as in RFC 9002,
//! section 6.2.1, and not to the samples.

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rtt {
    /// Smoothed round trip; 0 before the first sample.
    smoothed: u64,
    variation: u64,
    backoff: u32,
    min: u64,
    max: u64,
    /// Longest that an acknowledgement is kept.
    delay: u64,
}

impl Rtt {
    pub(crate) fn new(min: u64, max: u64, delay: u64) -> Self {
        Rtt { smoothed: 0, variation: 0, backoff: 0, min, max, delay }
    }

    /// Takes how long an acknowledgement took, which may have been kept `late`: then it
    /// counts only where nothing shorter is known.
    pub(crate) fn sample(&mut self, ns: u64, late: bool) {
        let ns = ns.max(1);
        if self.smoothed == 0 {
            self.smoothed = ns;
            self.variation = ns / 2;
        } else if !late || ns < self.smoothed {
            let error = self.smoothed.abs_diff(ns);
            self.variation = self.variation - self.variation / 4 + error / 4;
            self.smoothed = self.smoothed - self.smoothed / 8 + ns / 8;
        }
    }

    /// An acknowledgement of something new has come (section 5.7).
    pub(crate) fn progress(&mut self) {
        self.backoff = 0;
    }

    /// The timer has run out (section 5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(16);
    }

    pub(crate) fn smoothed(&self) -> Option<u64> {
        (self.smoothed != 0).then_some(self.smoothed)
    }

    /// The retransmission time-out; before the first sample four times the
    /// least.
    pub(crate) fn timeout(&self) -> u64 {
        let base = match self.smoothed() {
            Some(smoothed) => {
                smoothed.saturating_add(self.variation.saturating_mul(4)).saturating_add(self.delay)
            }
            None => self.min.saturating_mul(4),
        };
        base.clamp(self.min, self.max).saturating_mul(1 << self.backoff).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_samples_and_backs_off() {
        let mut rtt = Rtt::new(5_000, 250_000, 0);
        assert_eq!(rtt.timeout(), 20_000);
        rtt.sample(10_000, false);
        assert_eq!(rtt.timeout(), 10_000 + 4 * 5_000);
        for _ in 0..100 {
            rtt.sample(10_000, false);
        }
        assert!(rtt.timeout() < 11_000);
        rtt.back_off();
        assert!(rtt.timeout() >= 20_000);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), 250_000);
        rtt.progress();
        assert!(rtt.timeout() < 11_000);
        rtt.sample(200_000, true);
        assert!(rtt.timeout() < 11_000, "what was kept late says nothing");
        rtt.sample(9_000, true);
        assert!(rtt.smoothed() < Some(10_000), "unless it is shorter");
        rtt.sample(u64::MAX, false);
        assert_eq!(rtt.timeout(), 250_000);
    }

    #[test]
    fn an_acknowledgement_may_be_kept() {
        let mut rtt = Rtt::new(5_000, 250_000, 3_000);
        assert_eq!(rtt.timeout(), 20_000);
        for _ in 0..100 {
            rtt.sample(100, false);
        }
        assert_eq!(rtt.timeout(), 5_000);
        for _ in 0..100 {
            rtt.sample(4_000, false);
        }
        assert!((7_000..7_500).contains(&rtt.timeout()), "{}", rtt.timeout());
    }
}
