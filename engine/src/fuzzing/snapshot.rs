//! A snapshot of a peer on its way in: its values get their places here, one batch each, before its checkpoint is begun.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cabinet::{Cabinet, KEY_BYTES, Value};
use super::oracle::payload;
use super::world::World;
use crate::codec::crc;
use crate::types::{Location, Position};
use crate::value_batch::ValueBatch;

/// A value without a place yet.
struct Waiting {
    /// The name of its batch.
    id: u64,
    /// Where in the batch its key lies.
    start: usize,
    payload: Bytes,
}

/// Those of its values that have a place, and those that wait.
pub(super) struct Snapshot {
    waiting: VecDeque<Waiting>,
    placed: Vec<Value>,
}

impl Snapshot {
    /// Queues its values: `count` of `bytes` each. `name` is no other snapshot's.
    pub(super) fn queue(world: &mut World, name: Position, count: u64, bytes: usize) -> Snapshot {
        let bytes = bytes.min(world.engine().entry_bytes_max() / 2);
        let queue = |number: u64| {
            // No write has such a number, so no entry has such a key.
            let payload = payload(!number, name, KEY_BYTES + bytes);
            let (key, value) = payload.split_at(KEY_BYTES);
            let mut batch = ValueBatch::default();
            let start = batch.push(key, value, crc(value));
            Waiting { id: world.engine().append_values(batch), start, payload }
        };
        Snapshot { waiting: (0..count).map(queue).collect(), placed: Vec::new() }
    }

    /// A batch has got its place. It may be one of a snapshot that was given up.
    pub(super) fn place(&mut self, id: u64, location: Location) {
        let next = self.waiting.pop_front_if(|next| next.id == id);
        if let Some(Waiting { start, payload, .. }) = next {
            self.placed.extend(Value::of(location.plus(start), &payload));
        }
    }

    /// Whether every value has its place.
    pub(super) fn is_placed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The state that it is, after the entry at `index`.
    pub(super) fn into_cabinet(self, index: u64) -> Cabinet {
        Cabinet::of_snapshot(index, self.placed)
    }
}
