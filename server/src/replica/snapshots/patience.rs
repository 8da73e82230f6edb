//! When a snapshot may be received again that there was no room for.
//!
//! Its sender offers it anew within a heartbeat, and each attempt writes until the disk is full. So an attempt that found
//! no room is followed by a pause that grows from one to the next, and what is offered meanwhile is refused unheard.

use raft::Micros;

/// After the first attempt, and the longest.
const PAUSE_US_MIN: u64 = 1_000_000;
const PAUSE_US_MAX: u64 = 30_000_000;

/// The pause between two attempts.
#[derive(Debug, Default)]
pub(in super::super) struct Patience {
    until: Micros,
    /// The last one; 0 if none came before.
    pause_us: u64,
}

impl Patience {
    /// Whether an attempt may begin. One that comes late has nothing to do with those before it; how long an attempt
    /// takes does not count.
    pub(in super::super) fn is_over(&mut self, now: Micros) -> bool {
        if now.0 >= self.until.0 + PAUSE_US_MAX {
            self.pause_us = 0;
        }
        now >= self.until
    }

    /// An attempt has found no room. Returns whether that is news.
    pub(in super::super) fn begin(&mut self, now: Micros) -> bool {
        let is_news = self.pause_us == 0;
        self.pause_us = (self.pause_us * 2).clamp(PAUSE_US_MIN, PAUSE_US_MAX);
        self.until = Micros(now.0 + self.pause_us);
        is_news
    }

    /// One was installed.
    pub(in super::super) fn end(&mut self) {
        *self = Patience::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt that begins so long after the last pause, takes so long, and finds no room: the pause after it, and
    /// whether that is news.
    fn attempt(patience: &mut Patience, after_us: u64, takes_us: u64) -> (u64, bool) {
        let now = Micros(patience.until.0 + after_us);
        assert!(patience.is_over(now));
        let end = Micros(now.0 + takes_us);
        let is_news = patience.begin(end);
        assert!(!patience.is_over(Micros(patience.until.0 - 1)));
        (patience.until.0 - end.0, is_news)
    }

    #[test]
    fn pauses_grow_to_a_limit_however_long_an_attempt_takes() {
        let mut patience = Patience::default();
        let pauses = (0..7).map(|_| attempt(&mut patience, 50_000, 100_000_000));
        let pauses: Vec<_> = pauses.map(|(us, is_news)| (us / 1_000_000, is_news)).collect();
        let expected = [1, 2, 4, 8, 16, 30, 30].map(|seconds| (seconds, seconds == 1));
        assert_eq!(pauses, expected);
    }

    #[test]
    fn pauses_begin_anew_after_a_success_and_after_a_long_silence() {
        let mut patience = Patience::default();
        for _ in 0..3 {
            assert_eq!(attempt(&mut patience, PAUSE_US_MAX, 5), (PAUSE_US_MIN, true));
            assert_eq!(attempt(&mut patience, 5, 5), (2 * PAUSE_US_MIN, false));
        }
        patience.end();
        assert_eq!(attempt(&mut patience, 5, 5), (PAUSE_US_MIN, true));
    }
}
