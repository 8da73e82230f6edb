//! A caller's state as the engine knows one: which values are live, and where they lie. Checkpoints of scripts are of
//! it, and the cleaner moves what it shows as live.
//!
//! The payload of an entry is a key and its value, and no two payloads have the same. An entry takes the drawer that its
//! index chooses, and what lay there is dead. Most drawers change hands rarely: what is in them outlives the rest of its
//! slot many times over, which is what a cleaner is for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::cleaner::ValueIndex;
use crate::codec::crc;
use crate::types::{Location, Wanted};
use crate::value_batch::{StoredValue, value_footprint};

/// Keys are the first bytes of a payload, values are the rest of it.
pub(super) const KEY_BYTES: usize = 16;
/// One entry in so many takes one of the drawers that change hands rarely.
const COLD_EVERY: u64 = 4;
const COLD_DRAWERS: u64 = 7;
const HOT_DRAWERS: u64 = 2;

/// A live value: where and what.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// How it is asked for.
    pub(super) wanted: Wanted,
    /// What must come.
    pub(super) bytes: Bytes,
}

impl Value {
    /// The value in a payload that lies here; an empty one is none.
    pub(super) fn of(location: Location, payload: &Bytes) -> Option<Value> {
        let bytes = payload.get(KEY_BYTES..).filter(|bytes| !bytes.is_empty())?;
        let wanted = Wanted {
            location,
            key: payload.slice(..KEY_BYTES),
            value_bytes: u32::try_from(bytes.len()).expect("a payload fits a frame"),
            checksum: crc(bytes),
        };
        Some(Value { wanted, bytes: payload.slice(KEY_BYTES..) })
    }
}

/// The state after an entry.
#[derive(Clone, Default, Debug)]
pub(super) struct Cabinet {
    /// That entry.
    pub(super) applied: u64,
    drawers: BTreeMap<u64, Value>,
}

impl Cabinet {
    /// That of a snapshot of a peer, whose values have been given these places.
    pub(super) fn of_snapshot(applied: u64, values: Vec<Value>) -> Cabinet {
        Cabinet { applied, drawers: (HOT_DRAWERS..).zip(values).collect() }
    }

    /// The next entry is applied. An empty value leaves its drawer empty.
    pub(super) fn apply(&mut self, location: Location, payload: &Bytes) {
        self.applied += 1;
        let drawer = drawer_of(self.applied);
        match Value::of(location, payload) {
            Some(value) => self.drawers.insert(drawer, value),
            None => self.drawers.remove(&drawer),
        };
    }

    /// What is live.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.drawers.values()
    }

    /// The slots that hold something live.
    pub(super) fn slots(&self) -> BTreeSet<u32> {
        self.values().map(|value| value.wanted.location.slot()).collect()
    }
}

fn drawer_of(index: u64) -> u64 {
    if index.is_multiple_of(COLD_EVERY) {
        HOT_DRAWERS + index / COLD_EVERY % COLD_DRAWERS
    } else {
        index % HOT_DRAWERS
    }
}

impl ValueIndex for Cabinet {
    fn live_bytes(&self, slot: u32) -> u64 {
        let there = self.values().filter(|value| value.wanted.location.slot() == slot);
        there.map(|value| value_footprint(KEY_BYTES, value.bytes.len()) as u64).sum()
    }

    fn values_of(&self, _: u8, payload: &[u8], show: &mut dyn FnMut(StoredValue<'_>)) {
        if let Some((key, value)) = payload.split_at_checked(KEY_BYTES) {
            show(StoredValue { start: 0, key, value, checksum: crc(value) });
        }
    }

    fn is_live(&self, key: &[u8], at: Location, checksum: u32) -> bool {
        self.values().any(|value| is_it(value, key, at, checksum))
    }

    fn relocate(&mut self, key: &[u8], from: Location, to: Location, checksum: u32) {
        let live = self.drawers.values_mut().find(|value| is_it(value, key, from, checksum));
        if let Some(value) = live {
            value.wanted.location = to;
        }
    }
}

fn is_it(value: &Value, key: &[u8], at: Location, checksum: u32) -> bool {
    let Wanted { location, key: known, checksum: of_value, .. } = &value.wanted;
    *location == at && *of_value == checksum && known == key
}
