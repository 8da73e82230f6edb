//! The nodes above the leaves: separators, children, and how many keys each child holds.

use super::fences::Fences;
use super::heads::{FANOUT, Heads};
use super::key::Key;
use super::node::{Node, WIDTH_JOINED_MAX, WIDTH_MIN, insert_tightly, touch_owners, trim};

/// One separator stands between every two children: the left one's keys are below it, the right one's are not.
#[repr(C)]
pub(super) struct Inner<V> {
    heads: Heads,
    separators: Vec<Key>,
    children: Vec<Node<V>>,
    /// How many keys are below each child.
    counts: Vec<u64>,
}

impl<V> Clone for Inner<V> {
    fn clone(&self) -> Inner<V> {
        touch_owners(&self.children);
        Inner {
            heads: self.heads.clone(),
            separators: self.separators.clone(),
            children: self.children.clone(),
            counts: self.counts.clone(),
        }
    }
}

impl<V> Inner<V> {
    pub(super) fn new(
        separators: Vec<Key>,
        children: Vec<Node<V>>,
        fences: Fences<'_>,
    ) -> Inner<V> {
        assert!(children.len() == separators.len() + 1);
        let counts = children.iter().map(Node::count).collect();
        Inner { heads: Heads::of(&separators, fences), separators, children, counts }
    }

    pub(super) fn children(&self) -> &[Node<V>] {
        &self.children
    }

    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// As [`super::leaf::Leaf::touch`].
    #[inline]
    pub(super) fn touch(&self) -> usize {
        self.heads.touch()
    }

    pub(super) fn into_children(self) -> Vec<Node<V>> {
        self.children
    }

    pub(super) fn child_mut(&mut self, at: usize) -> &mut Node<V> {
        &mut self.children[at]
    }

    /// Which child a key belongs to.
    #[inline]
    pub(super) fn route(&self, key: &[u8]) -> usize {
        self.heads.search(&self.separators, key).map_or_else(|at| at, |at| at + 1)
    }

    /// Splits off the children from `at` on, with the separator between the parts.
    fn split(&mut self, at: usize, fences: Fences<'_>) -> (Key, Inner<V>) {
        let children = self.children.split_off(at);
        let separators = self.separators.split_off(at);
        let separator = self.separators.pop().expect("a separator per child but the first");
        self.counts.truncate(at);
        self.trim();
        let (below, above) = fences.split(&separator);
        self.heads = Heads::of(&self.separators, below);
        let right = Inner::new(separators, children, above);
        (separator, right)
    }

    /// Takes in what the child at `at` split off.
    fn adopt(&mut self, at: usize, (separator, node): (Key, Node<V>), fences: Fences<'_>) {
        let count = node.count();
        self.counts[at] -= count;
        insert_tightly(&mut self.counts, at + 1, count);
        insert_tightly(&mut self.separators, at, separator);
        self.heads.insert(at, &self.separators, fences);
        insert_tightly(&mut self.children, at + 1, node);
    }

    fn trim(&mut self) {
        trim(&mut self.separators);
        trim(&mut self.children);
        trim(&mut self.counts);
    }
}

impl<V: Clone> Inner<V> {
    /// As [`super::leaf::Leaf::insert`].
    pub(super) fn insert(
        &mut self,
        fences: Fences<'_>,
        key: &[u8],
        value: V,
    ) -> Option<(Key, Inner<V>)> {
        let at = self.route(key);
        self.counts[at] += 1;
        let split = self.children[at].insert(fences.of_child(&self.separators, at), key, value)?;
        self.adopt(at, split, fences);
        if self.children.len() <= FANOUT {
            return None;
        }
        // As in a leaf, but no node of one child is left, for it could not be merged.
        let appended = fences.is_rightmost() && at == FANOUT - 1;
        Some(self.split(if appended { FANOUT - 1 } else { FANOUT / 2 }, fences))
    }

    /// As [`super::leaf::Leaf::remove`].
    pub(super) fn remove(&mut self, fences: Fences<'_>, key: &[u8]) -> V {
        let at = self.route(key);
        self.counts[at] -= 1;
        let value = self.children[at].remove(fences.of_child(&self.separators, at), key);
        if self.children[at].width() < WIDTH_MIN {
            self.widen(at, fences);
        }
        value
    }

    /// As [`super::leaf::Leaf::join`]; the separator that stood between the two comes down.
    pub(super) fn join(
        &mut self,
        separator: Key,
        mut right: Inner<V>,
        fences: Fences<'_>,
    ) -> Option<(Key, Inner<V>)> {
        self.separators.reserve_exact(1 + right.separators.len());
        self.separators.push(separator);
        self.separators.append(&mut right.separators);
        self.children.reserve_exact(right.children.len());
        self.children.append(&mut right.children);
        self.counts.reserve_exact(right.counts.len());
        self.counts.append(&mut right.counts);
        if self.children.len() > WIDTH_JOINED_MAX {
            return Some(self.split(self.children.len() / 2, fences));
        }
        self.heads = Heads::of(&self.separators, fences);
        None
    }

    /// Merges the child at `at` with a sibling, or levels the two.
    fn widen(&mut self, at: usize, fences: Fences<'_>) {
        let left = at.saturating_sub(1);
        let separator = self.separators.remove(left);
        self.heads.remove(left);
        let right = self.children.remove(left + 1);
        self.counts[left] += self.counts.remove(left + 1);
        let within = fences.of_child(&self.separators, left);
        if let Some(split) = self.children[left].join(separator, right, within) {
            self.adopt(left, split, fences);
        }
        self.trim();
    }
}

#[cfg(test)]
impl<V> Inner<V> {
    pub(super) fn check(&self, fences: Fences<'_>) {
        self.heads.check(&self.separators, fences);
        assert!(self.children.len() == self.separators.len() + 1);
        assert!(self.children.len() == self.counts.len());
        assert!((2..=FANOUT).contains(&self.children.len()));
        for (at, child) in self.children.iter().enumerate() {
            assert_eq!(self.counts[at], child.count());
            assert_ne!(self.counts[at], 0);
            child.check(fences.of_child(&self.separators, at));
        }
    }
}
