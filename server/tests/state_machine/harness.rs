//! A state with short words for what tests do to it. Every entry also checks the kept hash against
//! a recomputed one.

use bytes::{Bytes, BytesMut};
use engine::{Location, Wanted};
use server::state_machine::{
    Applied, ApplyError, Command, EntryBuilder, Expander, Expect, Loaded, Origin, Outcome, Piece,
    RESOLVED, RestoreError, Restorer, State, ValueRef, ViewProgress, Wait, encode_command,
};

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn entry(now_ms: u64, commands: &[(Origin, Command)]) -> Bytes {
    let mut builder = EntryBuilder::new();
    builder.begin(now_ms);
    for (origin, command) in commands {
        let mut encoded = BytesMut::new();
        encode_command(*origin, command, &mut encoded);
        builder.push(&encoded);
    }
    builder.finish()
}

/// The origin of a client that has seen every answer before this sequence.
pub(crate) fn from(session: u64, sequence: u64) -> Origin {
    Origin { session, sequence, lowest_unanswered: sequence }
}

/// The origin of a client that still waits for everything from `lowest_unanswered` on.
pub(crate) fn waiting_from(session: u64, sequence: u64, lowest_unanswered: u64) -> Origin {
    Origin { session, sequence, lowest_unanswered }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::Put { key: bytes(key), value: bytes(value) }
}

pub(crate) fn delete(key: &str) -> Command {
    Command::Delete { key: bytes(key) }
}

pub(crate) fn compare_and_set(key: &str, expect: Expect, value: Option<&str>) -> Command {
    Command::CompareAndSet { key: bytes(key), expect, value: value.map(bytes) }
}

pub(crate) fn acquire(name: &str, wait: Wait) -> Command {
    Command::LockAcquire { name: bytes(name), wait }
}

pub(crate) fn release(name: &str, token: u64) -> Command {
    Command::LockRelease { name: bytes(name), token }
}

pub(crate) fn late(session: u64, sequence: u64, outcome: Outcome) -> Applied {
    Applied { session, sequence, position: RESOLVED, outcome }
}

/// A log of payloads, each in a slot of its own.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    payloads: Vec<Bytes>,
}

impl Shelf {
    pub(crate) fn put(&mut self, payload: &Bytes) -> Location {
        self.payloads.push(payload.clone());
        Location::new(u32::try_from(self.payloads.len() - 1).unwrap(), 0)
    }

    pub(crate) fn read(&self, wanted: &Wanted) -> Bytes {
        let payload = &self.payloads[wanted.location.slot() as usize];
        let start = usize::try_from(wanted.location.offset()).unwrap();
        let (key, value) = (wanted.key.len(), wanted.value_bytes as usize);
        assert_eq!(payload[start..start + key], wanted.key);
        let value = payload.slice(start + key..start + key + value);
        assert_eq!(crc32fast::hash(&value), wanted.checksum);
        value
    }
}

#[derive(Clone, Default)]
pub(crate) struct Node {
    pub(crate) state: State,
    pub(crate) shelf: Shelf,
}

impl Node {
    pub(crate) fn new() -> Node {
        Node::default()
    }

    pub(crate) fn apply(&mut self, commands: &[(Origin, Command)]) -> Vec<Applied> {
        let mut out = Vec::new();
        let index = self.state.applied_index() + 1;
        let payload = entry(1_000 + index, commands);
        self.apply_payload(index, &payload, &mut out).unwrap();
        assert_eq!(self.state.hash(), self.state.recompute_hash());
        out
    }

    /// Applies an entry from where it lies, with what it compares.
    pub(crate) fn apply_payload(
        &mut self,
        index: u64,
        payload: &Bytes,
        out: &mut Vec<Applied>,
    ) -> Result<(), ApplyError> {
        let place = self.shelf.put(payload);
        let compared = self.state.compared(payload);
        let loaded = compared.iter().map(|wanted| (wanted.location, self.shelf.read(wanted)));
        let loaded: Loaded = loaded.collect();
        self.state.apply(index, payload, place, &loaded, out)
    }

