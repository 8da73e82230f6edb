//! When sessions end and queued acquires give up: the leader's clockwork.
//!
//! Deadlines live here, not in the replicated state; each acts only through a committed command that names
//! exactly whom it means (P42). They count a clock of their own that never advances by more than
//! [`STEP_US_MAX`] a tick, so a pause of the process shifts every deadline by its length
//! instead of ending every session at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft::Micros;

use crate::state_machine::Command;

/// The most that one tick may take from a session's time to live.
const STEP_US_MAX: u64 = 100_000;

/// A command that was proposed and not applied after this long is proposed again: the log may have been full.
const RETRY_US: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Lifetime {
    generation: u64,
    full_us: u64,
    deadline_us: u64,
}

/// All deadlines of a leader; empty on everyone else.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    clock_us: u64,
    last_tick: Option<Micros>,
    sessions: BTreeMap<u64, Lifetime>,
    due_sessions: BTreeSet<(u64, u64)>,
    /// Sessions whose expiry is proposed and not yet applied: they are not kept alive any more.
    expiring: BTreeSet<u64>,
    waits: BTreeMap<(u64, u64), (u64, Bytes)>,
    due_waits: BTreeSet<(u64, u64, u64)>,
}

impl Deadlines {
    /// This leadership is over.
    pub(super) fn clear(&mut self) {
        *self = Deadlines::default();
    }

    /// The leadership has begun: the state holds these sessions, by (id, generation, time to live
    /// in milliseconds). Acquires that wait were queued by this leadership already.
    pub(super) fn begin(&mut self, sessions: impl Iterator<Item = (u64, u64, u64)>) {
        for (session, generation, ttl_ms) in sessions {
            self.opened(session, generation, ttl_ms);
        }
    }

    /// The session has its full time from now on.
    pub(super) fn opened(&mut self, session: u64, generation: u64, ttl_ms: u64) {
        self.ended(session);
        let full_us = ttl_ms.saturating_mul(1000);
        let deadline_us = self.clock_us.saturating_add(full_us);
        self.sessions.insert(session, Lifetime { generation, full_us, deadline_us });
        self.due_sessions.insert((deadline_us, session));
    }

    /// The session is gone, by a close or by an expiry.
    pub(super) fn ended(&mut self, session: u64) {
        self.expiring.remove(&session);
        if let Some(lifetime) = self.sessions.remove(&session) {
            self.due_sessions.remove(&(lifetime.deadline_us, session));
        }
    }

    /// The owner was heard. Returns the time to live in milliseconds, or nothing if the session is unknown or about to end.
    pub(super) fn keep_alive(&mut self, session: u64) -> Option<u64> {
        if self.expiring.contains(&session) {
            return None;
        }
        let lifetime = self.sessions.get_mut(&session)?;
        self.due_sessions.remove(&(lifetime.deadline_us, session));
        lifetime.deadline_us = self.clock_us.saturating_add(lifetime.full_us);
        self.due_sessions.insert((lifetime.deadline_us, session));
        Some(lifetime.full_us / 1000)
    }

    /// The acquire is in a queue and gives up after `wait_ms`.
    pub(super) fn wait(&mut self, session: u64, sequence: u64, name: Bytes, wait_ms: u64) {
        self.wait_ended(session, sequence);
        let deadline_us = self.clock_us.saturating_add(wait_ms.saturating_mul(1000));
        self.waits.insert((session, sequence), (deadline_us, name));
        self.due_waits.insert((deadline_us, session, sequence));
    }

    /// The acquire is not in a queue any more.
    pub(super) fn wait_ended(&mut self, session: u64, sequence: u64) {
        if let Some((deadline_us, _)) = self.waits.remove(&(session, sequence)) {
            self.due_waits.remove(&(deadline_us, session, sequence));
        }
    }

    /// Time passes; what is due now is proposed.
    pub(super) fn tick(&mut self, now: Micros, mut propose: impl FnMut(Command)) {
        let gap = self.last_tick.map_or(0, |last| now.0.saturating_sub(last.0));
        self.last_tick = Some(now);
        self.clock_us += gap.min(STEP_US_MAX);
        while let Some(session) = pop_due(&mut self.due_sessions, self.clock_us, |key| key.0) {
            self.expire(session.1, &mut propose);
        }
        while let Some(wait) = pop_due(&mut self.due_waits, self.clock_us, |key| key.0) {
            self.cancel((wait.1, wait.2), &mut propose);
        }
    }

