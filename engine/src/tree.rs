//! The index: an ordered map from byte keys to values of which a view costs nothing.
//!
//! A B+tree of reference-counted nodes. A clone shares them all; a change goes in place where nobody shares a node
//! and copies it where somebody does, so a view stays what it was and an update beside a view copies its path.
//!
//! ```text
//! Inner  heads [4 B; 64] | separators, children, their counts     separator <= keys of a child < next separator
//! Leaf   heads [4 B; 64] | items (key 32 B, value), grown eight at a time
//! ```
//!
//! - Every leaf is equally deep. But for the root, an inner node has at least two children, a leaf at least one item.
//! - The two separators around a node are its fences. Every key that reaches the node lies between them and so begins
//!   with the bytes they share. A node's heads are four bytes of each of its keys after that prefix. At the edges of
//!   the tree a fence is missing: such a node skips what its own keys share, and a search compares that first.
//! - Only siblings are merged or levelled, so a separator that goes away is never a fence of anything but those two.
//!
//! A search counts the heads below its own, whose few cache lines load at once, and compares whole keys only where
//! heads are equal. In a tree much larger than the caches it waits for a leaf's heads, then for the item.
//!
//! It holds no lock and knows nothing of revisions, files or what a value means.

mod build;
mod fences;
mod heads;
mod inner;
mod key;
mod leaf;
mod node;
mod range;
mod remains;
#[cfg(test)]
mod tests;
mod warm;

pub use build::{Builder, Run};
pub use range::Range;
pub use remains::Remains;

use fences::Fences;
use leaf::Leaf;
use node::Node;
use std::mem;

/// An ordered map from byte keys to values; a clone is a view that no later change reaches.
#[derive(Clone)]
pub struct Tree<V> {
    root: Node<V>,
    len: u64,
}

impl<V> Default for Tree<V> {
    fn default() -> Tree<V> {
        Tree { root: Leaf::EMPTY.into(), len: 0 }
    }
}

impl<V: Clone> Tree<V> {
    /// An empty tree.
    pub fn new() -> Tree<V> {
        Tree::default()
    }

    /// How many keys there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.root.get(key)
    }

    /// Loads what searches for these keys will read, for a caller that is about to look for or change all of them.
    ///
    /// A search in a tree much larger than the caches waits for memory several times over; those of many keys can wait
    /// together.
    pub fn warm(&self, keys: &[&[u8]]) {
        warm::warm(&self.root, keys);
    }

    /// The value of a key, to be changed. Copies the nodes on its path that a view shares, and none if it is absent.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let path = self.root.find(key)?;
        Some(self.root.value_mut(&path))
    }

    /// Sets the value of a key and returns the one it had.
    pub fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        if let Some(present) = self.get_mut(key) {
            return Some(mem::replace(present, value));
        }
        if let Some(split) = self.root.insert(Fences::NONE, key, value) {
            self.root.grow(split);
        }
        self.len += 1;
        None
    }

    /// Removes a key and returns its value. Beside its path, a sibling of each node on it may be copied.
    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        self.root.get(key)?;
        let value = self.root.remove(Fences::NONE, key);
        self.root.shrink();
        self.len -= 1;
        Some(value)
    }

    /// The keys from `start` on and before `end`, in order, from either side. None if `end <= start`.
    pub fn range<'a>(&'a self, start: &[u8], end: Option<&[u8]>) -> Range<'a, V> {
        let first = self.root.rank(start);
        Range::new(&self.root, first..self.rank_of_end(end).max(first))
    }

    /// Every key in order.
    pub fn iter(&self) -> Range<'_, V> {
        Range::new(&self.root, 0..self.len)
    }

    /// How many keys there are from `start` on and before `end`, without visiting them.
    pub fn count(&self, start: &[u8], end: Option<&[u8]>) -> u64 {
        self.rank_of_end(end).saturating_sub(self.root.rank(start))
    }

    /// Gives the tree up for its nodes to be freed in steps; dropping a large one at once takes long.
    pub fn dismantle(self) -> Remains<V> {
        Remains::new(self.root)
    }

    fn rank_of_end(&self, end: Option<&[u8]>) -> u64 {
        end.map_or(self.len, |end| self.root.rank(end))
    }
}

impl<'a, V: Clone> IntoIterator for &'a Tree<V> {
    type Item = (&'a [u8], &'a V);
    type IntoIter = Range<'a, V>;

    fn into_iter(self) -> Range<'a, V> {
        self.iter()
    }
}
