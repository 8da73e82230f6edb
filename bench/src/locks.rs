//! The load on locks: acquire one, release it. Every slot has a session of its own, so that slots exclude each
//! other.
//!
//! One operation is an acquire and its release; its latency runs from the call of the one to the answer of the
//! other. A slot that does not know whether it holds a lock closes its session, which releases everything, and
//! opens another.

use bytes::Bytes;
use client::Connection;
use protocol::{ErrorCode, Origin, Request, Response, SESSION_TTL_MS_DEFAULT, Wait};
use tests::history::{Op, Reply};

use crate::error::Failure;
use crate::job::{Done, Job, Next};
use crate::material::key;
use crate::options::Plan;
use crate::pace::Pace;
use crate::random::Random;
use crate::scribe::{Asked, Scribe, Told};
use crate::tally::Tally;

/// How often a session is kept alive, in nanoseconds: three times within its time to live.
const KEEP_ALIVE_NS: u64 = SESSION_TTL_MS_DEFAULT * 1_000_000 / 3;

/// One lane's load on locks.
#[derive(Debug)]
pub struct Locks {
    keys: u64,
    wait: Wait,
    /// When the load gives up closing its sessions, in nanoseconds.
    deadline_ns: u64,
    pace: Pace,
    random: Random,
    seats: Vec<Seat>,
    /// Sessions that are there or may be: what has to end before the load does.
    open_count: usize,
    /// Where the search for a session that is due begins.
    upkeep_at: usize,
    upkeep_due_ns: u64,
    tally: Tally,
    scribe: Option<Scribe>,
}

/// One slot.
#[derive(Debug, Default)]
struct Seat {
    session: Option<Session>,
    state: State,
    /// When the operation should have started, in nanoseconds.
    start_ns: u64,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Session {
    id: u64,
    sequence: u64,
    kept_ns: u64,
    is_being_kept: bool,
}

/// What a slot is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Nothing; with a session, ready for an operation.
    #[default]
    Free,
    /// The session is being opened.
    Opening,
    /// A lock is being acquired.
    Acquiring(u64),
    /// A lock is held, under a token.
    Holding(u64, u64),
    /// The lock is being released.
    Releasing(u64, u64),
    /// It is not known what the session holds: it must be closed.
    Unsure,
    /// The session is being closed.
    Closing,
}

impl Locks {
    /// The load of lane `lane`, which goes on closing its sessions until `deadline_ns`; `scribe` records it.
    pub fn new(
        plan: &Plan,
        lane: u32,
        pace: Pace,
        deadline_ns: u64,
        scribe: Option<Scribe>,
    ) -> Locks {
        Locks {
            keys: plan.keys,
            wait: Wait::Millis((plan.timeout_ns / 2_000_000).max(1)),
            deadline_ns,
            pace,
            random: Random::new(plan.seed, u64::from(lane)),
            seats: (0..plan.inflight).map(|_| Seat::default()).collect(),
            open_count: 0,
            upkeep_at: 0,
            upkeep_due_ns: 0,
            tally: Tally::default(),
            scribe,
        }
    }

    /// What was counted.
    pub fn finish(mut self) -> Tally {
        self.tally.add_errors("never_started", self.pace.unstarted());
        self.tally
    }

    /// The next request of a slot; `None` when it has nothing to do.
    fn request(&mut self, slot: u32, now: u64) -> Option<Request> {
        let is_ending = self.pace.is_over(now);
        let seat = &mut self.seats[slot as usize];
        match (seat.state, &mut seat.session) {
            (State::Free, None) if is_ending => None,
            (State::Free, None) => {
                seat.state = State::Opening;
                self.open_count += 1;
                let label = Bytes::from_static(b"holdfast-bench");
                let nonce = u128::from(self.random.next_u64()) << 64 | u128::from(now);
                Some(Request::SessionOpen { nonce, ttl_ms: SESSION_TTL_MS_DEFAULT, label })
            }
            (State::Unsure, Some(session)) => {
                seat.state = State::Closing;
                Some(Request::SessionClose { session: session.id })
            }
            (State::Free, Some(session)) if is_ending => {
                seat.state = State::Closing;
                Some(Request::SessionClose { session: session.id })
            }
            (State::Free, Some(session)) => {
                seat.start_ns = self.pace.take(now)?;
                let lock = self.random.below(self.keys);
                seat.state = State::Acquiring(lock);
                let name = Bytes::copy_from_slice(&key(lock));
                Some(Request::LockAcquire { origin: session.next_origin(), name, wait: self.wait })
            }
            (State::Holding(lock, token), Some(session)) => {
                seat.state = State::Releasing(lock, token);
                let name = Bytes::copy_from_slice(&key(lock));
                Some(Request::LockRelease { origin: session.next_origin(), name, token })
            }
            (state, session) => unreachable!("a free slot is not {state:?} with {session:?}"),
        }
    }

