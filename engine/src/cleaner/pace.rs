//! How fast the cleaner may copy: as fast as writers make it necessary, and a little when nobody writes.
//!
//! A slot of which u is live gives 1 - u of itself back for u that is copied, so u / (1 - u) bytes are copied for each
//! byte that is written, to stand still; twice that, to gain on it.

/// What may be saved up: what is copied in one go after a pause.
const CREDIT_BYTES_MAX: u64 = 4 << 20;
/// Copied bytes for one that is written, at most.
const RATIO_MAX: u64 = 8;

/// Whether there is time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// Slots are ready or can be made.
    Steady,
    /// Writers wait for slots: as fast as it goes, and whatever gives anything back.
    Full,
}

/// What may be copied now.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When nobody writes.
    bytes_per_second: u64,
    credit_bytes: u64,
    seen_us: u64,
    seen_bytes: u64,
    /// What is live of the victims and what is not.
    victims: (u64, u64),
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second, credit_bytes: 0, seen_us: 0, seen_bytes: 0, victims: (0, 1) }
    }

    /// A run begins over victims of which so much is live.
    pub(crate) fn begin(&mut self, live_bytes: u64, whole_bytes: u64) {
        self.victims = (live_bytes, whole_bytes.saturating_sub(live_bytes).max(1));
    }

    /// It is `now_us`, and so many bytes have been written to the log in all.
    pub(crate) fn earn(&mut self, now_us: u64, written_bytes: u64) {
        let elapsed_us = now_us.saturating_sub(self.seen_us);
        let by_time = u128::from(elapsed_us) * u128::from(self.bytes_per_second) / 1_000_000;
        let written = written_bytes.saturating_sub(self.seen_bytes);
        let (live, dead) = self.victims;
        let by_writes = u128::from(written) * 2 * u128::from(live) / u128::from(dead);
        let by_writes = by_writes.min(u128::from(written) * u128::from(RATIO_MAX));
        let earned = u64::try_from(by_time + by_writes).unwrap_or(u64::MAX);
        if earned > 0 {
            self.credit_bytes = self.credit_bytes.saturating_add(earned).min(CREDIT_BYTES_MAX);
            (self.seen_us, self.seen_bytes) = (now_us, written_bytes);
        }
    }

    pub(crate) fn may_spend(&self, urgency: Urgency, bytes: usize) -> bool {
        urgency == Urgency::Full || self.credit_bytes >= bytes as u64
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.credit_bytes = self.credit_bytes.saturating_sub(bytes as u64);
    }

    /// When so much may be spent although nobody writes; never, if time alone earns nothing.
    pub(crate) fn next_due_us(&self, bytes: usize) -> Option<u64> {
        let missing = (bytes as u64).saturating_sub(self.credit_bytes);
        let wait_us = u128::from(missing) * 1_000_000;
        let wait_us = wait_us.div_ceil(u128::from(self.bytes_per_second.max(1)));
        (self.bytes_per_second > 0)
            .then(|| self.seen_us.saturating_add(u64::try_from(wait_us).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_earn_what_their_own_space_costs_twice() {
        let mut pace = Pace::new(0);
        pace.begin(50, 100);
        pace.earn(10, 1_000_000);
        assert!(pace.may_spend(Urgency::Steady, 2_000_000));
        assert!(!pace.may_spend(Urgency::Steady, 2_000_001));
        pace.spend(2_000_000);
        pace.begin(20, 100);
        pace.earn(20, 2_000_000);
        assert!(pace.may_spend(Urgency::Steady, 500_000));
        assert!(!pace.may_spend(Urgency::Steady, 500_001));
        assert!(pace.may_spend(Urgency::Full, usize::MAX));
        assert_eq!(pace.next_due_us(1 << 20), None);
    }

    #[test]
    fn time_earns_a_little_and_never_more_than_can_be_saved_up() {
        let mut pace = Pace::new(1 << 20);
        pace.earn(500_000, 0);
        assert!(!pace.may_spend(Urgency::Steady, 1 << 20));
        assert_eq!(pace.next_due_us(1 << 20), Some(1_000_000));
        pace.earn(1_000_000, 0);
        assert!(pace.may_spend(Urgency::Steady, 1 << 20));
        pace.earn(1 << 40, 0);
        assert!(!pace.may_spend(Urgency::Steady, (4 << 20) + 1));
    }

    #[test]
    fn moments_too_short_to_earn_a_byte_add_up() {
        let mut pace = Pace::new(1_000);
        (0..=10_000).for_each(|now_us| pace.earn(now_us, 0));
        assert!(pace.may_spend(Urgency::Steady, 10));
    }

    #[test]
    fn victims_of_which_nearly_all_is_live_do_not_drown_the_writers() {
        let mut pace = Pace::new(0);
        pace.begin(100, 100);
        pace.earn(1, 1_000);
        assert!(!pace.may_spend(Urgency::Steady, 8_001));
    }
}
