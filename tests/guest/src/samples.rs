//! Samples of a measure and their distribution, without a heap.

use core::fmt;

/// Most samples of one measure.
pub const SAMPLES_MAX: usize = 1 << 16;
/// Steps of the distribution that is printed: quarters of a per cent.
pub const QUANTILE_STEPS: usize = 400;

/// The samples of one measure.
pub struct Samples {
    values: [u64; SAMPLES_MAX],
    len: usize,
    sum: u64,
}

impl Default for Samples {
    fn default() -> Samples {
        Samples::new()
    }
}

impl Samples {
    /// No samples yet.
    #[must_use]
    pub const fn new() -> Samples {
        Samples { values: [0; SAMPLES_MAX], len: 0, sum: 0 }
    }

    /// Forgets all samples and touches the pages they will lie in, so that
    /// keeping one never faults.
    pub fn clear(&mut self) {
        self.values.fill(0);
        self.len = 0;
        self.sum = 0;
    }

    /// Keeps a sample; one too many is left out.
    pub fn push(&mut self, value: u64) {
        if let Some(place) = self.values.get_mut(self.len) {
            *place = value;
            self.len += 1;
            self.sum = self.sum.saturating_add(value);
        }
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sorts the samples and gives their distribution.
    pub fn distribution(&mut self) -> Distribution<'_> {
        let values = &mut self.values[..self.len];
        values.sort_unstable();
        Distribution { sorted: values, sum: self.sum }
    }
}

/// Sorted samples. Shown as the JSON fields `count`, `sum` and `quantiles`,
/// the least value first and the greatest last.
#[derive(Clone, Copy, Debug)]
pub struct Distribution<'a> {
    sorted: &'a [u64],
    sum: u64,
}

impl Distribution<'_> {
    /// The least value that `step` of [`QUANTILE_STEPS`] parts of the samples
    /// do not exceed (nearest rank); 0 without samples.
    #[must_use]
    pub fn quantile(&self, step: usize) -> u64 {
        let rank = (self.sorted.len() * step).div_ceil(QUANTILE_STEPS).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or(0)
    }
}

impl fmt::Display for Distribution<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""count":{},"sum":{},"quantiles":["#, self.sorted.len(), self.sum)?;
        for step in 0..=QUANTILE_STEPS {
            let comma = if step == 0 { "" } else { "," };
            write!(f, "{comma}{}", self.quantile(step))?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl Iterator<Item = u64>) -> Box<Samples> {
        let mut samples = Box::new(Samples::new());
        values.for_each(|v| samples.push(v));
        samples
    }

    #[test]
    fn quantiles_are_ranks_of_the_sorted_samples() {
        let mut s = samples((1..=1000).rev());
        let d = s.distribution();
        let got = [0, 200, 360, 396, 400].map(|step| d.quantile(step));
        assert_eq!(got, [1, 500, 900, 990, 1000]);
    }

    #[test]
    fn one_sample_is_every_quantile_and_none_is_zero() {
        let mut one = samples([7].into_iter());
        assert_eq!([0, 200, 400].map(|step| one.distribution().quantile(step)), [7; 3]);
        let text = one.distribution().to_string();
        assert!(text.starts_with(r#""count":1,"sum":7,"quantiles":[7,7,"#), "{text}");
        assert_eq!(text.matches(",7").count(), QUANTILE_STEPS);
        assert_eq!(samples([].into_iter()).distribution().quantile(200), 0);
    }

    #[test]
    fn samples_beyond_the_last_place_are_left_out() {
        let mut s = samples(0..SAMPLES_MAX as u64 + 5);
        assert_eq!(s.len(), SAMPLES_MAX);
        s.clear();
        assert!(s.is_empty());
    }
}
