//! A shared node of either kind, and the descents through them.

use super::fences::Fences;
use super::heads::FANOUT;
use super::inner::{Child, Inner};
use super::key::Key;
use super::leaf::Leaf;
use std::mem;
use std::sync::Arc;

/// A node that a removal leaves narrower than this is merged with a sibling or levelled with it.
pub(super) const WIDTH_MIN: usize = FANOUT / 4;
/// Two siblings become one if that is not wider than this, which leaves room to grow.
pub(super) const WIDTH_JOINED_MAX: usize = FANOUT * 3 / 4;
/// A node's memory grows by so many places, so that it follows what the node holds.
pub(super) const GROWTH: usize = 8;
/// Nodes are at least `WIDTH_MIN` wide but for those at the right edge, so no tree that fits in memory is higher.
const HEIGHT_MAX: usize = 16;

pub(super) enum Node<V> {
    Inner(Arc<Inner<V>>),
    Leaf(Arc<Leaf<V>>),
}

/// Which place to take at each level, the leaf's own at the end.
pub(super) struct Path([u8; HEIGHT_MAX]);

impl<V> Clone for Node<V> {
    fn clone(&self) -> Node<V> {
        match self {
            Node::Inner(inner) => Node::Inner(Arc::clone(inner)),
            Node::Leaf(leaf) => Node::Leaf(Arc::clone(leaf)),
        }
    }
}

impl<V> Node<V> {
    pub(super) fn empty() -> Node<V> {
        Node::leaf(Leaf::EMPTY)
    }

    pub(super) fn leaf(leaf: Leaf<V>) -> Node<V> {
        Node::Leaf(Arc::new(leaf))
    }

    pub(super) fn inner(inner: Inner<V>) -> Node<V> {
        Node::Inner(Arc::new(inner))
    }

    /// How many items or children it holds itself.
    pub(super) fn width(&self) -> usize {
        match self {
            Node::Inner(inner) => inner.children().len(),
            Node::Leaf(leaf) => leaf.items().len(),
        }
    }

    /// How many keys are in it and below it.
    pub(super) fn count(&self) -> u64 {
        match self {
            Node::Inner(inner) => count(inner.children()),
            Node::Leaf(leaf) => leaf.items().len() as u64,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        let mut node = self;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children()[inner.route(key)].node,
                Node::Leaf(leaf) => {
                    return leaf.search(key).ok().map(|at| &leaf.items()[at].value);
                }
            }
        }
    }

    /// The way to a key that is present.
    pub(super) fn find(&self, key: &[u8]) -> Option<Path> {
        let mut path = Path([0; HEIGHT_MAX]);
        let mut node = self;
        for step in &mut path.0 {
            match node {
                Node::Inner(inner) => {
                    let at = inner.route(key);
                    *step = place(at);
                    node = &inner.children()[at].node;
                }
                Node::Leaf(leaf) => {
                    *step = place(leaf.search(key).ok()?);
                    return Some(path);
                }
            }
        }
        unreachable!("higher than any tree");
    }

    /// How many keys are below `key`.
    pub(super) fn rank(&self, key: &[u8]) -> u64 {
        let mut before = 0;
        let mut node = self;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.route(key);
                    before += count(&inner.children()[..at]);
                    node = &inner.children()[at].node;
                }
                Node::Leaf(leaf) => {
                    return before + leaf.search(key).unwrap_or_else(|at| at) as u64;
                }
            }
        }
    }

    /// Puts a new root above this one, which has been split.
    pub(super) fn grow(&mut self, (separator, right): (Key, Node<V>)) {
        let left = mem::replace(self, Node::empty());
        let children = vec![Child::new(left), Child::new(right)];
        *self = Node::inner(Inner::new(vec![separator], children, Fences::NONE));
    }

    /// Takes away roots of one child.
    pub(super) fn shrink(&mut self) {
        while let Node::Inner(inner) = self
            && let [only] = inner.children()
        {
            *self = only.node.clone();
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self, fences: Fences<'_>) {
        match self {
            Node::Inner(inner) => inner.check(fences),
            Node::Leaf(leaf) => leaf.check(fences),
        }
    }

    #[cfg(test)]
    pub(super) fn height(&self) -> usize {
        match self {
            Node::Inner(inner) => {
                let height = inner.children()[0].node.height();
                assert!(inner.children().iter().all(|child| child.node.height() == height));
                1 + height
            }
            Node::Leaf(_) => 1,
        }
    }
}

impl<V: Clone> Node<V> {
    /// The value at the end of a path. The descent before has loaded what this one locks.
    pub(super) fn value_mut(&mut self, path: &Path) -> &mut V {
        let mut node = self;
        for at in path.0 {
            match node {
                Node::Inner(inner) => node = Arc::make_mut(inner).child_mut(at.into()),
                Node::Leaf(leaf) => return Arc::make_mut(leaf).value_mut(at.into()),
            }
        }
        unreachable!("a path ends in a leaf");
    }

    /// Adds a key. Of an overfull node the upper part is returned, with the separator below it.
    ///
    /// Requires: the key is absent.
    pub(super) fn insert(
        &mut self,
        fences: Fences<'_>,
        key: &[u8],
        value: V,
    ) -> Option<(Key, Node<V>)> {
        match self {
            Node::Inner(inner) => {
                let (separator, right) = Arc::make_mut(inner).insert(fences, key, value)?;
                Some((separator, Node::inner(right)))
            }
            Node::Leaf(leaf) => {
                let (separator, right) = Arc::make_mut(leaf).insert(fences, key, value)?;
                Some((separator, Node::leaf(right)))
            }
        }
    }

    /// Requires: the key is present.
    pub(super) fn remove(&mut self, fences: Fences<'_>, key: &[u8]) -> V {
        match self {
            Node::Inner(inner) => Arc::make_mut(inner).remove(fences, key),
            Node::Leaf(leaf) => Arc::make_mut(leaf).remove(key),
        }
    }

    /// Takes over what the sibling to the right holds, or levels the two and returns the new sibling.
    pub(super) fn join(
        &mut self,
        separator: Key,
        right: Node<V>,
        fences: Fences<'_>,
    ) -> Option<(Key, Node<V>)> {
        match (self, right) {
            (Node::Inner(left), Node::Inner(right)) => {
                let right = Arc::unwrap_or_clone(right);
                let split = Arc::make_mut(left).join(separator, right, fences);
                split.map(|(separator, right)| (separator, Node::inner(right)))
            }
            (Node::Leaf(left), Node::Leaf(right)) => {
                let split = Arc::make_mut(left).join(Arc::unwrap_or_clone(right), fences);
                split.map(|(separator, right)| (separator, Node::leaf(right)))
            }
            _ => unreachable!("siblings are equally deep"),
        }
    }
}

/// Inserts without the doubling of capacity that a vector would choose.
pub(super) fn insert_tightly<T>(places: &mut Vec<T>, at: usize, new: T) {
    if places.len() == places.capacity() {
        places.reserve_exact(GROWTH);
    }
    places.insert(at, new);
}

/// Gives back what is far more than the next growth would bring.
pub(super) fn trim<T>(places: &mut Vec<T>) {
    if places.capacity() >= places.len() + 2 * GROWTH {
        places.shrink_to(places.len().next_multiple_of(GROWTH));
    }
}

fn place(at: usize) -> u8 {
    u8::try_from(at).expect("below the fanout")
}

fn count<V>(children: &[Child<V>]) -> u64 {
    children.iter().map(|child| child.count).sum()
}
