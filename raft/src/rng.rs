//! The source of election timeouts: splitmix64, seeded by the caller and part of the state.

/// A generator of 64-bit numbers. Good enough to spread timeouts; not for secrets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A number in `start..start + span`. The bias of the remainder is below `span / 2^64`.
    ///
    /// Requires: `span > 0`.
    pub(crate) fn within(&mut self, start: u64, span: u64) -> u64 {
        assert!(span > 0);
        start + self.next() % span
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_numbers_and_others_differ() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (0..8).map(|_| rng.within(25, 25)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(3).iter().all(|n| (25..50).contains(n)));
    }
}
