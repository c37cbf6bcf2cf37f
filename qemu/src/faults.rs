//! What a bad link does to frames: a pure, seeded decision for each.

use crate::RunnerError;
use std::time::Duration;

/// Rates of faults in percent of the frames, and the seed of their choice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Frames that are lost.
    pub loss: f64,
    /// Frames that arrive twice.
    pub duplicate: f64,
    /// Frames that arrive late, behind others.
    pub reorder: f64,
    /// The same seed gives the same decisions on the same row of frames.
    pub seed: u64,
}

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It arrives `copies` times, the first after `delay`.
    Arrives {
        /// One, or two for a duplicate.
        copies: u8,
        /// Zero unless the frame is to arrive behind later ones.
        delay: Duration,
    },
}

/// Shortest and longest delay of a frame that is to be overtaken: longer
/// than a page's round trip, shorter than a node's silence counts as a loss.
const DELAY_US: std::ops::Range<u64> = 100..3_000;

impl Faults {
    /// Whether every rate is a percentage.
    ///
    /// # Errors
    /// [`RunnerError::Percentage`] names the first that is none.
    pub fn check(&self) -> Result<(), RunnerError> {
        match [self.loss, self.duplicate, self.reorder].iter().find(|p| !(0.0..=100.0).contains(*p))
        {
            Some(&bad) => Err(RunnerError::Percentage(bad)),
            None => Ok(()),
        }
    }

    /// Whether any frame can come to harm.
    pub fn any(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0
    }

    /// The row of decisions for the frames that one port sends.
    pub fn decisions(&self, port: u32) -> Decisions {
        let seed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(port));
        Decisions { faults: *self, random: fastrand::Rng::with_seed(seed) }
    }
}

/// Decides frame after frame.
#[derive(Clone, Debug)]
pub struct Decisions {
    faults: Faults,
    random: fastrand::Rng,
}

impl Decisions {
    /// Decides the next frame's fate.
    pub fn next_fate(&mut self) -> Fate {
        // All three are drawn for each frame, so that one rate does not
        // change what another decides.
        let [lost, doubled, late] =
            [self.faults.loss, self.faults.duplicate, self.faults.reorder].map(|p| self.happens(p));
        let delay = Duration::from_micros(self.random.u64(DELAY_US));
        if lost {
            return Fate::Lost;
        }
        Fate::Arrives {
            copies: if doubled { 2 } else { 1 },
            delay: if late { delay } else { Duration::ZERO },
        }
    }

    /// Draws whether something of this percentage happens.
    fn happens(&mut self, percent: f64) -> bool {
        self.random.f64() * 100.0 < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Faults = Faults { loss: 5.0, duplicate: 10.0, reorder: 20.0, seed: 7 };

    fn fates(faults: Faults, port: u32, count: usize) -> Vec<Fate> {
        let mut decisions = faults.decisions(port);
        (0..count).map(|_| decisions.next_fate()).collect()
    }

    #[test]
    fn the_seed_and_the_port_decide() {
        assert_eq!(fates(BAD, 1, 500), fates(BAD, 1, 500));
        assert_ne!(fates(BAD, 1, 500), fates(BAD, 2, 500));
        assert_ne!(fates(BAD, 1, 500), fates(Faults { seed: 8, ..BAD }, 1, 500));
    }

    #[test]
    fn rates_are_kept() {
        let fates = fates(BAD, 0, 20_000);
        let percent = |f: &dyn Fn(&Fate) -> bool| {
            fates.iter().filter(|x| f(x)).count() as f64 / fates.len() as f64 * 100.0
        };
        let lost = percent(&|f| *f == Fate::Lost);
        let doubled = percent(&|f| matches!(f, Fate::Arrives { copies: 2, .. }));
        let late = percent(&|f| matches!(f, Fate::Arrives { delay, .. } if !delay.is_zero()));
        assert!((4.0..6.0).contains(&lost), "{lost}");
        assert!((8.5..10.5).contains(&doubled), "{doubled}");
        assert!((17.5..20.5).contains(&late), "{late}");
    }

    #[test]
    fn without_rates_every_frame_arrives_at_once() {
        let good = Fate::Arrives { copies: 1, delay: Duration::ZERO };
        assert!(fates(Faults::default(), 3, 1000).iter().all(|f| *f == good));
        assert!(!Faults::default().any());
    }

    #[test]
    fn all_lost_means_all() {
        let all = Faults { loss: 100.0, ..Faults::default() };
        assert!(fates(all, 0, 1000).iter().all(|f| *f == Fate::Lost));
    }

    #[test]
    fn only_percentages_pass() {
        assert!(BAD.check().is_ok());
        for bad in [-1.0, 101.0, f64::NAN] {
            assert!(Faults { loss: bad, ..BAD }.check().is_err());
        }
    }
}
