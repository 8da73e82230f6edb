//! How long to wait before the next attempt: doubling, with jitter from a seeded generator.

use super::Micros;

/// The shortest wait before another attempt, in microseconds.
const WAIT_US_MIN: u64 = 10_000;
/// The longest wait before a node that could not be reached is tried again, in microseconds.
pub(super) const RECONNECT_US_MAX: u64 = 500_000;
/// The longest wait before the nodes are asked again who leads, in microseconds. Well below an
/// election timeout, so that a new leader does not wait for its clients.
pub(super) const LEADER_SEARCH_US_MAX: u64 = 80_000;
/// Doublings after which the longest wait is reached for certain.
const DOUBLINGS_MAX: u32 = 8;

/// `SplitMix64`: small, seeded, good enough for jitter.
#[derive(Clone, Debug)]
pub(super) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn next_u128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// When to try again after `failures` failures in a row: between half of the wait and all of
    /// it.
    ///
    /// Requires: `wait_us_max` is at least two microseconds.
    pub(super) fn retry_at(&mut self, now: Micros, failures: u32, wait_us_max: u64) -> Micros {
        let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
        let wait = (WAIT_US_MIN << doublings).min(wait_us_max);
        now.plus(wait / 2 + self.next() % (wait / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_failures_and_stay_within_their_bounds() {
        let mut jitter = Jitter::new(7);
        for failures in 1..40 {
            let wait = jitter.retry_at(Micros(0), failures, RECONNECT_US_MAX).0;
            let full = (WAIT_US_MIN << (failures - 1).min(DOUBLINGS_MAX)).min(RECONNECT_US_MAX);
            assert!((full / 2..full).contains(&wait), "{failures}: {wait}");
        }
    }

    #[test]
    fn same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut jitter = Jitter::new(seed);
            (1..10)
                .map(|failures| jitter.retry_at(Micros(0), failures, RECONNECT_US_MAX))
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
