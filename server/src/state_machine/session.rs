//! Sessions: who lives, and what each was answered.
//!
//! Deadlines are not here: the leader's driver keeps them and ends a session by a command that
//! names its generation.
//!
//! The window of a session starts at the lowest sequence that its client has not seen answered.
//! Within it the state keeps the outcome of every executed command, so that a retry is answered
//! and not executed.
//!
//! Invariants:
//! - a session's number is never used again, the counter being part of the state;
//! - `window[i]` is the outcome of sequence `lowest + i`, and `i < SESSION_WINDOW`;
//! - an outcome is `Queued` exactly while the claim of that name stands in a lock's queue.

use super::command::{Origin, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN, SESSION_WINDOW};
use super::hash::{Domain, ItemHash};
use super::outcome::Outcome;
use super::table::Table;
use std::collections::{BTreeMap, VecDeque};

/// A session as readers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionView<'a> {
    /// Its number.
    pub session: u64,
    /// Its generation, which an expiry must name.
    pub generation: u64,
    /// Its time to live, in milliseconds.
    pub ttl_ms: u64,
    /// The name that its client gave it.
    pub label: &'a [u8],
}

#[derive(Clone)]
pub(super) struct Session {
    pub(super) generation: u64,
    pub(super) ttl_ms: u64,
    pub(super) nonce: u128,
    pub(super) lowest: u64,
    pub(super) label: Box<[u8]>,
    pub(super) window: VecDeque<Option<Outcome>>,
}

impl Session {
    /// The answers in the window, each with its sequence.
    pub(super) fn answers(&self) -> impl Iterator<Item = (u64, Outcome)> {
        // The sum cannot overflow where there is an answer: that sequence was in a command.
        let numbered = (0..).zip(&self.window);
        numbered.filter_map(|(offset, answer)| Some((self.lowest + offset, (*answer)?)))
    }

    fn hash(&self, id: u64) -> u128 {
        let words = [id, self.generation, self.ttl_ms];
        let nonce = [low_word(self.nonce), low_word(self.nonce >> 64)];
        ItemHash::new(Domain::Session).words(words).words(nonce).bytes(&self.label).finish()
    }

    fn hash_with_window(&self, id: u64) -> u128 {
        let answers = self.answers().map(|(sequence, answer)| hash_answer(id, sequence, answer));
        let sum = answers.fold(self.hash(id), u128::wrapping_add);
        sum.wrapping_add(hash_lowest(id, self.lowest))
    }

    /// The place of a sequence in the window.
    fn place(&self, sequence: u64) -> Place {
        match sequence.checked_sub(self.lowest) {
            None => Place::Below,
            Some(offset) if offset < SESSION_WINDOW => {
                Place::At(usize::try_from(offset).expect("less than the window"))
            }
            Some(_) => Place::Above,
        }
    }
}

enum Place {
    Below,
    At(usize),
    Above,
}

#[expect(clippy::cast_possible_truncation, reason = "the low word is what is asked for")]
fn low_word(number: u128) -> u64 {
    number as u64
}

fn hash_lowest(id: u64, lowest: u64) -> u128 {
    ItemHash::new(Domain::Lowest).words([id, lowest]).finish()
}

fn hash_answer(id: u64, sequence: u64, answer: Outcome) -> u128 {
    let words = answer.to_words().expect("only outcomes of executed commands are recorded");
    ItemHash::new(Domain::Answer).words([id, sequence]).words(words).finish()
}

/// What a session's window says to a command.
pub(super) enum Admission {
    /// It was not executed yet: execute and record it.
    Execute,
    /// Do not execute it; this is its answer.
    Answered(Outcome),
}

