//! A whole cluster from one command.

use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Process, Run, holdfast, run};

/// A base port such that all ports of three nodes are free just now.
fn base_port() -> u16 {
    let mut tried = Vec::new();
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = first.local_addr().unwrap().port();
        tried.push(first);
        let free = |mut ports: Range<u16>| {
            ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        };
        if base < 65_000 && free(base + 1..base + 3) && free(base + 10..base + 13) {
            return base;
        }
    }
}

struct Cluster {
    process: Process,
    endpoints: String,
}

impl Cluster {
    fn start(flags: &[&str]) -> Cluster {
        Cluster::start_at(base_port(), flags)
    }

    fn start_at(base: u16, flags: &[&str]) -> Cluster {
        let mut dev = holdfast(&["dev", "--base-port", &base.to_string()]);
        // Small files, as nothing here is about size.
        dev.env("HOLDFAST_SLOT_BYTES", "8MiB").args(flags);
        let mut process = Process::spawn(dev.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let ready = process.read_until(|line| line.starts_with("ready "));
        let expected: Vec<String> =
            (base..base + 3).map(|port| format!("127.0.0.1:{port}")).collect();
        assert_eq!(ready, format!("ready {}", expected.join(",")));
        Cluster { process, endpoints: expected.join(",") }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(holdfast(arguments).args(["--endpoints", &self.endpoints, "--timeout", "30s"]))
    }

    /// Stops it as ctrl-C does.
    fn stop(mut self) {
        self.process.signal(Signal::INT);
        assert!(self.process.wait().success());
    }
}

/// The node of a line `leader: node N at ADDR, term T`.
fn leader_of(line: &str) -> (u64, String) {
    let mut words = line.split([' ', ',']);
    let id = words.nth(2).unwrap().parse().unwrap();
    (id, words.nth(1).unwrap().to_owned())
}

/// The process that runs `serve --id N` on a directory below `dir`.
fn process_of(dir: &Path, id: u64) -> Pid {
    let data = dir.canonicalize().unwrap().join(format!("node-{id}"));
    let wanted = data.to_str().unwrap().to_owned();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok())
    });
    let mut found = pids.filter(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|argument| argument == wanted)
    });
    Pid::from_raw(found.next().expect("the node runs")).unwrap()
}

#[test]
fn cluster_serves_at_every_endpoint_shows_its_leader_and_survives_its_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(&["--dir", dir.path().to_str().unwrap()]);
    let leader = cluster.process.read_until(|line| line.starts_with("leader: "));
    for (number, endpoint) in cluster.endpoints.split(',').enumerate() {
        let key = format!("key-{number}");
        run(&mut holdfast(&["put", &key, "v", "--endpoints", endpoint])).expect(0, &[]);
        let got = run(&mut holdfast(&["get", &key, "--endpoints", endpoint])).expect(0, &[]);
        assert_eq!(got.text(), "v\n");
    }
    let one = cluster.endpoints.split(',').next().unwrap();
    let status = run(&mut holdfast(&["status", "-o", "json", "--endpoints", one])).expect(0, &[]);
    let roles: Vec<_> =
        status.json().as_array().unwrap().iter().map(|it| it["role"].clone()).collect();
    assert_eq!(roles.len(), 3, "one endpoint is enough to find all: {roles:?}");

    let (old, address) = leader_of(&leader);
    kill_process(process_of(dir.path(), old), Signal::KILL).unwrap();
    let (new, _) = leader_of(&cluster.process.read_until(|line| line.starts_with("leader: ")));
    assert_ne!(old, new);
    assert_eq!(
        cluster.run(&["range", "--keys-only"]).expect(0, &[]).text(),
        "key-0\nkey-1\nkey-2\n"
    );
    cluster.run(&["put", "after", "v"]).expect(0, &[]);
    let status = cluster.run(&["status"]).expect(0, &[]);
    let row = status.text().lines().find(|line| line.contains(&address)).unwrap();
    assert!(row.contains("unreachable"), "{row}");
    cluster.stop();
}

#[test]
fn same_directory_is_the_same_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--dir", dir.path().to_str().unwrap()];
    let cluster = Cluster::start(&flags);
    cluster.run(&["put", "kept", "yes"]).expect(0, &[]);
    cluster.stop();
    // Other ports, the same members.
    let cluster = Cluster::start(&flags);
    assert_eq!(cluster.run(&["get", "kept"]).expect(0, &[]).text(), "yes\n");
    cluster.stop();
}

#[test]
fn temporary_directory_is_gone_after_the_end() {
    let parent = tempfile::tempdir().unwrap();
    let base = base_port();
    let mut dev = holdfast(&["dev", "--base-port", &base.to_string()]);
    dev.env("HOLDFAST_SLOT_BYTES", "8MiB").env("TMPDIR", parent.path());
    let mut process = Process::spawn(dev.stdout(Stdio::piped()));
    process.read_until(|line| line.starts_with("ready "));
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    process.signal(Signal::TERM);
    assert!(process.wait().success());
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn nodes_die_with_dev() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(&["--dir", dir.path().to_str().unwrap()]);
    let nodes: Vec<Pid> = (1..=3).map(|id| process_of(dir.path(), id)).collect();
    cluster.process.signal(Signal::KILL);
    cluster.process.wait();
    for node in nodes {
        // Whoever adopts it may take its time to bury it.
        while is_running(node) {}
    }
}

fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat.ok().and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn node_that_cannot_start_ends_dev_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let base = base_port().to_string();
    let mut dev = holdfast(&["dev", "--base-port", &base, "--dir", dir.path().to_str().unwrap()]);
    dev.env("HOLDFAST_VALUE_BYTES_MAX", "huge");
    run(&mut dev).expect(1, &["node ", "has ended", "HOLDFAST_VALUE_BYTES_MAX: `huge`"]);
}
