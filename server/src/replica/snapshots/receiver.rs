//! A snapshot on its way in: chunks into a state, values into segments of values, the state into a checkpoint.
//!
//! Invariants:
//! - The state is put together when every value is durable, so its checkpoint never names a slot that does not hold what
//!   it says.
//! - It never waits for space: while it is there, this node takes none of the checkpoints that free some.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::io::Disk;
use engine::{CheckpointError, CheckpointOrigin, Engine, Location, Position, Room, ValueSlots};
use raft::{InstallId, NodeId, SendId, SnapshotMeta};

use super::super::checkpoints::encode_head;
use super::super::restore::BodyReader;
use super::CHUNK_BYTES;
use crate::state_machine::{State, ViewProgress};

/// Batches of values that may wait for their place before no further chunk is asked for.
const BATCHES_MAX: usize = 4;

/// Bytes of the checkpoint that are written in one turn.
const TURN_BYTES_MAX: usize = 256 << 10;

/// What a receiver needs next.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Progress {
    /// Nothing until something arrives or the disk has room.
    Wait,
    /// The next chunk, from this offset on.
    Pull(u64),
    /// The disk has no room for it now.
    NoRoom(String),
    /// The attempt cannot succeed.
    Failed(String),
}

enum Phase {
    /// Chunks arrive; whether one has been asked for.
    Receiving {
        is_asked: bool,
    },
    /// All have; their last values are not durable yet.
    Placing,
    /// The state is whole; an earlier attempt is still being taken back.
    Beginning(State, ValueSlots),
    /// It is written into the checkpoint.
    Writing(State),
    /// The engine verifies the checkpoint and gives it its name.
    Finishing(State),
    Over,
}

/// Why the disk takes nothing of a snapshot now, if it does not.
pub(in super::super) fn lack_of_room<D: Disk>(engine: &Engine<D>) -> Option<String> {
    (engine.room() == Room::Full).then(|| "the disk is full".to_owned())
}

/// A snapshot on its way in.
pub(in super::super) struct Receiver {
    pub(in super::super) id: InstallId,
    pub(in super::super) meta: SnapshotMeta,
    pub(in super::super) from: NodeId,
    pub(in super::super) send: SendId,
    offset: u64,
    total: Option<u64>,
    value_bytes_max: usize,
    body: BodyReader,
    /// Batches of values that the engine has not placed yet, by its names.
    batches: VecDeque<u64>,
    phase: Phase,
}

impl Receiver {
    /// `value_bytes_max` is the longest record that this node's log takes.
    pub(in super::super) fn new(
        (id, meta): (InstallId, SnapshotMeta),
        (from, send): (NodeId, SendId),
        value_bytes_max: usize,
    ) -> Receiver {
        Receiver {
            id,
            meta,
            from,
            send,
            offset: 0,
            total: None,
            value_bytes_max,
            body: BodyReader::of_peer(CHUNK_BYTES.min(value_bytes_max)),
            batches: VecDeque::new(),
            phase: Phase::Receiving { is_asked: true },
        }
    }

