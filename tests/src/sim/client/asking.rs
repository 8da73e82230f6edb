//! What workers ask.

use bytes::Bytes;
use client::core::{Call, Micros, Target};
use protocol::{Consistency, KeyRange, Origin, Request};
use raft::NodeId;

use super::worker::{Session, Waiting, What};
use super::{Client, Mood};
use crate::history::Op;
use crate::sim::book::Book;
use crate::sim::ground::Ground;
use crate::sim::node::address_of;
use crate::sim::profile::OpKind;
use crate::sim::values::{expand, name_of};

/// How long a client waits for a session to open or close, in microseconds.
const SESSION_DEADLINE_US: u64 = 3_000_000;

/// The name of a key.
pub(super) fn key_of(at: usize) -> String {
    format!("k{at}")
}

/// How many keys nobody reads.
const BALLAST_KEYS: u64 = 150;

/// A key that nobody reads.
fn ballast(at: u64) -> Bytes {
    Bytes::from(format!("b{at:03}"))
}

/// The name of a lock.
fn lock_of(at: usize) -> String {
    format!("l{at}")
}

impl Client {
    pub(super) fn maybe_abandon(&mut self, at: usize, ground: &mut Ground, book: &mut Book) {
        let now_us = ground.now_us();
        let Some(worker) = self.workers.get_mut(at) else { return };
        let due = |waiting: &mut Waiting| waiting.abandon_us.is_some_and(|at_us| at_us <= now_us);
        let Some(waiting) = worker.waiting.take_if(due) else { return };
        worker.next_us = now_us;
        self.core.abandon(Micros(now_us), waiting.ticket);
        if let What::Recorded(asked) = waiting.what {
            ground.counters.count_op(asked.kind.name(), "abandoned");
            book.unknown(asked, "abandoned");
        }
    }

    pub(super) fn maybe_ask(&mut self, at: usize, ground: &mut Ground, book: &mut Book) {
        let now_us = ground.now_us();
        let Some(worker) = self.workers.get(at) else { return };
        if worker.waiting.is_some() || worker.next_us > now_us || !self.wants(worker) {
            return;
        }
        match self.mood {
            Mood::Finishing => {}
            Mood::Leaving => self.close_session(at, now_us),
            Mood::Auditing => {
                if let Some(key) = self.to_audit.pop() {
                    let deadline_us = now_us + 30_000_000;
                    self.ask_recorded(at, OpKind::Get, key, deadline_us, ground, book);
                }
            }
            Mood::Working if worker.session == Session::Wanted => self.open_session(at, now_us),
            Mood::Working => self.ask(at, ground, book),
        }
    }

    fn open_session(&mut self, at: usize, now_us: u64) {
        let ttl_ms = self.random.within(&self.plan.ttl_ms);
        let deadline = Micros(now_us + SESSION_DEADLINE_US);
        let label = Bytes::from_static(b"worker");
        let (key, ticket) = self.core.open_session(Micros(now_us), ttl_ms, label, deadline);
        let Some(worker) = self.workers.get_mut(at) else { return };
        worker.session = Session::Opening(key);
        worker.waiting = Some(Waiting { ticket, what: What::Session, abandon_us: None });
    }

    fn close_session(&mut self, at: usize, now_us: u64) {
        let Some(worker) = self.workers.get_mut(at) else { return };
        let Session::Open(key) = worker.session else { return };
        worker.session = Session::Closing;
        let deadline = Micros(now_us + SESSION_DEADLINE_US);
        let ticket = self.core.close_session(Micros(now_us), key, deadline);
        worker.waiting = Some(Waiting { ticket, what: What::Session, abandon_us: None });
    }

