//! Values that were read from the disk, kept for those who want them again.
//!
//! Which ones stay when there is no room for all is decided by how often they were wanted, so that a scan does not
//! drive out what is read all the time.
//!
//! Invariant: what is found was written in the slot's present life. A slot's lives are told apart by their salts.

use std::hash::{BuildHasherDefault, DefaultHasher};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::mutant::{self, Mutant};
use crate::types::{Location, Wanted};

/// What an entry takes beside its bytes: its place in the table, and what the allocator adds.
const OVERHEAD_BYTES: usize = 128;
/// The table begins with room for values of this size; it grows if they are shorter.
const VALUE_BYTES_EXPECTED: usize = 1024;
/// Parts with a lock of their own. They do not depend on the machine, and neither does the order of a hash, so that a
/// simulation goes the same way everywhere.
const SHARDS: usize = 16;

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
pub(crate) struct ValueCache(Cache<Location, Kept, BytesHeld, Hasher>);

impl ValueCache {
    pub(crate) fn new(bytes_max: usize) -> ValueCache {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(bytes_max / VALUE_BYTES_EXPECTED)
            .weight_capacity(bytes_max as u64)
            .build()
            .expect("both capacities are given");
        let hasher = Hasher::default();
        ValueCache(Cache::with_options(options, BytesHeld, hasher, DefaultLifecycle::default()))
    }

    /// Key and value at a location in this life of its slot.
    pub(crate) fn get(&self, location: Location, life: u64) -> Option<Bytes> {
        let kept = self.0.get(&location)?;
        (kept.life == life || mutant::is(Mutant::CacheAcrossLives)).then_some(kept.bytes)
    }

    /// Keeps a copy: the value may be a small part of what was read.
    pub(crate) fn put(&self, wanted: &Wanted, value: &[u8], life: u64) {
        let bytes = [&wanted.key, value].concat().into();
        self.0.insert(wanted.location, Kept { life, bytes });
    }

    /// What it holds, overheads included.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.0.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
