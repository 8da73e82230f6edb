//! Keys: what each holds, and since which revision.

use super::command::ExpectRef;
use super::hash::{Domain, ItemHash};
use super::key::Key;
use super::snapshot;
use super::table::Table;
use std::ops::Bound;

/// A key's value and history as readers see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemRef<'a> {
    /// The value.
    pub value: &'a [u8],
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

/// The key that ends the range of all keys with this prefix: the first one after them. `None` when
/// nothing follows them.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[derive(Clone)]
pub(super) struct Item {
    pub(super) value: Box<[u8]>,
    pub(super) checksum: u32,
    pub(super) create_revision: u64,
    pub(super) mod_revision: u64,
    pub(super) version: u64,
    pub(super) session: u64,
}

impl Item {
    /// Sets the value, in its place when the length is the same.
    fn overwrite(&mut self, revision: u64, value: &[u8], checksum: u32) {
        if self.value.len() == value.len() {
            self.value.copy_from_slice(value);
        } else {
            self.value = value.into();
        }
        self.checksum = checksum;
        self.mod_revision = revision;
        self.version += 1;
    }

    fn to_ref(&self) -> ItemRef<'_> {
        ItemRef {
            value: &self.value,
            checksum: self.checksum,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            session: self.session,
        }
    }

    /// `key` is the hash so far, with the key absorbed.
    fn hash(&self, key: ItemHash) -> u128 {
        let value = self.value.len() as u64 | u64::from(self.checksum) << 32;
        key.words([value, self.create_revision, self.mod_revision, self.version, self.session])
            .finish()
    }

    fn encoded_bytes(&self, key: &Key) -> u64 {
        snapshot::key_bytes(key.as_slice().len(), self.value.len())
    }
}

/// All keys from `start` on and before `end`; none when `end` is not after `start`.
fn bounds(start: &[u8], end: Option<&[u8]>) -> (Bound<Key>, Bound<Key>) {
    let end = end.map(|end| Key::new(end.max(start)));
    (Bound::Included(Key::new(start)), end.map_or(Bound::Unbounded, Bound::Excluded))
}

fn hash_key(key: &[u8]) -> ItemHash {
    ItemHash::new(Domain::Key).bytes(key)
}

/// Invariant: `sum` is the sum of the items' hashes, `bytes` that of their sizes in a snapshot.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) table: Table<Key, Item>,
    sum: u128,
    bytes: u64,
}

impl Keys {
    pub(super) fn new() -> Keys {
        Keys { table: Table::new(), sum: 0, bytes: 0 }
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    pub(super) fn recompute_sum(&self) -> u128 {
        let hash = |(key, item): (&Key, &Item)| item.hash(hash_key(key.as_slice()));
        self.table.iter().map(hash).fold(0, u128::wrapping_add)
    }

    pub(super) fn encoded_bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<ItemRef<'_>> {
        self.table.get(&Key::new(key)).map(Item::to_ref)
    }

    /// 0 when the key does not exist.
    pub(super) fn mod_revision(&self, key: &[u8]) -> u64 {
        self.table.get(&Key::new(key)).map_or(0, |item| item.mod_revision)
    }

    pub(super) fn range<'a>(
        &'a self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], ItemRef<'a>)> + use<'a> {
        let items = self.table.range(bounds(start, end));
        items.map(|(key, item)| (key.as_slice(), item.to_ref()))
    }

    pub(super) fn holds(&self, key: &[u8], expect: ExpectRef<'_>) -> bool {
        let item = self.table.get(&Key::new(key));
        match expect {
            ExpectRef::Absent => item.is_none(),
            ExpectRef::Value(expected) => item.is_some_and(|item| *item.value == *expected),
            ExpectRef::Revision(revision) => item.map_or(0, |item| item.mod_revision) == revision,
        }
    }

    pub(super) fn put(&mut self, revision: u64, key: &[u8], value: &[u8], checksum: u32) {
        let (hash, key) = (hash_key(key), Key::new(key));
        let Some(item) = self.table.get_mut(&key) else {
            let item = Item {
                value: value.into(),
                checksum,
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                session: 0,
            };
            return self.add(key, hash, item);
        };
        let (sum, bytes) = (item.hash(hash), item.encoded_bytes(&key));
        item.overwrite(revision, value, checksum);
        self.sum = self.sum.wrapping_sub(sum).wrapping_add(item.hash(hash));
        self.bytes = self.bytes - bytes + item.encoded_bytes(&key);
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.delete_key(&Key::new(key))
    }

    fn delete_key(&mut self, key: &Key) -> bool {
        let look = |item: &Item| (item.hash(hash_key(key.as_slice())), item.encoded_bytes(key));
        let Some((sum, bytes)) = self.table.remove(key, look) else {
            return false;
        };
        self.sum = self.sum.wrapping_sub(sum);
        self.bytes -= bytes;
        true
    }

    /// How many keys it removed.
    pub(super) fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) -> u64 {
        let Keys { table, sum, bytes } = self;
        table.remove_range(bounds(start, end), |key, item| {
            *sum = sum.wrapping_sub(item.hash(hash_key(key.as_slice())));
            *bytes -= item.encoded_bytes(key);
        })
    }

    /// Adds an item that a snapshot holds.
    ///
    /// Requires: its key is absent.
    pub(super) fn restore(&mut self, key: Key, item: Item) {
        let hash = hash_key(key.as_slice());
        self.add(key, hash, item);
    }

    fn add(&mut self, key: Key, hash: ItemHash, item: Item) {
        self.sum = self.sum.wrapping_add(item.hash(hash));
        self.bytes += item.encoded_bytes(&key);
        self.table.insert(key, item);
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
