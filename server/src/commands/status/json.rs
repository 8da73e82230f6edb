//! Nodes as JSON for programs.

use protocol::{NodeStatus, PeerState, PeerStatus};
use serde_json::{Value, json};

use super::survey::Node;
use super::table::role_name;

/// One node as an object; `reachable` says which fields there are.
pub(super) fn node(node: &Node) -> Value {
    let mut object = match &node.status {
        Ok(status) => answered(status),
        Err(problem) => json!({ "reachable": false, "node": node.id, "error": problem }),
    };
    object["address"] = Value::from(node.address.as_str());
    object["lag"] = Value::from(node.lag().map(|(entries, _)| entries));
    object
}

fn answered(status: &NodeStatus) -> Value {
    json!({
        "reachable": true,
        "node": status.node,
        "cluster_id": format!("{:032x}", status.cluster_id),
        "version": status.version,
        "role": role_name(status.role),
        "term": status.term,
        "leader": status.leader.as_ref().map(|leader| leader.node),
        "leader_address": status.leader.as_ref().map(|leader| leader.addr.as_str()),
        "commit": status.commit_index,
        "applied": status.applied_index,
        "last": status.last_index,
        "durable": status.durable_index,
        "revision": status.revision,
        "keys": status.keys,
        "sessions": status.sessions,
        "locks": status.locks,
        "connections": status.connections,
        "disk": {
            "backend": status.disk.backend,
            "direct": status.disk.direct,
            "damaged": status.disk.damaged,
        },
        "peers": status.peers.iter().map(peer).collect::<Vec<Value>>(),
    })
}

fn peer(peer: &PeerStatus) -> Value {
    let state = match peer.state {
        PeerState::Unknown => "unknown",
        PeerState::Probe => "probe",
        PeerState::Replicate => "replicate",
        PeerState::Snapshot => "snapshot",
    };
    json!({
        "node": peer.node,
        "address": peer.addr,
        "match": peer.match_index,
        "lag": peer.lag_entries,
        "state": state,
        "connected": peer.connected,
    })
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::nodes;

    #[test]
    fn objects_say_what_the_table_says() {
        let [leader, follower, down] =
            nodes().iter().map(super::node).collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(leader["role"], "leader");
        assert_eq!(leader["cluster_id"], "00000000000000000000000000000abc");
        assert!(leader["lag"].is_null());
        assert_eq!(leader["peers"][1]["connected"], false);
        assert_eq!(follower["lag"], 3);
        assert_eq!(follower["durable"], 88);
        assert_eq!(down["reachable"], false);
        assert_eq!(down["node"], 3);
        assert_eq!(down["error"], "c:1 refused");
    }
}
