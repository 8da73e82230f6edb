//! Keys: where each one's value lies, and since which revision.
//!
//! Short values lie in the index, longer ones where the log holds them: key and value of a command follow each other
//! there, and a location names the key's first byte. Locations are this node's own and no part of the state's hash.

use super::command::ExpectRef;
use super::hash::{Domain, ItemHash};
use super::snapshot;
use bytes::Bytes;
use engine::tree::{self, Range, Tree};
use engine::{Location, Wanted, value_footprint};
use std::collections::BTreeMap;
use std::fmt;

/// Values up to this long lie in the index: they need no more memory than their location would, all told.
pub const INLINE_BYTES_MAX: usize = 64;

/// Values that were read for the compares of an entry, by where they lie.
pub type Loaded = BTreeMap<Location, Bytes>;

/// A value as readers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueRef<'a> {
    /// Here it is.
    Inline(&'a [u8]),
    /// The key and then the value lie there.
    At(Location),
}

/// A key's value and history as readers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemRef<'a> {
    /// The value.
    pub value: ValueRef<'a>,
    /// The length of the value.
    pub value_bytes: u32,
    /// The CRC-32 of the value, as the command that set it carried it.
    pub checksum: u32,
    /// The revision that created the key, after it was last absent.
    pub create_revision: u64,
    /// The revision that last changed it.
    pub mod_revision: u64,
    /// How often it was set since it was created; 1 for a fresh one.
    pub version: u64,
    /// The session that it lives and ends with, or 0.
    pub session: u64,
}

impl ItemRef<'_> {
    /// How to read the value, if it is not here.
    pub fn wanted(&self, key: &[u8]) -> Option<Wanted> {
        let ValueRef::At(location) = self.value else { return None };
        let key = Bytes::copy_from_slice(key);
        Some(Wanted { location, key, value_bytes: self.value_bytes, checksum: self.checksum })
    }
}

/// The key that ends the range of all keys with this prefix: the first one after them. `None` when
/// nothing follows them.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Where a value is.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Inline(Box<[u8]>),
    At(Location),
}

const _: () = assert!(size_of::<Stored>() == 16);

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) value: Stored,
    pub(super) value_bytes: u32,
    pub(super) checksum: u32,
    pub(super) create_revision: u64,
    pub(super) mod_revision: u64,
    pub(super) version: u64,
    pub(super) session: u64,
}

const _: () = assert!(size_of::<Item>() == 56);

/// A value that a command brings, and where the command's key lies.
#[derive(Clone, Copy)]
pub(super) struct NewValue<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) checksum: u32,
    pub(super) place: Location,
}

impl NewValue<'_> {
    fn value_bytes(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a value is at most 8 MiB")
    }

    fn to_stored(self) -> Stored {
        if self.bytes.len() > INLINE_BYTES_MAX {
            Stored::At(self.place)
        } else {
            Stored::Inline(self.bytes.into())
        }
    }
}

impl Item {
    fn overwrite(&mut self, revision: u64, value: NewValue<'_>) {
        match &mut self.value {
            Stored::Inline(bytes) if bytes.len() == value.bytes.len() => {
                bytes.copy_from_slice(value.bytes);
            }
            stored @ (Stored::Inline(_) | Stored::At(_)) => *stored = value.to_stored(),
        }
        self.value_bytes = value.value_bytes();
        self.checksum = value.checksum;
        self.mod_revision = revision;
        self.version += 1;
    }

    pub(super) fn to_ref(&self) -> ItemRef<'_> {
        ItemRef {
            value: match &self.value {
                Stored::Inline(bytes) => ValueRef::Inline(bytes),
                Stored::At(location) => ValueRef::At(*location),
            },
            value_bytes: self.value_bytes,
            checksum: self.checksum,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            session: self.session,
        }
    }

    /// `key` is the hash so far, with the key absorbed.
    fn hash(&self, key: ItemHash) -> u128 {
        let value = u64::from(self.value_bytes) | u64::from(self.checksum) << 32;
        key.words([value, self.create_revision, self.mod_revision, self.version, self.session])
            .finish()
    }

    fn lies_at(&self, location: Location, checksum: u32) -> bool {
        matches!(self.value, Stored::At(at) if at == location) && self.checksum == checksum
    }

    /// Whether only the bytes themselves can tell if this is the value.
    fn resembles(&self, expected: &[u8]) -> bool {
        self.value_bytes as usize == expected.len() && self.checksum == crc32fast::hash(expected)
    }
}

fn hash_key(key: &[u8]) -> ItemHash {
    ItemHash::new(Domain::Key).bytes(key)
}

fn footprint(key: &[u8], item: &Item) -> u64 {
    value_footprint(key.len(), item.value_bytes as usize) as u64
}

