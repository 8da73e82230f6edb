//! Locks: exclusive, with a fair queue and a fencing token for every grant.
//!
//! A lock knows *claims*, each named by the session and sequence of the acquire that made it. Two
//! claims exclude each other whoever made them: a session that holds a lock and asks for it again
//! waits, or is refused, like any other, so that "exclusive" holds between the tasks of one client
//! too. A lock that nobody holds does not exist.
//!
//! Invariants:
//! - tickets of one queue ascend, and are below `next_ticket`;
//! - `claims` holds exactly the claims of all holders and waiters;
//! - `grants` is the greatest token ever granted.

use super::command::Wait;
use super::hash::{Domain, ItemHash};
use super::key::Key;
use super::outcome::Outcome;
use super::table::Table;
use std::collections::{BTreeMap, VecDeque};

/// A lock as readers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockView {
    /// The session that holds it.
    pub session: u64,
    /// The sequence of the acquire by which it holds it.
    pub sequence: u64,
    /// The fencing token of the grant.
    pub token: u64,
    /// How many acquires wait.
    pub waiters: usize,
}

/// Names one acquire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Claim {
    pub(super) session: u64,
    pub(super) sequence: u64,
}

#[derive(Clone)]
pub(super) struct Lock {
    pub(super) holder: Claim,
    pub(super) token: u64,
    pub(super) next_ticket: u64,
    pub(super) waiters: VecDeque<Waiter>,
}

#[derive(Clone, Copy)]
pub(super) struct Waiter {
    pub(super) claim: Claim,
    pub(super) ticket: u64,
}

/// A lock handed to a waiting claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub(super) claim: Claim,
    pub(super) token: u64,
}

/// What ended with a session, both in the order in which the session asked.
pub(super) struct Ended {
    /// Its queued claims, which are not any more.
    pub(super) withdrawn: Vec<Claim>,
    /// Who got the locks that it held.
    pub(super) grants: Vec<Grant>,
}

/// Invariant: `sum` is the sum of the hashes of all locks and waiters.
#[derive(Clone)]
pub(super) struct Locks {
    pub(super) table: Table<Key, Lock>,
    claims: BTreeMap<Claim, Key>,
    pub(super) grants: u64,
    sum: u128,
}

