//! Who leads, and since when it serves.

use std::fmt;
use std::time::Duration;

use client::Client;
use protocol::{NodeStatus, Role};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the nodes are asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A node on the same machine that does not answer within this is not there.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Read to see whether a majority answers; nobody writes it.
const PROBE_KEY: &str = "holdfast/dev/probe";

/// Who leads, and in which term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leader {
    term: u64,
    node: u64,
    address: String,
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leader: node {} at {}, term {}", self.node, self.address, self.term)
    }
}

/// Asks the nodes of a cluster who leads.
pub(super) struct LeaderWatch {
    client: Client,
    addresses: Vec<String>,
    rounds: Interval,
    problem: String,
}

impl LeaderWatch {
    pub(super) fn new(client: &Client, addresses: Vec<String>) -> LeaderWatch {
        let mut rounds = interval(ASK_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = client.with_timeout(ANSWER_TIMEOUT);
        LeaderWatch { client, addresses, rounds, problem: "no node has been asked".to_owned() }
    }

    /// Waits until every node answers, one of them leads, and a majority lets it answer a read.
    pub(super) async fn ready(&mut self) -> Leader {
        loop {
            self.rounds.tick().await;
            let Some(leader) = self.round(Wanted::All).await else { continue };
            match self.client.get(PROBE_KEY).await {
                Ok(_) => return leader,
                Err(error) => self.problem = error.to_string(),
            }
        }
    }

    /// Waits until another node leads, or the same in a later term.
    pub(super) async fn change_from(&mut self, known: &Leader) -> Leader {
        loop {
            self.rounds.tick().await;
            let leader = self.round(Wanted::Leader).await;
            if let Some(leader) = leader.filter(|leader| leader.term > known.term) {
                return leader;
            }
        }
    }

    /// What stood in the way last.
    pub(super) fn problem(&self) -> &str {
        &self.problem
    }

    /// Asks every node once; answers the leader of the highest term.
    async fn round(&mut self, wanted: Wanted) -> Option<Leader> {
        let mut leader = None;
        for address in &self.addresses {
            match self.client.status(address).await {
                Ok(status) => leader = later(leader, leading(&status, address)),
                Err(error) => {
                    self.problem = error.to_string();
                    if wanted == Wanted::All {
                        return None;
                    }
                }
            }
        }
        if leader.is_none() {
            "no node leads".clone_into(&mut self.problem);
        }
        leader
    }
}

/// Whose answers a round needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Leader,
}

fn leading(status: &NodeStatus, address: &str) -> Option<Leader> {
    let leader = Leader { term: status.term, node: status.node, address: address.to_owned() };
    (status.role == Role::Leader).then_some(leader)
}

fn later(one: Option<Leader>, other: Option<Leader>) -> Option<Leader> {
    one.into_iter().chain(other).max_by_key(|leader| leader.term)
}
