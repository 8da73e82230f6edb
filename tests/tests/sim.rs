//! Seeds of the simulator as ordinary tests: every profile, determinism, and the seeds that once failed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tests::sim::{Options, Profile, Report, Summary, run};

#[path = "sim/regressions.rs"]
mod regressions;

/// Runs one seed, and fails with the command that replays it.
fn run_seed(profile: Profile, seed: u64) -> Report {
    let replay = format!("holdfast-sim --seed {seed} --profile {} --trace", profile.name());
    let options = Options { seed, profile, trace: false, mutant: None };
    let ran = catch_unwind(AssertUnwindSafe(|| run(options)));
    let (report, result) = ran.unwrap_or_else(|_| panic!("seed {seed} panicked; replay: {replay}"));
    if let Err(failure) = result {
        panic!("seed {seed} failed: {failure:?}; replay: {replay}");
    }
    report
}

fn run_seeds(profile: Profile, count: u64) -> Summary {
    let mut summary = Summary::default();
    for seed in 0..count {
        summary.add(&run_seed(profile, seed), true);
    }
    let thin = summary.thin().len() as u64;
    assert!(thin * 4 <= count, "{thin} of {count} seeds did too little:\n{summary}");
    summary
}

#[test]
fn calm_cluster_keeps_what_it_acknowledges_and_elects_once() {
    let summary = run_seeds(Profile::Calm, 12);
    assert!(summary.number("acknowledged") > 2_000, "{summary}");
    assert!(summary.number("elections") <= 3 * summary.seeds(), "{summary}");
}

#[test]
fn crashes_with_torn_writes_lose_nothing_acknowledged() {
    let summary = run_seeds(Profile::Crash, 30);
    assert!(summary.number("starts") > 500, "{summary}");
    assert!(summary.number("starts that lost power") > 0, "{summary}");
    assert!(summary.number("snapshot chunks") > 0, "{summary}");
}

#[test]
fn partitions_of_every_shape_lose_nothing_acknowledged() {
    let summary = run_seeds(Profile::Partition, 30);
    assert!(summary.number("elections") > 2 * summary.seeds(), "{summary}");
}

#[test]
fn disk_errors_are_final_for_the_process_and_lose_nothing_acknowledged() {
    let summary = run_seeds(Profile::Disk, 24);
    assert!(summary.number("processes ended by a disk error") > 0, "{summary}");
}

#[test]
fn everything_at_once_loses_nothing_acknowledged() {
    let summary = run_seeds(Profile::Chaos, 30);
    assert!(summary.number("elections") > 2 * summary.seeds(), "{summary}");
}

#[test]
fn same_seed_gives_the_same_trace_and_another_seed_another() {
    let trace = |seed| run_seed(Profile::Chaos, seed).trace_hash;
    let once: Vec<u128> = (100..104).map(trace).collect();
    let again: Vec<u128> = (100..104).map(trace).collect();
    assert_eq!(once, again);
    assert!(once.array_windows().all(|[a, b]| a != b));
}

#[test]
fn seeds_that_failed_once_pass() {
    for regression in regressions::ALL {
        eprintln!("{regression:?}");
        let profile = Profile::by_name(regression.profile).unwrap();
        run_seed(profile, regression.seed);
    }
}
