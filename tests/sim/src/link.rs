//! The link between the nodes, and what it does to frames.

use crate::rng::Rng;
use crate::scenario::{MS, Weather};
use crate::summary::Faults;

/// A partition that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Bit n: host n is in the one group.
    pub group: u8,
    /// Frames into that group still come.
    pub one_way: bool,
}

/// The link.
#[derive(Debug)]
pub struct Link {
    weather: Weather,
    /// Loses nothing and delays little from now on.
    pub fair: bool,
    /// The partition in force.
    pub cut: Option<Cut>,
}

impl Link {
    /// A whole link in some weather.
    #[must_use]
    pub fn new(weather: Weather) -> Link {
        Link { weather, fair: false, cut: None }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        let Some(cut) = self.cut else { return false };
        let inside = |host: usize| cut.group >> host & 1 != 0;
        inside(from) != inside(to) && !(cut.one_way && inside(to))
    }

    /// The times at which a frame sent now arrives: none, one or two.
    pub fn arrivals(
        &self,
        (from, to): (usize, usize),
        now: u64,
        rng: &mut Rng,
        faults: &mut Faults,
    ) -> impl Iterator<Item = u64> + use<> {
        let mut times = [None; 2];
        let weather = self.weather;
        if self.is_cut(from, to) {
            faults.cut += 1;
        } else if !self.fair && rng.chance(weather.loss) {
            faults.lost += 1;
        } else {
            let doubled = !self.fair && rng.chance(weather.double);
            faults.doubled += u64::from(doubled);
            for time in &mut times[..1 + usize::from(doubled)] {
                let mut at = now + weather.delay_ns + rng.below(weather.jitter_ns + 1);
                if !self.fair && rng.chance(weather.strays) {
                    at += rng.below(50 * MS);
                    faults.held_up += 1;
                }
                *time = Some(at);
            }
        }
        times.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_separates_the_groups_and_nobody_else() {
        let weather = Weather {
            loss: 0,
            double: 0,
            delay_ns: 5,
            jitter_ns: 0,
            strays: 0,
            pause_every_ns: 0,
            pause_ns: 0,
        };
        let mut link = Link::new(weather);
        let (mut rng, mut faults) = (Rng::new(1), Faults::default());
        let mut arrives =
            |link: &Link, way| link.arrivals(way, 100, &mut rng, &mut faults).collect::<Vec<_>>();
        assert_eq!(arrives(&link, (0, 1)), [105]);
        link.cut = Some(Cut { group: 0b001, one_way: false });
        assert!(arrives(&link, (0, 1)).is_empty() && arrives(&link, (2, 0)).is_empty());
        assert_eq!(arrives(&link, (1, 2)), [105]);
        link.cut = Some(Cut { group: 0b001, one_way: true });
        assert!(arrives(&link, (0, 1)).is_empty());
        assert_eq!(arrives(&link, (1, 0)), [105]);
        assert_eq!(faults.cut, 3);
    }
}
