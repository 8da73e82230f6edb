//! The processes of a cluster.

use std::fs::{File, OpenOptions};
use std::future::{Future, poll_fn};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::home::Home;
use super::plan::Plan;
use crate::commands::exec;
use crate::commands::outcome::Failure;

/// How long all nodes together may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How much of the end of a log is shown: this many bytes at most, and of them this many lines.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 10;

/// All processes; those that are dropped are killed.
pub(super) struct Nodes(Vec<Node>);

struct Node {
    id: usize,
    log: PathBuf,
    /// Where in its log this run begins.
    log_start: u64,
    /// `None` once its end has been seen.
    process: Option<Child>,
}

/// The end of a node.
pub(super) struct Ended {
    /// Which, how, and what it said last.
    pub(super) text: String,
    /// How many still run.
    pub(super) left: usize,
}

impl Nodes {
    /// Starts all.
    pub(super) fn start(plan: &Plan, home: &Home) -> Result<Nodes, Failure> {
        plan.ids().map(|id| Node::start(id, plan, home)).collect::<Result<_, _>>().map(Nodes)
    }

    /// Waits until one ends.
    pub(super) async fn next_end(&mut self) -> Ended {
        let (index, status) = poll_fn(|context| self.poll_end(context)).await;
        let node = &mut self.0[index];
        node.process = None;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let text = format!("node {} has ended ({how}); it said last:\n{}", node.id, node.tail());
        Ended { text, left: self.0.iter().filter(|node| node.process.is_some()).count() }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<(usize, io::Result<ExitStatus>)> {
        for (index, node) in self.0.iter_mut().enumerate() {
            let Some(process) = &mut node.process else { continue };
            if let Poll::Ready(status) = pin!(process.wait()).poll(context) {
                return Poll::Ready((index, status));
            }
        }
        Poll::Pending
    }

    /// What all said last.
    pub(super) fn tails(&self) -> String {
        let tail = |node: &Node| format!("node {} said last:\n{}", node.id, node.tail());
        self.0.iter().map(tail).collect::<Vec<String>>().join("\n")
    }

    /// Asks all to stop, waits for them, and kills those that take too long.
    pub(super) async fn stop(mut self) {
        for node in &self.0 {
            node.ask_to_stop();
        }
        let all = async {
            while self.0.iter().any(|node| node.process.is_some()) {
                self.next_end().await;
            }
        };
        if timeout(STOP_TIMEOUT, all).await.is_err() {
            for node in &mut self.0 {
                node.kill().await;
            }
        }
    }
}

impl Node {
    fn start(id: usize, plan: &Plan, home: &Home) -> Result<Node, Failure> {
        let failed = |error| Failure::failed(format!("cannot start node {id}: {error}"));
        let log = home.log(id);
        let said = OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
        let log_start = said.metadata().map_err(failed)?.len();
        let mut command = Command::from(exec::own_program()?);
        command
            .arg("serve")
            .args(["--id", &id.to_string()])
            .args(["--listen", &plan.client_address(id), "--advertise", &plan.client_address(id)])
            .args(["--peer-listen", &plan.peer_address(id), "--peers", &plan.peers()])
            .arg("--data")
            .arg(home.data(id))
            .args(["--io", &plan.io.to_string()])
            .args(exec::parent_flag())
            .env_remove("HOLDFAST_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            // So that a terminal's ctrl-C reaches this process alone, which then stops all.
            .process_group(0)
            .kill_on_drop(true);
        if std::env::var_os("HOLDFAST_CHECKPOINT_INTERVAL_BYTES").is_none() {
            command.args(["--checkpoint-interval-bytes", "256MiB"]);
        }
        Ok(Node { id, log, log_start, process: Some(command.spawn().map_err(failed)?) })
    }

    fn ask_to_stop(&self) {
        let id = self.process.as_ref().and_then(Child::id);
        let pid = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // One that has just ended needs no signal.
        pid.and_then(|pid| kill_process(pid, Signal::TERM).ok());
    }

    async fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            // It has ended by itself if this fails.
            process.kill().await.ok();
        }
    }

    fn tail(&self) -> String {
        tail_of(&self.log, self.log_start)
            .unwrap_or_else(|error| format!("  {}: {error}", self.log.display()))
    }
}

/// The last lines of a file that lie behind `start`, indented.
fn tail_of(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES).max(start)))?;
    let mut end = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(last.iter().map(|line| format!("  {line}")).collect::<Vec<String>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_the_last_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let lines: Vec<String> = (1..=1000).map(|line| format!("line {line}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let tail = tail_of(&path, 0).unwrap();
        assert!(tail.starts_with("  line 991\n") && tail.ends_with("\n  line 1000"), "{tail}");
    }

    #[test]
    fn tail_has_nothing_of_an_earlier_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\nnow\n").unwrap();
        assert_eq!(tail_of(&path, 7).unwrap(), "  now");
    }

    #[test]
    fn tail_of_an_empty_log_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "").unwrap();
        assert_eq!(tail_of(&path, 0).unwrap(), "");
    }
}
