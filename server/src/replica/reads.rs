//! Linearizable reads: many share one round of the leader's heartbeats.

use std::collections::BTreeMap;

use raft::{LogIndex, ReadError, ReadReady, ReadToken};

use super::input::ReplyTo;

/// Who asked, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    /// A connection that will look at the state itself.
    State(ReplyTo),
    /// A session's owner: the round proves that this node still leads (DESIGN: sessions).
    KeepAlive(ReplyTo, u64),
}

impl Reader {
    pub(super) fn reply_to(self) -> ReplyTo {
        match self {
            Reader::State(reply_to) | Reader::KeepAlive(reply_to, _) => reply_to,
        }
    }
}

/// Reads on their way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Arrived in this turn: they share the next token.
    open: Vec<Reader>,
    next_token: u64,
    asked: BTreeMap<ReadToken, Vec<Reader>>,
    /// Confirmed; served when the index is applied.
    indexed: BTreeMap<LogIndex, Vec<Reader>>,
    failed: Vec<(Reader, ReadError)>,
}

impl Reads {
    pub(super) fn open(&mut self, reply_to: ReplyTo) {
        self.open.push(Reader::State(reply_to));
    }

    pub(super) fn open_keep_alive(&mut self, reply_to: ReplyTo, session: u64) {
        self.open.push(Reader::KeepAlive(reply_to, session));
    }

    /// Gives everything that arrived one token, and `ask`s the core with it.
    pub(super) fn ask(&mut self, ask: impl FnOnce(ReadToken) -> Result<(), ReadError>) {
        if self.open.is_empty() {
            return;
        }
        let readers = std::mem::take(&mut self.open);
        self.next_token += 1;
        let token = ReadToken(self.next_token);
        match ask(token) {
            Ok(()) => {
                self.asked.insert(token, readers);
            }
            Err(error) => self.failed.extend(readers.into_iter().map(|reader| (reader, error))),
        }
    }

    /// The core's answer to one token.
    pub(super) fn indexed(&mut self, ready: ReadReady) {
        let Some(readers) = self.asked.remove(&ready.token) else { return };
        match ready.outcome {
            Ok(index) => self.indexed.entry(index).or_default().extend(readers),
            Err(error) => self.failed.extend(readers.into_iter().map(|reader| (reader, error))),
        }
    }

    /// Those that may be served now that `applied` is visible.
    pub(super) fn served(&mut self, applied: LogIndex) -> Vec<Reader> {
        let mut served = Vec::new();
        while let Some(first) = self.indexed.first_entry() {
            if *first.key() > applied {
                break;
            }
            served.append(&mut first.remove());
        }
        served
    }

    /// Those that must ask another node.
    pub(super) fn failed(&mut self) -> Vec<(Reader, ReadError)> {
        std::mem::take(&mut self.failed)
    }

    /// Everyone, because this node ends.
    pub(super) fn drain(&mut self) -> Vec<ReplyTo> {
        let asked = std::mem::take(&mut self.asked).into_values().flatten();
        let indexed = std::mem::take(&mut self.indexed).into_values().flatten();
        let failed = std::mem::take(&mut self.failed).into_iter().map(|(reader, _)| reader);
        let open = std::mem::take(&mut self.open).into_iter();
        open.chain(asked).chain(indexed).chain(failed).map(Reader::reply_to).collect()
    }
}
