//! `holdfast dev`: a real cluster on this machine.

use std::path::PathBuf;

use super::connect::block_on;
use super::outcome::{Exit, Failure};
use crate::config::IoBackend;
use crate::dev;

const LONG_ABOUT: &str = "\
Starts a cluster on this machine, one server process for each node, and prints \
`ready ADDR,ADDR,…` when it serves, then commands to try. Clients connect to the ports from \
--base-port on, peers ten ports above.

It is the real thing: every write is on the disks of a majority before it is acknowledged. Nodes that \
end are reported and not restarted, so that you can kill one and watch the others go on. \
Ctrl-C stops all of them. Settings like HOLDFAST_ELECTION_TIMEOUT_MS reach every node.";

const AFTER_HELP: &str = "\
Examples:
  holdfast dev                        three nodes in a temporary directory
  holdfast dev --dir ./cluster        keep the data; the same directory starts the same cluster
  holdfast dev --nodes 5 --base-port 8400";

/// Start a cluster on this machine
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// How many nodes, 1 to 9 [default: 3, or as many as --dir has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// Where to keep data and logs [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first port for clients
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=65506))]
    base_port: u16,
    /// How the log is written: auto, uring or syscall
    #[arg(long, value_name = "BACKEND", default_value_t, value_parser = io_arg)]
    io: IoBackend,
}

fn io_arg(text: &str) -> Result<IoBackend, String> {
    text.parse().map_err(|allowed| format!("it has to be {allowed}"))
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let Args { nodes, dir, base_port, io } = args;
    block_on(dev::run(dev::Options { nodes: nodes.map(usize::from), dir, base_port, io }))
}
