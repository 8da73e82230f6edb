//! The configuration of one node: defaults, then a file, then the environment, then flags.
//!
//! Every setting is one row of [`SETTINGS`]; its flag, its key in the file and its environment
//! variable are the same name in three spellings. A value that cannot be is an error wherever it
//! stands, even where a stronger layer overrides it. What comes out has been checked as a whole:
//! whoever gets a [`NodeConfig`] from here may rely on the rules of [`NodeConfig::validate`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use engine::io::open::Backend;

mod address;
mod error;
mod file;
mod settings;
mod units;
mod validate;

pub use address::check_address;
pub use error::ConfigError;
pub use settings::{SETTINGS, Setting};
pub use units::{parse_bytes, parse_duration};

use settings::Draft;

/// The most nodes of a cluster.
pub const NODES_MAX: usize = 9;

/// Which way the log goes to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum IoBackend {
    /// `io_uring` where the kernel permits it, else plain system calls.
    #[default]
    Auto,
    /// `io_uring`; the node does not start without it.
    Uring,
    /// Plain system calls.
    Syscall,
}

impl IoBackend {
    /// The same in the engine's words.
    pub fn backend(self) -> Backend {
        match self {
            IoBackend::Auto => Backend::Auto,
            IoBackend::Uring => Backend::Uring,
            IoBackend::Syscall => Backend::Syscall,
        }
    }
}

impl FromStr for IoBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<IoBackend, String> {
        match text {
            "auto" => Ok(IoBackend::Auto),
            "uring" => Ok(IoBackend::Uring),
            "syscall" => Ok(IoBackend::Syscall),
            _ => Err("auto, uring or syscall".to_owned()),
        }
    }
}

impl std::fmt::Display for IoBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            IoBackend::Auto => "auto",
            IoBackend::Uring => "uring",
            IoBackend::Syscall => "syscall",
        })
    }
}

/// Everything that one node is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// Its id in the cluster; not 0.
    pub id: u64,
    /// Where clients connect, `host:port`.
    pub listen: String,
    /// Where peers connect, `host:port`.
    pub peer_listen: String,
    /// The address of `listen` as clients reach it, `host:port`; told to them and to the peers.
    pub advertise: String,
    /// The data directory; created if it is not there.
    pub data: PathBuf,
    /// The peer addresses of all members by id, this node's included; empty for a cluster of one.
    pub peers: BTreeMap<u64, String>,
    /// Which way the log goes to the disk.
    pub io: IoBackend,
    /// The longest value it takes, in bytes; 1 B to 8 MiB.
    pub value_bytes_max: usize,
    /// A checkpoint is due after this much log, in bytes, or twice the last checkpoint if that is more.
    pub checkpoint_interval_bytes: u64,
    /// The size of one slot of the log, in bytes; whole MiB, 1 MiB to 1 GiB.
    pub slot_bytes: u64,
    /// What the data directory may have, in bytes; 0 is what the file system has.
    pub space_bytes_max: u64,
    /// Durable writes in flight at once; 1 to 64.
    pub inflight_frames_max: usize,
    /// Values that were read from the disk are kept in memory up to this size, in bytes; 0 keeps none.
    pub cache_bytes_max: usize,
    /// Slots are cleaned while less than this much of those that hold nothing but values is live, in hundredths; 0 is never.
    pub clean_below_percent: u8,
    /// What the cleaner copies in a second when nobody writes, in bytes.
    pub clean_bytes_per_second: u64,
    /// How fast what nobody reads is read through for damage, in bytes a second; 0 is not at all.
    pub scrub_bytes_per_second: u64,
    /// Client connections at once.
    pub connections_max: usize,
    /// How often raft's clock ticks, in milliseconds.
    pub tick_ms: u64,
    /// A leader speaks to every peer at least this often, in milliseconds.
    pub heartbeat_ms: u64,
    /// T in milliseconds: a follower without a leader waits for a time drawn from [T, 2T) and then stands for election.
    pub election_timeout_ms: u64,
    /// Threads that serve clients; 0 is by the number of cores.
    pub client_threads: usize,
    /// Threads that decode the checkpoint at a start; 0 is by the number of cores.
    pub recovery_threads: usize,
}

impl NodeConfig {
    /// Puts a configuration together and checks it.
    ///
    /// `file` is the TOML file, if there is one; `env` answers what an environment variable holds
    /// (empty counts as not set); `flags` are pairs of a flag without its dashes and its value.
    pub fn load(
        file: Option<&Path>,
        env: impl Fn(&str) -> Option<OsString>,
        flags: &[(&str, String)],
    ) -> Result<NodeConfig, ConfigError> {
        let mut draft = Draft::default();
        if let Some(path) = file {
            file::apply(path, &mut draft)?;
        }
        for setting in SETTINGS {
            let name = setting.env_name();
            if let Some(value) = env(&name).filter(|value| !value.is_empty()) {
                setting.apply(&name, &value.to_string_lossy(), &mut draft)?;
            }
        }
        for (flag, value) in flags {
            let setting = Setting::by_flag(flag).expect("flags are made from the same table");
            setting.apply(&format!("--{flag}"), value, &mut draft)?;
        }
        let config = draft.finish()?;
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