/// What the keys come to. Invariant: every field is the sum over all items.
#[derive(Clone, Default)]
struct Totals {
    /// Of the items' hashes.
    hash: u128,
    /// Bytes of the items in a checkpoint.
    encoded_bytes: u64,
    /// What values that lie in the log would add to that.
    located_bytes: u64,
    /// What keys and values that lie in each slot take there.
    live_bytes: Vec<u64>,
}

impl Totals {
    fn add(&mut self, key: &[u8], hash: ItemHash, item: &Item) {
        self.hash = self.hash.wrapping_add(item.hash(hash));
        self.encoded_bytes += snapshot::key_bytes(key.len(), item);
        if let Stored::At(location) = item.value {
            self.located_bytes += snapshot::located_bytes(item.value_bytes);
            *self.live(location) += footprint(key, item);
        }
    }

    fn subtract(&mut self, key: &[u8], hash: ItemHash, item: &Item) {
        self.hash = self.hash.wrapping_sub(item.hash(hash));
        self.encoded_bytes -= snapshot::key_bytes(key.len(), item);
        if let Stored::At(location) = item.value {
            self.located_bytes -= snapshot::located_bytes(item.value_bytes);
            *self.live(location) -= footprint(key, item);
        }
    }

    fn merge(&mut self, other: &Totals) {
        self.hash = self.hash.wrapping_add(other.hash);
        self.encoded_bytes += other.encoded_bytes;
        self.located_bytes += other.located_bytes;
        if other.live_bytes.len() > self.live_bytes.len() {
            self.live_bytes.resize(other.live_bytes.len(), 0);
        }
        for (live, more) in self.live_bytes.iter_mut().zip(&other.live_bytes) {
            *live += more;
        }
    }

    fn live(&mut self, location: Location) -> &mut u64 {
        let slot = location.slot() as usize;
        if slot >= self.live_bytes.len() {
            self.live_bytes.resize(slot + 1, 0);
        }
        &mut self.live_bytes[slot]
    }
}

/// The keys of a view or a state that has had its day. Dropping it at once may take long.
pub struct Remains(tree::Remains<Item>);

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remains")
    }
}

impl Remains {
    pub(super) fn of(tree: Tree<Item>) -> Remains {
        Remains(tree.dismantle())
    }

    /// Drops at most so many nodes. Whether nothing is left.
    pub fn work(&mut self, nodes_max: usize) -> bool {
        self.0.work(nodes_max)
    }
}

/// All keys.
#[derive(Clone)]
pub(super) struct Keys {
    tree: Tree<Item>,
    totals: Totals,
}

impl Keys {
    pub(super) fn new() -> Keys {
        Keys { tree: Tree::new(), totals: Totals::default() }
    }

    pub(super) fn len(&self) -> u64 {
        self.tree.len()
    }

    pub(super) fn sum(&self) -> u128 {
        self.totals.hash
    }

    pub(super) fn recompute_sum(&self) -> u128 {
        let hash = |(key, item): (&[u8], &Item)| item.hash(hash_key(key));
        self.tree.iter().map(hash).fold(0, u128::wrapping_add)
    }

    pub(super) fn encoded_bytes(&self) -> u64 {
        self.totals.encoded_bytes
    }

    pub(super) fn located_bytes(&self) -> u64 {
        self.totals.located_bytes
    }

    /// The slots that hold values.
    pub(super) fn slots(&self) -> Vec<u32> {
        let live = (0..).zip(&self.totals.live_bytes);
        live.filter(|(_, bytes)| **bytes > 0).map(|(slot, _)| slot).collect()
    }

    /// What the values that lie in a slot take there.
    pub(super) fn live_bytes(&self, slot: u32) -> u64 {
        self.totals.live_bytes.get(slot as usize).copied().unwrap_or(0)
    }

    /// Whether this value of this key lies there.
    pub(super) fn lies_at(&self, key: &[u8], location: Location, checksum: u32) -> bool {
        self.tree.get(key).is_some_and(|item| item.lies_at(location, checksum))
    }

    /// The value lies at `to` from now on, if it lies at `from` now.
    pub(super) fn relocate(&mut self, key: &[u8], from: Location, to: Location, checksum: u32) {
        if !self.lies_at(key, from, checksum) {
            return;
        }
        let item = self.tree.get_mut(key).expect("it was just seen");
        let bytes = footprint(key, item);
        item.value = Stored::At(to);
        *self.totals.live(from) -= bytes;
        *self.totals.live(to) += bytes;
    }

    /// All items as they are now, at no cost.
    pub(super) fn view(&self) -> Tree<Item> {
        self.tree.clone()
    }

    pub(super) fn warm(&self, keys: &[&[u8]]) {
        self.tree.warm(keys);
    }

    pub(super) fn into_tree(self) -> Tree<Item> {
        self.tree
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<ItemRef<'_>> {
        self.tree.get(key).map(Item::to_ref)
    }

