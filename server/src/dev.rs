//! A cluster of real processes on this machine, for trying things out.
//!
//! The nodes are started once and watched; nothing is restarted. However this process ends, they end
//! with it.

use std::path::PathBuf;
use std::time::Duration;

use client::{Client, ClientOptions};
use tokio::time::timeout;

use self::home::Home;
use self::nodes::Nodes;
use self::plan::Plan;
use self::watch::{Leader, LeaderWatch};
use crate::commands::outcome::{Exit, Failure};
use crate::commands::output::Output;
use crate::commands::signals::Signals;
use crate::config::IoBackend;

mod home;
mod nodes;
mod plan;
mod samples;
mod watch;

/// How long a cluster may take until it serves.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes; `None` is 3, or as many as the directory has. At most 9.
    pub nodes: Option<usize>,
    /// Where data and logs are kept; `None` is a temporary directory.
    pub dir: Option<PathBuf>,
    /// The first port for clients; at most 65,506.
    pub base_port: u16,
    /// How the logs are written.
    pub io: IoBackend,
}

/// Runs a cluster until a signal asks to stop, or no node is left.
pub async fn run(options: Options) -> Result<Exit, Failure> {
    let mut signals = Signals::catch()?;
    let home = Home::open(options.dir.clone())?;
    let plan = Plan::new(&options, home.nodes_count(options.nodes)?);
    plan.check_ports()?;
    let mut nodes = Nodes::start(&plan, &home)?;
    let result = tokio::select! {
        result = supervise(&plan, &home, &mut nodes) => result,
        _ = signals.next() => Ok(Exit::Done),
    };
    nodes.stop().await;
    home.remove()?;
    result
}

async fn supervise(plan: &Plan, home: &Home, nodes: &mut Nodes) -> Result<Exit, Failure> {
    let client = Client::connect(&plan.client_addresses(), ClientOptions::default())?;
    let mut watch = LeaderWatch::new(&client, plan.client_addresses());
    let mut output = Output::stdout();
    let mut leader = until_ready(&mut watch, home, nodes).await?;
    output.line(&format!("ready {}", plan.client_addresses().join(",")))?;
    output.write(samples::text(plan, home).as_bytes())?;
    loop {
        output.line(&leader.to_string())?;
        leader = until_leader_changes(&mut watch, nodes, &leader).await?;
    }
}

/// Waits until the cluster serves; a node that ends before that ends it all.
async fn until_ready(
    watch: &mut LeaderWatch,
    home: &Home,
    nodes: &mut Nodes,
) -> Result<Leader, Failure> {
    let ended = tokio::select! {
        ready = timeout(READY_TIMEOUT, watch.ready()) => match ready {
            Ok(leader) => return Ok(leader),
            Err(_) => None,
        },
        ended = nodes.next_end() => Some(ended),
    };
    let message = ended.map_or_else(|| not_ready(watch, nodes), |ended| ended.text);
    let failure = Failure::failed(message);
    if home.is_temporary() {
        return Err(failure.hint("with --dir the logs of all nodes are kept"));
    }
    Err(failure.hint(format!("the logs of all nodes are in {}", home.path().display())))
}

fn not_ready(watch: &LeaderWatch, nodes: &Nodes) -> String {
    let seconds = READY_TIMEOUT.as_secs();
    format!("no leader serves after {seconds} s: {}\n{}", watch.problem(), nodes.tails())
}

/// Reports nodes that end while it waits; fails when none is left.
async fn until_leader_changes(
    watch: &mut LeaderWatch,
    nodes: &mut Nodes,
    leader: &Leader,
) -> Result<Leader, Failure> {
    let mut changed = Box::pin(watch.change_from(leader));
    loop {
        let ended = tokio::select! {
            leader = &mut changed => return Ok(leader),
            ended = nodes.next_end() => ended,
        };
        samples::notice(&format!("warning: {}", ended.text));
        if ended.left == 0 {
            return Err(Failure::failed("no node is left"));
        }
    }
}
