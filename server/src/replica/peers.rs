//! Which peers are linked, and where their clients reach them.

use std::collections::{BTreeMap, VecDeque};

use raft::{Link, NodeId};

#[derive(Debug)]
struct Peer {
    link: Option<Link>,
    advertise: String,
}

/// The peers that have been seen since this node started.
#[derive(Debug, Default)]
pub(super) struct Peers {
    seen: BTreeMap<NodeId, Peer>,
}

impl Peers {
    pub(super) fn up(&mut self, peer: NodeId, link: Link, advertise: String) {
        self.seen.insert(peer, Peer { link: Some(link), advertise });
    }

    pub(super) fn lost(&mut self, peer: NodeId, link: Link) {
        if let Some(seen) = self.seen.get_mut(&peer)
            && seen.link == Some(link)
        {
            seen.link = None;
        }
    }

    /// Those that are linked now.
    pub(super) fn linked(&self) -> VecDeque<NodeId> {
        let linked = self.seen.iter().filter(|(_, peer)| peer.link.is_some());
        linked.map(|(id, _)| *id).collect()
    }

    pub(super) fn link(&self, peer: NodeId) -> Option<Link> {
        self.seen.get(&peer)?.link
    }

    /// Empty if it has never been linked.
    pub(super) fn advertise(&self, peer: NodeId) -> &str {
        self.seen.get(&peer).map_or("", |seen| &seen.advertise)
    }
}
