//! How much room there is, in words that say what may be proposed.
//!
//! ```text
//! Plenty   slots are ready ahead of need, or can be made
//! Low      none can be made: the reserve takes what frees space and holds a cluster together
//! Full     of that, enough is written for now: the next checkpoint comes first
//! ```
//!
//! What frees space is itself written to the log, and gives its slot back only two checkpoints later. So it is paced by
//! checkpoints: half a slot of log from the moment that the room is low, and again from the begin of each checkpoint
//! that becomes durable. The log after the older of two checkpoints is then about one slot long, and the reserve never
//! runs out, whatever is proposed and however little it frees.

use crate::mutant::{self, Mutant};
use crate::types::Room;

/// What the room depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Too few slots are free, and none can be made.
    pub(crate) is_starved: bool,
    /// Entries get no further slot.
    pub(crate) is_exhausted: bool,
    /// What the open segment has left.
    pub(crate) open_bytes_left: u64,
    /// Bytes of segments filled since the open.
    pub(crate) consumed_bytes: u64,
}

/// Tells how much room there is.
#[derive(Debug)]
pub(crate) struct Gauge {
    room: Room,
    slot_bytes: u64,
    /// What the log had consumed when the present half of a slot began.
    paced_from: u64,
}

impl Gauge {
    pub(crate) fn new(slot_bytes: u64) -> Gauge {
        Gauge { room: Room::Plenty, slot_bytes, paced_from: 0 }
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// How much of what frees space may still be written before the next checkpoint. Only while the room is not plenty.
    pub(crate) fn pace_bytes_left(&self, consumed_bytes: u64) -> u64 {
        (self.slot_bytes / 2).saturating_sub(consumed_bytes - self.paced_from)
    }

    /// A checkpoint is durable that was begun when the log had consumed so much.
    pub(crate) fn checkpoint_begun_at(&mut self, consumed_bytes: u64) {
        self.paced_from = self.paced_from.max(consumed_bytes);
    }

    /// Looks again; the room if it has changed.
    pub(crate) fn observe(&mut self, reading: Reading) -> Option<Room> {
        if self.room == Room::Plenty {
            self.paced_from = reading.consumed_bytes;
        }
        let room = self.of(reading);
        (room != std::mem::replace(&mut self.room, room)).then_some(room)
    }

    fn of(&self, reading: Reading) -> Room {
        let is_spent = self.pace_bytes_left(reading.consumed_bytes) == 0;
        // What is left of the open segment then is for raft's own entries.
        let is_at_end = reading.is_exhausted && reading.open_bytes_left < self.slot_bytes / 4;
        match reading.is_starved {
            true if mutant::is(Mutant::PaceIgnored) => Room::Low,
            false => Room::Plenty,
            true if is_spent || is_at_end => Room::Full,
            true => Room::Low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u64 = 1 << 20;

    fn starved(consumed_bytes: u64) -> Reading {
        Reading { is_starved: true, is_exhausted: false, open_bytes_left: SLOT, consumed_bytes }
    }

    #[test]
    fn what_frees_space_is_paced_by_checkpoints() {
        let mut gauge = Gauge::new(SLOT);
        assert_eq!(gauge.observe(Reading { is_starved: false, ..starved(5 * SLOT) }), None);
        assert_eq!(gauge.observe(starved(6 * SLOT)), Some(Room::Low), "counted from here on");
        assert_eq!(gauge.observe(starved(6 * SLOT + SLOT / 2 - 1)), None);
        assert_eq!(gauge.observe(starved(6 * SLOT + SLOT / 2)), Some(Room::Full));
        gauge.checkpoint_begun_at(6 * SLOT - 1);
        assert_eq!(gauge.observe(starved(6 * SLOT + SLOT / 2)), None, "it was begun before that");
        gauge.checkpoint_begun_at(6 * SLOT + 1);
        assert_eq!(gauge.observe(starved(6 * SLOT + SLOT / 2)), Some(Room::Low));
        let plenty = Reading { is_starved: false, ..starved(7 * SLOT) };
        assert_eq!(gauge.observe(plenty), Some(Room::Plenty));
    }

    #[test]
    fn without_a_further_slot_the_rest_of_the_open_one_is_kept() {
        let mut gauge = Gauge::new(SLOT);
        let reading = Reading { is_exhausted: true, open_bytes_left: SLOT / 4, ..starved(0) };
        assert_eq!(gauge.observe(reading), Some(Room::Low));
        let reading = Reading { open_bytes_left: SLOT / 4 - 1, ..reading };
        assert_eq!(gauge.observe(reading), Some(Room::Full));
        assert_eq!(gauge.observe(Reading { is_exhausted: false, ..reading }), Some(Room::Low));
    }
}
