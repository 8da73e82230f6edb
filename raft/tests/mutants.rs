//! Each deliberate bug must be found by the random histories, and is named with what found it:
//! `cargo test -p raft --features mutants --test mutants -- --nocapture`.
#![cfg(feature = "mutants")]

mod common;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::model::run;
use raft::Mutant;

/// After this many seeds a mutant counts as alive. The unharmed core passes as many.
const SEEDS_MAX: u64 = 6_000;

/// The first seed that finds the mutant, and what it says.
fn killed_by(mutant: Mutant) -> Option<(u64, String)> {
    (0..SEEDS_MAX).find_map(|seed| {
        let run = || run(seed, |config| config.mutant = Some(mutant));
        catch_unwind(AssertUnwindSafe(run)).err().map(|panic| (seed, said(panic.as_ref())))
    })
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
    text.unwrap_or_default().lines().take(3).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_mutant_is_killed_by_some_random_history() {
    // Each kill is a panic, and none of them is news. This is the only test of its process.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let kills: Vec<_> = Mutant::ALL.into_iter().map(|m| (m, killed_by(m))).collect();
    std::panic::set_hook(report);
    for (mutant, kill) in &kills {
        match kill {
            Some((seed, said)) => eprintln!("{mutant:?}: seed {seed}: {said}"),
            None => eprintln!("{mutant:?}: ALIVE"),
        }
    }
    assert!(kills.iter().all(|(_, kill)| kill.is_some()));
}

#[test]
fn unharmed_core_passes_under_the_same_feature() {
    for seed in 0..200 {
        run(seed, |_| {});
    }
}
