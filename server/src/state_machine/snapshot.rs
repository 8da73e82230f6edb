//! The bytes of a snapshot, and the view that streams them while the state goes on.
//!
//! A header with the scalars and the counts, then every session, every lock and every key, each
//! kind in order. Sessions come first: almost every command changes one, and what has been streamed
//! needs no pre-image any more. Keys are streamed from a view of their tree, which costs nothing.
//!
//! There are two forms. In a checkpoint a value that lies in the log is a location, which means
//! something on this node alone. A snapshot for others holds every value; [`Expander`] makes one of
//! a checkpoint, and the same state gives the same snapshot on every replica.
//!
//! The stream holds no checksum of its own besides the header's: values carry theirs, the state
//! hash covers all items, and whoever stores or sends the bytes guards them in blocks.

use super::codec::length_u32;
use super::key::Key;
use super::kv::{Item, Remains, Stored};
use super::lock::Lock;
use super::session::Session;
use super::{State, kv};
use engine::tree::Tree;
use std::ops::ControlFlow;

mod expand;
pub use expand::{Expander, Piece};

/// The version that snapshots are written in, and the only one that is read.
pub const SNAPSHOT_VERSION: u32 = 2;

pub(super) const MAGIC: [u8; 8] = *b"hfstate\0";
pub(super) const HEADER_BYTES: usize = 112;
pub(super) const HEADER_CHECKED_BYTES: usize = 104;
pub(super) const SESSION_HEADER_BYTES: usize = 56;
pub(super) const ANSWER_BYTES: usize = 32;
pub(super) const LOCK_HEADER_BYTES: usize = 40;
pub(super) const WAITER_BYTES: usize = 24;
pub(super) const KEY_HEADER_BYTES: usize = 48;
/// In a key's record: its value follows.
pub(super) const VALUE_HERE: u32 = 0;
/// In a key's record: its value's location follows.
pub(super) const VALUE_LOCATED: u32 = 1;
pub(super) const LOCATION_BYTES: usize = 8;

/// What a snapshot says before its items.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) applied_index: u64,
    pub(super) time_ms: u64,
    pub(super) revision: u64,
    pub(super) grants: u64,
    pub(super) sessions_opened: u64,
    pub(super) sessions: u64,
    pub(super) locks: u64,
    pub(super) keys: u64,
    /// How much longer the snapshot is than the checkpoint.
    pub(super) located_bytes: u64,
    pub(super) hash: u128,
}

/// How far a view has been streamed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ViewProgress {
    /// More bytes follow.
    More,
    /// The last byte has been given.
    Done,
}

/// An open view. The tables keep their own pre-images; this is where the stream stands.
#[derive(Clone)]
pub(super) struct View {
    stage: Stage,
    keys: Tree<Item>,
    /// The slots that hold their values.
    slots: Vec<u32>,
    /// The first key that was not streamed may be this one.
    next_key: Vec<u8>,
    /// Encoded bytes that did not fit the last piece; given from `spilled` on.
    spill: Vec<u8>,
    spilled: usize,
}

#[derive(Clone, Copy)]
enum Stage {
    Header(Header),
    Sessions,
    Locks,
    Keys,
    Done,
}

impl State {
    /// Opens a view of the state at exactly the current applied index. It costs memory only for
    /// what changes before it was streamed.
    ///
    /// Requires: no view is open.
    pub fn view_begin(&mut self) {
        assert!(self.view.is_none(), "one view at a time");
        let stage = Stage::Header(self.header());
        self.view = Some(View {
            stage,
            keys: self.keys.view(),
            slots: self.keys.slots(),
            next_key: Vec::new(),
            spill: Vec::new(),
            spilled: 0,
        });
        self.sessions.table.view_begin();
        self.locks.table.view_begin();
    }

    /// The slots that hold values of the view.
    ///
    /// Requires: a view is open.
    pub fn view_slots(&self) -> &[u32] {
        &self.view.as_ref().expect("view_begin comes before view_slots").slots
    }

