//! Commands under locks, against a cluster of one.

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Node, Process};

/// A command that says that it runs and then goes on until it is stopped.
const LASTING: [&str; 3] = ["sh", "-c", "echo runs $HOLDFAST_FENCE; exec sleep 600"];

fn hold(node: &Node, flags: &[&str], command: &[&str]) -> Process {
    let mut lock = node.client(&["lock", "job"]);
    // Out of the foreground of a terminal in which these tests may run.
    lock.process_group(0).args(flags).arg("--").args(command);
    Process::spawn(lock.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

fn token(line: &str) -> u64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn command_sees_token_and_name_and_its_code_is_the_exit_code() {
    let node = Node::start();
    let show = "echo $HOLDFAST_LOCK $HOLDFAST_FENCE; exit 7";
    let first = node.run(&["lock", "job", "--", "sh", "-c", show]).expect(7, &[]);
    assert!(first.text().starts_with("job "), "{first:?}");
    let second = node.run(&["lock", "job", "--", "sh", "-c", show]).expect(7, &[]);
    assert!(token(second.text().trim()) > token(first.text().trim()));
}

#[test]
fn command_that_is_not_there_ends_as_in_a_shell_and_frees_the_lock() {
    let node = Node::start();
    node.run(&["lock", "job", "--", "/no/such/command"]).expect(127, &["/no/such/command"]);
    node.run(&["lock", "job", "--", "/"]).expect(126, &["cannot run /"]);
    node.run(&["lock", "job", "--try", "--", "true"]).expect(0, &[]);
}

#[test]
fn held_lock_is_not_acquired_by_try_nor_by_a_wait_that_ends() {
    let node = Node::start();
    let mut holder = hold(&node, &[], &LASTING);
    holder.read_until(|line| line.starts_with("runs"));
    for flags in [&["--try"][..], &["--wait", "50ms"]] {
        let command = [&["lock", "job"], flags, &["--", "echo", "ran"]].concat();
        let refused = node.run(&command).expect(4, &["error: ", "`job` is held"]);
        assert_eq!(refused.text(), "");
    }
    node.run(&["lock", "another", "--try", "--", "true"]).expect(0, &[]);
}

#[test]
fn signal_is_passed_on_and_the_lock_goes_to_the_one_that_waits() {
    let node = Node::start();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut holder = hold(&node, &[], &LASTING);
        let first = token(&holder.read_until(|line| line.starts_with("runs")));
        let mut waiter =
            hold(&node, &["--wait", "60s"], &["sh", "-c", "echo runs $HOLDFAST_FENCE"]);
        holder.signal(signal);
        assert_eq!(holder.wait().code(), Some(128 + signal.as_raw()));
        let second = token(&waiter.read_until(|line| line.starts_with("runs")));
        assert!(second > first);
        assert_eq!(waiter.wait().code(), Some(0));
    }
}

#[test]
fn command_can_end_by_itself_after_a_signal() {
    let node = Node::start();
    let graceful = "trap 'echo cleaned; exit 9' TERM; echo runs; while :; do sleep 0.02; done";
    let mut holder = hold(&node, &[], &["sh", "-c", graceful]);
    holder.read_until(|line| line == "runs");
    holder.signal(Signal::TERM);
    holder.read_until(|line| line == "cleaned");
    assert_eq!(holder.wait().code(), Some(9));
}

#[test]
fn signal_while_waiting_gives_up_the_place_in_the_queue() {
    let node = Node::start();
    let mut holder = hold(&node, &[], &LASTING);
    holder.read_until(|line| line.starts_with("runs"));
    let mut waiter = hold(&node, &[], &LASTING);
    // Two sessions are open once it waits, or is about to.
    while node.run(&["status", "-o", "json"]).json()[0]["sessions"] != 2 {}
    waiter.signal(Signal::INT);
    assert_eq!(waiter.wait().code(), Some(130));
    holder.signal(Signal::TERM);
    holder.wait();
    node.run(&["lock", "job", "--try", "--", "true"]).expect(0, &[]);
}

#[test]
fn command_dies_with_the_process_that_holds_its_lock() {
    let node = Node::start();
    let mut holder = hold(&node, &["--ttl", "1s"], &["sh", "-c", "echo runs $$; exec sleep 600"]);
    holder.read_until(|line| line.starts_with("runs"));
    let mut stdout = holder.0.stdout.take().unwrap();
    holder.signal(Signal::KILL);
    // The pipe ends when the last process that can write to it has ended.
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    node.run(&["lock", "job", "--wait", "60s", "--", "true"]).expect(0, &[]);
}

#[test]
fn command_is_stopped_when_the_session_is_lost() {
    let mut node = Node::start();
    let mut holder = hold(&node, &["--ttl", "1s"], &LASTING);
    holder.read_until(|line| line.starts_with("runs"));
    node.process.signal(Signal::KILL);
    node.process.wait();
    assert_eq!(holder.wait().code(), Some(5));
    let mut stderr = String::new();
    std::io::Read::read_to_string(holder.0.stderr.as_mut().unwrap(), &mut stderr).unwrap();
    for part in ["warning: the lock is lost", "error: the lock `job` was lost", "hint: "] {
        assert!(stderr.contains(part), "{stderr}");
    }
}
