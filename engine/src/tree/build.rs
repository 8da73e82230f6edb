//! Building a tree from keys that come in order: full leaves, and each node made once.

use super::Tree;
use super::fences::Fences;
use super::heads::FANOUT;
use super::inner::Inner;
use super::key::Key;
use super::leaf::{Item, Leaf};
use super::node::Node;

/// Leaves made of ascending keys, perhaps on a thread of their own, for a [`Builder`] to take in.
pub struct Run<V> {
    leaves: Vec<Node<V>>,
    /// The separator above each leaf.
    separators: Vec<Key>,
    /// What follows them. Empty only in an empty run.
    open: Vec<Item<V>>,
}

/// Builds a tree from ascending keys.
pub struct Builder<V> {
    run: Run<V>,
}

impl<V> Default for Run<V> {
    fn default() -> Run<V> {
        Run { leaves: Vec::new(), separators: Vec::new(), open: Vec::new() }
    }
}

impl<V> Run<V> {
    /// An empty run.
    pub fn new() -> Run<V> {
        Run::default()
    }

    /// Adds a key.
    ///
    /// Requires: it is above every key before.
    pub fn push(&mut self, key: &[u8], value: V) {
        if let Some(last) = self.open.last() {
            let last = last.key.as_slice();
            assert!(last < key, "keys must ascend");
            if self.open.len() == FANOUT {
                self.close(Key::between(last, key));
            }
        }
        if self.open.is_empty() {
            self.open.reserve_exact(FANOUT);
        }
        self.open.push(Item { key: Key::new(key), value });
    }

    /// Makes the open items a leaf that ends at `separator`.
    fn close(&mut self, separator: Key) {
        let mut items = std::mem::take(&mut self.open);
        items.shrink_to_fit();
        let fences = Fences { low: self.separators.last(), high: Some(&separator) };
        self.leaves.push(Leaf::new(items, fences).into());
        self.separators.push(separator);
    }

    /// The leaf that ends it.
    fn close_last(&mut self) -> Leaf<V> {
        let mut items = std::mem::take(&mut self.open);
        items.shrink_to_fit();
        Leaf::new(items, Fences { low: self.separators.last(), high: None })
    }

    fn append(&mut self, mut next: Run<V>) {
        let (Some(last), Some(first)) = (self.open.last(), next.first()) else {
            if self.open.is_empty() {
                *self = next;
            }
            return;
        };
        assert!(last.key.as_slice() < first, "runs must ascend");
        self.close(Key::between(last.key.as_slice(), first));
        if let Some(leaf) = next.leaves.first_mut() {
            let fences = Fences { low: self.separators.last(), high: next.separators.first() };
            leaf.unshared_leaf_mut().set_fences(fences);
        }
        self.leaves.append(&mut next.leaves);
        self.separators.append(&mut next.separators);
        self.open = next.open;
    }

    fn first(&self) -> Option<&[u8]> {
        let items = self.leaves.first().map_or(&self.open[..], |leaf| leaf.leaf().items());
        items.first().map(|item| item.key.as_slice())
    }
}

impl<V> Default for Builder<V> {
    fn default() -> Builder<V> {
        Builder { run: Run::default() }
    }
}

impl<V: Clone> Builder<V> {
    /// With no keys yet.
    pub fn new() -> Builder<V> {
        Builder::default()
    }

    /// Adds a key.
    ///
    /// Requires: it is above every key before.
    pub fn push(&mut self, key: &[u8], value: V) {
        self.run.push(key, value);
    }

    /// Adds the leaves of a run as they are.
    ///
    /// Requires: its keys are above every key before.
    pub fn push_run(&mut self, run: Run<V>) {
        self.run.append(run);
    }

    /// The tree of all keys.
    pub fn finish(mut self) -> Tree<V> {
        let last = self.run.close_last();
        let Run { leaves: mut level, mut separators, .. } = self.run;
        level.push(last.into());
        while level.len() > 1 {
            (level, separators) = parents(level, separators);
        }
        let root = level.pop().expect("a level is never empty");
        Tree { len: root.count(), root }
    }
}

/// The level above: as few parents as can be, equally wide, and the separators between them.
fn parents<V>(children: Vec<Node<V>>, separators: Vec<Key>) -> (Vec<Node<V>>, Vec<Key>) {
    let total = children.len();
    let parents_count = total.div_ceil(FANOUT);
    let mut parents = Vec::with_capacity(parents_count);
    let mut between = Vec::<Key>::with_capacity(parents_count - 1);
    let (mut children, mut separators) = (children.into_iter(), separators.into_iter());
    for parent in 0..parents_count {
        let width = total * (parent + 1) / parents_count - total * parent / parents_count;
        let below = children.by_ref().take(width).collect::<Vec<_>>();
        let inside = separators.by_ref().take(width - 1).collect::<Vec<_>>();
        let high = separators.next();
        let fences = Fences { low: between.last(), high: high.as_ref() };
        parents.push(Inner::new(inside, below, fences).into());
        between.extend(high);
    }
    (parents, between)
}
