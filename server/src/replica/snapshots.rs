//! Snapshots to and from peers: the bytes of a checkpoint, pulled chunk by chunk by the receiver.
//!
//! A sender pins its newest checkpoint until the core ends the attempt. A receiver writes the bytes into a
//! checkpoint file of its own and reads them into a second state at the same time; nothing old is
//! touched before that file is durable and verified (P18).

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::io::Disk;
use engine::{CheckpointInfo, CheckpointOrigin, Engine, Position};
use raft::{InstallId, Lane, Link, NodeId, SendId, SnapshotMeta};

use super::input::Outbox;
use super::restore::BodyReader;
use crate::peer_message::PeerMessage;
use crate::state_machine::State;

/// Bytes asked for and sent at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The reads of checkpoint bytes that are under way carry this bit, apart from the core's loads.
const READ_ID_BIT: u64 = 1 << 63;

#[derive(Debug)]
struct Sending {
    peer: NodeId,
    link: Link,
    info: CheckpointInfo,
}

/// Snapshots on their way out.
#[derive(Debug, Default)]
pub(super) struct Senders {
    sending: BTreeMap<u64, Sending>,
    /// Ordered before there was any checkpoint.
    waiting: Vec<(SendId, NodeId, Link)>,
    reads: BTreeMap<u64, (SendId, u64)>,
    next_read: u64,
}

impl Senders {
    /// Pins the newest checkpoint for the attempt. Without one, returns nothing and remembers the order.
    pub(super) fn begin<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        (send, peer, link): (SendId, NodeId, Link),
    ) -> Option<CheckpointInfo> {
        let newest = engine.checkpoints().first().map(|info| info.at.index);
        let Some(info) = newest.and_then(|index| engine.pin_checkpoint(index)) else {
            self.waiting.push((send, peer, link));
            return None;
        };
        self.sending.insert(send.0, Sending { peer, link, info });
        Some(info)
    }

    /// The orders that waited for a checkpoint.
    pub(super) fn take_waiting(&mut self) -> Vec<(SendId, NodeId, Link)> {
        std::mem::take(&mut self.waiting)
    }

    /// The attempt is over.
    pub(super) fn end<D: Disk>(&mut self, engine: &mut Engine<D>, send: SendId) {
        self.waiting.retain(|(waiting, _, _)| *waiting != send);
        if let Some(sending) = self.sending.remove(&send.0) {
            engine.unpin_checkpoint(sending.info.at.index);
        }
    }

    /// The receiver wants the bytes from `offset` on. Returns whether the attempt is known.
    pub(super) fn pull<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        send: SendId,
        offset: u64,
    ) -> bool {
        let Some(sending) = self.sending.get(&send.0) else { return false };
        let left = sending.info.body_bytes.saturating_sub(offset);
        let bytes = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        self.next_read += 1;
        let id = READ_ID_BIT | self.next_read;
        self.reads.insert(id, (send, offset));
        engine.read_checkpoint(id, sending.info.at.index, offset, bytes);
        true
    }

    /// The engine has read what a pull asked for.
    pub(super) fn read(&mut self, id: u64, bytes: Option<Bytes>, out: &mut impl Outbox) {
        let Some((send, offset)) = self.reads.remove(&id) else { return };
        let Some(sending) = self.sending.get(&send.0) else { return };
        let message = match bytes {
            Some(bytes) => {
                PeerMessage::SnapshotChunk { send, offset, total: sending.info.body_bytes, bytes }
            }
            None => PeerMessage::SnapshotGone { send },
        };
        out.send(sending.peer, sending.link, Lane::Bulk, message);
    }
}

/// What a receiver needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing until something arrives or the disk has room.
    Wait,
    /// The next chunk, from this offset on.
    Pull(u64),
    /// The attempt cannot succeed.
    Failed(String),
}

/// A snapshot on its way in.
pub(super) struct Receiver {
    pub(super) id: InstallId,
    pub(super) meta: SnapshotMeta,
    pub(super) from: NodeId,
    pub(super) send: SendId,
    offset: u64,
    total: Option<u64>,
    held: Bytes,
    body: BodyReader,
    /// The state, once it has arrived whole and its hash was checked.
    state: Option<State>,
}

impl Receiver {
    pub(super) fn new(id: InstallId, meta: SnapshotMeta, from: NodeId, send: SendId) -> Receiver {
        let (held, body) = (Bytes::new(), BodyReader::new());
        Receiver { id, meta, from, send, offset: 0, total: None, held, body, state: None }
    }

    /// A chunk has arrived.
    pub(super) fn chunk<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        (offset, total, bytes): (u64, u64, Bytes),
    ) -> Progress {
        let received = self.offset + self.held.len() as u64;
        if offset != received || !self.held.is_empty() {
            return Progress::Wait; // a repeated answer to a pull
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if bytes.is_empty() || end > total || self.total.is_some_and(|known| known != total) {
            return Progress::Failed("the sender's chunks contradict each other".to_owned());
        }
        if let Err(error) = self.body.push(&bytes) {
            return Progress::Failed(error.to_string());
        }
        if self.total.is_none() {
            let at = Position { index: self.meta.last.index.0, term: self.meta.last.term.0 };
            if let Err(error) = engine.checkpoint_begin(at, CheckpointOrigin::Installed, total) {
                return Progress::Failed(error.to_string());
            }
            self.total = Some(total);
        }
        self.held = bytes;
        self.advance(engine)
    }

    /// Hands what is held to the engine as far as it has room.
    pub(super) fn advance<D: Disk>(&mut self, engine: &mut Engine<D>) -> Progress {
        let Some(total) = self.total else { return Progress::Wait };
        if self.held.is_empty() {
            return Progress::Wait;
        }
        let room = engine.checkpoint_room(CheckpointOrigin::Installed).min(self.held.len());
        let part = self.held.split_to(room);
        engine.checkpoint_push(CheckpointOrigin::Installed, &part);
        self.offset += part.len() as u64;
        if !self.held.is_empty() {
            return Progress::Wait;
        }
        if self.offset < total {
            return Progress::Pull(self.offset);
        }
        match self.restore() {
            Ok(state) => {
                self.state = Some(state);
                engine.checkpoint_finish(CheckpointOrigin::Installed);
                Progress::Wait
            }
            Err(reason) => Progress::Failed(reason),
        }
    }

    fn restore(&mut self) -> Result<State, String> {
        let body = std::mem::take(&mut self.body);
        let (meta, state) =
            body.finish(self.meta.last.index.0).map_err(|error| error.to_string())?;
        if meta != self.meta {
            return Err("the snapshot is not the one that was offered".to_owned());
        }
        Ok(state)
    }

    /// Whether bytes wait for room.
    pub(super) fn is_busy<D: Disk>(&self, engine: &Engine<D>) -> bool {
        !self.held.is_empty() && engine.checkpoint_room(CheckpointOrigin::Installed) > 0
    }

    /// Drops the file, if one was begun.
    pub(super) fn abort<D: Disk>(&self, engine: &mut Engine<D>) {
        if self.total.is_some() {
            engine.checkpoint_abort(CheckpointOrigin::Installed);
        }
    }

    /// The file is durable: the position and the state it holds.
    ///
    /// Requires: the engine reported this install as durable.
    pub(super) fn finish(self) -> (InstallId, SnapshotMeta, State) {
        (self.id, self.meta, self.state.expect("the file is only finished after the state is"))
    }
}
