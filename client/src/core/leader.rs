//! Connections: whom to connect to, who leads, what to send where.

use protocol::{Certainty, Frame, FrameError, LeaderHint};

use super::backoff::{LEADER_SEARCH_US_MAX, RECONNECT_US_MAX};
use super::conn::{Class, Conn, Due, Phase, SentWhat};
use super::endpoints::Endpoint;
use super::{ConnId, Core, Micros, Output, Ticket};
use crate::Error;

/// How many hints in a row are followed at once. After that the nodes seem to disagree, and time
/// must pass.
const HINTS_AT_ONCE_MAX: u32 = 3;

impl Core {
    /// A connection that was ordered is made.
    pub fn connected(&mut self, now: Micros, conn: ConnId) {
        let id = self.name();
        let Some(link) = self.conns.get_mut(&conn) else {
            return;
        };
        link.phase = Phase::Greeting;
        self.hello.encode_into(id, &mut link.out);
        self.dirty.insert(conn);
        self.send_waiting(now);
    }

    /// A connection could not be made, or broke. Ignored if the core had closed it.
    pub fn disconnected(&mut self, now: Micros, conn: ConnId, why: &str) {
        if self.conns.contains_key(&conn) {
            self.drop_conn(now, conn, why);
        }
        self.send_waiting(now);
    }

    /// Sends what can be sent, and orders the connections that are missing.
    pub(super) fn send_waiting(&mut self, now: Micros) {
        if self.leader_pause <= now {
            self.leader_pause = Micros(0);
            while let Some(ticket) = self.keep_alives.first().copied()
                && let Some(conn) = self.room_at(now, self.endpoints.leader(), Class::KeepAlive)
            {
                self.send_call(now, conn, ticket);
            }
            while let Some(ticket) = self.waiting.first().copied()
                && let Some(conn) = self.room_at(now, self.endpoints.leader(), Class::Other)
            {
                self.send_call(now, conn, ticket);
            }
        }
        let mut after = Ticket(0);
        while let Some(ticket) = self.pinned.range(after..).next().copied() {
            after = Ticket(ticket.0 + 1);
            let endpoint = self.pending.get(&ticket).and_then(|pending| pending.endpoint);
            let endpoint = endpoint.expect("a pinned call names its endpoint");
            if let Some(conn) = self.room_at(now, endpoint, Class::Other) {
                self.send_call(now, conn, ticket);
            }
        }
    }

    /// The connection to an endpoint if it takes another request now. A missing one is ordered.
    fn room_at(&mut self, now: Micros, endpoint: usize, class: Class) -> Option<ConnId> {
        let Endpoint { conn, retry_at, .. } = *self.endpoints.get(endpoint);
        if let Some(conn) = conn {
            let link = self.conn(conn);
            return (link.phase == Phase::Ready && link.has_room(class)).then_some(conn);
        }
        if now >= retry_at {
            self.connect(now, endpoint);
        }
        None
    }

    fn connect(&mut self, now: Micros, endpoint: usize) {
        let conn = ConnId(self.name());
        self.conns.insert(conn, Conn::new(endpoint, now));
        self.endpoints.get_mut(endpoint).conn = Some(conn);
        let addr = self.endpoints.get(endpoint).addr.clone();
        self.outputs.push_back(Output::Connect { conn, addr });
    }

    /// Closes a connection from our side.
    pub(super) fn close_conn(&mut self, now: Micros, conn: ConnId, why: &str) {
        self.outputs.push_back(Output::Close { conn });
        self.drop_conn(now, conn, why);
    }

    /// Forgets a connection: what it carried is sent again where that is allowed.
    fn drop_conn(&mut self, now: Micros, conn: ConnId, why: &str) {
        let link = self.conns.remove(&conn).expect("the caller looked it up");
        self.dirty.remove(&conn);
        let endpoint = self.endpoints.get_mut(link.endpoint);
        endpoint.conn = None;
        endpoint.refusal = None;
        endpoint.failures += 1;
        endpoint.retry_at = self.jitter.retry_at(now, endpoint.failures, RECONNECT_US_MAX);
        let problem = format!("{}: {why}", endpoint.addr);
        self.problem.clone_from(&problem);

        for sent in link.sent.into_values() {
            if let SentWhat::Request(ticket) = sent.what {
                self.retry_or_disconnect(ticket, &problem);
            }
        }
        let certainty = Certainty::NotDone;
        self.fail_waiting_for(link.endpoint, &Error::Disconnected { certainty, problem });
        if link.endpoint == self.endpoints.leader() {
            self.endpoints.rotate(now);
        }
    }

    fn retry_or_disconnect(&mut self, ticket: Ticket, problem: &str) {
        let Some(pending) = self.pending.get(&ticket) else {
            return;
        };
        let certainty = pending.certainty_if_given_up();
        self.retry_or(ticket, || Error::Disconnected { certainty, problem: problem.to_owned() });
    }

    /// Ends the calls that only this endpoint could have answered.
    pub(super) fn fail_waiting_for(&mut self, endpoint: usize, error: &Error) {
        let pinned = self.pinned.iter().copied();
        let doomed: Vec<Ticket> = pinned
            .filter(|ticket| {
                self.pending.get(ticket).is_some_and(|pending| pending.endpoint == Some(endpoint))
            })
            .collect();
        for ticket in doomed {
            self.finish(ticket, Err(error.clone()));
        }
    }

