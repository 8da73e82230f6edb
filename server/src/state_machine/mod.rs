//! The deterministic state: keys, sessions, locks, and what every session was answered.
//!
//! [`State::apply`] reads the entry and the state before it, and nothing else: no clock, no random
//! number, no float, no order that depends on a hash. Replicas that applied the same entries hold
//! the same state, answer the same outcomes, show the same [`State::hash`] and stream the same
//! snapshot bytes.
//!
//! Invariants:
//! - an entry is applied whole or, when its bytes are not sound, not at all;
//! - the revision rises by one for a put, for a delete of at least one key and for a
//!   compare-and-set that changed something, and by nothing else; an empty store is at 1;
//! - time never goes back: it is the greatest that any entry carried;
//! - a waiting claim has a living session in whose window it is `Queued`, and the other way round.

mod codec;
mod command;
mod entry;
mod hash;
mod key;
mod kv;
mod lock;
mod outcome;
mod restore;
mod session;
mod snapshot;
mod table;

pub use command::{
    Command, CommandError, CommandRef, Expect, ExpectRef, KEY_BYTES_MAX, Origin,
    SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN, SESSION_WINDOW, VALUE_BYTES_MAX, Wait,
};
pub use entry::{
    COMMAND_ALIGN_BYTES, COMMAND_HEADER_BYTES, Decoded, ENTRY_HEADER_BYTES, ENTRY_VERSION,
    EntryBuilder, EntryError, EntryReader, encode_command, encode_command_ref,
};
pub use kv::{INLINE_BYTES_MAX, ItemRef, Loaded, Remains, ValueRef, prefix_end};
pub use lock::LockView;
pub use outcome::{Applied, Outcome, RESOLVED};
pub use restore::{RestoreError, Restorer};
pub use session::SessionView;
pub use snapshot::{Expander, Piece, SNAPSHOT_VERSION, ViewProgress};

use bytes::Bytes;
use engine::{Location, Wanted};
use hash::{Domain, ItemHash};
use kv::{Keys, NewValue};
use lock::{Claim, Grant, Locks};
use session::{Admission, Sessions};

/// Commands of an entry whose searches are worth being made together, in an index of so many keys.
const WARM_COMMANDS_MIN: u32 = 4;
const WARM_KEYS_MIN: u64 = 100_000;

/// The replicated state. Reading needs `&State` only.
#[derive(Clone)]
pub struct State {
    applied_index: u64,
    time_ms: u64,
    revision: u64,
    keys: Keys,
    sessions: Sessions,
    locks: Locks,
    view: Option<snapshot::View>,
    /// Late outcomes of the command at hand; empty between commands.
    resolved: Vec<Applied>,
    /// Sequences that fell out of a window at the command at hand; empty between commands.
    withdrawn: Vec<u64>,
}

