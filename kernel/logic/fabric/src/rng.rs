//! Jitter. SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom
//! number generators", OOPSLA 2014.

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between half of `mean` and one and a half.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.next() % mean.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published generator from this seed.
    #[test]
    fn it_is_the_published_generator() {
        let mut rng = Rng(1_234_567);
        let first = [0; 5].map(|_| rng.next());
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    #[test]
    fn around_is_from_half_to_one_and_a_half() {
        let mut rng = Rng(1);
        let mut drawn = [0; 1000].map(|_| rng.around(100));
        drawn.sort_unstable();
        assert!(drawn[0] >= 50 && drawn[999] < 150);
        assert!(drawn[250].abs_diff(75) < 10 && drawn[750].abs_diff(125) < 10);
        assert_eq!((rng.around(0), rng.around(1)), (0, 0));
    }
}
