//! A cluster of real processes on loopback, and what can be done to it.
//!
//! Every cluster has a loopback address of its own, so that clusters of tests that run at the same time never meet, and no
//! port has to be guessed. Data lies under the build directory, on a real disk (pitfall rule P53). Nothing outlives its
//! `Cluster`.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use client::{Client, ClientOptions};
use protocol::{NodeStatus, Role};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a cluster may take to do what is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(5);

const CLIENT_PORT: u64 = 7400;
const PEER_PORT: u64 = 7410;

/// Nodes and their data.
pub struct Cluster {
    program: PathBuf,
    address: Ipv4Addr,
    dir: TempDir,
    data: PathBuf,
    flags: Vec<String>,
    nodes: Vec<Node>,
}

struct Node {
    id: u64,
    child: Option<Child>,
}

impl Cluster {
    /// Starts `count` nodes of `program` (`holdfast-node`) with additional `flags`, without waiting for them.
    pub fn start(program: impl Into<PathBuf>, count: u64, flags: &[&str]) -> Cluster {
        Cluster::start_with_data(None, program, count, flags)
    }

    /// The same, with the nodes' data, and nothing else, in a directory that is there.
    pub fn start_with_data(
        data: Option<&Path>,
        program: impl Into<PathBuf>,
        count: u64,
        flags: &[&str],
    ) -> Cluster {
        let dir = tempfile::tempdir_in(clusters_dir()).expect("the build directory is writable");
        let mut cluster = Cluster {
            program: program.into(),
            address: own_address(),
            data: data.unwrap_or(dir.path()).to_owned(),
            dir,
            flags: flags.iter().map(ToString::to_string).collect(),
            nodes: (1..=count).map(|id| Node { id, child: None }).collect(),
        };
        for id in 1..=count {
            cluster.start_node(id);
        }
        cluster
    }

