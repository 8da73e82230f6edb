//! How a cluster comes into being, as a pure rule over what the peers say in their hellos.
//!
//! A node without a founding membership collects the (id, incarnation) of every listed peer. When all
//! have answered as unfounded, the sorted list is the founding membership. A peer that is already
//! founded answers with it, and whoever finds itself there adopts it byte for byte. A node
//! whose label is there under another incarnation lost its disk: it must not vote again (P26).

use std::collections::{BTreeMap, BTreeSet};

use raft::NodeId;
use thiserror::Error;

use crate::identity::{ClusterId, Founding, Member};
use crate::peer_message::Hello;

/// What a hello led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Both are founded in the same cluster: messages may flow.
    Linked,
    /// At least one of the two is not founded yet: close the link and try again later.
    Later,
    /// This node now knows its founding membership; it must be made durable, then call
    /// [`Founder::founded`].
    Found(Founding),
}

/// Why two nodes cannot talk.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller dialled a wrong address.
    #[error("node {wanted} was expected at this address, but it is node {here}; check --peers")]
    WrongAddress {
        /// Whom the caller wanted.
        wanted: NodeId,
        /// Who is there.
        here: NodeId,
    },
    /// The caller is not listed.
    #[error("node {id} is not a member of the cluster of node {here}; check --peers on both")]
    NotListed {
        /// The caller.
        id: NodeId,
        /// Who refuses.
        here: NodeId,
    },
    /// Two clusters.
    #[error(
        "node {id} belongs to cluster {theirs}, node {here} to cluster {ours}: one of them has a foreign data directory or a wrong --peers"
    )]
    WrongCluster {
        /// The other node.
        id: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// Who refuses.
        here: NodeId,
        /// Its cluster.
        ours: ClusterId,
    },
    /// A member came back with an empty disk. Fatal for the wiped node.
    #[error(
        "node {id} is a founding member with another data directory: this one was wiped or replaced and must not vote again; restore its data, or replace the member with `holdfast member replace {id}`"
    )]
    Wiped {
        /// The wiped member.
        id: NodeId,
    },
    /// The cluster of a peer does not include this node. Fatal for this node.
    #[error("the cluster of node {peer} was founded without node {id}; check --peers")]
    FoundedWithoutUs {
        /// The founded peer.
        peer: NodeId,
        /// This node.
        id: NodeId,
    },
}

impl Refusal {
    /// Whether this node, as opposed to the link, cannot go on.
    pub fn is_fatal_for(&self, node: NodeId) -> bool {
        match self {
            Refusal::Wiped { id } | Refusal::FoundedWithoutUs { id, .. } => *id == node,
            Refusal::WrongAddress { .. }
            | Refusal::NotListed { .. }
            | Refusal::WrongCluster { .. } => false,
        }
    }
}

/// What a node knows of its cluster's founding.
#[derive(Clone, Debug)]
pub struct Founder {
    me: Member,
    listed: BTreeSet<NodeId>,
    heard: BTreeMap<NodeId, u128>,
    founding: Option<Founding>,
}

impl Founder {
    /// `listed` are the peers of the configuration; `founding` what was already durable here.
    pub fn new(
        me: Member,
        listed: impl IntoIterator<Item = NodeId>,
        founding: Option<Founding>,
    ) -> Founder {
        let listed = listed.into_iter().filter(|id| *id != me.id).collect();
        Founder { me, listed, heard: BTreeMap::new(), founding }
    }

    /// This node.
    pub fn me(&self) -> Member {
        self.me
    }

    /// The durable founding membership.
    pub fn founding(&self) -> Option<&Founding> {
        self.founding.as_ref()
    }

    /// The listed peers that have not answered yet.
    pub fn missing(&self) -> Vec<NodeId> {
        self.listed.iter().filter(|id| !self.heard.contains_key(id)).copied().collect()
    }

    /// The founding membership that needs nobody else: a cluster of one.
    pub fn alone(&self) -> Option<Founding> {
        if self.founding.is_some() || !self.listed.is_empty() {
            return None;
        }
        self.complete()
    }

    /// The founding membership is durable; from now on it is told to others.
    pub fn founded(&mut self, founding: Founding) {
        assert_eq!(founding.incarnation_of(self.me.id), Some(self.me.incarnation));
        assert!(self.founding.as_ref().is_none_or(|known| *known == founding));
        self.founding = Some(founding);
    }

    /// Judges the hello of a peer.
    pub fn hear(&mut self, hello: &Hello) -> Result<Heard, Refusal> {
        let (peer, here) = (hello.from, self.me.id);
        if hello.to != here {
            return Err(Refusal::WrongAddress { wanted: hello.to, here });
        }
        match (&self.founding, &hello.founding) {
            (Some(ours), theirs) => judge_founded(ours, theirs.as_ref(), peer, here),
            (None, Some(theirs)) => self.adopt(theirs, peer),
            (None, None) => self.collect(peer),
        }
    }

    fn adopt(&self, theirs: &Founding, peer: Member) -> Result<Heard, Refusal> {
        match theirs.incarnation_of(self.me.id) {
            Some(incarnation) if incarnation == self.me.incarnation => {
                Ok(Heard::Found(theirs.clone()))
            }
            Some(_) => Err(Refusal::Wiped { id: self.me.id }),
            None => Err(Refusal::FoundedWithoutUs { peer: peer.id, id: self.me.id }),
        }
    }

