//! The client without sockets, clocks and threads: calls, frames and time in; frames, orders and
//! outcomes out.
//!
//! It finds the leader, sends what is waiting, sends again what may be sent again, keeps sessions
//! alive, and says of every call how it ended. The same inputs give the same outputs: the async
//! [`Client`](crate::Client) drives it with real sockets, a simulator with simulated ones.
//!
//! Rules:
//! - A call gets exactly one outcome, unless it was abandoned.
//! - A write is sent again only with the same (session, sequence), or after an answer that says
//!   that it was not done. A write without a session whose answer never came ends as *unknown*
//!   (P45).
//! - Once an attempt of a write may have been executed, "not done" from a later attempt does not
//!   make it certain: the outcome stays *unknown* unless the answer comes out of the log itself.
//! - A session's life is counted from the sending of what renewed it. When it has passed, the
//!   session is lost for good, whatever the server would say.
//! - A lock that nobody waits for any more is given back as soon as it is granted.

mod backoff;
mod calls;
mod conn;
mod endpoints;
mod leader;
mod replies;
mod session;
mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use protocol::{Hello, Request, Response};

use self::backoff::Jitter;
use self::conn::Conn;
use self::endpoints::Endpoints;
use self::session::Session;
use crate::Error;

/// A moment of the caller's monotonic clock, in microseconds since any fixed point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// Later than every moment.
    pub const NEVER: Micros = Micros(u64::MAX);

    /// The moment `micros` microseconds later.
    #[must_use]
    pub fn plus(self, micros: u64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }
}

/// Names one call; comes back in [`Output::Done`]. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Names one connection. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Names one session of this client, from before the server has answered. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey(pub u64);

/// Who is to answer a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Whoever leads.
    Leader,
    /// The node at this address, `host:port`. Tried once.
    Endpoint(String),
}

/// What the caller wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The request. With a `session` its origin is filled in.
    pub request: Request,
    /// The session to which it belongs: then it takes effect once, however often it is sent.
    pub session: Option<SessionKey>,
    /// Who is to answer.
    pub target: Target,
    /// When the caller stops waiting.
    pub deadline: Micros,
}

impl Call {
    /// A call to the leader, outside of any session.
    pub fn to_leader(request: Request, deadline: Micros) -> Call {
        Call { request, session: None, target: Target::Leader, deadline }
    }
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make a connection, then call [`Core::connected`] or [`Core::disconnected`].
    Connect {
        /// The connection's name from here on.
        conn: ConnId,
        /// Where to, `host:port`.
        addr: String,
    },
    /// Close a connection, or stop making it. Nothing more is to be said about it.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Send bytes, after those of earlier sends.
    Send {
        /// On which connection.
        conn: ConnId,
        /// The bytes: whole frames.
        bytes: Bytes,
    },
    /// A call ended.
    Done {
        /// Which.
        ticket: Ticket,
        /// The answer, never a [`Response::Error`], or why there is none.
        result: Result<Response, Error>,
    },
    /// A session opened.
    SessionOpened {
        /// Which.
        session: SessionKey,
        /// Its id at the server.
        id: u64,
        /// Its time to live, in milliseconds.
        ttl_ms: u64,
    },
    /// A session ended, or must be taken to have ended: its locks are lost. Said once per session.
    SessionLost {
        /// Which.
        session: SessionKey,
        /// Why.
        reason: String,
    },
}

/// A call under way.
#[derive(Clone, Debug)]
struct Pending {
    request: Request,
    role: Role,
    /// The session of a write, and its sequence once it has one.
    session: Option<(SessionKey, Option<u64>)>,
    /// `None`: the leader.
    endpoint: Option<usize>,
    deadline: Micros,
    /// When it was sent last.
    sent_at: Micros,
    /// The connection that carries it.
    conn: Option<ConnId>,
    /// Whether an earlier attempt may have been executed.
    maybe_done: bool,
}

/// Whom a call serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// A caller, who gets the outcome.
    Caller,
    /// Nobody any more; but it has to come to its end, so that no lock stays held.
    Orphan,
    /// The open of a session, whose caller gets the outcome.
    Open(SessionKey),
    /// The close of a session, whose caller gets the outcome.
    Close(SessionKey),
    /// The life of a session.
    KeepAlive(SessionKey),
}

