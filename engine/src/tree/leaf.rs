//! The nodes that hold the items.

use super::fences::Fences;
use super::heads::{FANOUT, Heads};
use super::key::{Key, Keyed};
use super::node::{WIDTH_JOINED_MAX, insert_tightly, trim};

#[derive(Clone)]
pub(super) struct Item<V> {
    pub(super) key: Key,
    pub(super) value: V,
}

impl<V> Keyed for Item<V> {
    fn key(&self) -> &Key {
        &self.key
    }
}

#[derive(Clone)]
#[repr(C)]
pub(super) struct Leaf<V> {
    heads: Heads,
    items: Vec<Item<V>>,
}

impl<V> Leaf<V> {
    pub(super) const EMPTY: Leaf<V> = Leaf { heads: Heads::EMPTY, items: Vec::new() };

    /// Requires: `items` ascend between the fences and are at most `FANOUT`.
    pub(super) fn new(items: Vec<Item<V>>, fences: Fences<'_>) -> Leaf<V> {
        Leaf { heads: Heads::of(&items, fences), items }
    }

    pub(super) fn items(&self) -> &[Item<V>] {
        &self.items
    }

    /// Where the key is, or where it would be.
    #[inline]
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.search(&self.items, key)
    }

    /// Reads a word of each cache line of its heads; the last of them, or the one behind it, says where the items are.
    #[inline]
    pub(super) fn touch(&self) -> usize {
        self.heads.touch()
    }

    /// Where a key probably is.
    #[inline]
    pub(super) fn guess(&self, key: &[u8]) -> usize {
        self.heads.guess(key)
    }

    /// Reads the item at a place, and the beginning of the next, where the lines of its value end.
    #[inline]
    pub(super) fn touch_item(&self, at: usize) -> usize {
        self.items.iter().skip(at).take(2).fold(0, |sum, item| sum ^ item.key.touch())
    }

    pub(super) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.items[at].value
    }

    /// Adds a key. An overfull leaf is split, and its upper part returned with the separator.
    ///
    /// Requires: the key is absent.
    pub(super) fn insert(
        &mut self,
        fences: Fences<'_>,
        key: &[u8],
        value: V,
    ) -> Option<(Key, Leaf<V>)> {
        let at = self.search(key).expect_err("the key is absent");
        insert_tightly(&mut self.items, at, Item { key: Key::new(key), value });
        if self.items.len() <= FANOUT {
            self.heads.insert(at, &self.items, fences);
            return None;
        }
        // Ascending keys leave full leaves behind.
        let appended = fences.is_rightmost() && at == FANOUT;
        Some(self.split(if appended { FANOUT } else { FANOUT / 2 }, fences))
    }

    /// Requires: the key is present.
    pub(super) fn remove(&mut self, key: &[u8]) -> V {
        let at = self.search(key).expect("the key is present");
        self.heads.remove(at);
        let item = self.items.remove(at);
        trim(&mut self.items);
        item.value
    }

    /// Takes over the items of the sibling to the right. If they are many, both are levelled and one is returned.
    pub(super) fn join(
        &mut self,
        mut right: Leaf<V>,
        fences: Fences<'_>,
    ) -> Option<(Key, Leaf<V>)> {
        self.items.reserve_exact(right.items.len());
        self.items.append(&mut right.items);
        if self.items.len() > WIDTH_JOINED_MAX {
            return Some(self.split(self.items.len() / 2, fences));
        }
        self.set_fences(fences);
        None
    }

    pub(super) fn set_fences(&mut self, fences: Fences<'_>) {
        self.heads = Heads::of(&self.items, fences);
    }

    fn split(&mut self, at: usize, fences: Fences<'_>) -> (Key, Leaf<V>) {
        let right = self.items.split_off(at);
        trim(&mut self.items);
        let separator = Key::between(self.items[at - 1].key.as_slice(), right[0].key.as_slice());
        let (below, above) = fences.split(&separator);
        self.set_fences(below);
        let right = Leaf::new(right, above);
        (separator, right)
    }

    #[cfg(test)]
    pub(super) fn check(&self, fences: Fences<'_>) {
        self.heads.check(&self.items, fences);
        assert!(self.items.capacity() < self.items.len() + 2 * super::node::GROWTH);
    }
}