    /// Appends the next bytes of the view to `out`, at most `bytes_max` of them. The last piece may
    /// be empty.
    ///
    /// Requires: a view is open, and `bytes_max` is not 0.
    pub fn view_next(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> ViewProgress {
        assert!(bytes_max > 0, "a piece holds at least one byte");
        let mut view = self.view.take().expect("view_begin comes before view_next");
        let limit = out.len() + bytes_max;
        view.give_spill(limit, out);
        while out.len() < limit && !matches!(view.stage, Stage::Done) {
            view.stage = self.view_step(&mut view, limit, out);
        }
        view.keep_spill(limit, out);
        let progress = view.progress();
        self.view = Some(view);
        progress
    }

    /// Closes the view, streamed to its end or not. Does nothing when none is open. What the view alone held is given
    /// back, to be dropped in steps.
    pub fn view_end(&mut self) -> Option<Remains> {
        self.sessions.table.view_end();
        self.locks.table.view_end();
        self.view.take().map(|view| Remains::of(view.keys))
    }

    /// How many bytes a view begun now would stream: exact. Costs a walk over sessions and locks,
    /// not over keys.
    pub fn view_bytes_estimate(&self) -> u64 {
        let sessions = self.sessions.table.iter().map(|(_, session)| session_bytes(session));
        let locks = self.locks.table.iter().map(|(name, lock)| lock_bytes(name, lock));
        let others = sessions.sum::<u64>() + locks.sum::<u64>();
        HEADER_BYTES as u64 + others + self.keys.encoded_bytes()
    }

    fn header(&self) -> Header {
        Header {
            applied_index: self.applied_index,
            time_ms: self.time_ms,
            revision: self.revision,
            grants: self.locks.grants,
            sessions_opened: self.sessions.opened,
            sessions: self.sessions.table.len() as u64,
            locks: self.locks.table.len() as u64,
            keys: self.keys.len(),
            located_bytes: self.keys.located_bytes(),
            hash: self.hash(),
        }
    }

    /// Encodes items of one kind until `out` reaches `limit` or the kind is done; says where the
    /// stream stands then.
    fn view_step(&mut self, view: &mut View, limit: usize, out: &mut Vec<u8>) -> Stage {
        let stage = view.stage;
        let full = |out: &Vec<u8>| {
            if out.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let (flow, next) = match stage {
            Stage::Header(header) => {
                encode_header(&header, out);
                (ControlFlow::Continue(()), Stage::Sessions)
            }
            Stage::Sessions => {
                let emit = |id: &u64, session: &Session| {
                    encode_session(*id, session, out);
                    full(out)
                };
                (self.sessions.table.view_next(emit), Stage::Locks)
            }
            Stage::Locks => {
                let emit = |name: &Key, lock: &Lock| {
                    encode_lock(name, lock, out);
                    full(out)
                };
                (self.locks.table.view_next(emit), Stage::Keys)
            }
            Stage::Keys => {
                let View { keys, next_key, .. } = view;
                (stream_keys(keys, next_key, limit, out), Stage::Done)
            }
            Stage::Done => (ControlFlow::Continue(()), Stage::Done),
        };
        if flow.is_break() { stage } else { next }
    }
}

/// Encodes keys from `next` on until `out` reaches `limit`; `Continue` says that none is left.
fn stream_keys(
    keys: &Tree<Item>,
    next: &mut Vec<u8>,
    limit: usize,
    out: &mut Vec<u8>,
) -> ControlFlow<()> {
    for (key, item) in keys.range(next, None) {
        encode_key(key, item, out);
        if out.len() >= limit {
            next.clear();
            next.extend_from_slice(key);
            next.push(0);
            return ControlFlow::Break(());
        }
    }
    ControlFlow::Continue(())
}

impl View {
    fn give_spill(&mut self, limit: usize, out: &mut Vec<u8>) {
        let rest = &self.spill[self.spilled..];
        let given = rest.len().min(limit - out.len());
        out.extend_from_slice(&rest[..given]);
        self.spilled += given;
    }

    /// Moves what goes beyond `limit` out of the piece.
    fn keep_spill(&mut self, limit: usize, out: &mut Vec<u8>) {
        if self.spilled == self.spill.len() {
            self.spill.clear();
            self.spilled = 0;
        }
        if out.len() > limit {
            assert!(self.spill.is_empty(), "what spilled before is given first");
            self.spill.extend_from_slice(&out[limit..]);
            out.truncate(limit);
        }
    }

    fn progress(&self) -> ViewProgress {
        if matches!(self.stage, Stage::Done) && self.spill.is_empty() {
            ViewProgress::Done
        } else {
            ViewProgress::More
        }
    }
}

fn put_words<const N: usize>(words: [u64; N], out: &mut Vec<u8>) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn put_lengths<const N: usize>(lengths: [u32; N], out: &mut Vec<u8>) {
    for length in lengths {
        out.extend_from_slice(&length.to_le_bytes());
    }
}

fn encode_header(header: &Header, out: &mut Vec<u8>) {
    let start = out.len();
    let Header { applied_index, time_ms, revision, grants, sessions_opened, .. } = *header;
    out.extend_from_slice(&MAGIC);
    put_lengths([SNAPSHOT_VERSION, 0], out);
    put_words([applied_index, time_ms, revision, grants, sessions_opened], out);
    put_words([header.sessions, header.locks, header.keys, header.located_bytes], out);
    out.extend_from_slice(&header.hash.to_le_bytes());
    put_lengths([crc32fast::hash(&out[start..]), 0], out);
    assert_eq!(out.len() - start, HEADER_BYTES);
}

fn encode_session(id: u64, session: &Session, out: &mut Vec<u8>) {
    put_words([id, session.generation, session.ttl_ms], out);
    out.extend_from_slice(&session.nonce.to_le_bytes());
    put_words([session.lowest], out);
    let answers = session.answers().count();
    put_lengths([length_u32(session.label.len()), length_u32(answers)], out);
    out.extend_from_slice(&session.label);
    for (sequence, answer) in session.answers() {
        let words = answer.to_words().expect("only outcomes of executed commands are recorded");
        put_words([sequence], out);
        put_words(words, out);
    }
}

fn encode_lock(name: &Key, lock: &Lock, out: &mut Vec<u8>) {
    let name = name.as_slice();
    put_lengths([length_u32(name.len()), length_u32(lock.waiters.len())], out);
    put_words([lock.holder.session, lock.holder.sequence, lock.token, lock.next_ticket], out);
    out.extend_from_slice(name);
    for waiter in &lock.waiters {
        put_words([waiter.claim.session, waiter.claim.sequence, waiter.ticket], out);
    }
}

fn encode_key(key: &[u8], item: &Item, out: &mut Vec<u8>) {
    let form = match item.value {
        Stored::Inline(_) => VALUE_HERE,
        Stored::At(_) => VALUE_LOCATED,
    };
    put_lengths([length_u32(key.len()), item.value_bytes, item.checksum, form], out);
    put_words([item.create_revision, item.mod_revision, item.version, item.session], out);
    out.extend_from_slice(key);
    match &item.value {
        Stored::Inline(bytes) => out.extend_from_slice(bytes),
        Stored::At(location) => put_words([location.to_u64()], out),
    }
}

fn session_bytes(session: &Session) -> u64 {
    let answers = session.answers().count() * ANSWER_BYTES;
    (SESSION_HEADER_BYTES + session.label.len() + answers) as u64
}

fn lock_bytes(name: &Key, lock: &Lock) -> u64 {
    (LOCK_HEADER_BYTES + name.as_slice().len() + lock.waiters.len() * WAITER_BYTES) as u64
}

/// The size of a key's record in a checkpoint.
pub(super) fn key_bytes(key: usize, item: &Item) -> u64 {
    let value = match &item.value {
        Stored::Inline(bytes) => bytes.len(),
        Stored::At(_) => LOCATION_BYTES,
    };
    (KEY_HEADER_BYTES + key + value) as u64
}

/// What a value that lies in the log adds to its key's record in a snapshot.
pub(super) fn located_bytes(value_bytes: u32) -> u64 {
    const _: () = assert!(kv::INLINE_BYTES_MAX >= LOCATION_BYTES);
    u64::from(value_bytes) - LOCATION_BYTES as u64
}
