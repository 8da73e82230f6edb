//! What needs no cluster: help, bad usage, clusters that are not there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Stdio;

use bytes::BytesMut;
use protocol::{Error, ErrorCode};

use crate::support::{free_port, holdfast, run, run_with_input};

#[test]
fn nothing_shows_the_help_and_is_bad_usage() {
    run(&mut holdfast(&[])).expect(2, &["Usage: holdfast", "dev", "serve", "put", "status"]);
}

#[test]
fn help_goes_to_stdout_and_has_examples_and_exit_codes() {
    let help = run(&mut holdfast(&["--help"])).expect(0, &[]);
    for part in ["holdfast dev", "Exit codes:", "holdfast lock"] {
        assert!(help.text().contains(part), "{part}");
    }
    assert!(!help.text().contains("__exec"));
}

#[test]
fn help_of_serve_names_every_setting_with_its_variable() {
    let help = run(&mut holdfast(&["serve", "--help"])).expect(0, &[]);
    for setting in server::config::SETTINGS {
        assert!(help.text().contains(&format!("--{}", setting.flag)), "{}", setting.flag);
        assert!(help.text().contains(&setting.env_name()), "{}", setting.flag);
    }
}

#[test]
fn version_is_the_release() {
    let version = run(&mut holdfast(&["--version"])).expect(0, &[]);
    assert_eq!(version.text(), concat!("holdfast ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let mut help = holdfast(&["serve", "--help"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(help.stdout.take());
    assert!(help.wait().unwrap().success());
}

#[test]
fn unknown_flags_and_commands_are_bad_usage_and_named() {
    run(&mut holdfast(&["put", "--colour", "k", "v"])).expect(2, &["error: ", "--colour"]);
    run(&mut holdfast(&["fetch", "k"])).expect(2, &["error: ", "fetch"]);
}

#[test]
fn missing_arguments_are_bad_usage() {
    run(&mut holdfast(&["put", "k"])).expect(2, &["<VALUE>"]);
    run(&mut holdfast(&["get"])).expect(2, &["<KEY>"]);
    run(&mut holdfast(&["del"])).expect(2, &["<KEY"]);
    run(&mut holdfast(&["lock", "name"])).expect(2, &["<COMMAND>"]);
}

#[test]
fn contradicting_flags_are_bad_usage() {
    let contradictions: &[&[&str]] = &[
        &["put", "k", "v", "--if-absent", "--if-revision", "3"],
        &["del", "k", "--prefix", "p"],
        &["del", "--all", "--from", "a"],
        &["range", "p", "--prefix", "q"],
        &["range", "--prefix", "p", "--to", "q"],
        &["lock", "n", "--try", "--wait", "1s", "--", "true"],
    ];
    for arguments in contradictions {
        run(&mut holdfast(arguments)).expect(2, &["error: ", "cannot be used with"]);
    }
}

#[test]
fn empty_prefix_deletes_nothing() {
    run(&mut holdfast(&["del", "--prefix", ""])).expect(2, &["every key", "hint: ", "--all"]);
}

#[test]
fn values_out_of_range_are_named_with_their_flag_and_what_is_allowed() {
    run(&mut holdfast(&["get", "k", "--timeout", "5"])).expect(2, &["'5'", "--timeout", "10s"]);
    run(&mut holdfast(&["get", "k", "--endpoints", "here"]))
        .expect(2, &["--endpoints: `here` is not an address `host:port`"]);
    run(holdfast(&["get", "k"]).env("HOLDFAST_ENDPOINTS", "a:1,b"))
        .expect(2, &["HOLDFAST_ENDPOINTS: `b` is not"]);
    run(&mut holdfast(&["lock", "n", "--ttl", "0s", "--", "true"])).expect(2, &["--ttl", "24h"]);
    run(&mut holdfast(&["range", "--limit", "0"])).expect(2, &["--limit"]);
    run(&mut holdfast(&["dev", "--nodes", "10"])).expect(2, &["--nodes", "1..=9"]);
    run(&mut holdfast(&["dev", "--base-port", "65507"])).expect(2, &["--base-port"]);
    run(&mut holdfast(&["dev", "--io", "fast"])).expect(2, &["--io", "auto, uring or syscall"]);
}

#[test]
fn serve_checks_its_settings_before_it_starts() {
    run(&mut holdfast(&["serve", "--id", "0"])).expect(2, &["error: --id: `0` is not"]);
    run(holdfast(&["serve"]).env("HOLDFAST_IO", "fast")).expect(2, &["HOLDFAST_IO: `fast`"]);
    run(&mut holdfast(&["serve", "--peers", "1=a:1,2=b:1"])).expect(2, &["--id is required"]);
    run(&mut holdfast(&["serve", "--config", "/nowhere.toml"]))
        .expect(2, &["--config /nowhere.toml"]);
}

#[test]
fn serve_reads_its_file_from_flag_or_environment_and_names_both_key_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "idd = 1\n").unwrap();
    let parts = ["error: ", "node.toml: unknown key `idd`"];
    run(holdfast(&["serve", "--config"]).arg(&file)).expect(2, &parts);
    run(holdfast(&["serve"]).env("HOLDFAST_CONFIG", &file)).expect(2, &parts);
}