/// The client, without I/O. See the module's description.
#[derive(Clone, Debug)]
pub struct Core {
    hello: Hello,
    cluster_id: Option<u128>,
    jitter: Jitter,
    endpoints: Endpoints,
    conns: BTreeMap<ConnId, Conn>,
    pending: BTreeMap<Ticket, Pending>,
    /// Calls that are to be sent to the leader, oldest first, after all keep-alives.
    waiting: BTreeSet<Ticket>,
    /// Keep-alives that are to be sent to the leader.
    keep_alives: BTreeSet<Ticket>,
    /// Calls that are to be sent to the endpoint that they name.
    pinned: BTreeSet<Ticket>,
    deadlines: BTreeSet<(Micros, Ticket)>,
    sessions: BTreeMap<SessionKey, Session>,
    /// Nothing is sent to the leader before: it was not there, or asked us to wait.
    leader_pause: Micros,
    /// Answers since the last good one that sent us elsewhere, or to wait.
    leader_failures: u32,
    /// What stood in the way last, for the message of a timeout.
    problem: String,
    outputs: VecDeque<Output>,
    dirty: BTreeSet<ConnId>,
    next_name: u64,
}

impl Core {
    /// A client that starts from these endpoints (`host:port` each), with a generator seeded by
    /// `seed`.
    ///
    /// Connects to nobody before the first call.
    pub fn new(hello: Hello, endpoints: &[String], seed: u64) -> Result<Core, Error> {
        if endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        if let Some(bad) = endpoints.iter().find(|endpoint| !is_host_and_port(endpoint)) {
            return Err(Error::BadEndpoint { endpoint: bad.clone() });
        }
        let mut jitter = Jitter::new(seed);
        let endpoints = Endpoints::new(endpoints, &mut jitter);
        Ok(Core {
            cluster_id: hello.cluster_id,
            hello,
            jitter,
            endpoints,
            conns: BTreeMap::new(),
            pending: BTreeMap::new(),
            waiting: BTreeSet::new(),
            keep_alives: BTreeSet::new(),
            pinned: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            sessions: BTreeMap::new(),
            leader_pause: Micros(0),
            leader_failures: 0,
            problem: "none".to_owned(),
            outputs: VecDeque::new(),
            dirty: BTreeSet::new(),
            next_name: 1,
        })
    }

    /// The next thing to do, if there is any. To be called until it answers `None` after every
    /// input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let conn = self.dirty.pop_first()?;
        let bytes = self.conns.get_mut(&conn)?.out.split().freeze();
        Some(Output::Send { conn, bytes })
    }

    /// When [`Core::tick`] is to be called at the latest; [`Micros::NEVER`] if nothing waits for
    /// time.
    pub fn wake_at(&self) -> Micros {
        let deadline = self.deadlines.first().map_or(Micros::NEVER, |(deadline, _)| *deadline);
        let conns = self.conns.values().map(Conn::wake_at);
        let sessions = self.sessions.values().map(Session::wake_at);
        let earliest = conns.chain(sessions).fold(deadline, Micros::min);
        let none_waits = self.waiting.is_empty() && self.keep_alives.is_empty();
        if none_waits { earliest } else { earliest.min(self.leader_wake_at()) }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Micros) {
        self.expire_calls(now);
        self.tick_sessions(now);
        self.tick_conns(now);
        self.send_waiting(now);
    }

    /// How many calls have no outcome yet, abandoned ones included.
    pub fn pending_calls(&self) -> usize {
        self.pending.len()
    }

    fn name(&mut self) -> u64 {
        let name = self.next_name;
        self.next_name += 1;
        name
    }

    fn conn(&self, conn: ConnId) -> &Conn {
        self.conns.get(&conn).expect("an endpoint's connection is known until it is dropped")
    }

    fn conn_mut(&mut self, conn: ConnId) -> &mut Conn {
        self.conns.get_mut(&conn).expect("an endpoint's connection is known until it is dropped")
    }
}

fn is_host_and_port(endpoint: &str) -> bool {
    endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests;