    fn note_asked(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        let Some(scribe) = &mut self.scribe else { return };
        seat.asked = match seat.state {
            State::Acquiring(lock) => Some(scribe.ask(slot, &key(lock), |_, _| Op::Lock)),
            State::Releasing(lock, token) => {
                let op = Op::Unlock { token: Some(token) };
                Some(scribe.ask(slot, &key(lock), |_, _| op))
            }
            State::Free | State::Opening | State::Holding(..) | State::Unsure | State::Closing => {
                None
            }
        };
    }

    /// The session of `slot` is gone, and whatever it held.
    fn end_session(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        seat.session = None;
        seat.state = State::Free;
        self.open_count -= 1;
    }

    fn opened(&mut self, slot: u32, sent_ns: u64, result: &Result<Response, Failure>) {
        let seat = &mut self.seats[slot as usize];
        match result {
            &Ok(Response::SessionOpened { session: id, .. }) => {
                let kept_ns = sent_ns;
                seat.session = Some(Session { id, sequence: 0, kept_ns, is_being_kept: false });
                seat.state = State::Free;
            }
            // Should it be there nevertheless, it holds nothing and will expire.
            Ok(_) | Err(_) => self.end_session(slot),
        }
    }

    fn closed(&mut self, slot: u32, result: &Result<Response, Failure>) {
        match result {
            Ok(_) => self.end_session(slot),
            Err(failure) if ends_session(failure) => self.end_session(slot),
            Err(_) => self.seats[slot as usize].state = State::Unsure,
        }
    }

    /// What the answer to an acquire makes of a slot; answers the failure that counts, if it is one.
    fn acquired(
        &mut self,
        slot: u32,
        lock: u64,
        result: Result<Response, Failure>,
    ) -> Option<Failure> {
        let seat = &mut self.seats[slot as usize];
        let failure = match result {
            Ok(Response::LockGranted { token }) => {
                seat.state = State::Holding(lock, token);
                return None;
            }
            Ok(Response::LockNotAcquired) => not_acquired(),
            Ok(other) => Failure::unexpected(&other),
            Err(failure) => failure,
        };
        seat.state = if failure.is_unknown { State::Unsure } else { State::Free };
        if ends_session(&failure) {
            self.end_session(slot);
        }
        Some(failure)
    }

    /// What the answer to a release makes of a slot; answers the failure that counts, if it is one.
    fn released(
        &mut self,
        slot: u32,
        held: (u64, u64),
        result: Result<Response, Failure>,
    ) -> Option<Failure> {
        let seat = &mut self.seats[slot as usize];
        let failure = match result {
            Ok(Response::LockReleased) => {
                seat.state = State::Free;
                return None;
            }
            Ok(other) => Failure::unexpected(&other),
            Err(failure) => failure,
        };
        let is_lost = failure.code == ErrorCode::NotHolder.name();
        seat.state = match () {
            () if is_lost => State::Free,
            () if failure.is_unknown => State::Unsure,
            () => State::Holding(held.0, held.1),
        };
        if ends_session(&failure) {
            self.end_session(slot);
        }
        Some(failure)
    }

