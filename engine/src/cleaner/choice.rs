//! Which slots are worth being cleaned: Rosenblum and Ousterhout's cost-benefit rule (The Design and Implementation of
//! a Log-Structured File System, TOCS 1992, section 3.5). A slot that has been left alone for long will hardly empty
//! itself, so it is cleaned although more of it is live than of a young one.

/// A sealed slot whose entries the log does not need any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) slot: u32,
    /// Bytes that are live in it.
    pub(crate) live_bytes: u64,
    /// Bytes that were written since it was sealed.
    pub(crate) age_bytes: u64,
}

/// Slots of one run. They are all given back at its end, so many nearly empty ones are several runs.
const VICTIMS_MAX: usize = 8;

/// More than this of a slot, in hundredths, is never worth copying.
const LIVE_PERCENT_MAX: u64 = 90;

impl Candidate {
    /// (1 - u) x age / (1 + u), where u is what is live of it; in whole numbers, so that it is the same everywhere.
    fn score(&self, slot_bytes: u64) -> u128 {
        let live = self.live_bytes.min(slot_bytes);
        let (dead, cost) = (u128::from(slot_bytes - live), u128::from(slot_bytes + live));
        let age = u128::from(self.age_bytes + slot_bytes);
        dead * age / cost
    }

    fn is_worth_it(&self, slot_bytes: u64) -> bool {
        self.live_bytes * 100 <= slot_bytes * LIVE_PERCENT_MAX
    }
}

/// The victims of a run: none while `target_percent` of the candidates or more is live, else the best ones until what
/// is live in them would fill a slot, and no more than a few. None if that would gain no more than large values may leave
/// empty again. A candidate without a live byte waits for checkpoints alone.
pub(crate) fn choose(
    mut candidates: Vec<Candidate>,
    slot_bytes: u64,
    target_percent: u64,
) -> Vec<u32> {
    candidates.retain(|candidate| candidate.live_bytes > 0);
    let live: u64 = candidates.iter().map(|candidate| candidate.live_bytes).sum();
    let whole = candidates.len() as u64 * slot_bytes;
    if live * 100 >= whole * target_percent {
        return Vec::new();
    }
    candidates.retain(|candidate| candidate.is_worth_it(slot_bytes));
    candidates
        .sort_by_key(|candidate| (std::cmp::Reverse(candidate.score(slot_bytes)), candidate.slot));
    let mut bytes = 0;
    let fits = |candidate: &Candidate| {
        let is_first = bytes == 0;
        bytes += candidate.live_bytes;
        is_first || bytes <= slot_bytes
    };
    let victims: Vec<Candidate> =
        candidates.iter().copied().take_while(fits).take(VICTIMS_MAX).collect();
    let live: u64 = victims.iter().map(|victim| victim.live_bytes).sum();
    // Values of up to a quarter of a slot leave up to so much of it empty: a run must gain more than that.
    let gained = victims.len() as u64 * slot_bytes - live;
    if gained * 4 <= slot_bytes {
        return Vec::new();
    }
    victims.into_iter().map(|victim| victim.slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT_BYTES: u64 = 1_000;

    fn candidate(slot: u32, live_bytes: u64, age_bytes: u64) -> Candidate {
        Candidate { slot, live_bytes, age_bytes }
    }

    fn chosen(candidates: &[Candidate], target_percent: u64) -> Vec<u32> {
        choose(candidates.to_vec(), SLOT_BYTES, target_percent)
    }

    #[test]
    fn nothing_is_cleaned_while_enough_is_live() {
        let candidates = [candidate(1, 500, 0), candidate(2, 700, 0)];
        assert_eq!(chosen(&candidates, 60), [] as [u32; 0]);
        assert_eq!(chosen(&candidates, 61), [1]);
        assert_eq!(chosen(&[], 60), [] as [u32; 0]);
    }

    #[test]
    fn the_emptiest_go_first_and_fill_one_slot_together() {
        let live = [400, 100, 300, 250, 900];
        let candidates: Vec<_> =
            (0..).zip(live).map(|(slot, live)| candidate(slot, live, 5)).collect();
        assert_eq!(chosen(&candidates, 60), [1, 3, 2]);
    }

    /// While slots were short, a slot that three values of a quarter of its size filled as far as they could was cleaned
    /// into one that was no fuller, again and again.
    #[test]
    fn a_run_gains_more_than_large_values_leave_empty() {
        assert_eq!(chosen(&[candidate(1, 750, 9)], 100), [] as [u32; 0]);
        assert_eq!(chosen(&[candidate(1, 749, 9)], 100), [1]);
        assert_eq!(chosen(&[candidate(1, 450, 9), candidate(2, 500, 9)], 100), [1, 2]);
    }

    #[test]
    fn of_many_that_are_nearly_empty_a_few_at_a_time_are_taken() {
        let candidates: Vec<_> = (0..100).map(|slot| candidate(slot, 1, 5)).collect();
        assert_eq!(chosen(&candidates, 60), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn an_old_slot_goes_before_a_young_one_that_is_a_little_emptier() {
        let candidates = [candidate(1, 300, 100), candidate(2, 400, 100_000)];
        assert_eq!(chosen(&candidates, 60)[0], 2);
    }

    #[test]
    fn what_is_empty_waits_for_checkpoints_and_what_is_nearly_full_stays() {
        let candidates = [candidate(1, 0, 9), candidate(2, 901, 9), candidate(3, 10, 9)];
        assert_eq!(chosen(&candidates, 70), [3]);
        assert_eq!(chosen(&candidates[..2], 100), [] as [u32; 0]);
    }
}
