//! A client process: the client's core over simulated connections, and workers that ask one thing at a time and
//! write down what they were told.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use client::Error;
use client::core::{Call, ConnId as CoreConn, Core, Micros, Output, SessionKey, Target, Ticket};
use protocol::{
    Certainty, Consistency, ErrorCode, Expect, Hello, Item, KeyRange, Origin, Request, Response, Wait, frame,
};
use raft::NodeId;

use super::ground::{Event, Ground};
use super::book::{Asked, Book};
use super::network::{ConnId, Host, NetOutput, Port};
use super::node::{address_of, node_at};
use super::profile::{OpKind, Plan, Profile};
use super::random::Random;
use super::values::{expand, name_of, recognise};
use crate::history::{Op, Reply};

/// How long a client waits for a session to open or close, in microseconds.
const SESSION_DEADLINE_US: u64 = 3_000_000;

/// The session of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// It works without one.
    None,
    /// It has to open one.
    Wanted,
    /// It is being opened.
    Opening(SessionKey),
    /// It is open.
    Open(SessionKey),
    /// It is being closed.
    Closing,
}

/// What a worker waits for.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    what: What,
    /// It gives up then, whatever the deadline says.
    abandon_us: Option<u64>,
}

#[derive(Debug)]
enum What {
    /// Nothing that the history holds.
    Session,
    /// A record of the history.
    Recorded(Asked),
    /// All keys at once.
    Range { call_ns: u64 },
    /// A key as it was some time ago.
    Stale { key: String },
    /// Something that is only counted.
    Counted(OpKind),
}

#[derive(Debug)]
struct Worker {
    /// Its name in the history; another one for each life of its process.
    id: u64,
    seq: u64,
    random: Random,
    session: Session,
    waiting: Option<Waiting>,
    next_us: u64,
    /// The locks that it holds, as far as it knows: name and token.
    held: Vec<(String, u64)>,
    /// The last value it has seen of each key, and the revision that wrote it.
    seen: BTreeMap<String, Option<(String, u64)>>,
}

/// Whether workers ask anything new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// They do.
    Working,
    /// They wait for what they have asked.
    Finishing,
    /// They close their sessions.
    Leaving,
    /// They read every key once more.
    Auditing,
}

/// One client process.
pub struct Client {
    at: usize,
    life: u64,
    core: Core,
    random: Random,
    conns: BTreeMap<CoreConn, ConnId>,
    names: BTreeMap<ConnId, CoreConn>,
    inputs: BTreeMap<ConnId, BytesMut>,
    workers: Vec<Worker>,
    wake_us: Option<u64>,
    mood: Mood,
    to_audit: Vec<String>,
    plan: Plan,
}

