//! What a node does while there is no room: on its own disk, or on those of a majority.
//!
//! ```text
//! the room of       refused by the leader                          granted by a follower   done by both
//! Plenty            nothing                                        half a slot at a time
//! Low               what stores bytes: ResourceExhausted           a little                checkpoints that free slots
//! Full              all of clients; what frees: TooManyRequests    nothing                 a checkpoint
//! ```
//!
//! A follower does not know what an entry does before it is committed, so what it grants is what tells the leader that
//! there is no room: the leader refuses for a majority what it would refuse for itself, because entries that a majority
//! cannot take would keep those that free space from ever getting there.
//!
//! A slot is free two checkpoints after the last value in it has gone, and a checkpoint needs an applied entry that
//! the last one did not hold. When nobody may write, nobody makes one: so the leader then proposes an empty entry each
//! second.

use engine::Engine;
use engine::io::Disk;
use protocol::ErrorCode;
use raft::{Micros, RoleKind};

use super::{Outbox, Proposal, Replica, Room, Stop};
use crate::state_machine::State;

/// The most that a node with room grants its leader to send ahead.
const CREDIT_BYTES_MAX: u32 = 32 << 20;

/// What a node without room grants: entries that free space must get through.
const CREDIT_LOW_BYTES: u32 = 64 << 10;

/// What a full node grants that needs nothing but one more entry for the checkpoint that frees slots.
const CREDIT_NEXT_BYTES: u32 = 4 << 10;

/// An empty entry follows the last one after this time.
const EMPTY_AFTER_US: u64 = 1_000_000;

/// When a client may ask again whether there has been a checkpoint.
const RETRY_AFTER_MS: u32 = 50;

/// What the loop remembers about space.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Bytes of commands that were taken in this turn, and that the log does not know of yet.
    taken_bytes: u64,
    /// When the last command was taken, or the last empty entry proposed.
    last_entry: Micros,
    /// The checkpoint's size was last looked at when there was so much log since the one before.
    sized_at: Option<u64>,
}

impl Space {
    /// A command goes into an entry.
    pub(super) fn take(&mut self, bytes: usize, now: Micros) {
        self.taken_bytes += bytes as u64;
        self.last_entry = now;
    }

    /// What was taken is in the log's hands.
    pub(super) fn handed_over(&mut self) {
        self.taken_bytes = 0;
    }

    /// Tells the log now and then what a checkpoint of the state would take: once for every quarter of a slot.
    fn expect_checkpoint<D: Disk>(&mut self, engine: &mut Engine<D>, state: &State) {
        let part = engine.log_bytes_since_checkpoint() / (engine.meta().slot_bytes / 4);
        if self.sized_at != Some(part) {
            self.sized_at = Some(part);
            engine.expect_checkpoint(state.view_bytes_estimate());
        }
    }
}

impl<D: Disk, O: Outbox> Replica<D, O> {
    /// The room of this node or, where a majority has less, of that.
    fn room(&self) -> engine::Room {
        let own = self.engine.room();
        let majority = match self.raft.majority_credit_bytes() {
            Some(bytes) if bytes < CREDIT_LOW_BYTES => engine::Room::Full,
            Some(bytes) if bytes == CREDIT_LOW_BYTES => engine::Room::Low,
            Some(_) | None => engine::Room::Plenty,
        };
        match (own, majority) {
            (engine::Room::Full, _) | (_, engine::Room::Full) => engine::Room::Full,
            (engine::Room::Low, _) | (_, engine::Room::Low) => engine::Room::Low,
            (engine::Room::Plenty, engine::Room::Plenty) => engine::Room::Plenty,
        }
    }

    /// Why there is no room for this proposal, if there is none.
    pub(super) fn lack_of_room(&self, proposal: &Proposal) -> Option<protocol::Error> {
        let room = self.room();
        if proposal.room == Room::Needs && room != engine::Room::Plenty {
            return Some(protocol::Error::not_done(
                ErrorCode::ResourceExhausted,
                "there is no room for new data on the leader's disk or on those of a majority; free space or delete keys",
            ));
        }
        let bytes = self.space.taken_bytes + proposal.command.len() as u64;
        if room == engine::Room::Full || bytes > self.engine.appendable_bytes() {
            let message =
                "the disk is behind: what is written now waits for a checkpoint or for a slot";
            let error = protocol::Error::not_done(ErrorCode::TooManyRequests, message);
            return Some(error.with_retry_after_ms(RETRY_AFTER_MS));
        }
        None
    }

    /// The room has changed.
    pub(super) fn handle_room(&mut self, room: engine::Room) {
        match room {
            engine::Room::Low => {
                tracing::warn!("the disk is full: data is refused until space is free");
            }
            engine::Room::Full => {
                tracing::warn!("the disk is full: everything waits for a checkpoint");
            }
            engine::Room::Plenty => tracing::info!("the disk has room again"),
        }
        self.mind_space();
    }

    /// Looks at what space asks for; once a tick.
    pub(super) fn mind_space(&mut self) {
        self.space.expect_checkpoint(&mut self.engine, &self.state.read());
        let is_moved = self.applied.index.0 > self.newest_checkpoint();
        let frees = self.would_free();
        let is_waited_for = frees || self.engine.room() == engine::Room::Full;
        self.checkpointer.press(is_moved && is_waited_for);
        let needs_entry = frees && !is_moved;
        self.raft.set_credit(self.credit_bytes(needs_entry));
        if needs_entry || self.room() != engine::Room::Plenty {
            self.maybe_propose_empty();
        }
    }

    /// Whether slots are wanted, and two checkpoints would give back one or more. While there is room, they must give back
    /// more than they take to write.
    fn would_free(&self) -> bool {
        if !self.engine.is_short_of_slots() {
            return false;
        }
        let state = self.state.read();
        let live_bytes = |slot| state.live_bytes(slot);
        let bytes = self.engine.freeable_bytes(self.applied.index.0, &live_bytes);
        let newest = self.engine.checkpoints().first().map_or(0, |info| info.body_bytes);
        let is_worth_it = bytes >= newest.saturating_mul(2);
        let has_room = self.engine.room() == engine::Room::Plenty;
        bytes >= self.engine.meta().slot_bytes && (is_worth_it || !has_room)
    }

    fn credit_bytes(&self, needs_entry: bool) -> u32 {
        match self.engine.room() {
            engine::Room::Plenty => {
                let half = self.engine.meta().slot_bytes / 2;
                u32::try_from(half).unwrap_or(u32::MAX).min(CREDIT_BYTES_MAX)
            }
            engine::Room::Low => CREDIT_LOW_BYTES,
            engine::Room::Full if needs_entry => CREDIT_NEXT_BYTES,
            engine::Room::Full => 0,
        }
    }

    /// An empty entry, if this node leads and none of any kind came for a while.
    fn maybe_propose_empty(&mut self) {
        let leads = self.raft.role() == RoleKind::Leader && self.stop == Stop::No;
        if leads && self.now.0 >= self.space.last_entry.0 + EMPTY_AFTER_US {
            self.space.last_entry = self.now;
            self.raft.propose_noop().expect("this node leads");
        }
    }
}
