//! When a checkpoint of the state is due, and how it is written beside applying.
//!
//! A checkpoint is one consistent view at one applied index. It starts when the log since the last one is
//! long enough, is streamed in small turns, and never claims an index that is not durable here: the file is only begun once the view's
//! index is.

use engine::io::Disk;
use engine::{CheckpointOrigin, Engine, Position, ValueSlots};
use raft::{Micros, SnapshotMeta};

use crate::bytes_reader::length_u32;
use crate::peer_message::encode_snapshot_meta;
use crate::state_machine::{Remains, State, ViewProgress};

/// After a checkpoint that failed, for want of space most likely: the next try would fail at once as well.
const RETRY_US: u64 = 1_000_000;

/// Bytes streamed in one turn: about a tenth of a millisecond of work.
const TURN_BYTES_MAX: usize = 256 << 10;

/// Nodes of an old view that are dropped in one turn: likewise.
const TURN_NODES_MAX: usize = 64;

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// The view is taken, and its values lie in these slots; its index is not durable yet.
    Viewing(SnapshotMeta, ValueSlots),
    /// The view is streamed into the file.
    Streaming,
    /// The file is complete; the engine verifies and renames it.
    Finishing,
}

/// Takes checkpoints of the local state.
#[derive(Debug)]
pub(super) struct Checkpointer {
    interval_bytes: u64,
    phase: Phase,
    wanted: bool,
    /// The disk is full, and one would help.
    pressed: bool,
    /// None is begun before, on the replica's clock.
    retry_at: Micros,
    buffer: Vec<u8>,
    /// What views alone held, to be dropped in steps.
    remains: Vec<Remains>,
}

impl Checkpointer {
    /// One at least every `interval_bytes` of log, or twice its own size if that is more.
    pub(super) fn new(interval_bytes: u64) -> Checkpointer {
        let (phase, retry_at) = (Phase::Idle, Micros(0));
        let (buffer, remains) = (Vec::new(), Vec::new());
        Checkpointer {
            interval_bytes,
            phase,
            wanted: false,
            pressed: false,
            retry_at,
            buffer,
            remains,
        }
    }

    /// Take one soon, whatever the interval says.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the disk is full and one would help, from now on.
    pub(super) fn press(&mut self, pressed: bool) {
        self.pressed = pressed;
    }

    /// Whether a turn would do something now.
    pub(super) fn is_busy<D: Disk>(&self, engine: &Engine<D>) -> bool {
        let streams = matches!(self.phase, Phase::Streaming)
            && engine.checkpoint_room(CheckpointOrigin::Local) > 0;
        streams || !self.remains.is_empty()
    }

    /// Whether one is due by size, wanted, or pressed for.
    pub(super) fn is_due<D: Disk>(&self, engine: &Engine<D>, now: Micros) -> bool {
        if now < self.retry_at {
            return false;
        }
        let last_bytes = engine.checkpoints().first().map_or(0, |info| info.body_bytes);
        let interval_bytes = self.interval_bytes.max(last_bytes.saturating_mul(2));
        let due =
            self.wanted || self.pressed || engine.log_bytes_since_checkpoint() >= interval_bytes;
        due && matches!(self.phase, Phase::Idle)
    }

    /// Takes the view. `meta` is the state's position.
    pub(super) fn begin<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        state: &mut State,
        meta: SnapshotMeta,
    ) {
        assert!(matches!(self.phase, Phase::Idle));
        assert_eq!(state.applied_index(), meta.last.index.0);
        self.wanted = false;
        self.pressed = false;
        state.view_begin();
        let slots = engine.value_slots(state.view_slots().to_vec());
        self.phase = Phase::Viewing(meta, slots);
    }

    /// The state is about to be replaced by a snapshot: the view goes with it.
    pub(super) fn cancel<D: Disk>(&mut self, engine: &mut Engine<D>, state: &mut State) {
        match std::mem::take(&mut self.phase) {
            Phase::Idle => {}
            Phase::Viewing(..) => self.end_view(state),
            Phase::Streaming => {
                engine.checkpoint_abort(CheckpointOrigin::Local);
                self.end_view(state);
            }
            Phase::Finishing => engine.checkpoint_abort(CheckpointOrigin::Local),
        }
    }

    fn end_view(&mut self, state: &mut State) {
        self.remains.extend(state.view_end());
    }

    /// A state that another has taken the place of.
    pub(super) fn bury(&mut self, state: State) {
        self.remains.push(state.dismantle());
    }

    /// Drops a few nodes of what is left of views.
    pub(super) fn sweep(&mut self) {
        if let Some(remains) = self.remains.last_mut()
            && remains.work(TURN_NODES_MAX)
        {
            self.remains.pop();
        }
    }

    /// Whether there is a view to stream.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Viewing(..) | Phase::Streaming)
    }

    /// One turn's worth.
    pub(super) fn work<D: Disk>(&mut self, engine: &mut Engine<D>, state: &mut State, now: Micros) {
        self.open_file(engine, state, now);
        self.stream(engine, state);
    }

    /// Opens the file if the view's index is durable by now.
    fn open_file<D: Disk>(&mut self, engine: &mut Engine<D>, state: &mut State, now: Micros) {
        let Phase::Viewing(meta, slots) = &self.phase else { return };
        if engine.status().durable.index < meta.last.index.0 {
            return;
        }
        let at = Position { index: meta.last.index.0, term: meta.last.term.0 };
        let (announced, slots) = (state.view_bytes_estimate(), slots.clone());
        if let Err(error) = engine.checkpoint_begin(at, CheckpointOrigin::Local, announced, slots) {
            tracing::warn!(%error, "checkpoint put off");
            self.failed(state, now);
            return;
        }
        tracing::info!(index = at.index, bytes = announced, "checkpoint begun");
        let mut head = Vec::new();
        encode_head(meta, &mut head);
        engine.checkpoint_push(CheckpointOrigin::Local, &head);
        self.phase = Phase::Streaming;
    }

    /// Streams what there is room for.
    fn stream<D: Disk>(&mut self, engine: &mut Engine<D>, state: &mut State) {
        if !matches!(self.phase, Phase::Streaming) {
            return;
        }
        let room = engine.checkpoint_room(CheckpointOrigin::Local).min(TURN_BYTES_MAX);
        if room == 0 {
            return;
        }
        self.buffer.clear();
        let progress = state.view_next(room, &mut self.buffer);
        engine.checkpoint_push(CheckpointOrigin::Local, &self.buffer);
        if progress == ViewProgress::Done {
            engine.checkpoint_finish(CheckpointOrigin::Local);
            self.end_view(state);
            self.buffer = Vec::new();
            self.phase = Phase::Finishing;
        }
    }

    /// It is durable.
    pub(super) fn done(&mut self) {
        self.phase = Phase::Idle;
    }

    /// The engine gave it up.
    pub(super) fn failed(&mut self, state: &mut State, now: Micros) {
        self.retry_at = Micros(now.0 + RETRY_US);
        if matches!(self.phase, Phase::Viewing(..) | Phase::Streaming) {
            self.end_view(state);
        }
        self.phase = Phase::Idle;
    }
}

/// The body of a checkpoint starts with the position and the membership: length u32, then those bytes.
pub(super) fn encode_head(meta: &SnapshotMeta, out: &mut Vec<u8>) {
    let mut encoded = Vec::new();
    encode_snapshot_meta(meta, &mut encoded);
    out.extend_from_slice(&length_u32(encoded.len()).to_le_bytes());
    out.extend_from_slice(&encoded);
}
