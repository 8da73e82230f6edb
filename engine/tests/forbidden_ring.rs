//! A process that may not use io_uring, as in a container under a usual seccomp profile: the automatic choice falls back
//! to system calls and says so, and a ring that was asked for by name is refused.
//!
//! Each test starts this program anew under a filter that refuses the calls, and the process in it runs one of the two
//! tests that are ignored otherwise.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use engine::io::open::{Backend, OpenDiskError, open_disk};
use engine::{Append, DirLock, Entry, Event, HardState, Identity, Opened, Options, Position, open};
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// `io_uring_setup`, `_enter` and `_register` have these numbers on every architecture.
const IO_URING_CALLS: [i64; 3] = [425, 426, 427];
/// Tells the process under the filter what its calls are refused with.
const REFUSAL: &str = "HOLDFAST_TEST_IO_URING_REFUSAL";

/// How the usual profiles refuse, and what the reason must say.
const REFUSALS: [(Errno, &str); 2] =
    [(Errno::PERM, "a seccomp profile forbids it"), (Errno::NOSYS, "a seccomp profile hides it")];

fn forbid(errno: Errno) {
    let refusal = SeccompAction::Errno(u32::try_from(errno.raw_os_error()).unwrap());
    let rules: BTreeMap<_, _> = IO_URING_CALLS.into_iter().map(|call| (call, vec![])).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Runs a test of this file in a process of its own that has been under the filter from its first instruction on.
fn run_forbidden(test: &'static str) {
    for (errno, _) in REFUSALS {
        let child = thread::spawn(move || {
            // Of this thread alone, and of the processes that it starts.
            forbid(errno);
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--ignored", "--nocapture"])
                .env(REFUSAL, errno.raw_os_error().to_string())
                .output()
                .unwrap()
        });
        let output = child.join().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "{said}");
    }
}

/// What the reason must say in this process, if it is under the filter.
fn expected() -> Option<&'static str> {
    let errno: i32 = std::env::var(REFUSAL).ok()?.parse().unwrap();
    Some(REFUSALS.iter().find(|(refusal, _)| refusal.raw_os_error() == errno).unwrap().1)
}

#[test]
fn automatic_choice_uses_system_calls_where_the_ring_is_forbidden_and_says_so() {
    run_forbidden("under_the_filter_automatic_choice_is_system_calls");
}

#[test]
fn a_forbidden_ring_that_is_asked_for_by_name_is_refused() {
    run_forbidden("under_the_filter_a_ring_by_name_is_refused");
}

#[test]
#[ignore = "run under a filter by another test"]
fn under_the_filter_automatic_choice_is_system_calls() {
    let Some(expected) = expected() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let _lock = DirLock::acquire(dir.path()).unwrap();
    for round in 1..=2 {
        let (disk, why) = open_disk(dir.path(), Backend::Auto).unwrap();
        let why = why.unwrap();
        assert!(why.starts_with("the kernel refuses io_uring: "), "{why}");
        assert!(why.contains(expected), "{why}");
        assert_eq!(append(disk, dir.path(), round), "syscall");
    }
    let (_, why) = open_disk(dir.path(), Backend::Syscall).unwrap();
    assert_eq!(why, None, "what was asked for needs no reason");
}

/// Opens, checks that each round before has left its entry, and appends one; gives the backend.
fn append<D: engine::io::Disk>(disk: D, dir: &Path, round: u64) -> &'static str {
    let options = Options { slot_bytes: 1 << 20, seed: [round, 1], ..Options::default() };
    let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
    let Opened { mut engine, recovered } = open(disk, dir, options, identity).unwrap();
    let last = Position { index: round - 1, term: (round - 1).min(1) };
    assert_eq!(recovered.last, last);
    let hard_state = Some(HardState { term: 1, vote: 1 });
    let payload = Bytes::from_static(b"value");
    let entries = vec![Entry { index: round, term: 1, kind: 0, payload }];
    engine.append(Append { write: 1, hard_state, entries, ..Append::default() });
    let mut events = Vec::new();
    while !events.iter().any(|event| matches!(event, Event::Durable { write: 1 })) {
        engine.turn(0, &mut events).unwrap();
        engine.wait(Some(Duration::from_millis(10)));
    }
    engine.status().backend
}

#[test]
#[ignore = "run under a filter by another test"]
fn under_the_filter_a_ring_by_name_is_refused() {
    let Some(expected) = expected() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let error = open_disk(dir.path(), Backend::Uring).err().unwrap();
    assert!(error.to_string().starts_with("io_uring was asked for and cannot be used"), "{error}");
    let OpenDiskError::Uring { source } = error else { panic!("{error}") };
    assert!(source.to_string().contains(expected), "{source}");
}
