//! A tree that is being freed: nodes that nobody else shares, a few at a time.

use super::node::{Kind, Node, touch_owners};

/// What is left of a tree that was given up; see [`super::Tree::dismantle`].
///
/// Dropping it frees the rest at once.
pub struct Remains<V> {
    /// Nodes to let go of, of every level at most a parent's children.
    nodes: Vec<Node<V>>,
}

impl<V> Remains<V> {
    pub(super) fn new(root: Node<V>) -> Remains<V> {
        Remains { nodes: vec![root] }
    }

    /// Lets go of at most so many nodes and frees those that nobody shares. True when nothing is left.
    pub fn work(&mut self, nodes_max: usize) -> bool {
        for _ in 0..nodes_max {
            match self.nodes.pop() {
                // Whoever lets go last takes the children along.
                Some(node) => {
                    if let Some(Kind::Inner(inner)) = node.into_unshared() {
                        let children = inner.into_children();
                        touch_owners(&children);
                        self.nodes.extend(children);
                    }
                }
                None => break,
            }
        }
        self.nodes.is_empty()
    }
}