    fn record(&mut self, done: &Done) {
        let Some(asked) = self.seats[done.slot as usize].asked.take() else { return };
        let reply = match (&asked.op, &done.result) {
            (_, &Ok(Response::LockGranted { token })) => Ok(Reply::Lock { token }),
            (&Op::Unlock { token: Some(token) }, Ok(Response::LockReleased)) => {
                Ok(Reply::Unlock { token })
            }
            (_, Ok(Response::LockNotAcquired)) => Err(not_acquired()),
            (_, Ok(other)) => Err(Failure::unexpected(other)),
            (_, Err(failure)) => Err(failure.clone()),
        };
        let Some(scribe) = &self.scribe else { return };
        let Done { node, sent_ns: call_ns, end_ns: return_ns, .. } = *done;
        scribe.tell(asked, Told { reply, revision: None, node, call_ns, return_ns });
    }
}

impl Session {
    fn next_origin(&mut self) -> Origin {
        self.sequence += 1;
        let sequence = self.sequence;
        Origin { session: self.id, sequence, lowest_unanswered: sequence }
    }
}

impl Job for Locks {
    fn next(&mut self, slot: u32, now: u64, connection: &mut Connection) -> Next {
        let Some(request) = self.request(slot, now) else { return Next::Rest };
        self.note_asked(slot);
        Next::Sent { id: connection.submit(&request), start_ns: now }
    }

    fn finished(&mut self, done: Done) -> u64 {
        self.record(&done);
        let Done { slot, sent_ns, end_ns, result, .. } = done;
        let seat = &self.seats[slot as usize];
        let start_ns = seat.start_ns;
        let failure = match seat.state {
            State::Opening => {
                self.opened(slot, sent_ns, &result);
                return 0;
            }
            State::Closing => {
                self.closed(slot, &result);
                return 0;
            }
            State::Acquiring(lock) => match self.acquired(slot, lock, result) {
                None => return 0,
                Some(failure) => Some(failure),
            },
            State::Releasing(lock, token) => self.released(slot, (lock, token), result),
            state @ (State::Free | State::Holding(..) | State::Unsure) => {
                unreachable!("a slot with a request in flight is not {state:?}")
            }
        };
        let counts = self.pace.counts(start_ns, end_ns);
        match &failure {
            None if counts => self.tally.done(end_ns - start_ns),
            Some(failure) if counts => self.tally.failed(&failure.code, failure.is_unknown),
            None | Some(_) => {}
        }
        u64::from(failure.is_none())
    }

    fn is_over(&self, now: u64) -> bool {
        self.pace.is_over(now) && (self.open_count == 0 || now >= self.deadline_ns)
    }

    fn upkeep(&mut self, now: u64, connection: &mut Connection) -> Option<(u32, u64)> {
        if now < self.upkeep_due_ns {
            return None;
        }
        while let Some(seat) = self.seats.get_mut(self.upkeep_at) {
            let slot = u32::try_from(self.upkeep_at).expect("slots are counted in 32 bits");
            self.upkeep_at += 1;
            if seat.state == State::Closing {
                continue;
            }
            let Some(session) = &mut seat.session else { continue };
            if now >= session.kept_ns + KEEP_ALIVE_NS && !session.is_being_kept {
                session.is_being_kept = true;
                session.kept_ns = now;
                let request = Request::SessionKeepAlive { session: session.id };
                return Some((slot, connection.submit(&request)));
            }
        }
        self.upkeep_at = 0;
        self.upkeep_due_ns = now + KEEP_ALIVE_NS / 8;
        None
    }

    /// A session that turns out to be gone is noticed by the slot's next request, which is refused.
    fn kept_up(&mut self, slot: u32, _result: Result<Response, Failure>) {
        if let Some(session) = &mut self.seats[slot as usize].session {
            session.is_being_kept = false;
        }
    }
}

fn not_acquired() -> Failure {
    Failure {
        code: "not_acquired".to_owned(),
        is_unknown: false,
        message: "somebody else kept the lock".to_owned(),
    }
}

fn ends_session(failure: &Failure) -> bool {
    [ErrorCode::SessionUnknown, ErrorCode::SessionExpired]
        .iter()
        .any(|code| failure.code == code.name())
}