/// The name of a key.
fn key_of(at: usize) -> String {
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
    /// A client process with its workers.
    pub fn new(at: usize, plan: &Plan, mut random: Random, now_us: u64) -> Client {
        let core = new_core(plan, &mut random);
        let mut client = Client {
            at,
            life: 0,
            core,
            random,
            conns: BTreeMap::new(),
            names: BTreeMap::new(),
            inputs: BTreeMap::new(),
            workers: Vec::new(),
            wake_us: None,
            mood: Mood::Working,
            to_audit: Vec::new(),
            plan: plan.clone(),
        };
        client.hire(now_us);
        client
    }

    fn hire(&mut self, now_us: u64) {
        self.life += 1;
        let first = (self.at as u64 + 1) * 1_000_000 + self.life * 1_000;
        let workers = (0..self.plan.workers as u64).map(|worker| {
            let has_session = self.random.chance(self.plan.sessions_ppm);
            Worker {
                id: first + worker,
                seq: 0,
                random: self.random.split(),
                session: if has_session { Session::Wanted } else { Session::None },
                waiting: None,
                next_us: now_us + self.random.below(200_000),
                held: Vec::new(),
                seen: BTreeMap::new(),
            }
        });
        self.workers = workers.collect();
    }

    fn host(&self) -> Host {
        Host::Client(self.at)
    }

    /// The process begins its work.
    pub fn begin(&mut self, ground: &mut Ground) {
        self.plan_wake(ground);
    }

    /// The process dies and another one takes its place: nobody closes what it had open.
    pub fn die(&mut self, ground: &mut Ground, book: &mut Book) {
        for worker in &mut self.workers {
            if let Some(Waiting { what: What::Recorded(asked), .. }) = worker.waiting.take() {
                book.unknown(asked, "the client died");
            }
        }
        ground.network.set_power(self.host(), super::network::Power::NoProcess);
        ground.network.set_power(self.host(), super::network::Power::Up);
        self.core = new_core(&self.plan, &mut self.random);
        self.conns.clear();
        self.names.clear();
        self.inputs.clear();
        self.hire(ground.now_us());
        self.plan_wake(ground);
    }

    /// Changes what the workers do from now on.
    pub fn set_mood(&mut self, mood: Mood, ground: &mut Ground) {
        self.mood = mood;
        if mood == Mood::Auditing {
            self.to_audit = (0..self.plan.keys).map(key_of).collect();
        }
        for worker in &mut self.workers {
            worker.next_us = ground.now_us();
        }
        self.schedule_wake(ground.now_us(), ground);
    }

    /// Whether every worker is done with what its mood asks of it.
    pub fn is_done(&self) -> bool {
        let has_session = |worker: &Worker| {
            matches!(worker.session, Session::Opening(_) | Session::Open(_) | Session::Closing)
        };
        self.workers.iter().all(|worker| worker.waiting.is_none())
            && (self.mood != Mood::Leaving || !self.workers.iter().any(has_session))
            && self.to_audit.is_empty()
    }

    /// What is still waited for, for a failure's text.
    pub fn unanswered(&self) -> Vec<String> {
        let waiting = self.workers.iter().filter_map(|worker| worker.waiting.as_ref());
        waiting.map(|waiting| format!("client {}: {:?}", self.at, waiting.what)).collect()
    }

    // Inputs.

    /// Time has passed.
    pub fn tick(&mut self, ground: &mut Ground, book: &mut Book) {
        let now_us = ground.now_us();
        if self.wake_us != Some(now_us) {
            return;
        }
        self.wake_us = None;
        self.core.tick(Micros(now_us));
        self.carry_out(ground, book);
        for at in 0..self.workers.len() {
            self.maybe_abandon(at, ground, book);
            self.maybe_ask(at, ground, book);
        }
        self.carry_out(ground, book);
        self.plan_wake(ground);
    }

    /// The network brings something.
    pub fn receive(&mut self, output: NetOutput, ground: &mut Ground, book: &mut Book) {
        let now = Micros(ground.now_us());
        match output {
            NetOutput::Accepted { .. } => unreachable!("nobody dials a client"),
            NetOutput::Connected { conn, .. } => {
                if let Some(name) = self.names.get(&conn) {
                    self.core.connected(now, *name);
                }
            }
            NetOutput::Closed { conn, .. } => {
                if let Some(name) = self.forget(conn) {
                    self.core.disconnected(now, name, "the connection ended");
                }
            }
            NetOutput::Data { conn, bytes, .. } => {
                self.inputs.entry(conn).or_default().extend_from_slice(&bytes);
                self.read_frames(now, conn);
            }
        }
        self.carry_out(ground, book);
        self.plan_wake(ground);
    }

    fn read_frames(&mut self, now: Micros, conn: ConnId) {
        while let Some(name) = self.names.get(&conn).copied() {
            let Some(input) = self.inputs.get_mut(&conn) else { return };
            match frame::decode(input, self.core.body_bytes_max(name)) {
                Ok(Some(frame)) => self.core.received(now, name, frame),
                Ok(None) => return,
                Err(error) => {
                    self.core.received_garbage(now, name, &error);
                    return;
                }
            }
        }
    }

    fn forget(&mut self, conn: ConnId) -> Option<CoreConn> {
        self.inputs.remove(&conn);
        let name = self.names.remove(&conn)?;
        self.conns.remove(&name);
        Some(name)
    }

    fn schedule_wake(&mut self, at_us: u64, ground: &mut Ground) {
        let at_us = at_us.max(ground.now_us());
        if at_us < u64::MAX && self.wake_us.is_none_or(|wake_us| at_us < wake_us) {
            self.wake_us = Some(at_us);
            ground.schedule.at(at_us, Event::Client { client: self.at });
        }
    }

    fn plan_wake(&mut self, ground: &mut Ground) {
        let abandons = self.workers.iter().filter_map(|worker| worker.waiting.as_ref()?.abandon_us);
        let idle = self.workers.iter().filter(|worker| worker.waiting.is_none());
        let asks = idle.filter(|worker| self.wants(worker)).map(|worker| worker.next_us);
        let worker_us = abandons.chain(asks).min().unwrap_or(u64::MAX);
        self.schedule_wake(worker_us.min(self.core.wake_at().0), ground);
    }

    fn wants(&self, worker: &Worker) -> bool {
        match self.mood {
            Mood::Working => true,
            Mood::Finishing => false,
            Mood::Leaving => matches!(worker.session, Session::Open(_)),
            Mood::Auditing => !self.to_audit.is_empty(),
        }
    }

    // Outputs.

    fn carry_out(&mut self, ground: &mut Ground, book: &mut Book) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect { conn, addr } => self.connect(conn, &addr, ground),
                Output::Close { conn } => {
                    if let Some(id) = self.conns.get(&conn).copied() {
                        ground.network.close(id, self.host());
                        self.forget(id);
                    }
                }
                Output::Send { conn, bytes } => {
                    if let Some(id) = self.conns.get(&conn) {
                        ground.network.send(*id, self.host(), bytes);
                    }
                }
                Output::Done { ticket, result } => self.done(ticket, result, ground, book),
                Output::SessionOpened { session, .. } => self.session_opened(session, ground),
                Output::SessionLost { session, reason } => {
                    self.session_lost(session, &reason, ground);
                }
            }
        }
    }

    fn connect(&mut self, conn: CoreConn, addr: &str, ground: &mut Ground) {
        let Some(to) = node_at(addr) else {
            return ground.oracle.fail(|| format!("a client was sent to the address {addr:?}"));
        };
        let id = ground.network.dial(self.host(), to, Port::Clients);
        self.conns.insert(conn, id);
        self.names.insert(id, conn);
    }

    fn session_opened(&mut self, key: SessionKey, ground: &mut Ground) {
        ground.counters.sessions += 1;
        for worker in &mut self.workers {
            if worker.session == Session::Opening(key) {
                worker.session = Session::Open(key);
            }
        }
    }

    fn session_lost(&mut self, key: SessionKey, reason: &str, ground: &mut Ground) {
        ground.counters.sessions_lost += 1;
        if self.plan.profile == Profile::Calm && self.mood == Mood::Working {
            ground.oracle.fail(|| format!("a session was lost in the calm: {reason}"));
        }
        for worker in &mut self.workers {
            if matches!(worker.session, Session::Opening(of) | Session::Open(of) if of == key) {
                worker.session = Session::Wanted;
                worker.held.clear();
            }
        }
    }

    fn done(
        &mut self,
        ticket: Ticket,
        result: Result<Response, Error>,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let think_us = self.random.within(&self.plan.think_us);
        let workers = self.workers.iter_mut();
        let mut waiting_for = workers.filter_map(|worker| {
            let waiting = worker.waiting.take_if(|waiting| waiting.ticket == ticket)?;
            Some((worker, waiting))
        });
        let Some((worker, waiting)) = waiting_for.next() else {
            return ground.oracle.fail(|| format!("a call that nobody made has ended: {result:?}"));
        };
        worker.next_us = ground.now_us() + think_us;
        match waiting.what {
            What::Session => worker.session_done(&result),
            What::Recorded(asked) => worker.recorded(asked, result, ground, book),
            What::Range { call_ns } => worker.range_read(call_ns, result, &self.plan, ground, book),
            What::Stale { key } => worker.stale_read(key, result, ground, book),
            What::Counted(kind) => ground.counters.count_op(kind.name(), outcome_of(&result)),
        }
    }

    // Asking.

    fn maybe_abandon(&mut self, at: usize, ground: &mut Ground, book: &mut Book) {
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

    fn maybe_ask(&mut self, at: usize, ground: &mut Ground, book: &mut Book) {
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
                let call = Call::to_leader(Request::Put { origin, key, value }, Micros(deadline_us));
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
            _ => {
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
        let (request, name, op) = match worker.held.pop() {
            Some((held, token)) => {
                let lock = Bytes::from(held.clone());
                let release = Request::LockRelease { origin, name: lock, token };
                (release, held, Op::Unlock { token: Some(token) })
            }
            None => {
                let lock = Bytes::from(name.clone());
                let wait = worker.wait();
                (Request::LockAcquire { origin, name: lock, wait }, name, Op::Lock)
            }
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

fn new_core(plan: &Plan, random: &mut Random) -> Core {
    let endpoints: Vec<String> = (1..=plan.nodes as u64).map(|id| address_of(NodeId(id))).collect();
    let known = random.index(plan.nodes) + 1;
    let endpoints = endpoints.get(..known).expect("not more than there are");
    Core::new(Hello::new("sim"), endpoints, random.next()).expect("the endpoints are sound")
}

fn outcome_of(result: &Result<Response, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) if error.certainty() == Certainty::NotDone => "fail",
        Err(_) => "unknown",
    }
}

impl Worker {
    /// The session for a request: only writes have one.
    fn session_of(&self, request: &Request) -> Option<SessionKey> {
        match (self.session, request) {
            (_, Request::Get { .. }) => None,
            (Session::Open(key), _) => Some(key),
            (_, _) => None,
        }
    }

    fn compare_and_set(&mut self, key: &str, name: Bytes, value: String) -> (Request, Op) {
        let expected = self.seen.get(key).cloned().flatten();
        let expect = match &expected {
            // Values are unique, so that both ask the same.
            Some((_, revision)) if self.random.chance(300_000) => Expect::Revision(*revision),
            Some((expected, _)) => Expect::Value(expand(expected)),
            None => Expect::Absent,
        };
        let expected = expected.map(|(value, _)| value);
        let (origin, new) = (Origin::NONE, Some(expand(&value)));
        let request = Request::CompareAndSet { origin, key: name, expect, value: new };
        (request, Op::Cas { expect: expected, value })
    }

    fn wait(&mut self) -> Wait {
        match self.random.below(4) {
            0 => Wait::Try,
            1 => Wait::Forever,
            _ => Wait::Millis(self.random.within(&(1..=1_500))),
        }
    }

    fn session_done(&mut self, result: &Result<Response, Error>) {
        match (self.session, result) {
            (Session::Closing, _) => self.session = Session::None,
            (Session::Opening(_), Err(_)) => self.session = Session::Wanted,
            _ => {}
        }
    }

    fn recorded(
        &mut self,
        asked: Asked,
        result: Result<Response, Error>,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let (kind, now_us) = (asked.kind.name(), ground.now_us());
        ground.counters.count_op(kind, outcome_of(&result));
        ground.note(&[self.id, self.seq, u64::from(result.is_ok())], || {
            format!("client {}: {asked:?}: {}", self.id, brief(&result))
        });
        match result {
            Ok(response) => match self.reply_to(&asked, response) {
                Ok(Some((reply, revision))) => book.ok(asked, reply, revision, now_us),
                Ok(None) => book.fail(asked, "not acquired", now_us),
                Err(wrong) => {
                    ground.oracle.fail(|| format!("client {}: {asked:?}: {wrong}", self.id));
                }
            },
            Err(error) => {
                self.check_refused_release(&asked, &error, ground);
                match error.certainty() {
                    Certainty::NotDone => book.fail(asked, &error.to_string(), now_us),
                    Certainty::Done | Certainty::Unknown => {
                        book.unknown(asked, &error.to_string());
                    }
                }
            }
        }
    }

    /// What the answer says in the words of the history; `None` for a lock that was not acquired.
    fn reply_to(
        &mut self,
        asked: &Asked,
        response: Response,
    ) -> Result<Option<(Reply, Option<u64>)>, String> {
        let key = asked.record.key.clone();
        let (reply, revision) = match (&asked.record.op, response) {
            (Op::Put { value }, Response::Put { revision }) => {
                self.seen.insert(key, Some((value.clone(), revision)));
                (Reply::Put, Some(revision))
            }
            (Op::Del, Response::Deleted { revision, deleted }) => {
                self.seen.insert(key, None);
                (Reply::Del { deleted }, Some(revision))
            }
            (Op::Cas { value, .. }, Response::CompareAndSet { revision, swapped, .. }) => {
                if swapped {
                    self.seen.insert(key, Some((value.clone(), revision)));
                }
                (Reply::Cas { swapped }, Some(revision))
            }
            (Op::Get, Response::Get { revision, item }) => {
                let value = value_of(item.as_ref(), revision)?;
                let modified = item.map(|item| item.mod_revision);
                self.seen.insert(key, value.clone().zip(modified));
                (Reply::Get { value }, Some(revision))
            }
            (Op::Lock, Response::LockGranted { token }) => {
                self.held.push((key, token));
                (Reply::Lock { token }, None)
            }
            (Op::Lock, Response::LockNotAcquired) => return Ok(None),
            (Op::Unlock { token: Some(token) }, Response::LockReleased) => {
                (Reply::Unlock { token: *token }, None)
            }
            (_, other) => return Err(format!("answered with {other:?}")),
        };
        Ok(Some((reply, revision)))
    }

    /// A session that lives has what it was granted until it gives it back.
    fn check_refused_release(&self, asked: &Asked, error: &Error, ground: &mut Ground) {
        let lives = matches!(self.session, Session::Open(_));
        let is_release = matches!(asked.record.op, Op::Unlock { .. });
        if is_release && lives && error.code() == ErrorCode::NotHolder {
            ground.oracle.fail(|| {
                format!("client {} lost a lock though its session lives: {asked:?}", self.id)
            });
        }
    }

    /// Every key of the page, and every key that the page shows to be absent, was read at one revision.
    fn range_read(
        &mut self,
        call_ns: u64,
        result: Result<Response, Error>,
        plan: &Plan,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let kind = OpKind::Range;
        ground.counters.count_op(kind.name(), outcome_of(&result));
        let Ok(response) = result else { return };
        let Response::Range { revision, items, more } = response else {
            return ground.oracle.fail(|| format!("a range was answered with {response:?}"));
        };
        let mut found = BTreeMap::new();
        for item in &items {
            match value_of(Some(&item.item), revision) {
                Ok(value) => {
                    found.insert(String::from_utf8_lossy(&item.key).into_owned(), value);
                }
                Err(wrong) => return ground.oracle.fail(|| format!("a range held {wrong}")),
            }
        }
        let last = found.keys().next_back().cloned();
        let keys = (0..plan.keys).map(key_of).filter(|key| {
            !more || last.as_ref().is_some_and(|last| key <= last)
        });
        let values = keys.map(|key| (key.clone(), found.get(&key).cloned().flatten())).collect();
        book.range(self.id, call_ns, revision, values, ground.now_us());
    }

    fn stale_read(
        &mut self,
        key: String,
        result: Result<Response, Error>,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        ground.counters.count_op(OpKind::StaleGet.name(), outcome_of(&result));
        let Ok(response) = result else { return };
        let Response::Get { revision, item } = response else {
            return ground.oracle.fail(|| format!("a stale read was answered with {response:?}"));
        };
        match value_of(item.as_ref(), revision) {
            Ok(value) => {
                let written = item.map(|item| item.mod_revision).zip(value);
                book.stale(key, revision, written);
            }
            Err(wrong) => ground.oracle.fail(|| format!("a stale read brought {wrong}")),
        }
    }
}

/// The name of the value that was read at `revision`.
fn value_of(item: Option<&Item>, revision: u64) -> Result<Option<String>, String> {
    let Some(item) = item else { return Ok(None) };
    let (created, modified) = (item.create_revision, item.mod_revision);
    if created > modified || modified > revision || item.version == 0 {
        return Err(format!("an item of revisions {created} to {modified} at revision {revision}"));
    }
    recognise(&item.value).map(Some)
}

fn brief(result: &Result<Response, Error>) -> String {
    match result {
        Ok(Response::Get { revision, item }) => {
            let value = item.as_ref().map(|item| recognise(&item.value));
            format!("revision {revision}, {value:?}")
        }
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}
