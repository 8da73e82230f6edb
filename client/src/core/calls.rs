//! The life of a call: submitted, sent, perhaps sent again, ended once.

use bytes::{Bytes, BytesMut};
use protocol::{Certainty, Error as Refusal, ErrorCode, Request, Response};

use super::conn::SentWhat;
use super::session::Phase;
use super::{Call, ConnId, Core, Micros, Output, Pending, Role, SessionKey, Target, Ticket};
use crate::Error;

impl Core {
    /// Starts a call. Its outcome comes as [`Output::Done`], perhaps at once.
    pub fn submit(&mut self, now: Micros, call: Call) -> Ticket {
        let endpoint = match &call.target {
            Target::Leader => None,
            Target::Endpoint(addr) => match self.endpoints.learn(addr) {
                Some(endpoint) => Some(endpoint),
                None => return self.reject(Error::BadEndpoint { endpoint: addr.clone() }),
            },
        };
        let session = call.session.map(|session| (session, None));
        let ticket = self.enqueue(call.request, Role::Caller, session, endpoint, call.deadline);
        self.send_waiting(now);
        ticket
    }

    /// The caller does not wait for the outcome any more. There will be no [`Output::Done`] for it.
    ///
    /// What was not sent is dropped. What was sent may still take effect, except that a lock that
    /// is granted is given back at once.
    pub fn abandon(&mut self, now: Micros, ticket: Ticket) {
        match self.pending.get(&ticket).map(|pending| pending.role) {
            Some(Role::Caller) if !self.make_orphan(ticket) => {
                self.remove(ticket);
            }
            Some(Role::Open(session)) => self.lose_session(session, "nobody waited for it"),
            Some(Role::Caller | Role::Orphan | Role::Close(_) | Role::KeepAlive(_)) | None => {}
        }
        self.send_waiting(now);
    }

    pub(super) fn enqueue(
        &mut self,
        request: Request,
        role: Role,
        session: Option<(SessionKey, Option<u64>)>,
        endpoint: Option<usize>,
        deadline: Micros,
    ) -> Ticket {
        let ticket = Ticket(self.name());
        let pending = Pending {
            request,
            role,
            session,
            endpoint,
            deadline,
            sent_at: Micros(0),
            conn: None,
            maybe_done: false,
        };
        self.pending.insert(ticket, pending);
        self.wait(ticket);
        if deadline < Micros::NEVER {
            self.deadlines.insert((deadline, ticket));
        }
        ticket
    }

    /// Puts a call where it waits to be sent.
    fn wait(&mut self, ticket: Ticket) {
        let pending = self.pending.get(&ticket).expect("only pending calls wait");
        let queue = if pending.endpoint.is_some() {
            &mut self.pinned
        } else if matches!(pending.role, Role::KeepAlive(_)) {
            &mut self.keep_alives
        } else {
            &mut self.waiting
        };
        queue.insert(ticket);
    }

    fn stop_waiting(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
        self.keep_alives.remove(&ticket);
        self.pinned.remove(&ticket);
    }

    /// A call that cannot even be started.
    fn reject(&mut self, error: Error) -> Ticket {
        let ticket = Ticket(self.name());
        self.outputs.push_back(Output::Done { ticket, result: Err(error) });
        ticket
    }

    /// Sends a waiting call on a connection that is ready and has room, unless its session holds it
    /// back or it breaks a limit.
    pub(super) fn send_call(&mut self, now: Micros, conn: ConnId, ticket: Ticket) {
        self.stop_waiting(ticket);
        if let Err(NotNow) = self.fill_in_origin(ticket) {
            return;
        }
        let id = self.name();
        let link = self.conns.get_mut(&conn).expect("the caller looked it up");
        let pending = self.pending.get_mut(&ticket).expect("a waiting call is pending");
        if let Err(refusal) = pending.request.validate(&link.limits) {
            let error = pending.judge(refusal);
            return self.finish(ticket, Err(error));
        }
        pending.conn = Some(conn);
        pending.sent_at = now;
        let bytes = encode(&pending.request, id, &mut link.out);
        link.note_sent(now, id, SentWhat::Request(ticket), bytes);
        self.dirty.insert(conn);
    }

