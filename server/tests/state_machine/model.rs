//! The state machine said again, as plainly as possible: vectors, linear searches, no window
//! arithmetic, no hashes, no views.

use bytes::Bytes;
use server::state_machine::{
    Applied, Command, Expect, Origin, Outcome, RESOLVED, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN,
    SESSION_WINDOW, Wait,
};
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ModelItem {
    pub(crate) value: Bytes,
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) version: u64,
}

#[derive(Clone)]
struct ModelSession {
    id: u64,
    generation: u64,
    ttl_ms: u64,
    nonce: u128,
    lowest: u64,
    answers: Vec<(u64, Outcome)>,
}

/// The first claim holds, the others wait.
#[derive(Clone)]
pub(crate) struct ModelLock {
    pub(crate) name: Bytes,
    pub(crate) token: u64,
    pub(crate) claims: Vec<(u64, u64)>,
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) keys: BTreeMap<Bytes, ModelItem>,
    pub(crate) locks: Vec<ModelLock>,
    sessions: Vec<ModelSession>,
    opened: u64,
    grants: u64,
    late: Vec<Applied>,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            revision: 1,
            keys: BTreeMap::new(),
            locks: Vec::new(),
            sessions: Vec::new(),
            opened: 0,
            grants: 0,
            late: Vec::new(),
        }
    }

    pub(crate) fn apply(&mut self, commands: &[(Origin, Command)]) -> Vec<Applied> {
        let mut out = Vec::new();
        for (position, (origin, command)) in (0..).zip(commands) {
            let outcome = self.execute(*origin, command);
            let Origin { session, sequence, .. } = *origin;
            out.push(Applied { session, sequence, position, outcome });
            out.append(&mut self.late);
        }
        out
    }

    pub(crate) fn sessions(&self) -> Vec<(u64, u64, u64)> {
        self.sessions.iter().map(|s| (s.id, s.generation, s.ttl_ms)).collect()
    }

    fn execute(&mut self, origin: Origin, command: &Command) -> Outcome {
        match command {
            Command::SessionOpen { ttl_ms, nonce, .. } => return self.open(*ttl_ms, *nonce),
            Command::SessionClose { session } => return self.end(*session),
            Command::SessionExpire { session, generation } => {
                let alive = self.sessions().iter().any(|s| (s.0, s.1) == (*session, *generation));
                return if alive { self.end(*session) } else { closed(*session, false) };
            }
            Command::LockCancel { name, session, sequence } => {
                let existed = self.leave_queue(Some(name), (*session, *sequence));
                if existed {
                    self.answer_late((*session, *sequence), Outcome::NotAcquired);
                }
                return Outcome::Cancelled { existed };
            }
            _ => {}
        }
        if origin.session == 0 {
            return self.perform(origin, command);
        }
        if let Some(answer) = self.look_up(origin) {
            return answer;
        }
        let outcome = self.perform(origin, command);
        self.session_mut(origin.session).unwrap().answers.push((origin.sequence, outcome));
        outcome
    }

    fn session_mut(&mut self, id: u64) -> Option<&mut ModelSession> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    fn look_up(&mut self, origin: Origin) -> Option<Outcome> {
        let Some(session) = self.session_mut(origin.session) else {
            return Some(Outcome::SessionUnknown);
        };
        let lowest = session.lowest.max(origin.lowest_unanswered);
        session.lowest = lowest;
        let mut gone = session.answers.clone();
        gone.retain(|(sequence, answer)| *sequence < lowest && *answer == Outcome::Queued);
        gone.sort_by_key(|(sequence, _)| *sequence);
        session.answers.retain(|(sequence, _)| *sequence >= lowest);
        let answers = session.answers.clone();
        for (sequence, _) in gone {
            let claim = (origin.session, sequence);
            assert!(self.leave_queue(None, claim));
            self.late.push(late(claim, Outcome::NotAcquired));
        }
        if origin.sequence < lowest {
            return Some(Outcome::SequenceStale);
        }
        if origin.sequence - lowest >= SESSION_WINDOW {
            return Some(Outcome::SequenceTooFar);
        }
        answers.iter().find(|(sequence, _)| *sequence == origin.sequence).map(|found| found.1)
    }

    fn perform(&mut self, origin: Origin, command: &Command) -> Outcome {
        match command {
            Command::Put { key, value } => {
                self.put(key, value);
                Outcome::Put { revision: self.revision }
            }
            Command::Delete { key } => self.delete(|other| other == key),
            Command::DeleteRange { start, end } => {
                self.delete(|key| key >= start && end.as_ref().is_none_or(|end| key < end))
            }
            Command::CompareAndSet { key, expect, value } => {
                let item = self.keys.get(key);
                let swapped = match expect {
                    Expect::Absent | Expect::Revision(0) => item.is_none(),
                    Expect::Value(value) => item.is_some_and(|item| item.value == *value),
                    Expect::Revision(at) => item.is_some_and(|item| item.mod_revision == *at),
                };
                match value {
                    Some(value) if swapped => self.put(key, value),
                    None if swapped => drop(self.delete(|other| other == key)),
                    _ => {}
                }
                let mod_revision = self.keys.get(key).map_or(0, |item| item.mod_revision);
                Outcome::CompareAndSet { revision: self.revision, swapped, mod_revision }
            }
            Command::LockAcquire { name, wait } => self.acquire(origin, name, *wait),
            Command::LockRelease { name, token } => {
                let held = self.locks.iter().position(|lock| {
                    lock.name == *name && lock.token == *token && lock.claims[0].0 == origin.session
                });
                match held {
                    None => Outcome::NotHolder,
                    Some(at) => {
                        self.pass_on(at);
                        Outcome::Released
                    }
                }
            }
            _ => unreachable!(),
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes) {
        self.revision += 1;
        let fresh = ModelItem {
            value: Bytes::new(),
            create_revision: self.revision,
            mod_revision: 0,
            version: 0,
        };
        let item = self.keys.entry(key.clone()).or_insert(fresh);
        item.value = value.clone();
        item.mod_revision = self.revision;
        item.version += 1;
    }

    fn delete(&mut self, doomed: impl Fn(&Bytes) -> bool) -> Outcome {
        let before = self.keys.len();
        self.keys.retain(|key, _| !doomed(key));
        let deleted = (before - self.keys.len()) as u64;
        if deleted > 0 {
            self.revision += 1;
        }
        Outcome::Deleted { revision: self.revision, deleted }
    }

    fn open(&mut self, ttl_ms: u64, nonce: u128) -> Outcome {
        let known = self.sessions.iter_mut().find(|session| nonce != 0 && session.nonce == nonce);
        if let Some(session) = known {
            session.generation += 1;
            let ModelSession { id, generation, ttl_ms, .. } = *session;
            return Outcome::SessionOpened { session: id, generation, ttl_ms };
        }
        self.opened += 1;
        let ttl_ms = ttl_ms.clamp(SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX);
        self.sessions.push(ModelSession {
            id: self.opened,
            generation: 1,
            ttl_ms,
            nonce,
            lowest: 1,
            answers: Vec::new(),
        });
        Outcome::SessionOpened { session: self.opened, generation: 1, ttl_ms }
    }

    fn end(&mut self, id: u64) -> Outcome {
        let before = self.sessions.len();
        self.sessions.retain(|session| session.id != id);
        if self.sessions.len() == before {
            return closed(id, false);
        }
        let mut waiting = Vec::new();
        let mut holding = Vec::new();
        for lock in &self.locks {
            for (place, claim) in lock.claims.iter().enumerate().filter(|(_, c)| c.0 == id) {
                if place == 0 {
                    holding.push((claim.1, lock.name.clone()));
                } else {
                    waiting.push(*claim);
                }
            }
        }
        waiting.sort_unstable();
        holding.sort_unstable();
        for claim in waiting {
            self.leave_queue(None, claim);
            self.late.push(late(claim, Outcome::SessionEnded));
        }
        for (_, name) in holding {
            let at = self.locks.iter().position(|lock| lock.name == name).unwrap();
            self.pass_on(at);
        }
        closed(id, true)
    }

    fn acquire(&mut self, origin: Origin, name: &Bytes, wait: Wait) -> Outcome {
        let claim = (origin.session, origin.sequence);
        let lock = self.locks.iter_mut().find(|lock| lock.name == *name);
        match (lock, wait) {
            (None, _) => {
                self.grants += 1;
                let (name, token) = (name.clone(), self.grants);
                self.locks.push(ModelLock { name, token, claims: vec![claim] });
                Outcome::Granted { token }
            }
            (Some(_), Wait::Try) => Outcome::NotAcquired,
            (Some(lock), Wait::Queue) => {
                lock.claims.push(claim);
                Outcome::Queued
            }
        }
    }

    fn pass_on(&mut self, at: usize) {
        self.locks[at].claims.remove(0);
        let Some(claim) = self.locks[at].claims.first().copied() else {
            self.locks.remove(at);
            return;
        };
        self.grants += 1;
        self.locks[at].token = self.grants;
        self.answer_late(claim, Outcome::Granted { token: self.grants });
    }

    fn leave_queue(&mut self, name: Option<&Bytes>, claim: (u64, u64)) -> bool {
        for lock in self.locks.iter_mut().filter(|lock| name.is_none_or(|name| lock.name == name)) {
            let before = lock.claims.len();
            let holder = lock.claims[0];
            lock.claims.retain(|other| *other == holder || *other != claim);
            if lock.claims.len() < before {
                return true;
            }
        }
        false
    }

    fn answer_late(&mut self, claim: (u64, u64), outcome: Outcome) {
        self.late.push(late(claim, outcome));
        let session = self.session_mut(claim.0).unwrap();
        let answer = session.answers.iter_mut().find(|(sequence, _)| *sequence == claim.1);
        answer.unwrap().1 = outcome;
    }
}

fn late((session, sequence): (u64, u64), outcome: Outcome) -> Applied {
    Applied { session, sequence, position: RESOLVED, outcome }
}

fn closed(session: u64, existed: bool) -> Outcome {
    Outcome::SessionClosed { session, existed }
}