    /// Applies one command: its outcome, and the late outcomes that it brought about.
    pub(crate) fn run(&mut self, origin: Origin, command: Command) -> (Outcome, Vec<Applied>) {
        let mut applied = self.apply(&[(origin, command)]);
        let own = applied.remove(0);
        assert_eq!((own.session, own.sequence), (origin.session, origin.sequence));
        assert_eq!(own.position, 0);
        (own.outcome, applied)
    }

    /// Applies one command that brings about nothing late.
    pub(crate) fn outcome(&mut self, origin: Origin, command: Command) -> Outcome {
        let (outcome, late) = self.run(origin, command);
        assert_eq!(late, []);
        outcome
    }

    pub(crate) fn open(&mut self, nonce: u128) -> u64 {
        let command = Command::SessionOpen { ttl_ms: 10_000, nonce, label: bytes("test") };
        match self.outcome(Origin::NONE, command) {
            Outcome::SessionOpened { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<Bytes> {
        self.value_of(key.as_bytes())
    }

    pub(crate) fn value_of(&self, key: &[u8]) -> Option<Bytes> {
        let item = self.state.get(key)?;
        Some(match item.value {
            ValueRef::Inline(value) => Bytes::copy_from_slice(value),
            ValueRef::At(_) => self.shelf.read(&item.wanted(key).unwrap()),
        })
    }

    pub(crate) fn all_keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let more = self.state.range(b"", None, usize::MAX, usize::MAX, |key, _| {
            keys.push(String::from_utf8(key.to_vec()).unwrap());
        });
        assert!(!more);
        keys
    }
}

/// The whole checkpoint of a state, through a view of a copy of it.
pub(crate) fn checkpoint(state: &State) -> Vec<u8> {
    let mut state = state.clone();
    state.view_end();
    let estimate = state.view_bytes_estimate();
    let mut out = Vec::new();
    state.view_begin();
    while state.view_next(usize::MAX >> 1, &mut out) == ViewProgress::More {}
    assert_eq!(estimate, out.len() as u64);
    out
}

/// The snapshot for a peer that a checkpoint makes, taken in pieces of any size.
pub(crate) fn expand(checkpoint: &[u8], shelf: &Shelf, piece_bytes: usize) -> Vec<u8> {
    let (mut expander, mut pieces, mut bytes) = (Expander::default(), Vec::new(), 0);
    for piece in checkpoint.chunks(piece_bytes) {
        bytes += expander.push(piece, &mut pieces).unwrap();
    }
    let mut snapshot = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => snapshot.extend_from_slice(&bytes),
            Piece::Value(wanted) => snapshot.extend_from_slice(&shelf.read(&wanted)),
        }
    }
    assert_eq!(snapshot.len() as u64, bytes);
    let located = expander.located_bytes().unwrap();
    assert_eq!(snapshot.len() as u64, checkpoint.len() as u64 + located);
    snapshot
}

/// What a peer is sent.
pub(crate) fn snapshot(node: &Node) -> Vec<u8> {
    expand(&checkpoint(&node.state), &node.shelf, usize::MAX)
}

/// A node that was sent a snapshot.
pub(crate) fn restore(snapshot: &[u8]) -> Node {
    try_restore([snapshot]).unwrap()
}

pub(crate) fn try_restore<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Node, RestoreError> {
    let mut restorer = Restorer::of_peer(300);
    let mut shelf = Shelf::default();
    let mut place = |restorer: &mut Restorer| {
        while let Some(mut batch) = restorer.take_batch() {
            restorer.placed(shelf.put(&batch.take()));
        }
    };
    for piece in pieces {
        restorer.push(piece)?;
        place(&mut restorer);
    }
    restorer.seal();
    place(&mut restorer);
    Ok(Node { state: restorer.finish()?, shelf })
}