    /// Gives a call of a session its sequence, if it has none yet, and says what is unanswered now.
    fn fill_in_origin(&mut self, ticket: Ticket) -> Result<(), NotNow> {
        let pending = self.pending.get_mut(&ticket).expect("a waiting call is pending");
        let Some((key, sequence)) = pending.session else {
            return Ok(());
        };
        let sequence = match sequence {
            Some(sequence) => sequence,
            None => self.take_sequence(ticket, key)?,
        };
        let session = self.sessions.get(&key).expect("its calls end with it");
        let pending = self.pending.get_mut(&ticket).expect("a waiting call is pending");
        pending.session = Some((key, Some(sequence)));
        if let Some(origin) = pending.request.origin_mut() {
            *origin = session.origin(sequence);
        }
        Ok(())
    }

    /// A sequence for a call; or the call is held back until its session has one, or is ended.
    fn take_sequence(&mut self, ticket: Ticket, key: SessionKey) -> Result<u64, NotNow> {
        let Some(session) = self.sessions.get_mut(&key) else {
            self.finish_closed(ticket);
            return Err(NotNow);
        };
        match session.phase {
            Phase::Open if session.room() > 0 => return Ok(session.take_sequence(ticket)),
            Phase::Opening => session.held_back.push_back(ticket),
            Phase::Open => {
                session.held_back.push_back(ticket);
                let oldest = session.oldest_unanswered();
                if self.is_acquire(oldest) {
                    self.refuse_behind_acquire(ticket);
                }
            }
            Phase::Closing | Phase::Lost => self.finish_closed(ticket),
        }
        Err(NotNow)
    }

    fn finish_closed(&mut self, ticket: Ticket) {
        let reason = "it was closed before".to_owned();
        let certainty = Certainty::NotDone;
        self.finish(ticket, Err(Error::SessionLost { certainty, reason }));
    }

    fn is_acquire(&self, ticket: Option<Ticket>) -> bool {
        let pending = ticket.and_then(|ticket| self.pending.get(&ticket));
        pending.is_some_and(|pending| matches!(pending.request, Request::LockAcquire { .. }))
    }

    /// A full window moves on when its oldest request is answered. If that is an acquire, it may
    /// take for ever: better say so than wait for it.
    fn refuse_behind_acquire(&mut self, ticket: Ticket) {
        let message = "the session's window is full behind an acquire that waits for its lock; \
                       wait for locks in a session of their own";
        let refusal = Refusal::not_done(ErrorCode::SequenceTooFar, message);
        self.finish(ticket, Err(Error::Refused(refusal)));
    }

    /// Lets as many calls of a session go on as it has room for.
    pub(super) fn release_held_back(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        // Behind an acquire there is no room for long: they go on to be refused.
        let count = if self.is_acquire(session.oldest_unanswered()) && session.room() == 0 {
            session.held_back.len()
        } else {
            usize::try_from(session.room()).unwrap_or(usize::MAX).min(session.held_back.len())
        };
        let session = self.sessions.get_mut(&key).expect("it was just found");
        for ticket in session.held_back.drain(..count) {
            if self.pending.contains_key(&ticket) {
                self.waiting.insert(ticket);
            }
        }
    }

