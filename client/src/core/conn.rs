//! One connection as the core sees it: its phase, what was sent, when it was last heard.

use std::collections::BTreeMap;

use bytes::BytesMut;
use protocol::Limits;

use super::{Micros, Ticket};

/// How long a connection may take to be made and to shake hands, in microseconds.
const GREETING_US_MAX: u64 = 1_000_000;
/// After how long a silence, with requests waiting, the node is asked for a sign of life.
const PING_AFTER_US: u64 = 400_000;
/// How long the node may take for a sign of life.
const PONG_US_MAX: u64 = 600_000;
/// After how long without use a connection to a node that does not lead is closed.
const IDLE_US_MAX: u64 = 10_000_000;

/// How many of the requests and bytes that the server takes from a connection other calls leave to
/// keep-alives and pings: behind acquires that wait for their locks they would wait as long, the
/// connection would be given up, and the sessions with it.
const RESERVED_REQUESTS: usize = 8;
const RESERVED_BYTES: usize = 64 << 10;

/// Where a connection is in its life. It only moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// The connection is being made.
    Connecting,
    /// Our hello was sent.
    Greeting,
    /// Requests may be sent.
    Ready,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) what: SentWhat,
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SentWhat {
    Request(Ticket),
    Ping,
}

/// What wants to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// The life of a session.
    KeepAlive,
    /// Everything else.
    Other,
}

/// Invariant: `sent_bytes` is the sum over `sent`.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    pub(super) endpoint: usize,
    pub(super) phase: Phase,
    pub(super) node: u64,
    pub(super) limits: Limits,
    pub(super) out: BytesMut,
    pub(super) sent: BTreeMap<u64, Sent>,
    sent_bytes: usize,
    /// When the phase began, or when something arrived last, or was sent while nothing waited.
    quiet_since: Micros,
    pinged_at: Option<Micros>,
}

impl Conn {
    pub(super) fn new(endpoint: usize, now: Micros) -> Conn {
        Conn {
            endpoint,
            phase: Phase::Connecting,
            node: 0,
            limits: Limits::default(),
            out: BytesMut::new(),
            sent: BTreeMap::new(),
            sent_bytes: 0,
            quiet_since: now,
            pinged_at: None,
        }
    }

    /// Whether the server's limits leave room for another request of this class.
    pub(super) fn has_room(&self, class: Class) -> bool {
        let requests_max = self.limits.inflight_requests_max as usize;
        let bytes_max = self.limits.inflight_bytes_max as usize;
        let (requests, bytes) = match class {
            // The last place is for a ping.
            Class::KeepAlive => (1, 0),
            Class::Other => (RESERVED_REQUESTS, RESERVED_BYTES),
        };
        self.sent.is_empty()
            || self.sent.len() + requests < requests_max && self.sent_bytes + bytes < bytes_max
    }

    /// The request `id` was appended to `out`.
    pub(super) fn note_sent(&mut self, now: Micros, id: u64, what: SentWhat, bytes: usize) {
        if self.sent.is_empty() {
            self.quiet_since = now;
        }
        match what {
            SentWhat::Ping => self.pinged_at = Some(now),
            SentWhat::Request(_) => {}
        }
        self.sent.insert(id, Sent { what, bytes });
        self.sent_bytes += bytes;
    }

    /// Something arrived.
    pub(super) fn heard(&mut self, now: Micros) {
        self.quiet_since = now;
        self.pinged_at = None;
    }

    /// The reply to the request `id` arrived; answers what it was.
    pub(super) fn take_sent(&mut self, id: u64) -> Option<SentWhat> {
        let sent = self.sent.remove(&id)?;
        self.sent_bytes -= sent.bytes;
        Some(sent.what)
    }

    /// What time asks for.
    pub(super) fn due(&self, now: Micros) -> Due {
        if now < self.wake_at() {
            return Due::Nothing;
        }
        match (self.phase, self.pinged_at) {
            (Phase::Connecting | Phase::Greeting, _) | (Phase::Ready, Some(_)) => Due::GiveUp,
            (Phase::Ready, None) if self.sent.is_empty() => Due::Idle,
            (Phase::Ready, None) => Due::Ping,
        }
    }

    /// The earliest time at which [`Conn::due`] answers something.
    pub(super) fn wake_at(&self) -> Micros {
        match (self.phase, self.pinged_at) {
            (Phase::Connecting | Phase::Greeting, _) => self.quiet_since.plus(GREETING_US_MAX),
            (Phase::Ready, Some(pinged_at)) => pinged_at.plus(PONG_US_MAX),
            (Phase::Ready, None) if self.sent.is_empty() => self.quiet_since.plus(IDLE_US_MAX),
            (Phase::Ready, None) => self.quiet_since.plus(PING_AFTER_US),
        }
    }

    /// An idle connection that is to be kept is looked at again later.
    pub(super) fn keep(&mut self, now: Micros) {
        self.quiet_since = now;
    }
}

/// What a connection needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A sign of life is to be asked for.
    Ping,
    /// Nothing was sent for long.
    Idle,
    /// The node takes too long.
    GiveUp,
}
