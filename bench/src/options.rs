//! The command line, and what it means together.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::Error;
use crate::whole::Act;

/// Drives a cluster and measures it.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a load on a cluster and report throughput and latency
    #[command(after_help = RUN_HELP)]
    Run(RunOptions),
    /// Write every key of a data set once, in order
    #[command(after_help = WHOLE_HELP)]
    Fill(WholeOptions),
    /// Read a data set back that `fill` wrote, in order, and compare every byte
    ///
    /// Exits with 0 when all of it is there, with 1 when not.
    Verify(WholeOptions),
    /// Check a history that `run --history` wrote: is it linearizable, do its locks exclude each other?
    ///
    /// Exits with 0 when it is, with 1 when it is not or when nothing could be shown.
    Check(CheckOptions),
}

const RUN_HELP: &str = "\
Examples:
  holdfast-bench run --op put --connections 64 --inflight 64
      closed loop: each of 64 connections keeps 64 requests in flight
  holdfast-bench run --op get --connections 8 --rate 20000 --json
      open loop: 20,000 requests a second, whatever the cluster does; latency counts from when a request
      should have started
  holdfast-bench run --op mixed --connections 8 --inflight 4 --keys 5 --history run.jsonl
  holdfast-bench check run.jsonl
      32 clients put, get, delete and compare-and-set five keys; then the history is judged

A run writes, and with --history first deletes, the keys under `bench/`.";

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// What to drive; only holdfast so far
    #[arg(long, value_enum, default_value_t = Target::Holdfast)]
    pub target: Target,

    /// Nodes to begin with, host:port, separated by commas; the leader is found from any of them
    #[arg(
        long,
        env = "HOLDFAST_ENDPOINTS",
        value_name = "ADDR,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    pub endpoints: Vec<String>,

    /// The operation
    #[arg(long, value_enum, default_value_t = OpKind::Put)]
    pub op: OpKind,

    /// TCP connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,

    /// Requests in flight per connection
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub inflight: u32,

    /// Bytes of a value [default: 256; with --history as many as make it unique]
    #[arg(long, value_name = "V")]
    pub value_bytes: Option<usize>,

    /// Different keys (or locks), chosen uniformly [default: 100000; with --history 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub keys: Option<u64>,

    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub seconds: f64,

    /// Seconds before that, which are not [default: 1; with --history 0]
    #[arg(long, value_name = "S")]
    pub warmup: Option<f64>,

    /// Operations a second of all connections together (open loop); without it, as many as are answered
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,

    /// Items of a range at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub range_limit: u32,

    /// Seconds after which a request without an answer is given up, and its connection with it
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub timeout: f64,

    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Threads of the load generator
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,

    /// Print one JSON line instead of a table
    #[arg(long)]
    pub json: bool,

    /// Write every operation to this file, as one JSON object a line, for `check`
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
}

const WHOLE_HELP: &str = "\
Examples:
  holdfast-bench fill --keys 20000000 --value-bytes 1024
  holdfast-bench verify --keys 20000000 --value-bytes 1024
      20 GB, and whether each byte of it is there; both print the rate of every tenth";

/// Options of `fill` and `verify`.
#[derive(Debug, Clone, Args)]
pub struct WholeOptions {
    /// Nodes to begin with, host:port, separated by commas; the leader is found from any of them
    #[arg(
        long,
        env = "HOLDFAST_ENDPOINTS",
        value_name = "ADDR,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    pub endpoints: Vec<String>,

    /// Keys of the data set
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000_000_000))]
    pub keys: u64,

    /// Bytes of a value
    #[arg(long, value_name = "V", default_value_t = 1024)]
    pub value_bytes: usize,

    /// TCP connections
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,

    /// Requests in flight per connection [default: 256 to fill, 4 to verify]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub inflight: Option<u32>,

    /// Seconds after which a request without an answer is given up, and its connection with it
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    pub timeout: f64,

    /// Seed of all values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Print one JSON line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Options of `fill` or `verify`, checked.
#[derive(Debug, Clone)]
pub struct WholePlan {
    /// What to do.
    pub act: Act,
    /// Nodes to begin with.
    pub endpoints: Vec<String>,
    /// Keys of the data set.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Connections.
    pub lanes: u32,
    /// Requests in flight per connection.
    pub inflight: u32,
    /// Nanoseconds after which a request is given up.
    pub timeout_ns: u64,
    /// Seed of all values.
    pub seed: u64,
    /// Print one JSON line instead of a table.
    pub json: bool,
}

impl WholeOptions {
    /// Checks the options together.
    pub fn plan(self, act: Act) -> Result<WholePlan, Error> {
        let inflight = self.inflight.unwrap_or(if act == Act::Fill { 256 } else { 4 });
        Ok(WholePlan {
            act,
            endpoints: endpoints(&self.endpoints)?,
            keys: self.keys,
            value_bytes: value_bytes(self.value_bytes)?,
            lanes: self.connections,
            inflight,
            timeout_ns: ns("--timeout", self.timeout, true)?,
            seed: self.seed,
            json: self.json,
        })
    }
}

/// Options of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckOptions {
    /// The history
    pub file: PathBuf,

    /// The least number of operations that must have been done
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub ops_min: usize,

    /// Pass keys that are not read after their last write
    #[arg(long)]
    pub no_final_reads: bool,
}

/// What can be driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A holdfast cluster
    Holdfast,
    /// Not yet
    Etcd,
    /// Not yet
    Zookeeper,
    /// Not yet
    Redis,
}

/// What one operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OpKind {
    /// Write a key
    Put,
    /// Read a key (linearizable)
    Get,
    /// Read the keys from a random one on (linearizable)
    Range,
    /// Half puts, half gets; with --history puts, gets, deletes and compare-and-sets
    Mixed,
    /// Acquire a lock and release it, each request in flight with a session of its own
    Lock,
}