    fn expire(&mut self, session: u64, propose: &mut impl FnMut(Command)) {
        let Some(lifetime) = self.sessions.get_mut(&session) else { return };
        self.expiring.insert(session);
        lifetime.deadline_us = self.clock_us + RETRY_US;
        self.due_sessions.insert((lifetime.deadline_us, session));
        propose(Command::SessionExpire { session, generation: lifetime.generation });
    }

    fn cancel(&mut self, (session, sequence): (u64, u64), propose: &mut impl FnMut(Command)) {
        let Some((deadline_us, name)) = self.waits.get_mut(&(session, sequence)) else { return };
        *deadline_us = self.clock_us + RETRY_US;
        self.due_waits.insert((*deadline_us, session, sequence));
        propose(Command::LockCancel { name: name.clone(), session, sequence });
    }
}

/// Takes the first element that is due, if any.
fn pop_due<T: Ord>(set: &mut BTreeSet<T>, now_us: u64, due_us: impl Fn(&T) -> u64) -> Option<T> {
    set.first().is_some_and(|first| due_us(first) <= now_us).then(|| set.pop_first()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(deadlines: &mut Deadlines, now_us: u64) -> Vec<u64> {
        let mut ended = Vec::new();
        deadlines.tick(Micros(now_us), |command| {
            let Command::SessionExpire { session, .. } = command else { panic!("{command:?}") };
            ended.push(session);
        });
        ended
    }

    fn run(deadlines: &mut Deadlines, from_us: u64, to_us: u64) -> Vec<u64> {
        (from_us..=to_us).step_by(10_000).flat_map(|now| expired(deadlines, now)).collect()
    }

    #[test]
    fn session_expires_once_after_its_time_to_live() {
        let mut deadlines = Deadlines::default();
        deadlines.opened(1, 1, 1000);
        assert_eq!(run(&mut deadlines, 0, 990_000), [0; 0]);
        assert_eq!(run(&mut deadlines, 1_000_000, 1_500_000), [1]);
        assert_eq!(deadlines.keep_alive(1), None);
    }

    #[test]
    fn expiry_that_was_not_applied_is_proposed_again_until_it_is() {
        let mut deadlines = Deadlines::default();
        deadlines.opened(1, 1, 1000);
        assert_eq!(run(&mut deadlines, 0, 2_500_000), [1, 1]);
        deadlines.ended(1);
        assert_eq!(run(&mut deadlines, 2_510_000, 9_000_000), [0; 0]);
    }

    #[test]
    fn keep_alive_gives_the_full_time_again() {
        let mut deadlines = Deadlines::default();
        deadlines.opened(1, 1, 1000);
        run(&mut deadlines, 0, 900_000);
        assert_eq!(deadlines.keep_alive(1), Some(1000));
        assert_eq!(run(&mut deadlines, 910_000, 1_890_000), [0; 0]);
        assert_eq!(run(&mut deadlines, 1_900_000, 2_000_000), [1]);
    }

    /// A leader that was stopped for longer than every time to live must not end every session when it wakes.
    #[test]
    fn pause_of_the_process_shifts_deadlines_instead_of_passing_them() {
        let mut deadlines = Deadlines::default();
        deadlines.opened(1, 1, 1000);
        run(&mut deadlines, 0, 500_000);
        assert_eq!(expired(&mut deadlines, 60_000_000), [0; 0]);
        assert_eq!(run(&mut deadlines, 60_010_000, 60_390_000), [0; 0]);
        assert_eq!(run(&mut deadlines, 60_400_000, 60_500_000), [1]);
    }

    #[test]
    fn queued_acquire_is_cancelled_by_name_when_its_wait_is_over() {
        let mut deadlines = Deadlines::default();
        deadlines.wait(4, 9, Bytes::from_static(b"lock"), 20);
        let mut cancelled = Vec::new();
        for now in [0, 10_000, 20_000, 30_000] {
            deadlines.tick(Micros(now), |command| cancelled.push(command));
        }
        let cancel =
            Command::LockCancel { name: Bytes::from_static(b"lock"), session: 4, sequence: 9 };
        assert_eq!(cancelled, [cancel]);
    }
}
