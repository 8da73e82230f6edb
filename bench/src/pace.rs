//! When operations start.
//!
//! In a closed loop a slot starts its next operation when the last has been answered. In an open loop operations
//! start when the schedule says, whatever the cluster does; one that finds no free slot waits, and its latency
//! is counted from when it *should* have started. So a stall of the cluster shows in every operation that
//! it held up, not only in those that were under way (no coordinated omission).

/// The time that counts, `from..until`, and what follows, in nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The end of the warm-up.
    pub from: u64,
    /// The end of the run.
    pub until: u64,
    /// When operations that an open loop still owes are given up.
    pub deadline: u64,
}

impl Window {
    /// Whether `at` counts.
    pub fn contains(&self, at: u64) -> bool {
        (self.from..self.until).contains(&at)
    }
}

/// The starts of one lane's operations.
#[derive(Debug, Clone)]
pub struct Pace {
    begin: u64,
    window: Window,
    open: Option<Share>,
}

/// One lane's share of an open loop: every `lanes`th operation, beginning with number `next`.
#[derive(Debug, Clone, Copy)]
struct Share {
    rate: u64,
    lanes: u64,
    next: u64,
}

impl Pace {
    /// As fast as the answers come.
    pub fn closed(begin: u64, window: Window) -> Pace {
        Pace { begin, window, open: None }
    }

    /// `rate` operations a second, of all `lanes` together; this is lane number `lane`. Requires: `rate > 0`.
    pub fn open(begin: u64, window: Window, rate: u64, lane: u64, lanes: u64) -> Pace {
        assert!(rate > 0);
        assert!(lane < lanes);
        Pace { begin, window, open: Some(Share { rate, lanes, next: lane }) }
    }

    /// The start of the next operation, if one may start now.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let Some(share) = &mut self.open else {
            return (now < self.window.until).then_some(now);
        };
        let due = due_ns(self.begin, share.next, share.rate);
        if due > now || due >= self.window.until || now >= self.window.deadline {
            return None;
        }
        share.next += share.lanes;
        Some(due)
    }

    /// Whether no operation will start at or after `now`.
    pub fn is_over(&self, now: u64) -> bool {
        match self.open {
            None => now >= self.window.until,
            Some(share) => {
                let due = due_ns(self.begin, share.next, share.rate);
                due >= self.window.until || now >= self.window.deadline
            }
        }
    }

    /// How many operations were due in the window and have not started.
    pub fn unstarted(&self) -> u64 {
        let Some(share) = self.open else { return 0 };
        let numbers = (share.next..).step_by(usize::try_from(share.lanes).expect("lanes are few"));
        let due = numbers.map(|number| due_ns(self.begin, number, share.rate));
        let due = due.take_while(|due| *due < self.window.until);
        due.filter(|due| self.window.contains(*due)).count() as u64
    }

    /// Whether an operation with this start and this answer counts. In an open loop the start decides, or slow
    /// operations would drop out at the end.
    pub fn counts(&self, start: u64, end: u64) -> bool {
        self.window.contains(if self.open.is_some() { start } else { end })
    }
}

/// When operation `number` of an open loop is due, in nanoseconds.
pub fn due_ns(begin: u64, number: u64, rate: u64) -> u64 {
    let after = u128::from(number) * 1_000_000_000 / u128::from(rate);
    begin + u64::try_from(after).expect("a run lasts for less than 500 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const WINDOW: Window = Window { from: SECOND, until: 2 * SECOND, deadline: 3 * SECOND };

    fn starts(pace: &mut Pace, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| pace.take(now)).collect()
    }

    #[test]
    fn a_closed_loop_starts_whenever_asked_until_the_end() {
        let mut pace = Pace::closed(0, WINDOW);
        assert_eq!(pace.take(5), Some(5));
        assert_eq!(pace.take(5), Some(5));
        assert!(!pace.is_over(WINDOW.until - 1));
        assert_eq!(pace.take(WINDOW.until), None);
        assert!(pace.is_over(WINDOW.until));
    }

    #[test]
    fn lanes_share_the_schedule_of_an_open_loop() {
        let mut all = Vec::new();
        for lane in 0..3 {
            all.extend(starts(&mut Pace::open(7, WINDOW, 10, lane, 3), SECOND));
        }
        all.sort_unstable();
        let expected: Vec<u64> = (0..10).map(|number| 7 + number * SECOND / 10).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn what_was_held_up_keeps_its_intended_start() {
        let mut pace = Pace::open(0, WINDOW, 4, 0, 1);
        assert_eq!(starts(&mut pace, 0), [0]);
        assert_eq!(starts(&mut pace, SECOND), [SECOND / 4, SECOND / 2, 3 * SECOND / 4, SECOND]);
    }

    #[test]
    fn nothing_starts_at_or_after_the_end_of_an_open_loop() {
        let mut pace = Pace::open(0, WINDOW, 4, 0, 1);
        assert_eq!(starts(&mut pace, 3 * SECOND - 1).len(), 8);
        assert!(pace.is_over(0));
        assert_eq!(pace.unstarted(), 0);
    }

    #[test]
    fn operations_that_never_started_are_counted() {
        let mut pace = Pace::open(0, WINDOW, 4, 1, 2);
        assert_eq!(pace.unstarted(), 2); // Of 0.25, 0.75, 1.25 and 1.75 s, those in the window.
        assert_eq!(starts(&mut pace, SECOND + SECOND / 2).len(), 3);
        assert_eq!(pace.unstarted(), 1);
        assert!(!pace.is_over(WINDOW.deadline - 1));
        assert_eq!(pace.take(WINDOW.deadline), None);
        assert!(pace.is_over(WINDOW.deadline));
    }

    #[test]
    fn an_open_loop_counts_by_start_and_a_closed_one_by_answer() {
        let open = Pace::open(0, WINDOW, 4, 0, 1);
        assert!(open.counts(WINDOW.until - 1, 9 * SECOND));
        assert!(!open.counts(WINDOW.from - 1, WINDOW.from));
        let closed = Pace::closed(0, WINDOW);
        assert!(closed.counts(0, WINDOW.from));
        assert!(!closed.counts(WINDOW.from, WINDOW.until));
    }
}