/// Invariants: `sum` is the sum of the hashes of all sessions with their windows; `nonces` holds
/// the nonce of every living session that has one.
#[derive(Clone)]
pub(super) struct Sessions {
    pub(super) table: Table<u64, Session>,
    nonces: BTreeMap<u128, u64>,
    pub(super) opened: u64,
    sum: u128,
}

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions { table: Table::new(), nonces: BTreeMap::new(), opened: 0, sum: 0 }
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    pub(super) fn recompute_sum(&self) -> u128 {
        let hash = |(id, session): (&u64, &Session)| session.hash_with_window(*id);
        self.table.iter().map(hash).fold(0, u128::wrapping_add)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.table.iter().map(|(id, session)| SessionView {
            session: *id,
            generation: session.generation,
            ttl_ms: session.ttl_ms,
            label: &session.label,
        })
    }

    pub(super) fn view(&self, id: u64) -> Option<SessionView<'_>> {
        let session = self.table.get(&id)?;
        let Session { generation, ttl_ms, ref label, .. } = *session;
        Some(SessionView { session: id, generation, ttl_ms, label })
    }

    pub(super) fn open(&mut self, ttl_ms: u64, nonce: u128, label: &[u8]) -> Outcome {
        if let Some(&id) = self.nonces.get(&nonce) {
            return self.open_again(id);
        }
        let session = Session {
            generation: 1,
            ttl_ms: ttl_ms.clamp(SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX),
            nonce,
            lowest: 1,
            label: label.into(),
            window: VecDeque::new(),
        };
        let ttl_ms = session.ttl_ms;
        let id = self.opened + 1;
        self.opened = id;
        self.restore(id, session);
        Outcome::SessionOpened { session: id, generation: 1, ttl_ms }
    }

    fn open_again(&mut self, id: u64) -> Outcome {
        let session = self.table.get_mut(&id).expect("a nonce leads to a living session");
        self.sum = self.sum.wrapping_sub(session.hash(id));
        session.generation += 1;
        self.sum = self.sum.wrapping_add(session.hash(id));
        let Session { generation, ttl_ms, .. } = *session;
        Outcome::SessionOpened { session: id, generation, ttl_ms }
    }

    /// Removes a session, saying whether it existed. Its claims on locks are the caller's to end.
    pub(super) fn end(&mut self, id: u64) -> bool {
        let look = |session: &Session| (session.nonce, session.hash_with_window(id));
        let Some((nonce, sum)) = self.table.remove(&id, look) else {
            return false;
        };
        self.nonces.remove(&nonce);
        self.sum = self.sum.wrapping_sub(sum);
        true
    }

    /// Looks a command up in its session's window, which it may move: then the sequences of queued
    /// acquires that fell out of it are added to `withdrawn`.
    pub(super) fn admit(&mut self, origin: Origin, withdrawn: &mut Vec<u64>) -> Admission {
        if origin.lowest_unanswered > self.lowest(origin.session) {
            self.advance(origin, withdrawn);
        }
        let Some(session) = self.table.get(&origin.session) else {
            return Admission::Answered(Outcome::SessionUnknown);
        };
        match session.place(origin.sequence) {
            Place::Below => Admission::Answered(Outcome::SequenceStale),
            Place::Above => Admission::Answered(Outcome::SequenceTooFar),
            Place::At(place) => match session.window.get(place) {
                Some(Some(answer)) => Admission::Answered(*answer),
                _ => Admission::Execute,
            },
        }
    }

    /// Records what an admitted command did.
    ///
    /// Requires: [`admit`](Sessions::admit) said to execute it.
    pub(super) fn record(&mut self, origin: Origin, outcome: Outcome) {
        let session = self.table.get_mut(&origin.session).expect("admitted, so it lives");
        let Place::At(place) = session.place(origin.sequence) else {
            panic!("admitted, so its sequence lies in the window");
        };
        if session.window.len() <= place {
            session.window.resize(place + 1, None);
        }
        let before = session.window[place].replace(outcome);
        assert_eq!(before, None, "a command is executed once");
        let hash = hash_answer(origin.session, origin.sequence, outcome);
        self.sum = self.sum.wrapping_add(hash);
    }

    /// Replaces `Queued` by what became of the queued acquire.
    ///
    /// Requires: the claim stood in a queue until now, and its session lives.
    pub(super) fn resolve(&mut self, id: u64, sequence: u64, outcome: Outcome) {
        let session = self.table.get_mut(&id).expect("a waiter's session lives");
        let Place::At(place) = session.place(sequence) else {
            panic!("a waiter's sequence lies in the window");
        };
        let before = session.window[place].replace(outcome);
        assert_eq!(before, Some(Outcome::Queued), "only a queued acquire is answered later");
        let queued = hash_answer(id, sequence, Outcome::Queued);
        let resolved = hash_answer(id, sequence, outcome);
        self.sum = self.sum.wrapping_sub(queued).wrapping_add(resolved);
    }

    /// How many queued acquires the windows know of. A walk over all windows.
    pub(super) fn queued_count(&self) -> usize {
        let answers = self.table.iter().flat_map(|(_, session)| session.answers());
        answers.filter(|(_, answer)| *answer == Outcome::Queued).count()
    }

    /// Whether the session has a queued acquire of this sequence.
    pub(super) fn is_queued(&self, id: u64, sequence: u64) -> bool {
        let Some(session) = self.table.get(&id) else {
            return false;
        };
        let Place::At(place) = session.place(sequence) else {
            return false;
        };
        session.window.get(place) == Some(&Some(Outcome::Queued))
    }

    pub(super) fn has_nonce(&self, nonce: u128) -> bool {
        self.nonces.contains_key(&nonce)
    }

    /// Adds a session that a snapshot holds, or a fresh one.
    ///
    /// Requires: its number is absent.
    pub(super) fn restore(&mut self, id: u64, session: Session) {
        self.sum = self.sum.wrapping_add(session.hash_with_window(id));
        if session.nonce != 0 {
            self.nonces.insert(session.nonce, id);
        }
        self.table.insert(id, session);
    }

    /// The start of a session's window; beyond every sequence when there is no such session.
    fn lowest(&self, id: u64) -> u64 {
        self.table.get(&id).map_or(u64::MAX, |session| session.lowest)
    }

    fn advance(&mut self, origin: Origin, withdrawn: &mut Vec<u64>) {
        let Origin { session: id, lowest_unanswered, .. } = origin;
        let session = self.table.get_mut(&id).expect("the caller looked its window up");
        let before = session.lowest;
        for sequence in before..lowest_unanswered {
            let Some(answer) = session.window.pop_front() else {
                break;
            };
            let Some(answer) = answer else {
                continue;
            };
            self.sum = self.sum.wrapping_sub(hash_answer(id, sequence, answer));
            if answer == Outcome::Queued {
                withdrawn.push(sequence);
            }
        }
        session.lowest = lowest_unanswered;
        let moved = hash_lowest(id, lowest_unanswered).wrapping_sub(hash_lowest(id, before));
        self.sum = self.sum.wrapping_add(moved);
    }
}