impl Locks {
    pub(super) fn new() -> Locks {
        Locks { table: Table::new(), claims: BTreeMap::new(), grants: 0, sum: 0 }
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    pub(super) fn recompute_sum(&self) -> u128 {
        let hash = |(name, lock): (&Key, &Lock)| hash_with_queue(name, lock);
        self.table.iter().map(hash).fold(0, u128::wrapping_add)
    }

    pub(super) fn view(&self, name: &[u8]) -> Option<LockView> {
        let lock = self.table.get(&Key::new(name))?;
        let Claim { session, sequence } = lock.holder;
        Some(LockView { session, sequence, token: lock.token, waiters: lock.waiters.len() })
    }

    pub(super) fn waiters(&self) -> impl Iterator<Item = (Claim, &[u8])> {
        self.table.iter().flat_map(|(name, lock)| {
            lock.waiters.iter().map(move |waiter| (waiter.claim, name.as_slice()))
        })
    }

    pub(super) fn acquire(&mut self, name: &[u8], claim: Claim, wait: Wait) -> Outcome {
        let name = Key::new(name);
        let Some(lock) = self.table.get_mut(&name) else {
            return Outcome::Granted { token: self.create(name, claim) };
        };
        if wait == Wait::Try {
            return Outcome::NotAcquired;
        }
        let waiter = Waiter { claim, ticket: lock.next_ticket };
        self.sum = self.sum.wrapping_sub(hash_lock(&name, lock));
        lock.next_ticket += 1;
        lock.waiters.push_back(waiter);
        self.sum = self.sum.wrapping_add(hash_lock(&name, lock));
        self.sum = self.sum.wrapping_add(hash_waiter(&name, waiter));
        self.claims.insert(claim, name);
        Outcome::Queued
    }

    fn create(&mut self, name: Key, holder: Claim) -> u64 {
        self.grants += 1;
        let lock = Lock { holder, token: self.grants, next_ticket: 0, waiters: VecDeque::new() };
        self.restore(name, lock);
        self.grants
    }

    /// Gives a lock back, saying who got it, if somebody waited. `Err` when the session does not
    /// hold it under that token.
    pub(super) fn release(
        &mut self,
        name: &[u8],
        session: u64,
        token: u64,
    ) -> Result<Option<Grant>, NotHolder> {
        let name = Key::new(name);
        match self.table.get(&name) {
            Some(lock) if lock.holder.session == session && lock.token == token => {
                Ok(self.pass_on(&name))
            }
            _ => Err(NotHolder),
        }
    }

    /// Takes a claim out of its queue. False when it does not wait for that lock.
    pub(super) fn withdraw(&mut self, name: &[u8], claim: Claim) -> bool {
        self.leave_queue(&Key::new(name), claim)
    }

    fn leave_queue(&mut self, name: &Key, claim: Claim) -> bool {
        let Some(place) = self.place_in_queue(name, claim) else {
            return false;
        };
        let lock = self.table.get_mut(name).expect("it has a queue");
        let waiter = lock.waiters.remove(place).expect("the place was just found");
        self.sum = self.sum.wrapping_sub(hash_waiter(name, waiter));
        self.claims.remove(&claim);
        true
    }

    /// Takes a claim out of its queue, whatever it waits for.
    ///
    /// Requires: it waits.
    pub(super) fn withdraw_claim(&mut self, claim: Claim) {
        let name = self.claims.get(&claim).expect("a waiter's claim is known").clone();
        let waited = self.leave_queue(&name, claim);
        assert!(waited, "a queued claim stands in its queue");
    }

    /// Ends every claim of a session: first those that wait, so that no lock passes to the session
    /// that is ending, then those that hold.
    pub(super) fn end_session(&mut self, session: u64) -> Ended {
        let first = Claim { session, sequence: 0 };
        let last = Claim { session, sequence: u64::MAX };
        let claims = self.claims.range(first..=last);
        let claims = claims.map(|(claim, name)| (*claim, name.clone())).collect::<Vec<_>>();
        let (withdrawn, held) = claims
            .into_iter()
            .partition::<Vec<_>, _>(|(claim, name)| self.leave_queue(name, *claim));
        let grants = held.iter().filter_map(|(_, name)| self.pass_on(name)).collect();
        Ended { withdrawn: withdrawn.into_iter().map(|(claim, _)| claim).collect(), grants }
    }

    /// Adds a lock that a snapshot holds, or a fresh one.
    ///
    /// Requires: its name is absent.
    pub(super) fn restore(&mut self, name: Key, lock: Lock) {
        self.sum = self.sum.wrapping_add(hash_with_queue(&name, &lock));
        self.claims.insert(lock.holder, name.clone());
        for waiter in &lock.waiters {
            self.claims.insert(waiter.claim, name.clone());
        }
        self.table.insert(name, lock);
    }

    /// Whether a claim is known, as holding or waiting.
    pub(super) fn knows(&self, claim: Claim) -> bool {
        self.claims.contains_key(&claim)
    }

    fn place_in_queue(&self, name: &Key, claim: Claim) -> Option<usize> {
        let lock = self.table.get(name)?;
        lock.waiters.iter().position(|waiter| waiter.claim == claim)
    }

    /// Hands a held lock to the first waiter, or frees it.
    fn pass_on(&mut self, name: &Key) -> Option<Grant> {
        let lock = self.table.get_mut(name).expect("it is held");
        self.sum = self.sum.wrapping_sub(hash_lock(name, lock));
        self.claims.remove(&lock.holder);
        let Some(waiter) = lock.waiters.pop_front() else {
            self.table.remove(name, |_| ());
            return None;
        };
        self.sum = self.sum.wrapping_sub(hash_waiter(name, waiter));
        self.grants += 1;
        lock.holder = waiter.claim;
        lock.token = self.grants;
        self.sum = self.sum.wrapping_add(hash_lock(name, lock));
        Some(Grant { claim: waiter.claim, token: self.grants })
    }
}

/// The session does not hold the lock under that token.
pub(super) struct NotHolder;

fn hash_lock(name: &Key, lock: &Lock) -> u128 {
    let Claim { session, sequence } = lock.holder;
    let words = [session, sequence, lock.token, lock.next_ticket];
    ItemHash::new(Domain::Lock).bytes(name.as_slice()).words(words).finish()
}

fn hash_waiter(name: &Key, waiter: Waiter) -> u128 {
    let Claim { session, sequence } = waiter.claim;
    let words = [session, sequence, waiter.ticket];
    ItemHash::new(Domain::Waiter).bytes(name.as_slice()).words(words).finish()
}

fn hash_with_queue(name: &Key, lock: &Lock) -> u128 {
    let waiters = lock.waiters.iter().map(|waiter| hash_waiter(name, *waiter));
    waiters.fold(hash_lock(name, lock), u128::wrapping_add)
}