    /// Where clients reach the nodes, in the order of their labels.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| self.endpoint(node.id)).collect()
    }

    /// Where clients reach one node.
    pub fn endpoint(&self, id: u64) -> String {
        format!("{}:{}", self.address, CLIENT_PORT + id)
    }

    /// Where a node listens for its peers.
    pub fn peer_endpoint(&self, id: u64) -> String {
        format!("{}:{}", self.address, PEER_PORT + id)
    }

    /// The labels.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// A node's data directory.
    pub fn data(&self, id: u64) -> PathBuf {
        self.data.join(format!("node-{id}"))
    }

    /// What a node wrote to its log so far, over all its starts.
    pub fn log(&self, id: u64) -> String {
        fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    fn log_path(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}.log"))
    }

    /// The command that starts a node.
    pub fn command(&self, id: u64) -> Command {
        self.command_with(id, &[])
    }

    /// The same, with other values for some of its flags.
    pub fn command_with(&self, id: u64, other: &[(&str, &str)]) -> Command {
        let peers: Vec<String> =
            self.ids().iter().map(|id| format!("{id}={}", self.peer_endpoint(*id))).collect();
        let flags = [
            ("--id", id.to_string()),
            ("--listen", self.endpoint(id)),
            ("--peer-listen", self.peer_endpoint(id)),
            ("--peers", peers.join(",")),
            ("--data", self.data(id).display().to_string()),
        ];
        let mut command = Command::new(&self.program);
        command.arg("serve");
        for (flag, value) in &flags {
            let replaced = other.iter().find(|(name, _)| name == flag);
            command.arg(flag).arg(replaced.map_or(value.as_str(), |(_, value)| value));
        }
        command.args(&self.flags).stdin(Stdio::null());
        command
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, id: u64) {
        let log = File::options().create(true).append(true).open(self.log_path(id));
        let log = log.expect("the cluster's directory is writable");
        let out = log.try_clone().expect("a file can be shared");
        let child = self.command(id).stdout(out).stderr(log).spawn();
        let node = self.node(id);
        assert!(node.child.is_none(), "node {id} runs already");
        node.child = Some(child.expect("the node's program can be started"));
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("the label is one of the cluster's")
    }

    fn signal(&mut self, id: u64, signal: Signal) {
        let child = self.node(id).child.as_ref().expect("the node runs");
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has a process id");
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// SIGKILL: nothing in the process gets a word in.
    pub fn kill(&mut self, id: u64) {
        let mut child = self.node(id).child.take().expect("the node runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// SIGKILL to all, as close together as it goes.
    pub fn kill_all(&mut self) {
        for id in self.ids() {
            self.signal(id, Signal::KILL);
        }
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                child.wait().expect("a child can be waited for");
            }
        }
    }

    /// SIGSTOP: the node's connections stay open and nothing answers.
    pub fn pause(&mut self, id: u64) {
        self.signal(id, Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self, id: u64) {
        self.signal(id, Signal::CONT);
    }

    /// SIGTERM, and how the node ended.
    pub fn stop(&mut self, id: u64) -> ExitStatus {
        self.signal(id, Signal::TERM);
        self.wait_for_exit(id)
    }

    /// Waits until a node has ended by itself.
    pub fn wait_for_exit(&mut self, id: u64) -> ExitStatus {
        let deadline = deadline();
        loop {
            let child = self.node(id).child.as_mut().expect("the node runs");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.node(id).child = None;
                return status;
            }
            assert!(!passed(deadline), "node {id} has not ended\n{}", self.log(id));
            pause();
        }
    }

    /// Removes a node's data while it does not run.
    pub fn wipe(&mut self, id: u64) {
        assert!(self.node(id).child.is_none(), "node {id} runs");
        fs::remove_dir_all(self.data(id)).expect("the data can be removed");
    }

    /// A client of the whole cluster.
    ///
    /// Requires: the caller runs within a runtime.
    pub fn client(&self) -> Client {
        let client = Client::connect(&self.endpoints(), ClientOptions::default());
        client.expect("the endpoints are well-formed")
    }

    /// What a node says about itself; `None` if it does not answer soon.
    pub async fn status(&self, id: u64) -> Option<NodeStatus> {
        let endpoint = self.endpoint(id);
        let endpoints = std::slice::from_ref(&endpoint);
        let client = Client::connect(endpoints, ClientOptions::default()).ok()?;
        client.with_timeout(Duration::from_secs(1)).status(&endpoint).await.ok()
    }

    /// Waits until one of the running nodes leads and a majority of them agrees.
    pub async fn leader(&self) -> u64 {
        let deadline = deadline();
        loop {
            if let Some(leader) = self.leader_now().await {
                return leader;
            }
            let logs: Vec<String> = self.ids().iter().map(|id| self.log(*id)).collect();
            assert!(!passed(deadline), "no leader in {PATIENCE:?}\n{}", logs.join("\n---\n"));
            tokio::time::sleep(POLL).await;
        }
    }

    async fn leader_now(&self) -> Option<u64> {
        let mut statuses = Vec::new();
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            statuses.extend(self.status(node.id).await);
        }
        let leader = statuses.iter().filter(|status| status.role == Role::Leader);
        let leader = leader.max_by_key(|status| status.term)?;
        let follows = |status: &&NodeStatus| {
            let named = status.leader.as_ref().map(|hint| hint.node);
            status.term == leader.term && named == Some(leader.node)
        };
        let agreeing = statuses.iter().filter(follows).count();
        (agreeing > self.nodes.len() / 2).then_some(leader.node)
    }

    /// Waits until all running nodes have applied the same index, and returns it.
    pub async fn converged(&self) -> u64 {
        let deadline = deadline();
        loop {
            let mut applied = Vec::new();
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                let status = self.status(node.id).await;
                applied.push(status.map(|status| (status.applied_index, status.revision)));
            }
            let first = applied.first().copied().flatten();
            if applied.iter().all(|one| one.is_some() && *one == first)
                && let Some((index, _)) = first
            {
                return index;
            }
            assert!(!passed(deadline), "no convergence in {PATIENCE:?}: {applied:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Bytes in a node's data directory.
    pub fn data_bytes(&self, id: u64) -> io::Result<u64> {
        bytes_below(&self.data(id))
    }
}

/// Where clusters have their data: on a real disk.
pub fn clusters_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clusters");
    fs::create_dir_all(&dir).expect("the build directory is writable");
    dir
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                // A child that has ended already cannot be killed; both is fine here.
                child.kill().ok();
                child.wait().ok();
            }
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- log of node {}\n{}", node.id, self.log(node.id));
            }
        }
    }
}

/// Whether a process was ended by SIGKILL.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// 127.a.b.c, unique among the processes of this machine and the clusters of this process.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Process ids are below 2^22: the low 16 bits differ between processes that run at the same time, but for rare luck.
    let [low, high, ..] = std::process::id().to_le_bytes();
    let [number, ..] = (number % 250 + 1).to_le_bytes();
    Ipv4Addr::new(127, high.max(1), low, number)
}

fn bytes_below(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn passed(deadline: Instant) -> bool {
    Instant::now() > deadline
}

#[expect(
    clippy::disallowed_methods,
    reason = "the condition is another process's; it can only be polled"
)]
fn pause() {
    std::thread::sleep(POLL);
}