#[test]
fn bad_log_level_is_bad_usage() {
    run(holdfast(&["serve"]).env("HOLDFAST_LOG", "server=loud")).expect(2, &["HOLDFAST_LOG"]);
}

#[test]
fn cluster_that_is_not_there_is_unavailable_with_a_hint() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let commands: &[&[&str]] = &[
        &["put", "k", "v"],
        &["get", "k"],
        &["get", "k", "--stale"],
        &["del", "k"],
        &["range"],
        &["range", "-o", "json"],
        &["status"],
    ];
    for arguments in commands {
        let mut command = holdfast(arguments);
        command.args(["--timeout", "200ms", "--endpoints", &nobody]);
        let ended = run(&mut command).expect(5, &["error: ", &nobody, "hint: "]);
        assert!(ended.stdout.is_empty() || *arguments == ["status"], "{ended:?}");
    }
}

/// A client of another release was refused again and again, and told that nobody answered in time.
#[test]
fn node_of_another_release_is_a_failure_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let node = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // All of the hello: a socket that is closed with unread bytes loses what it has sent.
        stream.read_exact(&mut [0; 24]).unwrap();
        let mut output = BytesMut::new();
        let message = "the client speaks protocol versions 1 to 1, this server 9";
        Error::not_done(ErrorCode::UnsupportedVersion, message).encode_into(1, &mut output);
        stream.write_all(&output).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut get = holdfast(&["get", "k", "--timeout", "60s", "--endpoints", &endpoint]);
    run(&mut get).expect(1, &["error: ", &endpoint, "this server 9", "hint: ", "release"]);
    node.join().unwrap();
}

#[test]
fn command_does_not_run_without_its_lock() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut lock = holdfast(&["lock", "n", "--timeout", "200ms", "--endpoints", &nobody]);
    let ended = run(lock.args(["--", "echo", "ran"])).expect(5, &["error: "]);
    assert_eq!(ended.text(), "");
}

#[test]
fn value_on_stdin_that_is_too_long_is_refused_without_a_cluster() {
    let long = vec![b'x'; protocol::VALUE_BYTES_MAX + 1];
    run_with_input(&mut holdfast(&["put", "k", "-"]), &long).expect(1, &["longer than 8388608"]);
}

#[test]
fn dev_names_a_port_in_use_before_it_starts_anything() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let base = (port - 10).to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut dev = holdfast(&["dev", "--nodes", "1", "--base-port", &base, "--dir"]);
    let use_of_port = format!("port {port}, for peers of node 1, is in use");
    run(dev.arg(dir.path())).expect(1, &[&use_of_port, "hint: ", "--base-port"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn dev_refuses_another_number_of_nodes_than_its_directory_has() {
    let dir = tempfile::tempdir().unwrap();
    for id in 1..=2 {
        std::fs::create_dir(dir.path().join(format!("node-{id}"))).unwrap();
    }
    run(holdfast(&["dev", "--nodes", "3", "--dir"]).arg(dir.path()))
        .expect(2, &["--nodes 3", "a cluster of 2 nodes", "hint: "]);
}
