//! Asking all nodes, and those that they know.

use std::collections::BTreeSet;

use client::{Client, Error};
use protocol::{NodeStatus, PeerState, PeerStatus, Role};
use tokio::task::JoinSet;

/// One node, or an address where none answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    /// Its id, if it or another node told.
    pub(super) id: Option<u64>,
    /// Where clients reach it.
    pub(super) address: String,
    /// What it says, or why it says nothing.
    pub(super) status: Result<NodeStatus, String>,
    /// How the leader sees it; `None` for the leader itself, and without one.
    pub(super) seen: Option<PeerStatus>,
}

/// Asks the nodes at `endpoints`, then the nodes that they name, until there are no new ones.
/// Answers them by id, the unknown last.
pub(super) async fn survey(client: &Client, endpoints: &[String]) -> Vec<Node> {
    let mut asked = BTreeSet::new();
    let mut answers = Vec::new();
    let mut next: BTreeSet<String> = endpoints.iter().cloned().collect();
    while !next.is_empty() {
        answers.extend(ask(client, &next).await);
        asked.append(&mut next);
        next = named(&answers).filter(|address| !asked.contains(address)).collect();
    }
    assemble(answers)
}

type Answer = (String, Result<NodeStatus, String>);

async fn ask(client: &Client, addresses: &BTreeSet<String>) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for address in addresses.iter().cloned() {
        let client = client.clone();
        asking.spawn(async move {
            let status = client.status(&address).await;
            (address, status.map_err(problem))
        });
    }
    asking.join_all().await
}

/// Why a node says nothing, which needs no word on whether the question took effect.
fn problem(error: Error) -> String {
    if let Error::Disconnected { problem, .. } = error { problem } else { error.to_string() }
}

fn named(answers: &[Answer]) -> impl Iterator<Item = String> {
    statuses(answers).flat_map(|status| {
        let leader = status.leader.iter().map(|leader| &leader.addr);
        let peers = status.peers.iter().map(|peer| &peer.addr);
        // A peer that has not been heard of since the start has no address yet.
        leader.chain(peers).filter(|address| !address.is_empty()).cloned()
    })
}

fn statuses(answers: &[Answer]) -> impl Iterator<Item = &NodeStatus> {
    answers.iter().filter_map(|(_, status)| status.as_ref().ok())
}

fn assemble(mut answers: Vec<Answer>) -> Vec<Node> {
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    let leader = statuses(&answers)
        .filter(|status| status.role == Role::Leader)
        .max_by_key(|status| status.term)
        .cloned();
    let ids: Vec<(String, u64)> = addresses_of(&answers);
    let mut seen = BTreeSet::new();
    let mut nodes: Vec<Node> = answers
        .into_iter()
        .map(|(address, status)| {
            let told = ids.iter().find(|(known, _)| *known == address).map(|(_, id)| *id);
            let id = status.as_ref().map_or(told, |status| Some(status.node));
            Node { id, address, status, seen: as_seen(id, leader.as_ref()) }
        })
        // One node may be reached at several addresses.
        .filter(|node| node.status.is_err() || seen.insert(node.id))
        .collect();
    nodes.extend(unheard(leader.as_ref(), &nodes));
    nodes.sort_by_key(|node| (node.id.is_none(), node.id));
    nodes
}

/// Which node is at an address, as the others say.
fn addresses_of(answers: &[Answer]) -> Vec<(String, u64)> {
    let peers = statuses(answers).flat_map(|status| &status.peers);
    peers.map(|peer| (peer.addr.clone(), peer.node)).collect()
}

fn as_seen(id: Option<u64>, leader: Option<&NodeStatus>) -> Option<PeerStatus> {
    leader?.peers.iter().find(|peer| Some(peer.node) == id).cloned()
}

/// The members of which nobody knows where clients reach them.
fn unheard(leader: Option<&NodeStatus>, nodes: &[Node]) -> Vec<Node> {
    let known: BTreeSet<u64> = nodes.iter().filter_map(|node| node.id).collect();
    let peers = leader.into_iter().flat_map(|leader| &leader.peers);
    peers
        .filter(|peer| !known.contains(&peer.node))
        .map(|peer| Node {
            id: Some(peer.node),
            address: String::new(),
            status: Err("the leader has not heard of it since it started".to_owned()),
            seen: Some(peer.clone()),
        })
        .collect()
}