    pub(super) fn tick_conns(&mut self, now: Micros) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            match self.conn(conn).due(now) {
                Due::Nothing => {}
                Due::Ping => self.ping(now, conn),
                Due::Idle if self.conn(conn).endpoint == self.endpoints.leader() => {
                    self.conn_mut(conn).keep(now);
                }
                Due::Idle => self.retire_conn(conn),
                Due::GiveUp => self.close_conn(now, conn, "no sign of life"),
            }
        }
    }

    fn ping(&mut self, now: Micros, conn: ConnId) {
        let id = self.name();
        let link = self.conn_mut(conn);
        protocol::Request::Ping.encode_into(id, &mut link.out);
        link.note_sent(now, id, SentWhat::Ping, protocol::frame::HEADER_BYTES);
        self.dirty.insert(conn);
    }

    /// Closes a connection that nobody uses. Not a failure of the node.
    fn retire_conn(&mut self, conn: ConnId) {
        let link = self.conns.remove(&conn).expect("the caller looked it up");
        assert!(link.sent.is_empty());
        self.dirty.remove(&conn);
        self.endpoints.get_mut(link.endpoint).conn = None;
        self.outputs.push_back(Output::Close { conn });
    }

    /// The node at the other end of `conn` says that it does not lead.
    pub(super) fn not_leader(&mut self, now: Micros, conn: ConnId, hint: Option<&LeaderHint>) {
        let Some(endpoint) = self.leader_endpoint_of(now, conn) else {
            return;
        };
        self.leader_failures += 1;
        let hinted = hint.and_then(|hint| self.endpoints.learn(&hint.addr));
        let reachable =
            hinted.filter(|other| *other != endpoint && self.endpoints.get(*other).retry_at <= now);
        match reachable {
            Some(leader) => self.endpoints.set_leader(leader),
            None => self.endpoints.rotate(now),
        }
        if reachable.is_none() || self.leader_failures > HINTS_AT_ONCE_MAX {
            self.pause_leader(now, None);
        }
    }

    /// The node at the other end of `conn` cannot do it now; perhaps another one can.
    pub(super) fn leader_unavailable(&mut self, now: Micros, conn: ConnId, after_ms: Option<u32>) {
        if self.leader_endpoint_of(now, conn).is_some() {
            self.leader_failures += 1;
            self.endpoints.rotate(now);
            self.pause_leader(now, after_ms);
        }
    }

    /// The leader wants us to be slower.
    pub(super) fn leader_busy(&mut self, now: Micros, conn: ConnId, after_ms: Option<u32>) {
        if self.leader_endpoint_of(now, conn).is_some() {
            self.leader_failures += 1;
            self.pause_leader(now, after_ms);
        }
    }

    /// The node at the other end of `conn` answered as a leader does.
    pub(super) fn leader_answered(&mut self, conn: ConnId) {
        let endpoint = self.conn(conn).endpoint;
        if endpoint == self.endpoints.leader() {
            self.leader_failures = 0;
        }
    }

    /// The endpoint of `conn` if it is still the one we take for the leader. Of many answers that
    /// say the same, one is acted upon: after it the leader is another, or a pause has begun.
    fn leader_endpoint_of(&self, now: Micros, conn: ConnId) -> Option<usize> {
        let endpoint = self.conns.get(&conn)?.endpoint;
        (endpoint == self.endpoints.leader() && now >= self.leader_pause).then_some(endpoint)
    }

    fn pause_leader(&mut self, now: Micros, after_ms: Option<u32>) {
        // With others to ask, each is asked once before time has to pass.
        let rounds = if self.endpoints.has_alternatives() {
            self.leader_failures.div_ceil(2)
        } else {
            self.leader_failures
        };
        let pause = self.jitter.retry_at(now, rounds, LEADER_SEARCH_US_MAX);
        let asked = after_ms.map_or(now, |after_ms| now.plus(u64::from(after_ms) * 1000));
        self.leader_pause = pause.max(asked);
    }

    /// When a call that waits for the leader can be sent at the earliest, as far as time decides.
    pub(super) fn leader_wake_at(&self) -> Micros {
        let leader = self.endpoints.get(self.endpoints.leader());
        match leader.conn {
            // What it waits for then is the other side, or the connection's own deadline.
            Some(_) if self.leader_pause == Micros(0) => Micros::NEVER,
            Some(_) => self.leader_pause,
            None => self.leader_pause.max(leader.retry_at),
        }
    }

    /// A frame arrived on a connection. Its body must not exceed the cap of
    /// [`Core::body_bytes_max`].
    pub fn received(&mut self, now: Micros, conn: ConnId, frame: Frame) {
        if let Some(link) = self.conns.get_mut(&conn) {
            link.heard(now);
            match link.phase {
                Phase::Connecting => self.close_conn(now, conn, "an answer before a hello"),
                Phase::Greeting => self.greeted(now, conn, frame),
                Phase::Ready => self.replied(now, conn, frame),
            }
        }
        self.send_waiting(now);
    }

    /// What arrived on a connection is not a frame.
    pub fn received_garbage(&mut self, now: Micros, conn: ConnId, error: &FrameError) {
        if self.conns.contains_key(&conn) {
            self.close_conn(now, conn, &error.to_string());
        }
        self.send_waiting(now);
    }

    /// The longest body that the other side may send on a connection now, in bytes.
    pub fn body_bytes_max(&self, conn: ConnId) -> u32 {
        match self.conns.get(&conn) {
            Some(link) if link.phase == Phase::Ready => link.limits.reply_body_bytes_max(),
            _ => protocol::HANDSHAKE_BODY_BYTES_MAX,
        }
    }
}
