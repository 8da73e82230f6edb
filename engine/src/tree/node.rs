//! A shared node of either kind, and the descents through them.

use super::fences::Fences;
use super::heads::FANOUT;
use super::inner::Inner;
use super::key::Key;
use super::leaf::Leaf;
use super::warm::read;
use std::sync::Arc;

/// A node that a removal leaves narrower than this is merged with a sibling or levelled with it.
pub(super) const WIDTH_MIN: usize = FANOUT / 4;
/// Two siblings become one if that is not wider than this, which leaves room to grow.
pub(super) const WIDTH_JOINED_MAX: usize = FANOUT * 3 / 4;
/// A node's memory grows by so many places, so that it follows what the node holds.
pub(super) const GROWTH: usize = 8;
/// Nodes are at least `WIDTH_MIN` wide but for those at the right edge, so no tree that fits in memory is higher.
const HEIGHT_MAX: usize = 16;

/// A node, and whoever shares it.
pub(super) struct Node<V>(Arc<Kind<V>>);

/// Both kinds lie behind one pointer, so that those of a parent's children fill few cache lines. Both begin with their
/// heads, at the same place, so that these can be loaded before it is known which kind it is.
#[derive(Clone)]
#[repr(C)]
pub(super) enum Kind<V> {
    Inner(Inner<V>),
    Leaf(Leaf<V>),
}

/// Which place to take at each level, the leaf's own at the end.
pub(super) struct Path([u8; HEIGHT_MAX]);

impl<V> Clone for Node<V> {
    fn clone(&self) -> Node<V> {
        Node(Arc::clone(&self.0))
    }
}

impl<V> From<Leaf<V>> for Node<V> {
    fn from(leaf: Leaf<V>) -> Node<V> {
        Node(Arc::new(Kind::Leaf(leaf)))
    }
}

impl<V> From<Inner<V>> for Node<V> {
    fn from(inner: Inner<V>) -> Node<V> {
        Node(Arc::new(Kind::Inner(inner)))
    }
}

impl<V> Node<V> {
    #[inline]
    pub(super) fn kind(&self) -> &Kind<V> {
        &self.0
    }

    /// What it holds, unless somebody else shares it.
    pub(super) fn into_unshared(self) -> Option<Kind<V>> {
        Arc::into_inner(self.0)
    }

    /// A leaf that nobody shares yet.
    pub(super) fn unshared_leaf_mut(&mut self) -> &mut Leaf<V> {
        match Arc::get_mut(&mut self.0) {
            Some(Kind::Leaf(leaf)) => leaf,
            _ => unreachable!("a new leaf"),
        }
    }

    /// Requires: it is a leaf.
    #[inline]
    pub(super) fn leaf(&self) -> &Leaf<V> {
        match self.kind() {
            Kind::Leaf(leaf) => leaf,
            Kind::Inner(_) => unreachable!("leaves are equally deep"),
        }
    }

    /// How many items or children it holds itself.
    pub(super) fn width(&self) -> usize {
        match self.kind() {
            Kind::Inner(inner) => inner.children().len(),
            Kind::Leaf(leaf) => leaf.items().len(),
        }
    }

    /// How many keys are in it and below it.
    pub(super) fn count(&self) -> u64 {
        match self.kind() {
            Kind::Inner(inner) => inner.counts().iter().sum(),
            Kind::Leaf(leaf) => leaf.items().len() as u64,
        }
    }

    /// Reads a word of each of its cache lines; see [`super::warm`].
    #[inline]
    pub(super) fn touch(&self) -> usize {
        match self.kind() {
            Kind::Inner(inner) => inner.touch(),
            Kind::Leaf(leaf) => leaf.touch(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        let mut node = self;
        loop {
            match node.kind() {
                Kind::Inner(inner) => node = &inner.children()[inner.route(key)],
                Kind::Leaf(leaf) => {
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
            match node.kind() {
                Kind::Inner(inner) => {
                    let at = inner.route(key);
                    *step = place(at);
                    node = &inner.children()[at];
                }
                Kind::Leaf(leaf) => {
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
            match node.kind() {
                Kind::Inner(inner) => {
                    let at = inner.route(key);
                    before += inner.counts()[..at].iter().sum::<u64>();
                    node = &inner.children()[at];
                }
                Kind::Leaf(leaf) => {
                    return before + leaf.search(key).unwrap_or_else(|at| at) as u64;
                }
            }
        }
    }

    /// Puts a new root above this one, which has been split.
    pub(super) fn grow(&mut self, (separator, right): (Key, Node<V>)) {
        let left = self.clone();
        *self = Inner::new(vec![separator], vec![left, right], Fences::NONE).into();
    }

    /// Takes away roots of one child.
    pub(super) fn shrink(&mut self) {
        while let Kind::Inner(inner) = self.kind()
            && let [only] = inner.children()
        {
            *self = only.clone();
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self, fences: Fences<'_>) {
        match self.kind() {
            Kind::Inner(inner) => inner.check(fences),
            Kind::Leaf(leaf) => leaf.check(fences),
        }
    }

    #[cfg(test)]
    pub(super) fn height(&self) -> usize {
        match self.kind() {
            Kind::Inner(inner) => {
                let height = inner.children()[0].height();
                assert!(inner.children().iter().all(|child| child.height() == height));
                1 + height
            }
            Kind::Leaf(_) => 1,
        }
    }
}

impl<V: Clone> Node<V> {
    /// What it holds, to be changed: copied if somebody shares it.
    fn kind_mut(&mut self) -> &mut Kind<V> {
        Arc::make_mut(&mut self.0)
    }

    /// The value at the end of a path. The descent before has loaded what this one locks.
    pub(super) fn value_mut(&mut self, path: &Path) -> &mut V {
        let mut node = self;
        for at in path.0 {
            match node.kind_mut() {
                Kind::Inner(inner) => node = inner.child_mut(at.into()),
                Kind::Leaf(leaf) => return leaf.value_mut(at.into()),
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
        match self.kind_mut() {
            Kind::Inner(inner) => inner.insert(fences, key, value).map(shared),
            Kind::Leaf(leaf) => leaf.insert(fences, key, value).map(shared),
        }
    }

    /// Requires: the key is present.
    pub(super) fn remove(&mut self, fences: Fences<'_>, key: &[u8]) -> V {
        match self.kind_mut() {
            Kind::Inner(inner) => inner.remove(fences, key),
            Kind::Leaf(leaf) => leaf.remove(key),
        }
    }

    /// Takes over what the sibling to the right holds, or levels the two and returns the new sibling.
    pub(super) fn join(
        &mut self,
        separator: Key,
        right: Node<V>,
        fences: Fences<'_>,
    ) -> Option<(Key, Node<V>)> {
        match (self.kind_mut(), Arc::unwrap_or_clone(right.0)) {
            (Kind::Inner(left), Kind::Inner(right)) => {
                left.join(separator, right, fences).map(shared)
            }
            (Kind::Leaf(left), Kind::Leaf(right)) => left.join(right, fences).map(shared),
            _ => unreachable!("leaves are equally deep"),
        }
    }
}

fn shared<V>((separator, node): (Key, impl Into<Node<V>>)) -> (Key, Node<V>) {
    (separator, node.into())
}

/// Reads how many own each node before all of that changes: reads overlap, while changes wait for one another.
pub(super) fn touch_owners<V>(nodes: &[Node<V>]) {
    read(nodes.iter().map(|node| Arc::strong_count(&node.0)));
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
