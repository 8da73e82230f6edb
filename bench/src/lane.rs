//! One connection after another, with a fixed number of slots for requests in flight.
//!
//! A lane finds the leader, keeps its slots busy with a [`Job`], and comes back when the leader is lost: an error
//! that names another leader, or says that there is none, makes it leave once its requests have been answered; a
//! connection that breaks, or a request without an answer in time, at once, and the outcome of what was in flight
//! is unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::{Connection, Reply};
use protocol::{ErrorCode, Hello, Response};
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::clock::Clock;
use crate::directory::Directory;
use crate::error::{Error, Failure};
use crate::job::{Done, Job, Next};
use crate::pending::{Entry, Pending, Ticket};

/// How often a lane looks at the time when nothing else wakes it.
const TICK: Duration = Duration::from_millis(20);
/// How long one node may take to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a lane waits after an attempt to connect that led nowhere.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// How long the first connection may take, in nanoseconds.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long a lane that leaves waits for its last answers, in nanoseconds.
const LEAVE_NS: u64 = 500_000_000;
/// How long a lane rests when the server asks for patience without saying how much, in milliseconds.
const REST_MS: u32 = 10;

/// What all lanes share.
#[derive(Debug)]
pub struct Shared {
    /// The clock of all times.
    pub clock: Clock,
    /// Who leads.
    pub directory: Directory,
    /// Nanoseconds after which a request is given up.
    pub timeout_ns: u64,
    /// Operations done since the program began.
    pub ops: AtomicU64,
    /// Connections made after the first of each lane.
    pub reconnects: AtomicU64,
}

/// One connection after another.
pub struct Lane {
    shared: Arc<Shared>,
    wake: Arc<Notify>,
    connection: Option<Connection>,
    is_first: bool,
    pending: Pending,
    free: Vec<u32>,
    resting: Vec<u32>,
    replies: Vec<Reply>,
    leaving_since: Option<u64>,
    paused_until: u64,
    tick: Interval,
}

impl Lane {
    /// A lane with `inflight` slots that has not connected yet. `wake` makes it look for work.
    pub fn new(shared: Arc<Shared>, wake: Arc<Notify>, inflight: u32) -> Lane {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Lane {
            shared,
            wake,
            connection: None,
            is_first: true,
            pending: Pending::default(),
            free: (0..inflight).rev().collect(),
            resting: Vec::new(),
            replies: Vec::new(),
            leaving_since: None,
            paused_until: 0,
            tick,
        }
    }

    /// Works on `job` until it is over.
    ///
    /// # Errors
    /// When no leader can be found to begin with. Later the lane goes on trying until the job is over.
    pub async fn run(&mut self, job: &mut impl Job) -> Result<(), Error> {
        loop {
            if self.pending.is_empty() && job.is_over(self.shared.clock.now_ns()) {
                return Ok(());
            }
            if self.connection.is_none() && !self.connect(|now| job.is_over(now)).await? {
                return Ok(());
            }
            self.submit(job);
            let waited = self.wait().await;
            self.take_replies(job);
            match waited {
                Err(error) => self.lose(job, "disconnected", &error.to_string()),
                Ok(()) => self.leave_if_due(job),
            }
        }
    }

    /// Connects before there is work, so that the work's figures do not show it.
    ///
    /// # Errors
    /// When no leader can be found.
    pub async fn open(&mut self) -> Result<(), Error> {
        self.connect(|_| false).await.map(drop)
    }

    /// Connects to the leader; false when there was nothing left to do before.
    async fn connect(&mut self, is_over: impl Fn(u64) -> bool) -> Result<bool, Error> {
        let began = self.shared.clock.now_ns();
        loop {
            let addr = self.shared.directory.candidate();
            let problem = match self.try_connect(&addr).await {
                Ok(()) => return Ok(true),
                Err(problem) => problem,
            };
            let now = self.shared.clock.now_ns();
            if is_over(now) {
                return Ok(false);
            }
            if self.is_first && now - began > PATIENCE_NS {
                let endpoints = self.shared.directory.endpoints();
                return Err(Error::Unreachable { endpoints, problem });
            }
        }
    }

    /// Connects to `addr` if it leads; notes who does otherwise.
    async fn try_connect(&mut self, addr: &str) -> Result<(), String> {
        let directory = &self.shared.directory;
        let hello = Hello::new("holdfast-bench");
        let attempt = timeout(CONNECT_TIMEOUT, Connection::connect(addr, &hello)).await;
        let attempt = attempt.unwrap_or_else(|_| {
            let message = format!("{addr} does not answer");
            Err(protocol::Error::not_done(ErrorCode::Timeout, message).into())
        });
        let problem = match attempt {
            Err(error) => error.to_string(),
            Ok(connection) => match &connection.welcome().leader {
                Some(leader) if leader.node == connection.welcome().node => {
                    directory.learn(addr);
                    self.adopt(connection);
                    return Ok(());
                }
                Some(leader) if leader.addr != addr => {
                    directory.learn(&leader.addr);
                    return Err(format!("{addr} says that {} leads", leader.addr));
                }
                Some(_) | None => format!("{addr} knows no leader"),
            },
        };
        directory.forget(addr);
        sleep(RETRY_AFTER).await;
        Err(problem)
    }