    fn collect(&mut self, peer: Member) -> Result<Heard, Refusal> {
        if !self.listed.contains(&peer.id) {
            return Err(Refusal::NotListed { id: peer.id, here: self.me.id });
        }
        // The last word counts: an unfounded peer may have been wiped and started anew.
        self.heard.insert(peer.id, peer.incarnation);
        Ok(self.complete().map_or(Heard::Later, Heard::Found))
    }

    fn complete(&self) -> Option<Founding> {
        if self.heard.len() < self.listed.len() {
            return None;
        }
        let others = self
            .heard
            .iter()
            .map(|(id, incarnation)| Member { id: *id, incarnation: *incarnation });
        let members = others.chain([self.me]).collect();
        Founding::new(members).ok()
    }
}

fn judge_founded(
    ours: &Founding,
    theirs: Option<&Founding>,
    peer: Member,
    here: NodeId,
) -> Result<Heard, Refusal> {
    if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
        let (theirs, ours) = (theirs.cluster_id(), ours.cluster_id());
        return Err(Refusal::WrongCluster { id: peer.id, theirs, here, ours });
    }
    match ours.incarnation_of(peer.id) {
        None => Err(Refusal::NotListed { id: peer.id, here }),
        Some(incarnation) if incarnation != peer.incarnation => Err(Refusal::Wiped { id: peer.id }),
        Some(_) if theirs.is_none() => Ok(Heard::Later),
        Some(_) => Ok(Heard::Linked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), incarnation: u128::from(id) * 100 }
    }

    fn founder(id: u64) -> Founder {
        Founder::new(member(id), (1..=3).map(NodeId), None)
    }

    fn hello(from: &Founder, to: u64) -> Hello {
        Hello {
            from: from.me(),
            to: NodeId(to),
            advertise: String::new(),
            founding: from.founding().cloned(),
        }
    }

    fn found(founder: &mut Founder, others: &[&Founder]) -> Founding {
        let id = founder.me().id.0;
        let mut last = Heard::Later;
        for other in others {
            last = founder.hear(&hello(other, id)).unwrap();
        }
        let Heard::Found(founding) = last else { panic!("not founded: {last:?}") };
        founder.founded(founding.clone());
        founding
    }

    #[test]
    fn all_three_found_the_same_cluster_once_each_has_heard_the_others() {
        let (mut a, mut b, mut c) = (founder(1), founder(2), founder(3));
        assert_eq!(a.hear(&hello(&b, 1)), Ok(Heard::Later));
        assert_eq!(a.missing(), [NodeId(3)]);
        let first = found(&mut a, &[&c]);
        let second = found(&mut b, &[&a]);
        let third = found(&mut c, &[&a]);
        assert!(first == second && second == third);
        assert_eq!(a.hear(&hello(&b, 1)), Ok(Heard::Linked));
    }

    #[test]
    fn node_that_lost_its_disk_is_told_that_it_was_wiped() {
        let (mut a, b, c) = (founder(1), founder(2), founder(3));
        found(&mut a, &[&b, &c]);
        let fresh = Member { id: NodeId(2), incarnation: 7 };
        let mut wiped = Founder::new(fresh, (1..=3).map(NodeId), None);
        let refusal = wiped.hear(&hello(&a, 2)).unwrap_err();
        assert_eq!(refusal, Refusal::Wiped { id: NodeId(2) });
        assert!(refusal.is_fatal_for(NodeId(2)));
        assert_eq!(a.hear(&hello(&wiped, 1)), Err(Refusal::Wiped { id: NodeId(2) }));
    }

    #[test]
    fn unfounded_peer_that_restarts_empty_is_founded_with_its_last_incarnation() {
        let (mut a, b, c) = (founder(1), founder(2), founder(3));
        assert_eq!(a.hear(&hello(&b, 1)), Ok(Heard::Later));
        let b2 = Founder::new(Member { id: NodeId(2), incarnation: 8 }, (1..=3).map(NodeId), None);
        assert_eq!(a.hear(&hello(&b2, 1)), Ok(Heard::Later));
        let founding = found(&mut a, &[&c]);
        assert_eq!(founding.incarnation_of(NodeId(2)), Some(8));
    }

    #[test]
    fn node_of_another_cluster_is_refused_by_name() {
        let mut a = Founder::new(member(1), [NodeId(2)], None);
        let mut b = Founder::new(member(2), [NodeId(1), NodeId(3)], None);
        let c = Founder::new(member(3), [NodeId(1), NodeId(2)], None);
        found(&mut a, &[&b.clone()]);
        found(&mut b, &[&Founder::new(member(1), [NodeId(2)], None), &c]);
        let refusal = a.hear(&hello(&b, 1)).unwrap_err();
        assert!(matches!(refusal, Refusal::WrongCluster { .. }), "{refusal}");
    }

    #[test]
    fn wrong_address_and_unlisted_caller_are_refused() {
        let (mut a, b) = (founder(1), founder(2));
        assert!(matches!(a.hear(&hello(&b, 3)), Err(Refusal::WrongAddress { .. })));
        let stranger = Founder::new(member(9), [NodeId(1)], None);
        assert!(matches!(a.hear(&hello(&stranger, 1)), Err(Refusal::NotListed { .. })));
    }

    #[test]
    fn cluster_of_one_needs_nobody() {
        let alone = Founder::new(member(1), [NodeId(1)], None);
        assert_eq!(alone.alone().unwrap().members(), [member(1)]);
        assert!(founder(1).alone().is_none());
    }
}
