//! From the consensus core's writes to the log's appends, and back.

use engine::{Append, Entry, HardState, Position};
use raft::{Batch, LogId, LogIndex, NodeId, SnapshotMeta, Stored, Term, Write};
use thiserror::Error;

use crate::peer_message::{kind_code, kind_of};

/// A stored entry cannot be one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("stored entry {index} has the unknown kind {kind}; was it written by a newer version?")]
pub struct UnknownKind {
    /// The entry.
    pub index: u64,
    /// What is stored.
    pub kind: u8,
}

/// The append that makes a write durable. Truncation needs no word of its own: an entry at or below the last
/// index replaces it and everything above.
pub fn append_of(write: Write) -> Append {
    if let (Some(from), Some(first)) = (write.truncate_from, write.batches.first()) {
        assert_eq!(first.first(), from);
    }
    Append {
        write: write.seq.0,
        hard_state: write
            .hard_state
            .map(|state| HardState { term: state.term.0, vote: state.vote.map_or(0, |id| id.0) }),
        reset: write.reset.map(|meta| position_of(meta.last)),
        repairs: Vec::new(),
        entries: write.batches.iter().flat_map(entries_of).collect(),
    }
}

fn entries_of(batch: &Batch) -> impl Iterator<Item = Entry> {
    let (term, kind) = (batch.term().0, kind_code(batch.kind()));
    batch.entries().map(move |(index, payload)| Entry { index: index.0, term, kind, payload })
}

/// The batches that hold entries read back from the log.
pub fn batches_of(entries: Vec<Entry>) -> Result<Vec<Batch>, UnknownKind> {
    entries
        .into_iter()
        .map(|entry| {
            let kind = kind_of(entry.kind);
            let kind = kind.ok_or(UnknownKind { index: entry.index, kind: entry.kind })?;
            Ok(Batch::new(Term(entry.term), LogIndex(entry.index), kind, &[entry.payload]))
        })
        .collect()
}

/// The log's name for an entry.
pub fn position_of(id: LogId) -> Position {
    Position { index: id.index.0, term: id.term.0 }
}

/// The core's name for an entry.
pub fn log_id_of(position: Position) -> LogId {
    LogId { term: Term(position.term), index: LogIndex(position.index) }
}

/// What the core needs to start from what recovery found.
pub fn stored_of(recovered: &engine::Recovered, snapshot: SnapshotMeta) -> Stored {
    let hard_state = raft::HardState {
        term: Term(recovered.hard_state.term),
        vote: Some(recovered.hard_state.vote).filter(|vote| *vote != 0).map(NodeId),
    };
    Stored {
        hard_state,
        applied: snapshot.last.index,
        snapshot,
        log_start: log_id_of(recovered.log_start),
        terms: recovered
            .terms
            .iter()
            .map(|(term, first)| (Term(*term), LogIndex(*first)))
            .collect(),
        last_index: LogIndex(recovered.last.index),
    }
}
