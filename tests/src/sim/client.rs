//! A client process: the client's core over simulated connections, and workers that ask one thing at a time and
//! write down what they were told.

use std::collections::BTreeMap;

use bytes::BytesMut;
use client::Error;
use client::core::{ConnId as CoreConn, Core, Micros, Output, SessionKey, Ticket};
use protocol::{Hello, Response, frame};
use raft::NodeId;

use super::book::Book;
use super::ground::{Event, Ground};
use super::network::{ConnId, Host, NetOutput, Port, Power};
use super::node::{address_of, node_at};
use super::profile::{Plan, Profile};
use super::random::Random;

mod asking;
mod worker;

use asking::key_of;
use worker::{Session, Waiting, What, Worker, outcome_of};

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
        ground.network.set_power(self.host(), Power::NoProcess);
        ground.network.set_power(self.host(), Power::Up);
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
            What::Stale { key } => Worker::stale_read(key, result, ground, book),
            What::Counted(kind) => ground.counters.count_op(kind.name(), outcome_of(&result)),
        }
    }
}

fn new_core(plan: &Plan, random: &mut Random) -> Core {
    let endpoints: Vec<String> = (1..=plan.nodes as u64).map(|id| address_of(NodeId(id))).collect();
    let known = random.index(plan.nodes) + 1;
    let endpoints = endpoints.get(..known).expect("not more than there are");
    Core::new(Hello::new("sim"), endpoints, random.number()).expect("the endpoints are sound")
}
