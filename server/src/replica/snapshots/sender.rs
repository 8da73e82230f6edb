//! Snapshots on their way out. Each pull is answered when the checkpoint's bytes and then the values have been read.
//!
//! Invariant: at most one read is under way for an attempt, and it holds no more than one chunk and one piece of the
//! checkpoint.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use engine::io::Disk;
use engine::{CheckpointInfo, Engine, ReadError, Wanted};
use raft::{Lane, Link, NodeId, SendId};

use super::super::input::Outbox;
use super::super::values::{Purpose, Values};
use super::CHUNK_BYTES;
use crate::peer_message::PeerMessage;
use crate::state_machine::{Expander, Piece};

/// The reads of checkpoint bytes that are under way carry this bit, apart from the core's loads.
const READ_ID_BIT: u64 = 1 << 63;

/// Values in one chunk: each may cost a read of blocks of its own.
const CHUNK_VALUES_MAX: usize = 1_024;

#[derive(Debug)]
struct Sending {
    peer: NodeId,
    link: Link,
    info: CheckpointInfo,
    stream: Stream,
    /// The chunk that was asked for and not given.
    wanted: bool,
    is_reading: bool,
    /// Something of it could not be read: nothing more is given.
    is_over: bool,
    /// The last chunk and its offset: it may be asked for again.
    last: Option<(u64, Bytes)>,
}

/// Where the snapshot stands.
#[derive(Debug, Default)]
struct Stream {
    /// Bytes of the checkpoint that were read.
    read: u64,
    /// Bytes of the snapshot that were given.
    given: u64,
    expander: Expander,
    pieces: VecDeque<Piece>,
    pieces_bytes: u64,
    /// The pieces of the next chunk, whose values are being read.
    chunk: Vec<Piece>,
}

/// Snapshots on their way out.
#[derive(Debug, Default)]
pub(in super::super) struct Senders {
    sending: BTreeMap<u64, Sending>,
    /// Ordered before there was any checkpoint.
    waiting: Vec<(SendId, NodeId, Link)>,
    reads: BTreeMap<u64, SendId>,
    next_read: u64,
}

/// What a sender works with.
pub(in super::super) struct Means<'a, D: Disk, O: Outbox> {
    pub(in super::super) engine: &'a mut Engine<D>,
    pub(in super::super) values: &'a mut Values,
    pub(in super::super) out: &'a mut O,
}

impl Senders {
    /// Pins the newest checkpoint for the attempt. Without one, returns nothing and remembers the order.
    pub(in super::super) fn begin<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        (send, peer, link): (SendId, NodeId, Link),
    ) -> Option<CheckpointInfo> {
        let newest = engine.checkpoints().first().map(|info| info.at.index);
        let Some(info) = newest.and_then(|index| engine.pin_checkpoint(index)) else {
            self.waiting.push((send, peer, link));
            return None;
        };
        let sending = Sending {
            peer,
            link,
            info,
            stream: Stream::default(),
            wanted: false,
            is_reading: false,
            is_over: false,
            last: None,
        };
        self.sending.insert(send.0, sending);
        Some(info)
    }

    /// The orders that waited for a checkpoint.
    pub(in super::super) fn take_waiting(&mut self) -> Vec<(SendId, NodeId, Link)> {
        std::mem::take(&mut self.waiting)
    }

    /// The attempt is over.
    pub(in super::super) fn end<D: Disk>(&mut self, engine: &mut Engine<D>, send: SendId) {
        self.waiting.retain(|(waiting, _, _)| *waiting != send);
        if let Some(sending) = self.sending.remove(&send.0) {
            engine.unpin_checkpoint(sending.info.at.index);
        }
    }

    /// The receiver wants the bytes from `offset` on: the next ones, the last ones once more, or all anew. Returns
    /// whether it can have them.
    pub(in super::super) fn pull<D: Disk, O: Outbox>(
        &mut self,
        means: &mut Means<'_, D, O>,
        (from, send): (NodeId, SendId),
        offset: u64,
    ) -> bool {
        let Some(sending) = self.sending.get_mut(&send.0) else { return false };
        if sending.peer != from || sending.is_over {
            return false;
        }
        if let Some((last, bytes)) = &sending.last
            && *last == offset
        {
            let bytes = bytes.clone();
            sending.give(send, offset, bytes, means.out);
            return true;
        }
        if offset != sending.stream.given {
            return false;
        }
        sending.wanted = true;
        self.advance(means, send);
        true
    }

    /// The engine has read bytes of a checkpoint.
    pub(in super::super) fn body_arrived<D: Disk, O: Outbox>(
        &mut self,
        means: &mut Means<'_, D, O>,
        id: u64,
        result: Result<Bytes, ReadError>,
    ) {
        let Some(send) = self.reads.remove(&id) else { return };
        let Some(sending) = self.sending.get_mut(&send.0) else { return };
        sending.is_reading = false;
        let bytes = result.map_err(|error| error.to_string());
        let taken = bytes.and_then(|bytes| sending.stream.take(&bytes).map_err(str::to_owned));
        match taken {
            Ok(()) => self.advance(means, send),
            Err(error) => sending.give_up(send, &error, means.out),
        }
    }

    /// The engine has read the values of the next chunk.
    pub(in super::super) fn values_arrived<O: Outbox>(
        &mut self,
        send: SendId,
        values: Vec<Result<Bytes, ReadError>>,
        out: &mut O,
    ) {
        let Some(sending) = self.sending.get_mut(&send.0) else { return };
        sending.is_reading = false;
        match values.into_iter().collect::<Result<Vec<Bytes>, ReadError>>() {
            Ok(values) => sending.give_chunk(send, values, out),
            Err(error) => sending.give_up(send, &error.to_string(), out),
        }
    }

    /// Reads what the next chunk lacks, or gives it.
    fn advance<D: Disk, O: Outbox>(&mut self, means: &mut Means<'_, D, O>, send: SendId) {
        let Some(sending) = self.sending.get_mut(&send.0) else { return };
        if !sending.wanted || sending.is_reading {
            return;
        }
        let (read, end) = (sending.stream.read, sending.info.body_bytes);
        if sending.stream.pieces_bytes < CHUNK_BYTES as u64 && read < end {
            self.next_read += 1;
            let id = READ_ID_BIT | self.next_read;
            self.reads.insert(id, send);
            sending.is_reading = true;
            means.engine.read_checkpoint(id, sending.info.at.index, read, CHUNK_BYTES);
            return;
        }
        let wanted = sending.stream.take_chunk();
        if wanted.is_empty() {
            return sending.give_chunk(send, Vec::new(), means.out);
        }
        sending.is_reading = true;
        means.values.read(means.engine, Purpose::Snapshot(send), wanted);
    }
}

