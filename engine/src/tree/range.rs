//! Scans from both sides.
//!
//! A range is two ranks, known before the first step: where the sides meet is a matter of counting, and a side that has
//! used up its leaves finds the next ones by its rank.

use super::leaf::Item;
use super::node::{Kind, Node};
use std::{ops, slice};

/// The items of a range in ascending order; see [`super::Tree::range`].
pub struct Range<'a, V> {
    root: &'a Node<V>,
    /// The ranks that are still to come.
    ranks: ops::Range<u64>,
    front: Side<'a, V>,
    back: Side<'a, V>,
}

/// What is left of one leaf, and its siblings on the side that the scan goes to.
struct Side<'a, V> {
    items: slice::Iter<'a, Item<V>>,
    leaves: slice::Iter<'a, Node<V>>,
}

impl<'a, V> Range<'a, V> {
    pub(super) fn new(root: &'a Node<V>, ranks: ops::Range<u64>) -> Range<'a, V> {
        Range { root, ranks, front: Side::of(&[], &[]), back: Side::of(&[], &[]) }
    }
}

impl<'a, V> Iterator for Range<'a, V> {
    type Item = (&'a [u8], &'a V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rank = self.ranks.next()?;
        loop {
            if let Some(item) = self.front.items.next() {
                return Some((item.key.as_slice(), &item.value));
            }
            match self.front.leaves.next() {
                Some(leaf) => self.front.items = leaf.leaf().items().iter(),
                None => self.front = Place::of(self.root, rank).and_after(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }
}

impl<V> DoubleEndedIterator for Range<'_, V> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let rank = self.ranks.next_back()?;
        loop {
            if let Some(item) = self.back.items.next_back() {
                return Some((item.key.as_slice(), &item.value));
            }
            match self.back.leaves.next_back() {
                Some(leaf) => self.back.items = leaf.leaf().items().iter(),
                None => self.back = Place::of(self.root, rank).and_before(),
            }
        }
    }
}

impl<'a, V> Side<'a, V> {
    fn of(items: &'a [Item<V>], leaves: &'a [Node<V>]) -> Side<'a, V> {
        Side { items: items.iter(), leaves: leaves.iter() }
    }
}

/// Where the item of one rank lies.
struct Place<'a, V> {
    /// The children of its leaf's parent; none where the leaf is the root.
    siblings: &'a [Node<V>],
    leaf_at: usize,
    items: &'a [Item<V>],
    item_at: usize,
}

impl<'a, V> Place<'a, V> {
    fn of(root: &'a Node<V>, rank: u64) -> Place<'a, V> {
        let (mut node, mut rank) = (root, rank);
        let (mut siblings, mut leaf_at) = (&[][..], 0);
        while let Kind::Inner(inner) = node.kind() {
            siblings = inner.children();
            leaf_at = 0;
            while inner.counts()[leaf_at] <= rank {
                rank -= inner.counts()[leaf_at];
                leaf_at += 1;
            }
            node = &siblings[leaf_at];
        }
        let item_at = usize::try_from(rank).expect("within a leaf");
        Place { siblings, leaf_at, items: node.leaf().items(), item_at }
    }

    fn and_after(self) -> Side<'a, V> {
        let leaves = self.siblings.get(self.leaf_at + 1..).unwrap_or_default();
        Side::of(&self.items[self.item_at..], leaves)
    }

    fn and_before(self) -> Side<'a, V> {
        Side::of(&self.items[..=self.item_at], &self.siblings[..self.leaf_at])
    }
}
