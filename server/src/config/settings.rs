//! The table of settings, and the draft that they fill.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::address::check_address;
use super::error::ConfigError;
use super::units::parse_bytes;
use super::{IoBackend, NODES_MAX, NodeConfig};

/// One setting of a node.
#[derive(Debug)]
pub struct Setting {
    /// Its flag, without the dashes.
    pub flag: &'static str,
    /// What its value is called in the help.
    pub value_name: &'static str,
    /// What it does and what it is when it is not given.
    pub help: &'static str,
    /// Parses the value into the draft; answers what is allowed if that does not work.
    set: fn(&mut Draft, &str) -> Result<(), String>,
}

impl Setting {
    /// The setting with this flag.
    pub fn by_flag(flag: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.flag == flag)
    }

    /// The setting with this key in the file.
    pub(super) fn by_key(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key() == key)
    }

    /// Its key in the file.
    pub fn key(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// Its environment variable.
    pub fn env_name(&self) -> String {
        format!("HOLDFAST_{}", self.key().to_uppercase())
    }

    /// Takes `value`, which stands at `origin`.
    pub(super) fn apply(
        &self,
        origin: &str,
        value: &str,
        draft: &mut Draft,
    ) -> Result<(), ConfigError> {
        (self.set)(draft, value).map_err(|allowed| ConfigError::Value {
            origin: origin.to_owned(),
            value: value.to_owned(),
            allowed,
        })
    }
}

/// A configuration on its way: what depends on other settings is still open.
pub(super) struct Draft {
    config: NodeConfig,
    id: Option<u64>,
    peer_listen: Option<String>,
    advertise: Option<String>,
}

impl Default for Draft {
    fn default() -> Draft {
        let config = NodeConfig {
            id: 1,
            listen: "127.0.0.1:7400".to_owned(),
            peer_listen: "127.0.0.1:7410".to_owned(),
            advertise: String::new(),
            data: PathBuf::from("holdfast-data"),
            peers: BTreeMap::new(),
            io: IoBackend::Auto,
            value_bytes_max: 1 << 20,
            checkpoint_interval_bytes: 1 << 30,
            slot_bytes: 64 << 20,
            space_bytes_max: 0,
            inflight_frames_max: 4,
            cache_bytes_max: 256 << 20,
            clean_below_percent: 60,
            clean_bytes_per_second: 8 << 20,
            scrub_bytes_per_second: 4 << 20,
            connections_max: 10_000,
            tick_ms: 10,
            heartbeat_ms: 50,
            election_timeout_ms: 250,
            client_threads: 0,
            recovery_threads: 0,
        };
        Draft { config, id: None, peer_listen: None, advertise: None }
    }
}

impl Draft {
    /// Fills what depends on other settings.
    pub(super) fn finish(self) -> Result<NodeConfig, ConfigError> {
        let Draft { mut config, id, peer_listen, advertise } = self;
        if id.is_none() && !config.peers.is_empty() {
            let ids = join(config.peers.keys());
            let message = format!("--id is required with --peers: which of {ids} is this node");
            return Err(ConfigError::Conflict(message));
        }
        config.id = id.unwrap_or(config.id);
        if let Some(own) = config.peers.get(&config.id) {
            config.peer_listen.clone_from(own);
        }
        config.peer_listen = peer_listen.unwrap_or(config.peer_listen);
        config.advertise = advertise.unwrap_or_else(|| config.listen.clone());
        Ok(config)
    }
}

