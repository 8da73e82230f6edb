//! A state with short words for what tests do to it. Every entry also checks the kept hash against
//! a recomputed one.

use bytes::{Bytes, BytesMut};
use server::state_machine::{
    Applied, Command, EntryBuilder, Expect, Origin, Outcome, RESOLVED, Restorer, State,
    ViewProgress, Wait, encode_command,
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

#[derive(Default)]
pub(crate) struct Node {
    pub(crate) state: State,
}

impl Node {
    pub(crate) fn new() -> Node {
        Node::default()
    }

    pub(crate) fn apply(&mut self, commands: &[(Origin, Command)]) -> Vec<Applied> {
        let mut out = Vec::new();
        let index = self.state.applied_index() + 1;
        let payload = entry(1_000 + index, commands);
        self.state.apply(index, &payload, &mut out).unwrap();
        assert_eq!(self.state.hash(), self.state.recompute_hash());
        out
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

    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.state.get(key.as_bytes()).map(|item| item.value)
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

/// The whole snapshot of a state, through a view of a copy of it.
pub(crate) fn snapshot(state: &State) -> Vec<u8> {
    let mut state = state.clone();
    state.view_end();
    let estimate = state.view_bytes_estimate();
    let mut out = Vec::new();
    state.view_begin();
    while state.view_next(usize::MAX >> 1, &mut out) == ViewProgress::More {}
    assert_eq!(estimate, out.len() as u64);
    out
}

pub(crate) fn restore(snapshot: &[u8]) -> State {
    let mut restorer = Restorer::new();
    restorer.push(snapshot).unwrap();
    restorer.finish().unwrap()
}