    /// 0 when the key does not exist.
    pub(super) fn mod_revision(&self, key: &[u8]) -> u64 {
        self.tree.get(key).map_or(0, |item| item.mod_revision)
    }

    pub(super) fn range<'a>(&'a self, start: &[u8], end: Option<&[u8]>) -> Range<'a, Item> {
        self.tree.range(start, end)
    }

    /// The value that must be loaded to tell whether the key holds these bytes.
    pub(super) fn compared(&self, key: &[u8], expected: &[u8]) -> Option<Wanted> {
        self.tree.get(key).filter(|item| item.resembles(expected))?.to_ref().wanted(key)
    }

    /// `value_at` gives the value bytes that lie somewhere in the log.
    pub(super) fn holds<'a>(
        &self,
        key: &[u8],
        expect: ExpectRef<'_>,
        value_at: impl FnOnce(Location, u32) -> &'a [u8],
    ) -> bool {
        let item = self.tree.get(key);
        match expect {
            ExpectRef::Absent => item.is_none(),
            ExpectRef::Value(expected) => {
                item.filter(|item| item.resembles(expected)).is_some_and(|item| match &item.value {
                    Stored::Inline(bytes) => **bytes == *expected,
                    Stored::At(location) => value_at(*location, item.value_bytes) == expected,
                })
            }
            ExpectRef::Revision(revision) => item.map_or(0, |item| item.mod_revision) == revision,
        }
    }

    pub(super) fn put(&mut self, revision: u64, key: &[u8], value: NewValue<'_>) {
        let hash = hash_key(key);
        if let Some(item) = self.tree.get_mut(key) {
            self.totals.subtract(key, hash, item);
            item.overwrite(revision, value);
            return self.totals.add(key, hash, item);
        }
        let item = Item {
            value: value.to_stored(),
            value_bytes: value.value_bytes(),
            checksum: value.checksum,
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            session: 0,
        };
        self.totals.add(key, hash, &item);
        self.tree.insert(key, item);
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(item) = self.tree.remove(key) else {
            return false;
        };
        self.totals.subtract(key, hash_key(key), &item);
        true
    }

    /// How many keys it removed.
    pub(super) fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) -> u64 {
        let keys: Vec<Box<[u8]>> = self.range(start, end).map(|(key, _)| key.into()).collect();
        for key in &keys {
            assert!(self.delete(key), "it was just seen");
        }
        keys.len() as u64
    }
}

/// Makes keys of items that come in order.
pub(super) struct KeysBuilder {
    tree: tree::Builder<Item>,
    totals: Totals,
    pub(super) count: u64,
    last: Vec<u8>,
}

impl KeysBuilder {
    pub(super) fn new() -> KeysBuilder {
        let (tree, totals) = (tree::Builder::new(), Totals::default());
        KeysBuilder { tree, totals, count: 0, last: Vec::new() }
    }

    /// Whether this key may be next.
    pub(super) fn takes(&self, key: &[u8]) -> bool {
        self.count == 0 || *self.last < *key
    }

    /// Requires: the keys come in order.
    pub(super) fn push(&mut self, key: &[u8], item: Item) {
        self.totals.add(key, hash_key(key), &item);
        self.tree.push(key, item);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.count += 1;
    }

    /// Adds keys that were put together elsewhere. Refused if they are not above those before.
    pub(super) fn push_stretch(&mut self, stretch: KeysStretch) -> Result<(), NotAscending> {
        let KeysStretch { run, totals, first, last, count, .. } = stretch;
        if !self.takes(&first) {
            return Err(NotAscending);
        }
        self.totals.merge(&totals);
        self.tree.push_run(run);
        self.last = last;
        self.count += count;
        Ok(())
    }

    pub(super) fn finish(self) -> Keys {
        Keys { tree: self.tree.finish(), totals: self.totals }
    }
}

/// Keys that come below some that are there.
#[derive(Debug)]
pub(super) struct NotAscending;

/// Consecutive keys, put together on any thread.
pub(super) struct KeysStretch {
    run: tree::Run<Item>,
    totals: Totals,
    /// The number of the first key among all.
    pub(super) first_key: u64,
    pub(super) count: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl KeysStretch {
    pub(super) fn new(first_key: u64) -> KeysStretch {
        let (run, totals) = (tree::Run::new(), Totals::default());
        KeysStretch { run, totals, first_key, count: 0, first: Vec::new(), last: Vec::new() }
    }

    /// Whether this key may be next.
    pub(super) fn takes(&self, key: &[u8]) -> bool {
        self.count == 0 || *self.last < *key
    }

    /// Requires: the keys come in order.
    pub(super) fn push(&mut self, key: &[u8], item: Item) {
        if self.count == 0 {
            self.first.extend_from_slice(key);
        }
        self.totals.add(key, hash_key(key), &item);
        self.run.push(key, item);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_is_the_first_key_after_the_prefix() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