/// All settings of a node, in the order of its help.
pub const SETTINGS: &[Setting] = &[
    Setting {
        flag: "id",
        value_name: "N",
        help: "This node's id in the cluster, not 0 [default: 1; required with --peers]",
        set: |draft, text| number(text, 1..=u64::MAX).map(|id| draft.id = Some(id)),
    },
    Setting {
        flag: "listen",
        value_name: "ADDR",
        help: "Where clients connect [default: 127.0.0.1:7400]",
        set: |draft, text| check_address(text).map(|addr| draft.config.listen = addr),
    },
    Setting {
        flag: "peer-listen",
        value_name: "ADDR",
        help: "Where the other nodes connect [default: this node's address in --peers, or 127.0.0.1:7410]",
        set: |draft, text| check_address(text).map(|addr| draft.peer_listen = Some(addr)),
    },
    Setting {
        flag: "advertise",
        value_name: "ADDR",
        help: "The address that clients are told to find this node at [default: --listen]",
        set: |draft, text| check_address(text).map(|addr| draft.advertise = Some(addr)),
    },
    Setting {
        flag: "data",
        value_name: "DIR",
        help: "The data directory, created if missing; one node each [default: holdfast-data]",
        set: |draft, text| directory(text).map(|dir| draft.config.data = dir),
    },
    Setting {
        flag: "peers",
        value_name: "ID=ADDR,…",
        help: "The peer addresses of all nodes of the cluster, this one included; the same list on each [default: a cluster of one]",
        set: |draft, text| peers(text).map(|peers| draft.config.peers = peers),
    },
    Setting {
        flag: "io",
        value_name: "auto|uring|syscall",
        help: "How the log is written: io_uring, plain system calls, or the first that works [default: auto]",
        set: |draft, text| text.parse().map(|io| draft.config.io = io),
    },
    Setting {
        flag: "value-bytes-max",
        value_name: "BYTES",
        help: "The longest value that is taken, up to 8MiB; the same on each node [default: 1MiB]",
        set: |draft, text| {
            size(text, 1..=8 << 20).map(|bytes| {
                draft.config.value_bytes_max = usize::try_from(bytes).expect("at most 8 MiB");
            })
        },
    },
    Setting {
        flag: "checkpoint-interval-bytes",
        value_name: "BYTES",
        help: "A checkpoint is taken after this much log, or twice the last checkpoint if that is more [default: 1GiB]",
        set: |draft, text| {
            size(text, 1 << 20..=1 << 40)
                .map(|bytes| draft.config.checkpoint_interval_bytes = bytes)
        },
    },
    Setting {
        flag: "slot-bytes",
        value_name: "BYTES",
        help: "The size of the log's files, whole MiB; fixed for the life of a data directory [default: 64MiB]",
        set: |draft, text| {
            size(text, 1 << 20..=1 << 30).map(|bytes| draft.config.slot_bytes = bytes)
        },
    },
    Setting {
        flag: "space-max",
        value_name: "BYTES",
        help: "What the data directory may have; beyond it new data is refused as on a full disk [default: what the file system has]",
        set: |draft, text| {
            size(text, 1..=u64::MAX).map(|bytes| draft.config.space_bytes_max = bytes)
        },
    },
    Setting {
        flag: "inflight-frames-max",
        value_name: "N",
        help: "How many durable writes may be in flight at once [default: 4]",
        set: |draft, text| {
            number(text, 1..=64).map(|count| draft.config.inflight_frames_max = count)
        },
    },
    Setting {
        flag: "connections-max",
        value_name: "N",
        help: "How many clients may be connected at once; less if the limit of open files is too low [default: 10000]",
        set: |draft, text| {
            number(text, 1..=1_000_000).map(|count| draft.config.connections_max = count)
        },
    },
    Setting {
        flag: "tick-ms",
        value_name: "MS",
        help: "How often the consensus clock ticks [default: 10]",
        set: |draft, text| number(text, 1..=1_000).map(|ms| draft.config.tick_ms = ms),
    },
    Setting {
        flag: "heartbeat-ms",
        value_name: "MS",
        help: "How often a leader speaks to each follower at least [default: 50]",
        set: |draft, text| number(text, 1..=60_000).map(|ms| draft.config.heartbeat_ms = ms),
    },
    Setting {
        flag: "election-timeout-ms",
        value_name: "MS",
        help: "A follower stands for election after T to 2T without a leader [default: 250]",
        set: |draft, text| {
            number(text, 1..=600_000).map(|ms| draft.config.election_timeout_ms = ms)
        },
    },
    Setting {
        flag: "client-threads",
        value_name: "N",
        help: "Threads that serve clients; 0 is by the number of cores [default: 0]",
        set: |draft, text| number(text, 0..=256).map(|count| draft.config.client_threads = count),
    },
    Setting {
        flag: "cache-bytes-max",
        value_name: "SIZE",
        help: "Memory for values of up to 256 KiB that were read from the disk, beside the 32 MiB of the log's end; 0 keeps none [default: 256MiB]",
        set: |draft, text| {
            let bytes = size(text, 0..=1 << 40)?;
            draft.config.cache_bytes_max =
                usize::try_from(bytes).map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Setting {
        flag: "clean-below-percent",
        value_name: "N",
        help: "Log files that hold little are cleaned while less than this much of those that hold values is live, 0 to 70; 0 is never [default: 60]",
        set: |draft, text| {
            number(text, 0..=70).map(|percent| draft.config.clean_below_percent = percent)
        },
    },
    Setting {
        flag: "clean-bytes-per-second",
        value_name: "SIZE",
        help: "How fast values are moved out of such files while nobody writes; writers let it go faster [default: 8MiB]",
        set: |draft, text| {
            size(text, 0..=1 << 40).map(|bytes| draft.config.clean_bytes_per_second = bytes)
        },
    },
    Setting {
        flag: "scrub-bytes-per-second",
        value_name: "SIZE",
        help: "How fast sealed log files and checkpoints are read through for damage, once an hour at most; 0 is not at all [default: 4MiB]",
        set: |draft, text| {
            size(text, 0..=1 << 40).map(|bytes| draft.config.scrub_bytes_per_second = bytes)
        },
    },
    Setting {
        flag: "recovery-threads",
        value_name: "N",
        help: "Threads that decode the checkpoint at a start; 0 is by the number of cores [default: 0]",
        set: |draft, text| number(text, 0..=256).map(|count| draft.config.recovery_threads = count),
    },
];

fn number<T: FromStr + PartialOrd + Display>(
    text: &str,
    allowed: RangeInclusive<T>,
) -> Result<T, String> {
    let parsed = text.parse().ok().filter(|number| allowed.contains(number));
    parsed.ok_or_else(|| format!("a whole number from {} to {}", allowed.start(), allowed.end()))
}

fn size(text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if allowed.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("a size from {} to {} bytes", allowed.start(), allowed.end()))
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn peers(text: &str) -> Result<BTreeMap<u64, String>, String> {
    let mut peers = BTreeMap::new();
    for pair in text.split(',') {
        let (id, addr) = pair
            .split_once('=')
            .ok_or_else(|| format!("a list `ID=ADDR,ID=ADDR,…`; `{pair}` has no `=`"))?;
        let id = number(id.trim(), 1..=u64::MAX)
            .map_err(|allowed| format!("a list `ID=ADDR,…`; the id `{id}` is not {allowed}"))?;
        let addr = check_address(addr.trim())
            .map_err(|allowed| format!("a list `ID=ADDR,…`; `{addr}` is not {allowed}"))?;
        if peers.insert(id, addr).is_some() {
            return Err(format!("a list of different nodes; id {id} is there twice"));
        }
    }
    if peers.len() > NODES_MAX {
        return Err(format!("a list of at most {NODES_MAX} nodes; it has {}", peers.len()));
    }
    Ok(peers)
}

/// `1, 2, 3`.
pub(super) fn join<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}