impl Sending {
    fn give_chunk(&mut self, send: SendId, values: Vec<Bytes>, out: &mut impl Outbox) {
        let offset = self.stream.given;
        let bytes = self.stream.fill_chunk(values);
        self.stream.given += bytes.len() as u64;
        self.wanted = false;
        self.last = Some((offset, bytes.clone()));
        self.give(send, offset, bytes, out);
    }

    fn give(&self, send: SendId, offset: u64, bytes: Bytes, out: &mut impl Outbox) {
        let located = self.stream.expander.located_bytes().unwrap_or(0);
        let total = self.info.body_bytes + located;
        let chunk = PeerMessage::SnapshotChunk { send, offset, total, bytes };
        out.send(self.peer, self.link, Lane::Bulk, chunk);
    }

    fn give_up(&mut self, send: SendId, error: &str, out: &mut impl Outbox) {
        tracing::warn!(error, peer = %self.peer, "a snapshot that a peer needs cannot be read");
        self.wanted = false;
        self.is_over = true;
        self.last = None;
        out.send(self.peer, self.link, Lane::Bulk, PeerMessage::SnapshotGone { send });
    }
}

impl Stream {
    /// Takes the next bytes of the checkpoint. The first ones hold its head, which is passed on as it is.
    fn take(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut state = bytes;
        if self.read == 0 {
            let length = bytes.first_chunk::<4>().map(|length| u32::from_le_bytes(*length));
            let head = length.and_then(|length| bytes.split_at_checked(4 + length as usize));
            let (head, rest) = head.ok_or("its head is cut short")?;
            self.pieces_bytes += head.len() as u64;
            self.pieces.push_back(Piece::Bytes(head.to_vec()));
            state = rest;
        }
        self.read += bytes.len() as u64;
        let mut pieces = Vec::new();
        let added = self.expander.push(state, &mut pieces);
        self.pieces_bytes += added.map_err(|_| "its state does not read as one")?;
        self.pieces.extend(pieces);
        Ok(())
    }

    /// Moves pieces into the next chunk until it is large enough; the values that it lacks.
    fn take_chunk(&mut self) -> Vec<Wanted> {
        let (mut bytes, mut wanted) = (0, Vec::new());
        while bytes < CHUNK_BYTES
            && wanted.len() < CHUNK_VALUES_MAX
            && let Some(piece) = self.pieces.pop_front()
        {
            bytes += match &piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::Value(value) => {
                    wanted.push(value.clone());
                    value.value_bytes as usize
                }
            };
            self.chunk.push(piece);
        }
        self.pieces_bytes -= bytes as u64;
        wanted
    }

    fn fill_chunk(&mut self, values: Vec<Bytes>) -> Bytes {
        let mut values = values.into_iter();
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        for piece in self.chunk.drain(..) {
            match piece {
                Piece::Bytes(bytes) => chunk.extend_from_slice(&bytes),
                Piece::Value(_) => {
                    chunk.extend_from_slice(&values.next().expect("one value for each piece"));
                }
            }
        }
        chunk.freeze()
    }
}
