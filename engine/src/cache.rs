//! Values that were read from the disk, kept for those who want them again.
//!
//! Which ones stay when there is no room for all is decided by how often they were wanted, so that a scan does not
//! drive out what is read all the time.
//!
//! Invariant: what is found was read in the life of its slot that is asked for. Lives are told apart by their salts, see
//! [`crate::tail::Tail::life`].

use std::hash::{BuildHasherDefault, DefaultHasher};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::mutant::{self, Mutant};
use crate::types::{Location, Wanted};

/// What an entry takes beside its bytes: its place in the table, and what the allocator adds.
const OVERHEAD_BYTES: usize = 128;
/// For so many values of this size that were dropped is it remembered that they had been wanted.
const VALUE_BYTES_EXPECTED: usize = 512;
/// Parts with a lock and a table of their own. A table that grows is copied under its lock, which must not take long; so
/// there are more parts where more fits. They do not depend on the machine, and hashes have no seed, so that simulations
/// by one build go the same way everywhere.
const SHARD_BYTES: usize = 16 << 20;
const SHARDS_MIN: usize = 16;
/// A longer value is not kept: beside what reading it takes a look at the disk counts little, and it would drive out many
/// others.
const KEPT_BYTES_MAX: usize = 256 << 10;

type Hasher = BuildHasherDefault<DefaultHasher>;

/// Key and value as they lie in the log.
#[derive(Clone, Debug)]
struct Kept {
    life: u64,
    bytes: Bytes,
}

#[derive(Clone, Debug)]
struct BytesHeld;

impl Weighter<Location, Kept> for BytesHeld {
    fn weight(&self, _: &Location, kept: &Kept) -> u64 {
        (kept.bytes.len() + OVERHEAD_BYTES) as u64
    }
}

/// A cache of a number of bytes, overheads included.
#[derive(Debug)]
pub(crate) struct ValueCache {
    /// None where nothing is to be kept.
    kept: Option<Cache<Location, Kept, BytesHeld, Hasher>>,
    /// Longer ones, key included, are not kept.
    kept_bytes_max: usize,
}

impl ValueCache {
    pub(crate) fn new(bytes_max: usize) -> ValueCache {
        let shards = (bytes_max / SHARD_BYTES).max(SHARDS_MIN).next_power_of_two();
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(bytes_max / VALUE_BYTES_EXPECTED)
            .weight_capacity(bytes_max as u64)
            .build()
            .expect("both capacities are given");
        let (hasher, lifecycle) = (Hasher::default(), DefaultLifecycle::default());
        let make = || Cache::with_options(options, BytesHeld, hasher, lifecycle);
        let kept_bytes_max = KEPT_BYTES_MAX.min(bytes_max / SHARDS_MIN / 4);
        ValueCache { kept: (bytes_max > 0).then(make), kept_bytes_max }
    }

    /// Key and value at a location in this life of its slot.
    pub(crate) fn get(&self, location: Location, life: u64) -> Option<Bytes> {
        let kept = self.kept.as_ref()?.get(&location)?;
        (kept.life == life || mutant::is(Mutant::CacheAcrossLives)).then_some(kept.bytes)
    }

    /// Keeps a copy: the value may be a small part of what was read.
    pub(crate) fn put(&self, wanted: &Wanted, value: &[u8], life: u64) {
        if let Some(kept) = &self.kept
            && wanted.bytes() <= self.kept_bytes_max
        {
            let bytes = [&wanted.key, value].concat().into();
            kept.insert(wanted.location, Kept { life, bytes });
        }
    }

    /// What it holds, overheads included.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.kept.as_ref().map_or(0, Cache::weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_without_room_nor_what_would_fill_much_of_it() {
        let none = ValueCache::new(0);
        none.put(&wanted(1), b"value", 7);
        assert_eq!((none.get(wanted(1).location, 7), none.held_bytes()), (None, 0));
        let small = ValueCache::new(64 << 10);
        small.put(&Wanted { value_bytes: 2_000, ..wanted(1) }, &[1; 2_000], 7);
        assert_eq!(small.held_bytes(), 0);
        small.put(&Wanted { value_bytes: 500, ..wanted(1) }, &[1; 500], 7);
        assert!(small.get(wanted(1).location, 7).is_some());
    }

    fn wanted(number: u64) -> Wanted {
        let location = Location::new(1, 4_096 * (number + 1));
        Wanted { location, key: Bytes::from_static(b"key"), value_bytes: 1_000, checksum: 0 }
    }

    #[test]
    fn a_value_is_found_in_the_life_of_the_slot_that_it_was_read_in() {
        let cache = ValueCache::new(1 << 20);
        cache.put(&wanted(1), b"value", 7);
        assert_eq!(cache.get(wanted(1).location, 7).as_deref(), Some(&b"keyvalue"[..]));
        assert_eq!(cache.get(wanted(1).location, 8), None);
        assert_eq!(cache.get(wanted(2).location, 7), None);
    }

    #[test]
    fn it_holds_no_more_than_it_may_and_a_scan_leaves_what_is_wanted_often() {
        let cache = ValueCache::new(4 << 20);
        let is_there = |number| cache.get(wanted(number).location, 1).is_some();
        (0..100).for_each(|number| cache.put(&wanted(number), &[7; 1_000], 1));
        for _ in 0..3 {
            assert!((0..100).all(is_there));
        }
        (1_000..50_000).for_each(|number| cache.put(&wanted(number), &[7; 1_000], 1));
        assert!(cache.held_bytes() <= 4 << 20);
        assert!((0..100).filter(|number| is_there(*number)).count() > 90);
    }
}
