//! `holdfast status`: how every node is.

use std::time::Duration;

use serde_json::Value;

use self::survey::{Node, survey};
use super::connect::{ConnectArgs, block_on};
use super::outcome::{Exit, Failure};
use super::output::{Format, Output, OutputArgs};

mod json;
mod survey;
mod table;

const LONG_ABOUT: &str = "\
Asks every node that is named, and every node that these know, how it is.

COMMIT is the highest entry known to be on a majority's disks, APPLIED the highest whose effect can be \
read, DURABLE the highest on the node's own disk. LAG is how many entries the node lacks, as the leader \
sees it. DISK is how it writes: io_uring or system calls, direct or through the page cache. \
The exit code is 5 if no node answers.";

const AFTER_HELP: &str = "\
Examples:
  holdfast status
  holdfast status --endpoints 10.0.0.1:7400     one node is enough to find the others
  holdfast status -o json                       an array with one object for each node";

/// A node that has not answered by then counts as unreachable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Show how every node is
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let nodes = block_on(async {
        let cluster = args.connect.cluster()?;
        let client = cluster.client.with_timeout(args.connect.timeout.min(ANSWER_TIMEOUT));
        Ok(survey(&client, &cluster.endpoints).await)
    })?;
    let mut output = Output::stdout();
    match args.output.format {
        Format::Plain => output.write(table::table(&nodes).as_bytes())?,
        Format::Json => output.json(&nodes.iter().map(json::node).collect::<Value>())?,
    };
    if nodes.iter().any(|node| node.status.is_ok()) { Ok(Exit::Done) } else { Err(nobody(&nodes)) }
}

fn nobody(nodes: &[Node]) -> Failure {
    let problem = |node: &Node| node.status.as_ref().err().cloned();
    let problems: Vec<String> = nodes.iter().filter_map(problem).collect();
    Failure::new(Exit::Unavailable, format!("no node answers: {}", problems.join("; ")))
        .hint("--endpoints or HOLDFAST_ENDPOINTS says where the cluster is")
}
