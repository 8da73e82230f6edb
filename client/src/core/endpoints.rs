//! The nodes that the client knows, and which of them it takes for the leader.

use protocol::Error as Refusal;

use super::backoff::Jitter;
use super::{ConnId, Micros};

/// How many nodes are remembered. Hints beyond that are not followed.
const ENDPOINTS_MAX: usize = 64;

/// One node's address and how it fared.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) addr: String,
    pub(super) conn: Option<ConnId>,
    /// Failures since the last good connection.
    pub(super) failures: u32,
    /// No connection is tried before.
    pub(super) retry_at: Micros,
    /// Its last word, if that was that it will never take this client.
    pub(super) refusal: Option<Refusal>,
}

/// Invariants: it is never empty; `leader` is one of them; an address is there once.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    leader: usize,
}

impl Endpoints {
    /// Requires: `addrs` is not empty.
    pub(super) fn new(addrs: &[String], jitter: &mut Jitter) -> Endpoints {
        let mut endpoints = Endpoints { all: Vec::new(), leader: 0 };
        for addr in addrs {
            endpoints.learn(addr);
        }
        let count = endpoints.all.len();
        assert!(count > 0);
        // Many clients start at once after an outage: they should not all ask the same node.
        let start = jitter.next() % u64::try_from(count).expect("a count of addresses fits");
        endpoints.leader = usize::try_from(start).expect("it is below a count");
        endpoints
    }

    /// The node at `addr`, remembered if there is room.
    pub(super) fn learn(&mut self, addr: &str) -> Option<usize> {
        if let Some(known) = self.all.iter().position(|endpoint| endpoint.addr == addr) {
            return Some(known);
        }
        if self.all.len() == ENDPOINTS_MAX {
            return None;
        }
        let addr = addr.to_owned();
        let retry_at = Micros(0);
        self.all.push(Endpoint { addr, conn: None, failures: 0, retry_at, refusal: None });
        Some(self.all.len() - 1)
    }

    /// The node that is taken for the leader.
    pub(super) fn leader(&self) -> usize {
        self.leader
    }

    pub(super) fn set_leader(&mut self, endpoint: usize) {
        assert!(endpoint < self.all.len());
        self.leader = endpoint;
    }

    /// Takes another node for the leader: the next one that may be tried now, or else the one that
    /// may be tried soonest. With one node only, the same again.
    pub(super) fn rotate(&mut self, now: Micros) {
        let count = self.all.len();
        let others = (1..=count).map(|step| (self.leader + step) % count);
        let soonest = others.min_by_key(|other| self.get(*other).retry_at.max(now));
        self.leader = soonest.expect("there is at least one endpoint");
    }

    pub(super) fn get(&self, endpoint: usize) -> &Endpoint {
        self.all.get(endpoint).expect("endpoints are never forgotten")
    }

    pub(super) fn get_mut(&mut self, endpoint: usize) -> &mut Endpoint {
        self.all.get_mut(endpoint).expect("endpoints are never forgotten")
    }

    /// Whether no node takes this client. If so, they are asked anew from here on.
    pub(super) fn take_refusals(&mut self) -> bool {
        let refused = self.all.iter().all(|endpoint| endpoint.refusal.is_some());
        if refused {
            self.all.iter_mut().for_each(|endpoint| endpoint.refusal = None);
        }
        refused
    }

    /// Whether more than one node is known.
    pub(super) fn has_alternatives(&self) -> bool {
        self.all.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(addrs: &[&str]) -> Endpoints {
        let addrs: Vec<String> = addrs.iter().map(|addr| (*addr).to_owned()).collect();
        let mut endpoints = Endpoints::new(&addrs, &mut Jitter::new(1));
        endpoints.set_leader(0);
        endpoints
    }

    #[test]
    fn rotation_prefers_a_node_that_may_be_tried_now() {
        let mut endpoints = endpoints(&["a", "b", "c"]);
        endpoints.get_mut(1).retry_at = Micros(100);
        endpoints.rotate(Micros(50));
        assert_eq!(endpoints.leader(), 2);
    }

    #[test]
    fn rotation_visits_every_node_when_all_may_be_tried() {
        let mut endpoints = endpoints(&["a", "b", "c"]);
        let visited: Vec<usize> = (0..3)
            .map(|_| {
                endpoints.rotate(Micros(0));
                endpoints.leader()
            })
            .collect();
        assert_eq!(visited, [1, 2, 0]);
    }

    #[test]
    fn address_is_remembered_once_and_hints_are_bounded() {
        let mut endpoints = endpoints(&["a", "a", "b"]);
        assert_eq!(endpoints.all.len(), 2);
        for hint in 0..1000 {
            endpoints.learn(&format!("host:{hint}"));
        }
        assert_eq!(endpoints.all.len(), ENDPOINTS_MAX);
    }
}