    fn adopt(&mut self, connection: Connection) {
        if !self.is_first {
            self.shared.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        self.is_first = false;
        self.leaving_since = None;
        self.connection = Some(connection);
    }

    /// Gives every free slot something to do.
    fn submit(&mut self, job: &mut impl Job) {
        let now = self.shared.clock.now_ns();
        let Some(connection) = &mut self.connection else { return };
        if self.leaving_since.is_some() || now < self.paused_until {
            return;
        }
        let limit = connection.welcome().limits.inflight_requests_max as usize;
        while self.pending.len() < limit
            && let Some((slot, id)) = job.upkeep(now, connection)
        {
            let entry = Entry { ticket: Ticket::Upkeep(slot), start_ns: now, sent_ns: now };
            self.pending.insert(id, entry);
        }
        while self.pending.len() < limit
            && let Some(slot) = self.free.pop()
        {
            match job.next(slot, now, connection) {
                Next::Sent { id, start_ns } => {
                    let entry = Entry { ticket: Ticket::Slot(slot), start_ns, sent_ns: now };
                    self.pending.insert(id, entry);
                }
                Next::Rest => self.resting.push(slot),
                Next::AllRest => {
                    self.free.push(slot);
                    break;
                }
            }
        }
        self.free.append(&mut self.resting);
    }

    /// Sends, and waits until replies have arrived or it is time to look round.
    async fn wait(&mut self) -> client::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        tokio::select! {
            biased;
            result = connection.exchange(&mut self.replies) => result,
            () = self.wake.notified() => Ok(()),
            _ = self.tick.tick() => Ok(()),
        }
    }

    fn take_replies(&mut self, job: &mut impl Job) {
        let now = self.shared.clock.now_ns();
        let mut replies = std::mem::take(&mut self.replies);
        let mut ops = 0;
        for Reply { request_id, response } in replies.drain(..) {
            let result = if let Response::Error(error) = &response {
                self.react(error, now);
                Err(Failure::refused(error))
            } else {
                Ok(response)
            };
            if let Some(entry) = self.pending.remove(request_id) {
                ops += self.finish(job, entry, now, result);
            }
        }
        self.replies = replies;
        self.shared.ops.fetch_add(ops, Ordering::Relaxed);
    }

    fn finish(
        &mut self,
        job: &mut impl Job,
        entry: Entry,
        end_ns: u64,
        result: Result<Response, Failure>,
    ) -> u64 {
        let Entry { ticket, start_ns, sent_ns } = entry;
        let node = self.connection.as_ref().map_or(0, |connection| connection.welcome().node);
        match ticket {
            Ticket::Slot(slot) => {
                self.free.push(slot);
                job.finished(Done { slot, start_ns, sent_ns, end_ns, node, result })
            }
            Ticket::Upkeep(slot) => {
                job.kept_up(slot, result);
                0
            }
        }
    }

    /// Leaves, or rests, as an error demands.
    fn react(&mut self, error: &protocol::Error, now: u64) {
        if means_leave(error.code) {
            if let Some(connection) = &self.connection {
                self.shared.directory.forget(connection.addr());
            }
            if let Some(leader) = &error.leader {
                self.shared.directory.learn(&leader.addr);
            }
            self.leaving_since.get_or_insert(now);
        } else if means_rest(error.code) {
            let rest_ms = error.retry_after_ms.unwrap_or(REST_MS);
            self.paused_until = now + u64::from(rest_ms) * 1_000_000;
        }
    }

    /// Drops the connection when it is being left and has nothing more to say, or says nothing any more.
    fn leave_if_due(&mut self, job: &mut impl Job) {
        let now = self.shared.clock.now_ns();
        if let Some(since) = self.leaving_since {
            if self.pending.is_empty() || now - since > LEAVE_NS {
                self.lose(job, "disconnected", "left a node that does not lead");
            }
        } else if let Some(sent) = self.pending.oldest_sent_ns()
            && now - sent > self.shared.timeout_ns
        {
            self.lose(job, "no_answer", "the answer did not come in time");
        }
    }

    /// Drops the connection; what was in flight on it may or may not be done.
    fn lose(&mut self, job: &mut impl Job, code: &str, message: &str) {
        let now = self.shared.clock.now_ns();
        if let Some(connection) = &self.connection
            && self.leaving_since.is_none()
        {
            self.shared.directory.forget(connection.addr());
        }
        let mut ops = 0;
        while let Some(entry) = self.pending.pop() {
            ops += self.finish(job, entry, now, Err(Failure::lost(code, message)));
        }
        self.shared.ops.fetch_add(ops, Ordering::Relaxed);
        self.connection = None;
    }
}

/// Whether another node may do better.
fn means_leave(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::LeadershipLost
            | ErrorCode::ShuttingDown
            | ErrorCode::Timeout
    )
}

/// Whether the same node may do better later.
fn means_rest(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::TooManyRequests | ErrorCode::ResourceExhausted | ErrorCode::Internal)
}