    /// The connection that carried a call is gone, or the answer says that it may have been done.
    /// Answers what to tell the caller if the call is not one to be sent again.
    pub(super) fn retry_or(&mut self, ticket: Ticket, error: impl FnOnce() -> Error) {
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return;
        };
        pending.conn = None;
        if pending.request.is_idempotent() && pending.endpoint.is_none() {
            pending.maybe_done |= pending.changes_state();
            return self.wait(ticket);
        }
        let error = error();
        self.finish(ticket, Err(error));
    }

    /// The call was not done: it is sent again whatever it is.
    pub(super) fn send_again(&mut self, ticket: Ticket) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            pending.conn = None;
            self.wait(ticket);
        }
    }

    /// Ends the calls whose deadline has come.
    pub(super) fn expire_calls(&mut self, now: Micros) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let certainty = self.pending.get(&ticket).map(Pending::certainty_if_given_up);
            let Some(certainty) = certainty else {
                continue;
            };
            let problem = self.problem.clone();
            let error = Error::Timeout { certainty, problem };
            if self.make_orphan(ticket) {
                self.outputs.push_back(Output::Done { ticket, result: Err(error) });
            } else {
                self.finish(ticket, Err(error));
            }
        }
    }

    /// Ends a call, and tells whom it served.
    pub(super) fn finish(&mut self, ticket: Ticket, result: Result<Response, Error>) {
        let Some(pending) = self.remove(ticket) else {
            return;
        };
        match pending.role {
            Role::Caller => self.outputs.push_back(Output::Done { ticket, result }),
            Role::Orphan => self.bury(pending, &result),
            Role::Open(session) => self.finish_open(ticket, session, pending.sent_at, result),
            Role::Close(session) => {
                self.outputs.push_back(Output::Done { ticket, result });
                self.lose_session(session, "it was closed");
            }
            Role::KeepAlive(session) => self.finish_keep_alive(session, pending.sent_at, result),
        }
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        let pending = self.pending.remove(&ticket)?;
        self.stop_waiting(ticket);
        self.deadlines.remove(&(pending.deadline, ticket));
        if let Some((key, Some(sequence))) = pending.session
            && let Some(session) = self.sessions.get_mut(&key)
        {
            session.settle(sequence);
            self.release_held_back(key);
        }
        Some(pending)
    }

    /// Takes the caller from a lock request that may have been done, and lets it go on: an acquire
    /// until it can be undone, a release until it is done. Answers false for every other call.
    fn make_orphan(&mut self, ticket: Ticket) -> bool {
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return false;
        };
        let may_be_held = pending.conn.is_some() || pending.maybe_done;
        let must_end = matches!(pending.request, Request::LockRelease { .. })
            || matches!(pending.request, Request::LockAcquire { .. }) && may_be_held;
        if must_end && pending.role == Role::Caller {
            self.deadlines.remove(&(pending.deadline, ticket));
            pending.deadline = Micros::NEVER;
            pending.role = Role::Orphan;
        }
        must_end
    }

    /// A call that served nobody has ended. A lock that it acquired is given back.
    fn bury(&mut self, orphan: Pending, result: &Result<Response, Error>) {
        if let (Request::LockAcquire { name, .. }, Ok(Response::LockGranted { token })) =
            (orphan.request, result)
            && let Some((session, _)) = orphan.session
        {
            self.enqueue_release(session, name, *token);
        }
    }

    /// Gives a lock back, and goes on until that is done or the session has ended. Nobody is told.
    pub fn release_unwatched(&mut self, now: Micros, session: SessionKey, name: Bytes, token: u64) {
        self.enqueue_release(session, name, token);
        self.send_waiting(now);
    }

    fn enqueue_release(&mut self, session: SessionKey, name: Bytes, token: u64) {
        let origin = protocol::Origin::NONE;
        let release = Request::LockRelease { origin, name, token };
        self.enqueue(release, Role::Orphan, Some((session, None)), None, Micros::NEVER);
    }
}

/// The call is held back by its session, or was ended.
struct NotNow;

impl Pending {
    /// Whether repeating it without (session, sequence) could do something twice.
    pub(super) fn changes_state(&self) -> bool {
        match &self.request {
            Request::Ping
            | Request::Status
            | Request::Get { .. }
            | Request::Range { .. }
            | Request::LockQuery { .. } => false,
            Request::Put { .. }
            | Request::Delete { .. }
            | Request::DeleteRange { .. }
            | Request::CompareAndSet { .. }
            | Request::SessionOpen { .. }
            | Request::SessionKeepAlive { .. }
            | Request::SessionClose { .. }
            | Request::LockAcquire { .. }
            | Request::LockRelease { .. } => true,
        }
    }

    /// What is certain of a call that is given up now.
    pub(super) fn certainty_if_given_up(&self) -> Certainty {
        let may_be_done = self.changes_state() && (self.maybe_done || self.conn.is_some());
        if may_be_done { Certainty::Unknown } else { Certainty::NotDone }
    }

    /// A final refusal as the caller is to see it. What an earlier attempt may have done, a later
    /// refusal does not undo, unless the refusal was itself found in the log.
    pub(super) fn judge(&self, refusal: Refusal) -> Error {
        let out_of_the_log = refusal.code == ErrorCode::NotHolder;
        if self.maybe_done && !out_of_the_log && refusal.certainty == Certainty::NotDone {
            let message =
                format!("{} (after an earlier attempt without an answer)", refusal.message);
            let certainty = Certainty::Unknown;
            return Error::Refused(Refusal { certainty, message, ..refusal });
        }
        Error::Refused(refusal)
    }
}

fn encode(request: &Request, id: u64, out: &mut BytesMut) -> usize {
    let before = out.len();
    request.encode_into(id, out);
    out.len() - before
}
