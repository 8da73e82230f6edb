//! A tree that is being freed: nodes that nobody else shares, a few at a time.

use super::node::Node;
use std::sync::Arc;

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
                Some(Node::Inner(inner)) => {
                    let children = Arc::into_inner(inner).map(super::inner::Inner::into_children);
                    self.nodes.extend(children.into_iter().flatten().map(|child| child.node));
                }
                Some(Node::Leaf(leaf)) => drop(leaf),
                None => break,
            }
        }
        self.nodes.is_empty()
    }
}
