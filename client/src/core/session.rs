//! One session as its client sees it: its life, its sequences.

use std::collections::{BTreeMap, VecDeque};

use protocol::{Origin, SESSION_WINDOW};

use super::{Micros, Ticket};

/// How often within its time to live a session is kept alive.
const KEEP_ALIVES_PER_TTL: u64 = 3;

/// Where a session is in its life. It only moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// The server has not answered the open.
    Opening,
    /// It lives.
    Open,
    /// A close is under way.
    Closing,
    /// It ended, or must be taken to have ended.
    Lost,
}

/// Invariant: `unanswered` holds exactly the sequences that may be sent again, all below
/// `next_sequence`, each with the call that has it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) phase: Phase,
    pub(super) id: u64,
    pub(super) ttl_us: u64,
    /// When the session must be taken to have ended, by the sending time of what renewed it last.
    pub(super) alive_until: Micros,
    pub(super) keep_alive_at: Micros,
    pub(super) keep_alive: Option<Ticket>,
    /// Requests that wait for the session to open or for room in its window.
    pub(super) held_back: VecDeque<Ticket>,
    next_sequence: u64,
    unanswered: BTreeMap<u64, Ticket>,
}

impl Session {
    pub(super) fn new() -> Session {
        Session {
            phase: Phase::Opening,
            id: 0,
            ttl_us: 0,
            alive_until: Micros::NEVER,
            keep_alive_at: Micros::NEVER,
            keep_alive: None,
            held_back: VecDeque::new(),
            next_sequence: 1,
            unanswered: BTreeMap::new(),
        }
    }

    /// The session was opened by a request that was sent at `sent_at`.
    pub(super) fn opened(&mut self, id: u64, ttl_ms: u64, sent_at: Micros) {
        assert_eq!(self.phase, Phase::Opening);
        self.phase = Phase::Open;
        self.id = id;
        self.renewed(ttl_ms, sent_at);
    }

    /// The server renewed the session for a request that was sent at `sent_at`. Counting from then
    /// is safe: the server cannot have counted from an earlier moment.
    pub(super) fn renewed(&mut self, ttl_ms: u64, sent_at: Micros) {
        self.ttl_us = ttl_ms.saturating_mul(1000);
        self.alive_until = sent_at.plus(self.ttl_us);
        self.keep_alive_at = sent_at.plus(self.ttl_us / KEEP_ALIVES_PER_TTL);
    }

    /// The earliest time at which something must be done about the session.
    pub(super) fn wake_at(&self) -> Micros {
        match (self.phase, self.keep_alive) {
            (Phase::Open, None) => self.keep_alive_at.min(self.alive_until),
            (Phase::Open, Some(_)) | (Phase::Closing, _) => self.alive_until,
            (Phase::Opening | Phase::Lost, _) => Micros::NEVER,
        }
    }

    /// How many new sequences lie within the window.
    pub(super) fn room(&self) -> u64 {
        let used = self.next_sequence - self.lowest_unanswered(self.next_sequence);
        SESSION_WINDOW.checked_sub(used).expect("no sequence beyond the window is ever taken")
    }

    /// The next sequence, for `ticket`. From here on it counts as unanswered.
    ///
    /// Requires: there is [`Session::room`].
    pub(super) fn take_sequence(&mut self, ticket: Ticket) -> u64 {
        assert!(self.room() > 0);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.unanswered.insert(sequence, ticket);
        sequence
    }

    /// The sequence will not be sent again.
    pub(super) fn settle(&mut self, sequence: u64) {
        self.unanswered.remove(&sequence);
    }

    /// What a request with this sequence says of its origin if it is sent now.
    pub(super) fn origin(&self, sequence: u64) -> Origin {
        let lowest_unanswered = self.lowest_unanswered(sequence);
        Origin { session: self.id, sequence, lowest_unanswered }
    }

    /// The call whose answer the window waits for.
    pub(super) fn oldest_unanswered(&self) -> Option<Ticket> {
        self.unanswered.first_key_value().map(|(_, ticket)| *ticket)
    }

    fn lowest_unanswered(&self, sequence: u64) -> u64 {
        self.unanswered.first_key_value().map_or(sequence, |(lowest, _)| sequence.min(*lowest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_full_while_the_oldest_of_1024_is_unanswered() {
        let mut session = Session::new();
        session.opened(9, 1000, Micros(0));
        let sequences: Vec<u64> =
            (0..SESSION_WINDOW).map(|call| session.take_sequence(Ticket(call))).collect();
        assert_eq!(sequences.first(), Some(&1));
        assert_eq!(session.room(), 0);
        session.settle(2);
        assert_eq!(session.room(), 0);
        assert_eq!(session.oldest_unanswered(), Some(Ticket(0)));
        session.settle(1);
        assert_eq!(session.room(), 2);
        assert_eq!(session.origin(5).lowest_unanswered, 3);
    }

    #[test]
    fn life_is_counted_from_the_sending_of_what_renewed_it() {
        let mut session = Session::new();
        session.opened(9, 3000, Micros(1_000_000));
        assert_eq!(session.alive_until, Micros(4_000_000));
        assert_eq!(session.wake_at(), Micros(2_000_000));
    }
}