    /// A chunk has arrived.
    pub(in super::super) fn chunk<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        (offset, total, bytes): (u64, u64, Bytes),
    ) -> Progress {
        if offset != self.offset || !matches!(self.phase, Phase::Receiving { is_asked: true }) {
            return Progress::Wait; // a repeated answer to a pull
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if bytes.is_empty() || end > total || self.total.is_some_and(|known| known != total) {
            return Progress::Failed("the sender's chunks contradict each other".to_owned());
        }
        if let Some(reason) = lack_of_room(engine) {
            return Progress::NoRoom(reason);
        }
        (self.total, self.offset) = (Some(total), end);
        if let Err(error) = self.body.push(&bytes) {
            return Progress::Failed(error.to_string());
        }
        self.phase = Phase::Receiving { is_asked: false };
        if end == total {
            self.body.seal();
            self.phase = Phase::Placing;
        }
        while let Some(batch) = self.body.take_batch() {
            if batch.len() > self.value_bytes_max {
                return Progress::Failed("a value is too large for this node's log".to_owned());
            }
            self.batches.push_back(engine.append_values(batch));
        }
        self.advance(engine)
    }

    /// The engine has placed a batch; not one of ours if an earlier attempt left it.
    pub(in super::super) fn placed(&mut self, id: u64, location: Location) {
        if self.batches.front() == Some(&id) {
            self.batches.pop_front();
            self.body.placed(location);
        }
    }

    /// Goes on as far as the disk lets it.
    pub(in super::super) fn advance<D: Disk>(&mut self, engine: &mut Engine<D>) -> Progress {
        if !self.batches.is_empty() && engine.values_starve() {
            return Progress::NoRoom("no slot is left for its values".to_owned());
        }
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Receiving { is_asked: false } if self.batches.len() <= BATCHES_MAX => {
                self.phase = Phase::Receiving { is_asked: true };
                return Progress::Pull(self.offset);
            }
            Phase::Placing if self.batches.is_empty() => match self.restore() {
                Ok(state) => {
                    let slots = engine.value_slots(state.view_slots().to_vec());
                    return self.begin(engine, state, slots);
                }
                Err(reason) => return Progress::Failed(reason),
            },
            Phase::Beginning(state, slots) => return self.begin(engine, state, slots),
            Phase::Writing(state) => self.write(engine, state),
            phase @ (Phase::Receiving { .. }
            | Phase::Placing
            | Phase::Finishing(_)
            | Phase::Over) => self.phase = phase,
        }
        Progress::Wait
    }

    fn restore(&mut self) -> Result<State, String> {
        let body = std::mem::take(&mut self.body);
        let (meta, mut state) =
            body.finish(self.meta.last.index.0).map_err(|error| error.to_string())?;
        if meta != self.meta {
            return Err("the snapshot is not the one that was offered".to_owned());
        }
        state.view_begin();
        Ok(state)
    }

    fn begin<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        state: State,
        slots: ValueSlots,
    ) -> Progress {
        let at = Position { index: self.meta.last.index.0, term: self.meta.last.term.0 };
        let (bytes, origin) = (state.view_bytes_estimate(), CheckpointOrigin::Installed);
        match engine.checkpoint_begin(at, origin, bytes, slots.clone()) {
            Err(CheckpointError::InProgress) => self.phase = Phase::Beginning(state, slots),
            Err(error) => return Progress::Failed(error.to_string()),
            Ok(()) => {
                let mut head = Vec::new();
                encode_head(&self.meta, &mut head);
                engine.checkpoint_push(CheckpointOrigin::Installed, &head);
                self.phase = Phase::Writing(state);
            }
        }
        Progress::Wait
    }

    fn write<D: Disk>(&mut self, engine: &mut Engine<D>, mut state: State) {
        let origin = CheckpointOrigin::Installed;
        let room = engine.checkpoint_room(origin).min(TURN_BYTES_MAX);
        let mut bytes = Vec::new();
        if room > 0 && state.view_next(room, &mut bytes) == ViewProgress::Done {
            engine.checkpoint_push(origin, &bytes);
            engine.checkpoint_finish(origin);
            // The view and the state share every node: this drops none.
            state.view_end();
            self.phase = Phase::Finishing(state);
            return;
        }
        engine.checkpoint_push(origin, &bytes);
        self.phase = Phase::Writing(state);
    }

    /// Whether a turn would do something now.
    pub(in super::super) fn is_busy<D: Disk>(&self, engine: &Engine<D>) -> bool {
        match &self.phase {
            Phase::Receiving { is_asked } => !is_asked && self.batches.len() <= BATCHES_MAX,
            Phase::Placing => self.batches.is_empty(),
            Phase::Writing(_) => engine.checkpoint_room(CheckpointOrigin::Installed) > 0,
            // What the engine ends wakes the loop.
            Phase::Beginning(..) | Phase::Finishing(_) | Phase::Over => false,
        }
    }

    /// Drops the file, if one was begun, and the values.
    pub(in super::super) fn abort<D: Disk>(&self, engine: &mut Engine<D>) {
        if matches!(self.phase, Phase::Writing(_) | Phase::Finishing(_)) {
            engine.checkpoint_abort(CheckpointOrigin::Installed);
        }
        engine.values_dropped();
    }

    /// The file is durable: the position and the state it holds.
    ///
    /// Requires: the engine reported this install as durable.
    pub(in super::super) fn finish(self) -> (InstallId, SnapshotMeta, State) {
        let Phase::Finishing(state) = self.phase else {
            unreachable!("the checkpoint is finished before it is durable")
        };
        (self.id, self.meta, state)
    }
}