/// An entry that cannot be applied. Nothing of it was: the node must halt, because its log holds
/// what no leader of this release writes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("entry {index} of the log cannot be applied; this node must stop")]
pub struct ApplyError {
    /// The entry's index.
    pub index: u64,
    /// What is wrong with its bytes.
    #[source]
    pub source: EntryError,
}

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl State {
    /// The state before the first entry, at revision 1.
    pub fn new() -> State {
        State {
            applied_index: 0,
            time_ms: 0,
            revision: 1,
            keys: Keys::new(),
            sessions: Sessions::new(),
            locks: Locks::new(),
            view: None,
            resolved: Vec::new(),
            withdrawn: Vec::new(),
        }
    }

    /// The values that an entry compares with others and that do not lie in the state: they must be loaded before it is
    /// applied. What the entry itself brings need not be.
    pub fn compared(&self, payload: &[u8]) -> Vec<Wanted> {
        EntryReader::compares(payload)
            .filter_map(|(key, expected)| self.keys.compared(key, expected))
            .collect()
    }

    /// Applies one entry, whose payload lies at `place` in this node's log. The outcomes are appended to `out` in the
    /// order of the commands, each followed by the late outcomes that it brought about.
    ///
    /// Requires: `index` follows [`State::applied_index`]; `loaded` holds what [`State::compared`] names.
    pub fn apply(
        &mut self,
        index: u64,
        payload: &[u8],
        place: Location,
        loaded: &Loaded,
        out: &mut Vec<Applied>,
    ) -> Result<(), ApplyError> {
        assert_eq!(index, self.applied_index + 1, "entries are applied in order, none left out");
        let entry = EntryReader::open(payload).map_err(|source| ApplyError { index, source })?;
        self.time_ms = self.time_ms.max(entry.time_ms());
        self.warm(&entry);
        let source = Source { payload, place, loaded };
        for (position, decoded) in (0..).zip(entry.commands()) {
            let Origin { session, sequence, .. } = decoded.origin;
            let outcome = self.execute(&decoded, &source);
            out.push(Applied { session, sequence, position, outcome });
            out.append(&mut self.resolved);
        }
        self.applied_index = index;
        Ok(())
    }

    /// Loads what the commands will look for, all at once, where the index is larger than the caches.
    fn warm(&self, entry: &EntryReader<'_>) {
        if entry.count() < WARM_COMMANDS_MIN || self.keys.len() < WARM_KEYS_MIN {
            return;
        }
        let keys = entry.commands().filter_map(|decoded| match decoded.command {
            CommandRef::Put { key, .. }
            | CommandRef::Delete { key }
            | CommandRef::CompareAndSet { key, .. } => Some(key),
            CommandRef::DeleteRange { .. }
            | CommandRef::SessionOpen { .. }
            | CommandRef::SessionClose { .. }
            | CommandRef::SessionExpire { .. }
            | CommandRef::LockAcquire { .. }
            | CommandRef::LockRelease { .. }
            | CommandRef::LockCancel { .. } => None,
        });
        self.keys.warm(&keys.collect::<Vec<_>>());
    }

    /// The index of the last applied entry, 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Passes over entries that are not for the state machine (raft's own).
    ///
    /// Requires: `index` is above [`State::applied_index`].
    pub fn set_applied_index(&mut self, index: u64) {
        assert!(index > self.applied_index, "the applied index only grows");
        self.applied_index = index;
    }

    /// The store's revision: 1 when empty, raised by every change of a key.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        usize::try_from(self.keys.len()).expect("as many as memory holds")
    }

    /// Ends the state in steps, because a large one takes a while.
    pub fn dismantle(self) -> Remains {
        Remains::of(self.keys.into_tree())
    }

    /// The replicated time: the greatest leader's time of any applied entry, in milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The greatest fencing token granted so far.
    pub fn grants(&self) -> u64 {
        self.locks.grants
    }

    /// What a key holds.
    pub fn get(&self, key: &[u8]) -> Option<ItemRef<'_>> {
        self.keys.get(key)
    }

    /// Passes the items from `start` to before `end` (`None`: no end) to `f` in key order, at most
    /// `limit` of them and at most `bytes_max` bytes of keys and values, but always the first.
    /// Says whether items of the range were left out.
    pub fn range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        bytes_max: usize,
        mut f: impl FnMut(&[u8], ItemRef<'_>),
    ) -> bool {
        let mut bytes = 0;
        for (count, (key, item)) in self.scan(start, end).enumerate() {
            bytes += key.len() + item.value_bytes as usize;
            if count >= limit || (count > 0 && bytes > bytes_max) {
                return true;
            }
            f(key, item);
        }
        false
    }

    /// The items from `start` to before `end` (`None`: no end), in key order.
    pub fn scan<'a>(
        &'a self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], ItemRef<'a>)> + use<'a> {
        self.keys.range(start, end).map(|(key, item)| (key, item.to_ref()))
    }

    /// What the values that lie in a slot of this node's take there.
    pub fn live_bytes(&self, slot: u32) -> u64 {
        self.keys.live_bytes(slot)
    }

    /// Whether this value of this key lies at this location of this node's.
    pub fn lies_at(&self, key: &[u8], location: Location, checksum: u32) -> bool {
        self.keys.lies_at(key, location, checksum)
    }

    /// The value lies at `to` from now on, if it lies at `from` now. What is replicated does not change.
    pub fn relocate(&mut self, key: &[u8], from: Location, to: Location, checksum: u32) {
        self.keys.relocate(key, from, to, checksum);
    }

    /// How many locks are held.
    pub fn locks_count(&self) -> usize {
        self.locks.table.len()
    }

    /// The living sessions as (number, generation, time to live in milliseconds), in order.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.sessions.iter().map(|view| (view.session, view.generation, view.ttl_ms))
    }

    /// How many sessions live.
    pub fn sessions_count(&self) -> usize {
        self.sessions.table.len()
    }

    /// One living session.
    pub fn session(&self, session: u64) -> Option<SessionView<'_>> {
        self.sessions.view(session)
    }

    /// Who holds a lock; `None` when it is free.
    pub fn lock(&self, name: &[u8]) -> Option<LockView> {
        self.locks.view(name)
    }

    /// The queued acquires as (session, sequence, lock name), lock after lock, each queue in order.
    pub fn waiters(&self) -> impl Iterator<Item = (u64, u64, &[u8])> {
        self.locks.waiters().map(|(claim, name)| (claim.session, claim.sequence, name))
    }

    /// The hash of everything but the applied index: equal on replicas that applied the same
    /// entries. Kept up to date with each change, so that asking is cheap.
    pub fn hash(&self) -> u128 {
        let sum = self.keys.sum().wrapping_add(self.sessions.sum()).wrapping_add(self.locks.sum());
        sum.wrapping_add(self.hash_scalars())
    }

    /// The same, computed anew from every item; differs from [`State::hash`] only if memory or
    /// this code is at fault.
    pub fn recompute_hash(&self) -> u128 {
        let keys = self.keys.recompute_sum();
        let sum = keys.wrapping_add(self.sessions.recompute_sum());
        sum.wrapping_add(self.locks.recompute_sum()).wrapping_add(self.hash_scalars())
    }

    fn hash_scalars(&self) -> u128 {
        let words = [self.time_ms, self.revision, self.locks.grants, self.sessions.opened];
        ItemHash::new(Domain::Scalars).words(words).finish()
    }

    fn execute(&mut self, decoded: &Decoded<'_>, source: &Source<'_>) -> Outcome {
        match decoded.command {
            CommandRef::SessionOpen { ttl_ms, nonce, label } => {
                self.sessions.open(ttl_ms, nonce, label)
            }
            CommandRef::SessionClose { session } => self.end_session(session),
            CommandRef::SessionExpire { session, generation } => {
                match self.sessions.view(session) {
                    Some(view) if view.generation == generation => self.end_session(session),
                    _ => Outcome::SessionClosed { session, existed: false },
                }
            }
            CommandRef::LockCancel { name, session, sequence } => {
                self.cancel(name, Claim { session, sequence })
            }
            CommandRef::Put { .. }
            | CommandRef::Delete { .. }
            | CommandRef::DeleteRange { .. }
            | CommandRef::CompareAndSet { .. }
            | CommandRef::LockAcquire { .. }
            | CommandRef::LockRelease { .. } => self.execute_once(decoded, source),
        }
    }

    /// Executes a command unless its session's window says that it was, or must not be.
    fn execute_once(&mut self, decoded: &Decoded<'_>, source: &Source<'_>) -> Outcome {
        let origin = decoded.origin;
        if origin.session == 0 {
            return self.perform(decoded, source);
        }
        let admission = self.sessions.admit(origin, &mut self.withdrawn);
        self.withdraw_fallen(origin.session);
        match admission {
            Admission::Answered(outcome) => outcome,
            Admission::Execute => {
                let outcome = self.perform(decoded, source);
                self.sessions.record(origin, outcome);
                outcome
            }
        }
    }

    fn perform(&mut self, decoded: &Decoded<'_>, source: &Source<'_>) -> Outcome {
        let Origin { session, sequence, .. } = decoded.origin;
        match decoded.command {
            CommandRef::Put { key, value } => self.put(key, source.new_value(decoded, value)),
            CommandRef::Delete { key } => {
                let deleted = u64::from(self.keys.delete(key));
                self.deleted(deleted)
            }
            CommandRef::DeleteRange { start, end } => {
                let deleted = self.keys.delete_range(start, end);
                self.deleted(deleted)
            }
            CommandRef::CompareAndSet { key, expect, value } => {
                let value_at = |location, bytes| source.value_at(key, location, bytes);
                let swapped = self.keys.holds(key, expect, value_at);
                if swapped {
                    self.set(key, value.map(|value| source.new_value(decoded, value)));
                }
                let mod_revision = self.keys.mod_revision(key);
                Outcome::CompareAndSet { revision: self.revision, swapped, mod_revision }
            }
            CommandRef::LockAcquire { name, wait } => {
                self.locks.acquire(name, Claim { session, sequence }, wait)
            }
            CommandRef::LockRelease { name, token } => self.release(name, session, token),
            CommandRef::SessionOpen { .. }
            | CommandRef::SessionClose { .. }
            | CommandRef::SessionExpire { .. }
            | CommandRef::LockCancel { .. } => unreachable!("these pass by no window"),
        }
    }

    fn put(&mut self, key: &[u8], value: NewValue<'_>) -> Outcome {
        self.revision += 1;
        self.keys.put(self.revision, key, value);
        Outcome::Put { revision: self.revision }
    }

    fn set(&mut self, key: &[u8], value: Option<NewValue<'_>>) {
        if let Some(value) = value {
            self.put(key, value);
        } else {
            let deleted = u64::from(self.keys.delete(key));
            self.deleted(deleted);
        }
    }

    /// Raises the revision if keys were removed.
    fn deleted(&mut self, deleted: u64) -> Outcome {
        self.revision += u64::from(deleted > 0);
        Outcome::Deleted { revision: self.revision, deleted }
    }

    fn release(&mut self, name: &[u8], session: u64, token: u64) -> Outcome {
        match self.locks.release(name, session, token) {
            Err(lock::NotHolder) => Outcome::NotHolder,
            Ok(grant) => {
                self.grant_all(grant);
                Outcome::Released
            }
        }
    }

    fn cancel(&mut self, name: &[u8], claim: Claim) -> Outcome {
        let existed = self.locks.withdraw(name, claim);
        if existed {
            self.sessions.resolve(claim.session, claim.sequence, Outcome::NotAcquired);
            self.answer_later(claim, Outcome::NotAcquired);
        }
        Outcome::Cancelled { existed }
    }

    /// Ends a session: its waiting claims first, then its locks pass on.
    fn end_session(&mut self, session: u64) -> Outcome {
        let existed = self.sessions.end(session);
        if existed {
            let ended = self.locks.end_session(session);
            for claim in ended.withdrawn {
                self.answer_later(claim, Outcome::SessionEnded);
            }
            self.grant_all(ended.grants);
        }
        Outcome::SessionClosed { session, existed }
    }

    /// Takes the queued acquires out of their queues that their client has given up, by moving its
    /// window past them.
    fn withdraw_fallen(&mut self, session: u64) {
        for sequence in std::mem::take(&mut self.withdrawn) {
            let claim = Claim { session, sequence };
            self.locks.withdraw_claim(claim);
            self.answer_later(claim, Outcome::NotAcquired);
        }
    }

    fn grant_all(&mut self, grants: impl IntoIterator<Item = Grant>) {
        for Grant { claim, token } in grants {
            self.sessions.resolve(claim.session, claim.sequence, Outcome::Granted { token });
            self.answer_later(claim, Outcome::Granted { token });
        }
    }

    fn answer_later(&mut self, claim: Claim, outcome: Outcome) {
        let Claim { session, sequence } = claim;
        self.resolved.push(Applied { session, sequence, position: RESOLVED, outcome });
    }
}

/// Where the values of an entry come from: its own bytes, and what was loaded for its compares.
struct Source<'a> {
    payload: &'a [u8],
    place: Location,
    loaded: &'a Loaded,
}

impl<'a> Source<'a> {
    fn new_value<'v>(&self, decoded: &Decoded<'_>, value: &'v [u8]) -> NewValue<'v> {
        let place = self.place.plus(decoded.key_offset);
        NewValue { bytes: value, checksum: decoded.value_checksum, place }
    }

    /// The value behind its key at `location`.
    fn value_at(&self, key: &[u8], location: Location, value_bytes: u32) -> &'a [u8] {
        let loaded = || self.loaded.get(&location).map(Bytes::as_ref);
        let value = self.own_value_at(key, location, value_bytes).or_else(loaded);
        value.expect("what an entry compares is loaded before it is applied")
    }

    fn own_value_at(&self, key: &[u8], location: Location, value_bytes: u32) -> Option<&'a [u8]> {
        if location.slot() != self.place.slot() {
            return None;
        }
        let within = location.offset().checked_sub(self.place.offset())?;
        let start = usize::try_from(within).ok()? + key.len();
        self.payload.get(start..start + value_bytes as usize)
    }
}
