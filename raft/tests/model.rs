//! Random histories of one to five nodes, with every invariant checked at every step.
//!
//! `RAFT_SEEDS=100000 cargo test -p raft --test model` runs more of them;
//! `RAFT_SEED=17 cargo test -p raft --test model replayed` runs one.

mod common;

use common::model::{Counts, run};

/// Says which seed to replay when the test fails in its midst.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: RAFT_SEED={} cargo test -p raft --test model replayed", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn run_seeds(first: u64, count: u64) -> Counts {
    let mut counts = Counts::default();
    for seed in first..first + count {
        let _replay = Replay(seed);
        counts += run(seed, |_| {}).1;
    }
    counts
}

#[test]
fn invariants_hold_and_the_cluster_recovers_whatever_happens() {
    let seeds = number("RAFT_SEEDS").unwrap_or(1_500);
    let counts = run_seeds(0, seeds);
    eprintln!("{seeds} seeds: {counts:?}");
    // A run that met too little proves nothing.
    assert!(counts.committed > 10 * seeds);
    assert!(counts.leaders > 2 * seeds);
    assert!(counts.crashes > seeds);
    for (what, count) in [
        ("truncations", counts.truncations),
        ("lost leaderships", counts.lost),
        ("installs", counts.installs),
        ("loads", counts.loads),
        ("reads", counts.reads),
        ("failed reads", counts.reads_failed),
        ("torn writes", counts.torn),
        ("stalled disks", counts.stalls),
    ] {
        assert!(count > seeds / 20, "only {count} {what}");
    }
}

#[test]
fn equal_seeds_make_equal_histories() {
    for seed in 0..20 {
        assert_eq!(run(seed, |_| {}).0, run(seed, |_| {}).0);
    }
    assert_ne!(run(1, |_| {}).0, run(2, |_| {}).0);
}

#[test]
fn replayed_seed_holds() {
    if let Some(seed) = number("RAFT_SEED") {
        run_seeds(seed, 1);
    }
}