    fn ask(&mut self, at: usize, ground: &mut Ground, book: &mut Book) {
        let now_us = ground.now_us();
        let kind = self.random.weighted(&self.plan.ops);
        let deadline_us = now_us + self.random.within(&self.plan.deadline_us);
        let key = key_of(self.random.index(self.plan.keys));
        let lock = lock_of(self.random.index(self.plan.locks));
        let node = NodeId(self.random.below(self.plan.nodes as u64) + 1);
        match kind {
            OpKind::Put | OpKind::Get | OpKind::Del | OpKind::Cas => {
                self.ask_recorded(at, kind, key, deadline_us, ground, book);
            }
            OpKind::Lock => self.ask_lock(at, lock, deadline_us, ground, book),
            OpKind::Range => self.ask_range(at, deadline_us, ground, book),
            OpKind::StaleGet => {
                let consistency = Consistency::Stale;
                let request = Request::Get { consistency, key: Bytes::from(key.clone()) };
                let target = Target::Endpoint(address_of(node));
                let call = Call { request, session: None, target, deadline: Micros(deadline_us) };
                self.submit(at, call, What::Stale { key }, ground);
            }
            OpKind::LockQuery => {
                let name = Bytes::from(lock);
                let request = Request::LockQuery { consistency: Consistency::Linearizable, name };
                let call = Call::to_leader(request, Micros(deadline_us));
                self.submit(at, call, What::Counted(kind), ground);
            }
            OpKind::Ballast => {
                let (origin, key) = (Origin::NONE, ballast(self.random.below(BALLAST_KEYS)));
                let value = Bytes::from(vec![b'.'; self.random.index(16_384) + 8_192]);
                let call =
                    Call::to_leader(Request::Put { origin, key, value }, Micros(deadline_us));
                self.submit(at, call, What::Counted(kind), ground);
            }
            OpKind::DropBallast => {
                let range = KeyRange::from(ballast(self.random.below(BALLAST_KEYS)));
                let range = KeyRange { end: Some(ballast(BALLAST_KEYS)), ..range };
                let request = Request::DeleteRange { origin: Origin::NONE, range };
                let call = Call::to_leader(request, Micros(deadline_us));
                self.submit(at, call, What::Counted(kind), ground);
            }
            OpKind::Status => {
                let target = Target::Endpoint(address_of(node));
                let deadline = Micros(deadline_us);
                let call = Call { request: Request::Status, session: None, target, deadline };
                self.submit(at, call, What::Counted(kind), ground);
            }
        }
    }

    fn submit(&mut self, at: usize, call: Call, what: What, ground: &mut Ground) {
        let now_us = ground.now_us();
        let abandons = self.random.chance(self.plan.abandon_ppm) && self.mood == Mood::Working;
        let abandon_us = abandons.then(|| now_us + self.random.skewed(&(100..=200_000)));
        let ticket = self.core.submit(Micros(now_us), call);
        if let Some(worker) = self.workers.get_mut(at) {
            worker.waiting = Some(Waiting { ticket, what, abandon_us });
        }
    }

    fn ask_recorded(
        &mut self,
        at: usize,
        kind: OpKind,
        key: String,
        deadline_us: u64,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let bytes = self.random.skewed(&self.plan.value_bytes);
        let Some(worker) = self.workers.get_mut(at) else { return };
        worker.seq += 1;
        let value = name_of(worker.id, worker.seq, bytes);
        let origin = Origin::NONE;
        let name = Bytes::from(key.clone());
        let (request, op) = match kind {
            OpKind::Put => {
                let put = Request::Put { origin, key: name, value: expand(&value) };
                (put, Op::Put { value })
            }
            OpKind::Del => (Request::Delete { origin, key: name }, Op::Del),
            OpKind::Cas => worker.compare_and_set(&key, name, value),
            OpKind::Get
            | OpKind::Range
            | OpKind::StaleGet
            | OpKind::Lock
            | OpKind::LockQuery
            | OpKind::Ballast
            | OpKind::DropBallast
            | OpKind::Status => {
                let consistency = Consistency::Linearizable;
                (Request::Get { consistency, key: name }, Op::Get)
            }
        };
        let session = worker.session_of(&request);
        let asked = book.ask(worker.id, worker.seq, (key, op), kind, ground.now_us());
        let (target, deadline) = (Target::Leader, Micros(deadline_us));
        self.submit(at, Call { request, session, target, deadline }, What::Recorded(asked), ground);
    }

    /// Releases a lock that is held, or asks for one.
    fn ask_lock(
        &mut self,
        at: usize,
        name: String,
        deadline_us: u64,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let Some(worker) = self.workers.get_mut(at) else { return };
        let Session::Open(session) = worker.session else {
            return worker.next_us = ground.now_us() + 1_000;
        };
        worker.seq += 1;
        let origin = Origin::NONE;
        let (request, name, op) = if let Some((held, token)) = worker.held.pop() {
            let lock = Bytes::from(held.clone());
            let release = Request::LockRelease { origin, name: lock, token };
            (release, held, Op::Unlock { token: Some(token) })
        } else {
            let lock = Bytes::from(name.clone());
            let wait = worker.wait();
            (Request::LockAcquire { origin, name: lock, wait }, name, Op::Lock)
        };
        let asked = book.ask(worker.id, worker.seq, (name, op), OpKind::Lock, ground.now_us());
        let (target, deadline) = (Target::Leader, Micros(deadline_us));
        let call = Call { request, session: Some(session), target, deadline };
        self.submit(at, call, What::Recorded(asked), ground);
    }

    fn ask_range(&mut self, at: usize, deadline_us: u64, ground: &mut Ground, book: &mut Book) {
        let request = Request::Range {
            consistency: Consistency::Linearizable,
            range: KeyRange::prefix("k"),
            limit: *self.random.pick(&[0, 0, 2]),
            keys_only: false,
        };
        let call_ns = book.stamp(ground.now_us());
        let call = Call::to_leader(request, Micros(deadline_us));
        self.submit(at, call, What::Range { call_ns }, ground);
    }
}