/// A run's options, checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes to begin with.
    pub endpoints: Vec<String>,
    /// What one operation is.
    pub op: OpKind,
    /// Connections.
    pub lanes: u32,
    /// Requests in flight per connection.
    pub inflight: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Different keys.
    pub keys: u64,
    /// Nanoseconds measured.
    pub measured_ns: u64,
    /// Nanoseconds before that.
    pub warmup_ns: u64,
    /// Operations a second, in an open loop.
    pub rate: Option<u64>,
    /// Items of a range at most.
    pub range_limit: u32,
    /// Nanoseconds after which a request is given up.
    pub timeout_ns: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// Threads of the load generator.
    pub threads: u32,
    /// Print one JSON line instead of a table.
    pub json: bool,
    /// Where every operation goes.
    pub history: Option<PathBuf>,
}

impl RunOptions {
    /// Checks the options together.
    pub fn plan(self) -> Result<Plan, Error> {
        if self.target != Target::Holdfast {
            let name = self.target.to_possible_value().expect("no target is hidden");
            let name = name.get_name().to_owned();
            return Err(usage(format!(
                "target {name} cannot be driven yet; use --target holdfast"
            )));
        }
        let is_recorded = self.history.is_some();
        if is_recorded && self.op == OpKind::Range {
            return Err(usage("ranges cannot be recorded; use another --op with --history"));
        }
        let value_bytes =
            value_bytes(self.value_bytes.unwrap_or(if is_recorded { 0 } else { 256 }))?;
        Ok(Plan {
            endpoints: endpoints(&self.endpoints)?,
            op: self.op,
            lanes: self.connections,
            inflight: self.inflight,
            value_bytes,
            keys: self.keys.unwrap_or(if is_recorded { 5 } else { 100_000 }),
            measured_ns: ns("--seconds", self.seconds, true)?,
            warmup_ns: ns(
                "--warmup",
                self.warmup.unwrap_or(if is_recorded { 0.0 } else { 1.0 }),
                false,
            )?,
            rate: self.rate,
            range_limit: self.range_limit,
            timeout_ns: ns("--timeout", self.timeout, true)?,
            seed: self.seed,
            threads: self.threads,
            json: self.json,
            history: self.history,
        })
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

/// A length that the protocol takes.
fn value_bytes(given: usize) -> Result<usize, Error> {
    let max = protocol::VALUE_BYTES_MAX;
    if given > max {
        return Err(usage(format!("--value-bytes {given} exceeds the limit of {max}")));
    }
    Ok(given)
}

/// The endpoints without blanks; each must be `host:port`.
fn endpoints(given: &[String]) -> Result<Vec<String>, Error> {
    let trimmed = given.iter().map(|endpoint| endpoint.trim().to_owned());
    let endpoints: Vec<String> = trimmed.filter(|endpoint| !endpoint.is_empty()).collect();
    let is_address = |endpoint: &String| {
        let port = endpoint.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        matches!(port, Some(Ok(_)))
    };
    if let Some(bad) = endpoints.iter().find(|endpoint| !is_address(endpoint)) {
        return Err(usage(format!("endpoint `{bad}` is not host:port")));
    }
    if endpoints.is_empty() {
        return Err(usage("no endpoints given; name at least one node as host:port"));
    }
    Ok(endpoints)
}

/// Seconds as nanoseconds; at most a hundred days.
#[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
#[expect(clippy::cast_sign_loss, reason = "the range was checked")]
fn ns(option: &str, seconds: f64, must_be_positive: bool) -> Result<u64, Error> {
    let is_good = (0.0..=8_640_000.0).contains(&seconds) && (seconds > 0.0 || !must_be_positive);
    if !is_good {
        return Err(usage(format!("{option} {seconds} is not a sensible number of seconds")));
    }
    Ok((seconds * 1e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, Error> {
        let words = ["holdfast-bench", "run"].iter().chain(arguments);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(options) => options.plan(),
            Command::Check(_) | Command::Fill(_) | Command::Verify(_) => unreachable!(),
        }
    }

    fn refusal(arguments: &[&str]) -> String {
        plan(arguments).unwrap_err().to_string()
    }

    #[test]
    fn targets_that_are_not_there_are_refused_by_name() {
        for target in ["etcd", "zookeeper", "redis"] {
            let refusal = refusal(&["--target", target]);
            assert_eq!(
                refusal,
                format!("target {target} cannot be driven yet; use --target holdfast")
            );
        }
    }

    #[test]
    fn bad_options_are_refused() {
        assert_eq!(refusal(&["--endpoints", "a:1,b"]), "endpoint `b` is not host:port");
        assert!(refusal(&["--endpoints", " ,"]).starts_with("no endpoints"));
        assert!(refusal(&["--seconds", "0"]).contains("--seconds 0"));
        assert!(refusal(&["--warmup", "NaN"]).contains("--warmup NaN"));
        assert!(refusal(&["--value-bytes", "8388609"]).contains("exceeds"));
        assert!(refusal(&["--op", "range", "--history", "x"]).contains("ranges"));
    }

    #[test]
    fn a_history_has_few_keys_and_no_warmup_unless_told() {
        let recorded = plan(&["--history", "x"]).unwrap();
        assert_eq!((recorded.keys, recorded.warmup_ns, recorded.value_bytes), (5, 0, 0));
        let told = plan(&["--history", "x", "--keys", "9", "--warmup", "2"]).unwrap();
        assert_eq!((told.keys, told.warmup_ns), (9, 2_000_000_000));
        let plain = plan(&[]).unwrap();
        assert_eq!((plain.keys, plain.warmup_ns, plain.value_bytes), (100_000, 1_000_000_000, 256));
    }
}
