//! The wake-up of a waiting owner: an atomic that makes a system call necessary only while it sleeps.
//!
//! States: quiet, waiting (the owner sleeps or is about to), rung. Whoever rings swaps in *rung* and learns
//! whether there is somebody to wake; the owner goes from *quiet* to *waiting* and cannot do so when the
//! bell was rung since it last looked. Hence no wake-up is lost.

use std::sync::atomic::{AtomicU8, Ordering};

const QUIET: u8 = 0;
const WAITING: u8 = 1;
const RUNG: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Bell(AtomicU8);

impl Bell {
    /// Rings; returns whether the owner sleeps or is about to, and so has to be woken by other means.
    #[must_use]
    pub(super) fn ring(&self) -> bool {
        self.0.swap(RUNG, Ordering::AcqRel) == WAITING
    }

    /// Owner: announces that it will sleep. False, and quiet again, when the bell was rung before.
    #[must_use]
    pub(super) fn arm(&self) -> bool {
        let before = self.0.swap(WAITING, Ordering::AcqRel);
        assert!(before != WAITING, "one owner waits at a time");
        if before == RUNG {
            self.disarm();
        }
        before == QUIET
    }

    /// Whether it was rung and the owner has not disarmed it since.
    pub(super) fn is_rung(&self) -> bool {
        self.0.load(Ordering::Acquire) == RUNG
    }

    /// Owner: awake again. What was rung until here is answered by its being awake.
    pub(super) fn disarm(&self) {
        self.0.swap(QUIET, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_keeps_the_owner_awake_once() {
        let bell = Bell::default();
        assert!(!bell.ring());
        assert!(!bell.ring());
        assert!(!bell.arm());
        assert!(bell.arm());
    }

    #[test]
    fn only_the_first_ring_of_a_wait_has_to_wake() {
        let bell = Bell::default();
        assert!(bell.arm());
        assert!(bell.ring());
        assert!(!bell.ring());
        assert!(bell.is_rung());
        bell.disarm();
        assert!(!bell.is_rung());
    }
}
