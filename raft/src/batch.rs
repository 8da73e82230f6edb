//! The unit of sharing: contiguous entries of one term and one kind over one shared body.

use std::sync::Arc;

use bytes::Bytes;

use crate::{LogIndex, Term};

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Commands for the state machine.
    Normal,
    /// A new leader's first entry; no payload. Always alone in its batch.
    Noop,
    /// A membership. Always alone in its batch. (Reserved: fixed membership has no such entries.)
    Membership,
}

/// Contiguous entries of one term and one kind. Cloning and slicing cost two reference counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Batch {
    term: Term,
    first: LogIndex,
    kind: Kind,
    /// The end of each payload within `body`, before slicing.
    ends: Arc<[u32]>,
    view: std::ops::Range<u32>,
    body: Bytes,
}
impl Batch {
    /// The term.
    pub fn term(&self) -> Term { self.term }
    /// First index.
    pub fn first(&self) -> LogIndex { self.first }
    /// Kind.
    pub fn kind(&self) -> Kind { self.kind }
}
