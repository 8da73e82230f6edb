//! What is known of every key that reaches a node.

use super::key::Key;

/// The separators around a node: `low <= key < high`, unbounded where there is none.
#[derive(Clone, Copy)]
pub(super) struct Fences<'a> {
    pub(super) low: Option<&'a Key>,
    pub(super) high: Option<&'a Key>,
}

impl<'a> Fences<'a> {
    /// Those of the root.
    pub(super) const NONE: Fences<'static> = Fences { low: None, high: None };

    /// Those of the child at `at` of a node with these fences and separators.
    pub(super) fn of_child(self, separators: &'a [Key], at: usize) -> Fences<'a> {
        let low = at.checked_sub(1).map(|before| &separators[before]);
        Fences { low: low.or(self.low), high: separators.get(at).or(self.high) }
    }

    /// Those of the two halves of a node that is split at `separator`.
    pub(super) fn split(self, separator: &'a Key) -> (Fences<'a>, Fences<'a>) {
        (
            Fences { low: self.low, high: Some(separator) },
            Fences { low: Some(separator), high: self.high },
        )
    }

    /// How many bytes every key between the fences is known to begin with. Nothing is known at the edges of the tree.
    pub(super) fn shared_bytes(self) -> Option<usize> {
        Some(self.low?.shared_bytes(self.high?))
    }

    /// Whether nothing in the tree comes after the node.
    pub(super) fn is_rightmost(self) -> bool {
        self.high.is_none()
    }
}
