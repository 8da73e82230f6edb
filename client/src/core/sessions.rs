//! Sessions: opened, kept alive, closed, lost.

use bytes::Bytes;
use protocol::{Certainty, ErrorCode, Request, Response};

use super::session::{Phase, Session};
use super::{Core, Micros, Output, Role, SessionKey, Ticket};
use crate::Error;

/// How soon a keep-alive that failed for another reason than the session's end is repeated.
const KEEP_ALIVE_RETRY_US: u64 = 200_000;

impl Core {
    /// Opens a session. Calls may be made in it at once; they are sent when it is open.
    ///
    /// The ticket's outcome is [`Response::SessionOpened`] or why it was not opened. If the
    /// deadline passes, the session may exist at the server until its time to live is over; nothing
    /// refers to it.
    pub fn open_session(
        &mut self,
        now: Micros,
        ttl_ms: u64,
        label: Bytes,
        deadline: Micros,
    ) -> (SessionKey, Ticket) {
        let session = SessionKey(self.name());
        self.sessions.insert(session, Session::new());
        let nonce = self.jitter.next_u128();
        let open = Request::SessionOpen { nonce, ttl_ms, label };
        let ticket = self.enqueue(open, Role::Open(session), None, None, deadline);
        self.send_waiting(now);
        (session, ticket)
    }

    /// Ends a session and releases its locks. New calls in it are refused from here on; when the
    /// server has answered, or the deadline has passed, the session is lost for this client.
    pub fn close_session(&mut self, now: Micros, session: SessionKey, deadline: Micros) -> Ticket {
        let open = self.sessions.get_mut(&session).filter(|state| state.phase == Phase::Open);
        let Some(state) = open else {
            let ticket = Ticket(self.name());
            let result = Ok(Response::SessionClosed { existed: false });
            self.outputs.push_back(Output::Done { ticket, result });
            self.lose_session(session, "it was closed");
            return ticket;
        };
        state.phase = Phase::Closing;
        let close = Request::SessionClose { session: state.id };
        let ticket = self.enqueue(close, Role::Close(session), None, None, deadline);
        self.send_waiting(now);
        ticket
    }

    pub(super) fn tick_sessions(&mut self, now: Micros) {
        let due = self.sessions.iter().filter(|(_, session)| session.wake_at() <= now);
        let due: Vec<SessionKey> = due.map(|(key, _)| *key).collect();
        for key in due {
            let session = self.sessions.get_mut(&key).expect("it was just found");
            if session.alive_until <= now {
                self.lose_session(key, "no keep-alive was answered within its time to live");
            } else {
                let keep_alive = Request::SessionKeepAlive { session: session.id };
                let role = Role::KeepAlive(key);
                let ticket = self.enqueue(keep_alive, role, None, None, Micros::NEVER);
                self.sessions.get_mut(&key).expect("it was just found").keep_alive = Some(ticket);
            }
        }
    }

    pub(super) fn finish_open(
        &mut self,
        ticket: Ticket,
        key: SessionKey,
        sent_at: Micros,
        result: Result<Response, Error>,
    ) {
        let opened = match &result {
            Ok(Response::SessionOpened { session, ttl_ms, .. }) => Ok((*session, *ttl_ms)),
            Ok(other) => Err(format!("the open was answered with {other:?}")),
            Err(error) => Err(format!("it could not be opened: {error}")),
        };
        match opened {
            Ok((id, ttl_ms)) => self.note_opened(key, id, ttl_ms, sent_at),
            Err(reason) => self.lose_session(key, &reason),
        }
        self.outputs.push_back(Output::Done { ticket, result });
    }

    fn note_opened(&mut self, key: SessionKey, id: u64, ttl_ms: u64, sent_at: Micros) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.opened(id, ttl_ms, sent_at);
            self.outputs.push_back(Output::SessionOpened { session: key, id, ttl_ms });
            self.release_held_back(key);
        } else {
            // It was given up meanwhile. Nobody will use it, so it need not live out its time.
            let close = Request::SessionClose { session: id };
            let deadline = sent_at.plus(ttl_ms.saturating_mul(1000));
            self.enqueue(close, Role::Orphan, None, None, deadline);
        }
    }

    pub(super) fn finish_keep_alive(
        &mut self,
        key: SessionKey,
        sent_at: Micros,
        result: Result<Response, Error>,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        session.keep_alive = None;
        match result {
            Ok(Response::SessionAlive { ttl_ms }) => session.renewed(ttl_ms, sent_at),
            Err(error) if error.code() == ErrorCode::SessionUnknown => {
                self.lose_session(key, &error.to_string());
            }
            Ok(_) | Err(_) => session.keep_alive_at = sent_at.plus(KEEP_ALIVE_RETRY_US),
        }
    }

    /// The session has ended for this client, once and for all: says so, and ends what belongs to
    /// it.
    pub(super) fn lose_session(&mut self, key: SessionKey, reason: &str) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        assert!(session.phase < Phase::Lost);
        let reason = reason.to_owned();
        self.outputs.push_back(Output::SessionLost { session: key, reason: reason.clone() });
        let of_session = self.pending.iter().filter(|(_, pending)| {
            pending.session.is_some_and(|(session, _)| session == key)
                || pending.role == Role::KeepAlive(key)
        });
        let tickets: Vec<Ticket> = of_session.map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            let certainty = self
                .pending
                .get(&ticket)
                .map_or(Certainty::NotDone, super::Pending::certainty_if_given_up);
            self.finish(ticket, Err(Error::SessionLost { certainty, reason: reason.clone() }));
        }
    }
}
