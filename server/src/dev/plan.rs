//! Who listens where.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use super::Options;
use crate::commands::outcome::{Exit, Failure};
use crate::config::IoBackend;

/// The ports for peers begin this far above those for clients.
const PEERS_ABOVE: u16 = 10;

/// A cluster on paper.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    nodes: usize,
    base_port: u16,
    pub(super) io: IoBackend,
}

impl Plan {
    pub(super) fn new(options: &Options, nodes: usize) -> Plan {
        Plan { nodes, base_port: options.base_port, io: options.io }
    }

    /// The ids of its nodes.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.nodes
    }

    /// Where clients reach a node.
    pub(super) fn client_address(&self, id: usize) -> String {
        address(self.client_port(id))
    }

    /// Where clients reach all nodes, by id.
    pub(super) fn client_addresses(&self) -> Vec<String> {
        self.ids().map(|id| self.client_address(id)).collect()
    }

    /// Where peers reach a node.
    pub(super) fn peer_address(&self, id: usize) -> String {
        address(self.peer_port(id))
    }

    /// All of that, as `serve --peers` takes it.
    pub(super) fn peers(&self) -> String {
        let peers: Vec<String> =
            self.ids().map(|id| format!("{id}={}", self.peer_address(id))).collect();
        peers.join(",")
    }

    /// Finds ports in use before anything is started.
    pub(super) fn check_ports(&self) -> Result<(), Failure> {
        for id in self.ids() {
            check_port(self.client_port(id), &format!("for clients of node {id}"))?;
            check_port(self.peer_port(id), &format!("for peers of node {id}"))?;
        }
        Ok(())
    }

    fn client_port(&self, id: usize) -> u16 {
        self.base_port + u16::try_from(id - 1).expect("at most 9 nodes")
    }

    fn peer_port(&self, id: usize) -> u16 {
        self.client_port(id) + PEERS_ABOVE
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn check_port(port: u16, what: &str) -> Result<(), Failure> {
    let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else { return Ok(()) };
    let message = if error.kind() == ErrorKind::AddrInUse {
        format!("port {port}, {what}, is in use")
    } else {
        format!("port {port}, {what}, cannot be used: {error}")
    };
    let hint =
        "stop what listens there (another `holdfast dev`?), or choose other ports with --base-port";
    Err(Failure::new(Exit::Failed, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(base_port: u16, nodes: usize) -> Plan {
        let options = Options { nodes: None, dir: None, base_port, io: IoBackend::Auto };
        Plan::new(&options, nodes)
    }

    #[test]
    fn clients_are_at_the_base_port_and_peers_ten_above() {
        let plan = plan(7400, 3);
        assert_eq!(plan.client_addresses(), ["127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402"]);
        assert_eq!(plan.peers(), "1=127.0.0.1:7410,2=127.0.0.1:7411,3=127.0.0.1:7412");
    }

    #[test]
    fn highest_base_port_has_room_for_nine_nodes() {
        let plan = plan(65_506, 9);
        assert_eq!(plan.peer_address(9), "127.0.0.1:65524");
    }

    #[test]
    fn port_in_use_is_named_with_its_purpose_and_the_flag_that_moves_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = check_port(port, "for peers of node 2").unwrap_err().to_string();
        assert!(text.contains(&format!("port {port}, for peers of node 2, is in use")), "{text}");
        assert!(text.contains("--base-port"), "{text}");
    }
}
