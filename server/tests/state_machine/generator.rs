//! Random commands from a seed, over few keys, sessions and locks, so that they meet.

use bytes::Bytes;
use server::state_machine::{Command, Expect, Origin, State, Wait};

/// A small generator of its own, so that a seed means the same for ever.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn below_usize(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// How many different things commands are about.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) keys: u64,
    pub(crate) sessions: u64,
    pub(crate) locks: u64,
    pub(crate) tokens: u64,
}

/// Clients that send commands, sometimes again, sometimes out of order.
pub(crate) struct Clients {
    pub(crate) random: Random,
    spread: Spread,
    /// By session number: the next sequence and the lowest unanswered one.
    sequences: Vec<(u64, u64)>,
    sent: Vec<(Origin, Command)>,
    /// Held locks as (session, name, token), so that releases hit more often than by chance.
    held: Vec<(u64, Bytes, u64)>,
}

impl Clients {
    pub(crate) fn new(seed: u64, spread: Spread) -> Clients {
        let sequences = vec![(1, 1); usize::try_from(spread.sessions).unwrap() + 1];
        Clients { random: Random::new(seed), spread, sequences, sent: Vec::new(), held: Vec::new() }
    }

    /// Looks at who holds what before the next entry.
    pub(crate) fn look_at(&mut self, state: &State) {
        self.held.clear();
        for number in 0..self.spread.locks {
            let name = Bytes::from(format!("lock-{number}"));
            if let Some(lock) = state.lock(&name) {
                self.held.push((lock.session, name, lock.token));
            }
        }
    }

    pub(crate) fn entry(&mut self, count_max: u64) -> Vec<(Origin, Command)> {
        (0..=self.random.below(count_max)).map(|_| self.command()).collect()
    }

    fn command(&mut self) -> (Origin, Command) {
        if !self.sent.is_empty() && self.random.one_in(6) {
            let recent = self.random.below_usize(self.sent.len().min(40));
            return self.sent[self.sent.len() - 1 - recent].clone();
        }
        if !self.held.is_empty() && self.random.one_in(12) {
            let held = self.random.below_usize(self.held.len());
            let (session, name, token) = self.held[held].clone();
            let command = Command::LockRelease { name, token };
            let origin = self.origin_in(session);
            self.sent.push((origin, command.clone()));
            return (origin, command);
        }
        let command = self.fresh();
        let locks = matches!(command, Command::LockAcquire { .. } | Command::LockRelease { .. });
        let outside = !locks && self.random.one_in(3);
        let origin = if outside { Origin::NONE } else { self.origin() };
        self.sent.push((origin, command.clone()));
        (origin, command)
    }

    fn origin(&mut self) -> Origin {
        let session = 1 + self.random.below(self.spread.sessions);
        self.origin_in(session)
    }

    /// Sessions beyond the spread share one count, which is as wrong as any.
    fn origin_in(&mut self, session: u64) -> Origin {
        let counted = usize::try_from(session.min(self.spread.sessions)).unwrap();
        let (next, lowest) = &mut self.sequences[counted];
        let mut sequence = *next;
        *next += 1;
        match self.random.below(30) {
            0 => sequence += 1_024,
            1 => sequence = sequence.saturating_sub(3),
            2 => sequence += 7,
            3 | 4 => *lowest = sequence,
            5..14 => *lowest = (*lowest + 1).min(sequence),
            _ => {}
        }
        Origin { session, sequence, lowest_unanswered: *lowest }
    }

    fn fresh(&mut self) -> Command {
        let random = &mut self.random;
        let session = 1 + random.below(self.spread.sessions);
        match random.below(40) {
            0..13 => Command::Put { key: self.key(), value: self.value() },
            13..17 => Command::Delete { key: self.key() },
            17 => Command::DeleteRange {
                start: self.key(),
                end: (!self.random.one_in(4)).then(|| self.key()),
            },
            18..23 => Command::CompareAndSet {
                key: self.key(),
                expect: self.expect(),
                value: (!self.random.one_in(3)).then(|| self.value()),
            },
            23..26 => Command::SessionOpen {
                ttl_ms: random.below(40_000),
                nonce: u128::from(random.below(self.spread.sessions)),
                label: Bytes::from_static(b"somebody"),
            },
            26 => Command::SessionClose { session },
            27 => Command::SessionExpire { session, generation: 1 + random.below(3) },
            28..34 => Command::LockAcquire {
                wait: if random.one_in(4) { Wait::Try } else { Wait::Queue },
                name: self.name(),
            },
            34..38 => Command::LockRelease { name: self.name(), token: self.token() },
            _ => {
                let sequence = 1 + self.random.below(self.spread.tokens);
                Command::LockCancel { name: self.name(), session, sequence }
            }
        }
    }

    fn key(&mut self) -> Bytes {
        let number = self.random.below(self.spread.keys);
        // Some keys fit the tree's nodes and some do not.
        let width = if number.is_multiple_of(3) { 40 } else { 4 };
        Bytes::from(format!("{number:0width$}"))
    }

    fn value(&mut self) -> Bytes {
        let length = self.random.below_usize(40);
        let byte = b'a' + u8::try_from(self.random.below(4)).unwrap();
        // Some values lie in the state and some in the log.
        let length = if self.random.one_in(2) { 8 } else { length };
        Bytes::from(vec![byte; if self.random.one_in(3) { length + 60 } else { length }])
    }

    fn expect(&mut self) -> Expect {
        match self.random.below(4) {
            0 => Expect::Absent,
            1 => Expect::Revision(self.random.below(self.spread.keys * 4)),
            _ => Expect::Value(self.value()),
        }
    }

    fn name(&mut self) -> Bytes {
        Bytes::from(format!("lock-{}", self.random.below(self.spread.locks)))
    }

    fn token(&mut self) -> u64 {
        self.random.below(self.spread.tokens)
    }
}
