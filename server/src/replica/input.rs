//! What goes into the loop and what comes out of it.

use bytes::Bytes;
use engine::{Pin, ReadError, Wanted};
use protocol::{LeaderHint, NodeStatus};
use raft::{Lane, Link, NodeId};

use crate::peer_message::PeerMessage;
use crate::state_machine::Outcome;

/// One client connection of this node's run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u64);

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplyTo {
    /// The connection.
    pub client: ClientId,
    /// The request's number on that connection, or whatever the connection made of it.
    pub request: u64,
}

/// What the loop is told.
#[derive(Debug)]
pub enum Input {
    /// A client's command, encoded and checked.
    Propose(Proposal),
    /// A linearizable read: answered with [`Answer::ReadNow`] once this node may serve it.
    Read(ReplyTo),
    /// A session's owner is alive.
    KeepAlive {
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// Which session.
        session: u64,
    },
    /// Values that a confirmed read found in the state and not in memory.
    Fetch {
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// Which values.
        wanted: Vec<Wanted>,
        /// Older than the look at the state that found their locations.
        pin: Pin,
    },
    /// What is this node doing?
    Status(ReplyTo),
    /// A link to a peer is up; both are founded members of one cluster.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// The link.
        link: Link,
        /// Where the peer's clients reach it.
        advertise: String,
    },
    /// The link is gone; what was sent over it may be lost.
    PeerLost {
        /// The peer.
        peer: NodeId,
        /// The link.
        link: Link,
    },
    /// A message of a peer.
    Peer {
        /// Its sender.
        from: NodeId,
        /// The link it came over.
        link: Link,
        /// The message.
        message: PeerMessage,
    },
    /// Answer nobody new, make durable what is queued, end.
    Stop,
}

/// A command on its way into an entry.
#[derive(Debug)]
pub struct Proposal {
    /// Where the outcome goes.
    pub reply_to: ReplyTo,
    /// The command, as `state_machine::encode_command` made it.
    pub command: Bytes,
    /// Whether it needs room.
    pub room: Room,
    /// For an acquire that may wait.
    pub wait: Option<AcquireWait>,
}

/// Whether a command adds to what is stored: those are refused first when the disk fills up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It stores bytes.
    Needs,
    /// It frees, releases or ends something.
    Frees,
}

/// How long an acquire may stay in the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcquireWait {
    /// The waiter: its session,
    pub session: u64,
    /// and the sequence of its request.
    pub sequence: u64,
    /// The lock.
    pub name: Bytes,
    /// For how long; `None` is for ever.
    pub wait_ms: Option<u64>,
}

/// What the loop answers.
#[derive(Debug)]
pub enum Answer {
    /// The command was applied.
    Outcome(Outcome),
    /// The state of this node may be read for this request, from now on.
    ReadNow,
    /// The session lives, for this long after the request was sent.
    Alive {
        /// Its time to live in milliseconds.
        ttl_ms: u64,
    },
    /// The values of a fetch, in its order.
    Values(Vec<Result<Bytes, ReadError>>),
    /// What this node is doing.
    Status(Box<NodeStatus>),
    /// It did not work.
    Error(protocol::Error),
}

/// Where the loop sends. Nothing here blocks; a peer's or client's queue is bounded by its window.
pub trait Outbox {
    /// Queues a message for a peer; dropped if `link` is gone.
    fn send(&mut self, to: NodeId, link: Link, lane: Lane, message: PeerMessage);
    /// Ends a link over which the peer broke the protocol.
    fn close(&mut self, peer: NodeId, link: Link);
    /// Queues an answer; dropped if the client is gone.
    fn answer(&mut self, to: ReplyTo, answer: Answer);
    /// The known leader changed, or where its clients reach it.
    fn leader(&mut self, leader: Option<LeaderHint>);
    /// Wakes whoever something was queued for.
    fn flush(&mut self);
}
