//! The one source of chance of a seed: a splitmix generator, split so that one part's draws do not move another's.

use std::ops::RangeInclusive;

/// A stream of numbers that is the same for a seed for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A stream of its own for one part: what that part draws shifts nobody else's numbers.
    #[must_use]
    pub fn split(&mut self) -> Random {
        Random(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any number of twice the width.
    pub fn next_u128(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }

    /// A number in `0..end`.
    ///
    /// Requires: `end > 0`.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0);
        let wide = u128::from(self.number()) * u128::from(end);
        u64::try_from(wide >> 64).expect("the product's upper half is below `end`")
    }

    /// An index into something of `count` parts.
    ///
    /// Requires: `count > 0`.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("below a usize")
    }

    /// A number of the range.
    pub fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start());
        range.start() + self.below(span.saturating_add(1).max(1))
    }

    /// A number of the range, small ones more often: uniform in its logarithm.
    ///
    /// Requires: the range starts at 1 or more.
    pub fn skewed(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        assert!(low > 0);
        let doublings = u64::from((high / low).max(1).ilog2());
        let floor = low << self.below(doublings + 1);
        self.within(&(floor..=(floor.saturating_mul(2) - 1).min(high)))
    }

    /// True `ppm` times in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// One of `items`.
    ///
    /// Requires: `items` is not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let at = self.index(items.len());
        items.get(at).expect("an index below the length")
    }

    /// One of `items`, each as often as its weight says.
    ///
    /// Requires: the weights are not all 0.
    pub fn weighted<T: Copy>(&mut self, items: &[(T, u32)]) -> T {
        let total = items.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = self.below(total);
        for (item, weight) in items {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return *item,
            }
        }
        unreachable!("the draw lies below the sum of the weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skewed_numbers_stay_in_their_range_and_reach_both_ends_of_it() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..2_000).map(|_| random.skewed(&(8..=16_384))).collect();
        assert!(drawn.iter().all(|number| (8..=16_384).contains(number)));
        assert!(drawn.iter().any(|number| *number < 16));
        assert!(drawn.iter().any(|number| *number > 8_192));
    }

    #[test]
    fn weights_of_zero_are_never_drawn() {
        let mut random = Random::new(2);
        assert!((0..500).all(|_| random.weighted(&[('a', 0), ('b', 3), ('c', 0)]) == 'b'));
    }
}
