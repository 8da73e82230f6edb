//! The rules that settings must keep together.

use std::collections::BTreeMap;

use super::address::is_wildcard;
use super::error::ConfigError;
use super::settings::join;
use super::{NODES_MAX, NodeConfig};

const MIB: u64 = 1 << 20;

/// What a frame needs besides the longest value: its header, the longest key, the entry around them.
const FRAME_SLACK_BYTES: u64 = 64 << 10;

impl NodeConfig {
    /// Refuses settings that do not fit together; says which, and what would.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_peers()?;
        self.check_addresses()?;
        self.check_sizes()?;
        self.check_times()
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        require(self.id != 0, || "--id: 0 is not an id; ids start at 1".to_owned())?;
        require(self.peers.len() <= NODES_MAX, || {
            format!("--peers: at most {NODES_MAX} nodes; there are {}", self.peers.len())
        })?;
        require(self.peers.is_empty() || self.peers.contains_key(&self.id), || {
            let ids = join(self.peers.keys());
            format!(
                "--id {} is not in --peers, which has {ids}; list every node, this one too",
                self.id
            )
        })?;
        let mut seen = BTreeMap::new();
        for (id, addr) in &self.peers {
            if let Some(other) = seen.insert(addr, id) {
                let message =
                    format!("--peers: nodes {other} and {id} have the same address {addr}");
                return Err(ConfigError::Conflict(message));
            }
            require(!is_wildcard(addr), || {
                format!(
                    "--peers: nobody can connect to {addr}; give node {id} an address that the others reach"
                )
            })?;
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        require(self.listen != self.peer_listen, || {
            format!("--listen and --peer-listen are both {}; they need two ports", self.listen)
        })?;
        require(self.peers.len() <= 1 || !is_wildcard(&self.advertise), || {
            format!(
                "clients cannot connect to {}; set --advertise to the address where they reach this node",
                self.advertise
            )
        })
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        require(self.slot_bytes.is_multiple_of(MIB) && self.slot_bytes > 0, || {
            format!("--slot-bytes {} is not whole MiB ({MIB} bytes)", self.slot_bytes)
        })?;
        let value_bytes = u64::try_from(self.value_bytes_max).unwrap_or(u64::MAX);
        let frame_bytes = value_bytes.saturating_add(FRAME_SLACK_BYTES);
        require(frame_bytes <= self.slot_bytes / 4, || {
            let needed = frame_bytes.saturating_mul(4).div_ceil(MIB);
            format!(
                "--value-bytes-max {value_bytes} does not fit a quarter of --slot-bytes {}; slots of {needed}MiB would do",
                self.slot_bytes
            )
        })?;
        let engine = engine::Options { slot_bytes: self.slot_bytes, ..engine::Options::default() };
        let space_bytes_min = engine.space_bytes_min();
        require(self.space_bytes_max == 0 || self.space_bytes_max >= space_bytes_min, || {
            format!(
                "--space-max {} is less than the log of --slot-bytes {} needs: at least {space_bytes_min}, and what the data takes",
                self.space_bytes_max, self.slot_bytes
            )
        })?;
        require(self.checkpoint_interval_bytes >= self.slot_bytes, || {
            format!(
                "--checkpoint-interval-bytes {} is less than --slot-bytes {}; only whole slots are freed",
                self.checkpoint_interval_bytes, self.slot_bytes
            )
        })
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        require(self.heartbeat_ms >= self.tick_ms, || {
            format!("--heartbeat-ms {} is less than --tick-ms {}", self.heartbeat_ms, self.tick_ms)
        })?;
        require(self.election_timeout_ms / 3 >= self.heartbeat_ms, || {
            format!(
                "--election-timeout-ms {} is less than 3 times --heartbeat-ms {}: one lost heartbeat would cost an election",
                self.election_timeout_ms, self.heartbeat_ms
            )
        })
    }
}

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Conflict(message())) }
}
