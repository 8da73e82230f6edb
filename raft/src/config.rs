//! Limits and timings of one node, checked before anything uses them.

use crate::mutant::Mutant;
use crate::{Micros, NodeId, RecoverError};

/// How one node behaves. Start from [`Config::new`]; [`Raft::recover`](crate::Raft::recover)
/// refuses values out of range. Members may differ in all of it but `entry_bytes_max`, though
/// election timeouts that differ much make elections slow.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This node. Not 0.
    pub id: NodeId,
    /// How often the caller means to call [`Raft::tick`](crate::Raft::tick). At least 1. The core
    /// counts ticks and never reads time, so this only says what the counts below amount to.
    pub tick: Micros,
    /// A leader speaks to every peer at least this often. At least 1.
    pub heartbeat_ticks: u32,
    /// The election timeout E: a follower waits between E and 2 E ticks for its leader; a leader
    /// that hears no quorum for E steps down. At least 3 heartbeats.
    pub election_ticks: u32,
    /// Entries sent to one peer and not acknowledged, in bytes. At least `append_bytes_max`.
    pub window_bytes_max: u64,
    /// Entries sent to one peer and not acknowledged, in messages. At least 1.
    pub window_count_max: u32,
    /// Entries in one message, in bytes; a larger single entry travels alone. At least 1.
    pub append_bytes_max: u32,
    /// Entries kept in memory for slow peers. Entries that are not yet durable, or not yet handed
    /// to the caller for applying, are kept beyond this limit.
    pub cache_bytes_max: u64,
    /// Entries that a leader holds and that are not yet committed, their bookkeeping included;
    /// above it proposals are refused.
    pub uncommitted_bytes_max: u64,
    /// The largest payload of one entry. The same for all members: a follower refuses a larger one,
    /// and with it the link over which it came, since its log cannot take it.
    pub entry_bytes_max: u32,
    /// Payload bytes in one [`Ready::committed`](crate::Ready::committed), unless a single entry
    /// is larger. At least 1.
    pub committed_bytes_per_ready: u64,
    /// Reads that wait for their index; more are refused. At least 1.
    pub reads_max: u32,
    /// Payload bytes asked for in one [`Load`](crate::Load). At least 1.
    pub load_bytes_max: u32,
    /// The deliberate bug to run with.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Config {
    /// The defaults: ticks of 10 ms, heartbeats every 50 ms, an election timeout of 250 ms.
    pub fn new(id: NodeId) -> Config {
        Config {
            id,
            tick: Micros(10_000),
            heartbeat_ticks: 5,
            election_ticks: 25,
            window_bytes_max: 32 << 20,
            window_count_max: 256,
            append_bytes_max: 1 << 20,
            cache_bytes_max: 64 << 20,
            uncommitted_bytes_max: 256 << 20,
            entry_bytes_max: 12 << 20,
            committed_bytes_per_ready: 4 << 20,
            reads_max: 1 << 16,
            load_bytes_max: 4 << 20,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// Refuses what could not work.
    pub fn validate(&self) -> Result<(), RecoverError> {
        let rules = [
            (self.id.0 > 0, "id must not be 0"),
            (self.tick.0 > 0, "tick must not be 0"),
            (self.heartbeat_ticks > 0, "heartbeat_ticks must not be 0"),
            (
                u64::from(self.election_ticks) >= 3 * u64::from(self.heartbeat_ticks),
                "election_ticks must be at least 3 x heartbeat_ticks",
            ),
            (self.append_bytes_max > 0, "append_bytes_max must not be 0"),
            (
                self.window_bytes_max >= u64::from(self.append_bytes_max),
                "window_bytes_max must be at least append_bytes_max",
            ),
            (self.window_count_max > 0, "window_count_max must not be 0"),
            (self.committed_bytes_per_ready > 0, "committed_bytes_per_ready must not be 0"),
            (self.reads_max > 0, "reads_max must not be 0"),
            (self.load_bytes_max > 0, "load_bytes_max must not be 0"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(RecoverError::Config(rule)),
            None => Ok(()),
        }
    }

    /// Whether to behave wrongly in this way. `false` unless the feature `mutants` is on.
    #[cfg(feature = "mutants")]
    pub(crate) fn mutant(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether to behave wrongly in this way. `false` unless the feature `mutants` is on.
    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "the other build reads the field")]
    pub(crate) const fn mutant(&self, _: Mutant) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> bool {
        let mut config = Config::new(NodeId(1));
        change(&mut config);
        matches!(config.validate(), Err(RecoverError::Config(_)))
    }

    #[test]
    fn defaults_are_accepted() {
        assert_eq!(Config::new(NodeId(1)).validate(), Ok(()));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(refused(|c| c.id = NodeId(0)));
        assert!(refused(|c| c.tick = Micros(0)));
        assert!(refused(|c| c.heartbeat_ticks = 0));
        assert!(refused(|c| c.election_ticks = 14));
        assert!(refused(|c| c.append_bytes_max = 0));
        assert!(refused(|c| c.window_bytes_max = (1 << 20) - 1));
        assert!(refused(|c| c.window_count_max = 0));
        assert!(refused(|c| c.committed_bytes_per_ready = 0));
        assert!(refused(|c| c.reads_max = 0));
        assert!(refused(|c| c.load_bytes_max = 0));
    }
}