impl Node {
    /// How many entries it lacks, as the leader sees it, and what is special about that.
    pub(super) fn lag(&self) -> Option<(u64, Option<&'static str>)> {
        let seen = self.seen.as_ref()?;
        let remark = match seen.state {
            _ if !seen.connected => Some("disconnected"),
            PeerState::Probe => Some("probing"),
            PeerState::Snapshot => Some("snapshot"),
            PeerState::Unknown | PeerState::Replicate => None,
        };
        Some((seen.lag_entries, remark))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use protocol::{DiskStatus, LeaderHint};

    use super::*;

    pub(in super::super) fn peer(node: u64, addr: &str, lag_entries: u64) -> PeerStatus {
        PeerStatus {
            node,
            addr: addr.to_owned(),
            match_index: 90 - lag_entries,
            lag_entries,
            state: PeerState::Replicate,
            connected: true,
        }
    }

    pub(in super::super) fn status(node: u64, role: Role, peers: Vec<PeerStatus>) -> NodeStatus {
        NodeStatus {
            node,
            cluster_id: 0xabc,
            version: "0.1.0".to_owned(),
            role,
            term: 3,
            leader: Some(LeaderHint { node: 1, addr: "a:1".to_owned() }),
            commit_index: 90,
            applied_index: 89,
            last_index: 91,
            durable_index: 88,
            revision: 70,
            keys: 5,
            sessions: 1,
            locks: 0,
            connections: 2,
            disk: DiskStatus { backend: "uring".to_owned(), direct: true, damaged: node - 1 },
            peers,
        }
    }

    /// Node 1 leads, node 2 is three entries behind and reached twice, node 3 is down.
    pub(in super::super) fn answers() -> Vec<Answer> {
        let down = PeerStatus { connected: false, ..peer(3, "c:1", 9) };
        let leader = status(1, Role::Leader, vec![peer(2, "b:1", 3), down]);
        let follower = status(2, Role::Follower, vec![peer(1, "a:1", 0), peer(3, "c:1", 0)]);
        vec![
            ("c:1".to_owned(), Err("c:1 refused".to_owned())),
            ("a:1".to_owned(), Ok(leader)),
            ("b:1".to_owned(), Ok(follower.clone())),
            ("b-too:1".to_owned(), Ok(follower)),
        ]
    }

    pub(in super::super) fn nodes() -> Vec<Node> {
        assemble(answers())
    }

    #[test]
    fn every_node_is_there_once_by_id_even_if_it_does_not_answer() {
        let ids: Vec<Option<u64>> = nodes().iter().map(|node| node.id).collect();
        assert_eq!(ids, [Some(1), Some(2), Some(3)]);
        assert_eq!(nodes()[2].status, Err("c:1 refused".to_owned()));
    }

    #[test]
    fn lag_is_what_the_leader_says() {
        let lags: Vec<_> = nodes().iter().map(Node::lag).collect();
        assert_eq!(lags, [None, Some((3, None)), Some((9, Some("disconnected")))]);
    }

    #[test]
    fn addresses_of_peers_and_leaders_are_followed() {
        let all: BTreeSet<String> = named(&answers()).collect();
        assert_eq!(all, ["a:1", "b:1", "c:1"].map(str::to_owned).into());
    }

    #[test]
    fn member_without_an_address_is_still_shown() {
        let silent = PeerStatus { connected: false, ..peer(3, "", 90) };
        let leader = status(1, Role::Leader, vec![silent]);
        let nodes = assemble(vec![("a:1".to_owned(), Ok(leader))]);
        assert_eq!(nodes[1].id, Some(3));
        assert!(nodes[1].status.is_err());
    }

    #[test]
    fn wrong_endpoint_is_shown_last() {
        let leader = status(1, Role::Leader, Vec::new());
        let wrong = ("0:9".to_owned(), Err("refused".to_owned()));
        let nodes = assemble(vec![wrong, ("a:1".to_owned(), Ok(leader))]);
        assert_eq!((nodes[0].id, nodes[1].id), (Some(1), None));
    }
}
