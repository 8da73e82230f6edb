//! A small seeded generator: the same seed gives the same load.

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of lane `lane` of a run with seed `seed`.
    pub fn new(seed: u64, lane: u64) -> Random {
        let mut random = Random(seed);
        let base = random.next_u64();
        Random(base ^ lane.wrapping_mul(0x9e6c_63d0_876a_3f6b))
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`, all equally likely (but for 1 in 2^64 / `bound`). Requires: `bound > 0`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("a product's upper half has 64 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_draw_different_numbers_and_the_same_seed_the_same() {
        let draw = |seed, lane| {
            let mut random = Random::new(seed, lane);
            [random.next_u64(), random.next_u64()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn every_number_below_the_bound_is_drawn() {
        let mut random = Random::new(7, 0);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[usize::try_from(random.below(5)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
    }
}
