//! Words for tests that put messages into a node's mouth.

use bytes::Bytes;
use raft::{
    AppendOutcome, Batch, Config, Envelope, HardState, Kind, Lane, LogId, LogIndex, Message,
    Micros, NodeId, Round, StepError, Term,
};

use super::world::{Flying, World};

/// A cluster with the default limits.
pub(crate) fn world(count: u64) -> World {
    World::new(count, 7, Config::new)
}

pub(crate) fn hard_state(term: u64) -> HardState {
    HardState { term: Term(term), vote: None }
}

/// Gives `to` a message from `from` over their connection.
pub(crate) fn step(
    world: &mut World,
    from: u64,
    to: u64,
    message: Message,
) -> Result<(), StepError> {
    world.checker.hears_fakes = true;
    let link = world.node(to).links[&NodeId(from)];
    let envelope = Envelope { to: NodeId(to), link, lane: Lane::Urgent, message };
    world.step(Flying { from: NodeId(from), envelope })
}

/// What `from` has said to `to` and is still on the wire.
pub(crate) fn said(world: &World, from: u64, to: u64) -> Vec<Message> {
    let between = |f: &&Flying| (f.from.0, f.envelope.to.0) == (from, to);
    world.wire.iter().filter(between).map(|f| f.envelope.message.clone()).collect()
}

pub(crate) fn batch(term: u64, first: u64, count: u64) -> Batch {
    let payload = |index: u64| Bytes::from(format!("t{term} i{index}"));
    let payloads: Vec<_> = (first..first + count).map(payload).collect();
    Batch::new(Term(term), LogIndex(first), Kind::Normal, &payloads)
}

pub(crate) fn append(term: u64, prev: LogId, commit: u64, batches: Vec<Batch>) -> Message {
    Message::Append { term: Term(term), prev, commit: LogIndex(commit), batches }
}

pub(crate) fn accepted(term: u64, match_index: u64) -> Message {
    Message::AppendReply {
        term: Term(term),
        outcome: AppendOutcome::Accepted { match_index: LogIndex(match_index) },
        last_index: LogIndex(match_index),
        credit_bytes: 1 << 20,
    }
}

pub(crate) fn rejected(term: u64, prev: LogId, hint: LogId) -> Message {
    Message::AppendReply {
        term: Term(term),
        outcome: AppendOutcome::Rejected { prev, hint },
        last_index: hint.index,
        credit_bytes: 1 << 20,
    }
}

pub(crate) fn heartbeat(term: u64) -> Message {
    let (commit, round, sent_at) = (LogIndex(0), Round(0), Micros(0));
    Message::Heartbeat { term: Term(term), commit, round, sent_at }
}

/// The terms of a node's log, from its first entry on.
pub(crate) fn terms(world: &mut World, node: u64) -> Vec<u64> {
    world.ready(node);
    world.node(node).disk.volatile.entries.iter().map(|entry| entry.term.0).collect()
}

/// What an answer acknowledges, if it does.
pub(crate) fn matched(message: &Message) -> Option<u64> {
    let Message::AppendReply { outcome, .. } = message else { return None };
    match outcome {
        AppendOutcome::Accepted { match_index } => Some(match_index.0),
        AppendOutcome::Rejected { .. } => None,
    }
}

/// Whether a message gives a vote or a pre-vote.
pub(crate) fn granted(message: &Message) -> bool {
    matches!(
        message,
        Message::PreVoteReply { granted: true, .. } | Message::VoteReply { granted: true, .. }
    )
}
