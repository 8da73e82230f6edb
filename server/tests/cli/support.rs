//! Running the binary, and servers to run it against.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The binary, with nothing of this environment that could change what it does. Its nodes are patient:
/// on a machine that is busy with other tests a leader must not lose its office in between.
pub(crate) fn holdfast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.env("HOLDFAST_ELECTION_TIMEOUT_MS", "1000");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("this output is text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).expect("this output is JSON")
    }

    /// Checks the exit code, and that stderr has all of `parts`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, parts: &[&str]) -> Run {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        }
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub(crate) fn run(command: &mut Command) -> Run {
    command.output().unwrap().into()
}

/// Runs with something on stdin.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Run {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // The binary may end without reading everything.
    child.stdin.take().unwrap().write_all(input).ok();
    child.wait_with_output().unwrap().into()
}

/// A port on which nobody listens. Somebody else may take it before it is used.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that is killed when the test is over.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    /// Reads stdout, which must be piped, up to a line that `wanted` accepts.
    pub(crate) fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let stdout = self.0.stdout.as_mut().expect("stdout is piped");
        // Byte by byte, so that nothing after the line is lost.
        let mut lines = BufReader::with_capacity(1, stdout).lines();
        lines
            .find_map(|line| line.ok().filter(|line| wanted(line)))
            .expect("the process ended before it wrote that line")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A cluster of one.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) endpoint: String,
    data: TempDir,
}

impl Node {
    /// Returns when it serves.
    pub(crate) fn start() -> Node {
        let data = tempfile::tempdir().unwrap();
        let (process, endpoint) = start_in(&data);
        Node { process, endpoint, data }
    }

    /// Stops it cleanly and starts it again on the same directory.
    pub(crate) fn restart(&mut self) {
        self.process.signal(Signal::TERM);
        assert!(self.process.wait().success());
        (self.process, self.endpoint) = start_in(&self.data);
    }

    pub(crate) fn directory(&self) -> &Path {
        self.data.path()
    }

    /// The binary as this node's client.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = holdfast(arguments);
        command.env("HOLDFAST_ENDPOINTS", &self.endpoint);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.client(arguments))
    }
}

fn start_in(data: &TempDir) -> (Process, String) {
    let endpoint = format!("127.0.0.1:{}", free_port());
    let peers = format!("127.0.0.1:{}", free_port());
    let mut command = holdfast(&["serve", "--listen", &endpoint, "--peer-listen", &peers]);
    command.args(["--slot-bytes", "8MiB", "--checkpoint-interval-bytes", "64MiB"]);
    let process =
        Process::spawn(command.env("HOLDFAST_LOG", "warn").arg("--data").arg(data.path()));
    let serves = holdfast(&["get", "absent", "--timeout", "60s", "--endpoints", &endpoint])
        .output()
        .unwrap();
    let serves = Run::from(serves);
    assert_eq!(serves.code, Some(3), "{serves:?}");
    (process, endpoint)
}
