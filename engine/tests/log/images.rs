//! Crash images: the first of those that `cargo run --example crash_images` tries by the million.

use engine::fuzzing::{Tally, crash_images};

const IMAGES_PER_SCENARIO_MAX: u64 = 1_500;

/// How many images for each test: the environment may ask for more.
fn images() -> u64 {
    let asked = std::env::var("HOLDFAST_CRASH_IMAGES").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(50_000)
}

fn try_images(seed: u64) -> Tally {
    try_images_of((seed * 1_000).., images())
}

fn try_images_of(mut scenarios: impl Iterator<Item = u64>, images: u64) -> Tally {
    let mut tally = Tally::default();
    while tally.images < images {
        let scenario = scenarios.next().unwrap();
        if let Err(difference) = crash_images(scenario, IMAGES_PER_SCENARIO_MAX, &mut tally) {
            panic!("{difference:?}");
        }
    }
    tally
}

#[test]
fn every_crash_image_of_many_scenarios_holds_what_was_acknowledged() {
    let tally = try_images(1);
    assert!(tally.scenarios >= 25, "{tally:?}");
    assert!(tally.points_in_open > 100, "{tally:?}");
    assert!(tally.points_exhausted > tally.points / 2, "{tally:?}");
    assert!(tally.torn > 1_000, "{tally:?}");
    assert!(tally.replaced > 0, "{tally:?}");
    assert!(tally.cut_in_open > 1_000 && tally.values_read > 1_000, "{tally:?}");
}

#[test]
fn every_crash_image_of_more_scenarios_holds_what_was_acknowledged() {
    let tally = try_images(2);
    assert!(tally.torn > 1_000, "{tally:?}");
}

/// One scenario in four has slots that are cleaned and used anew.
#[test]
fn every_crash_image_beside_a_cleaner_has_every_value_of_what_it_may_go_on_from() {
    let tally = try_images_of((3_003..).step_by(4), images() / 2);
    assert!(tally.scenarios_cleaned * 10 >= tally.scenarios * 9, "{tally:?}");
    assert!(tally.slots_cleaned > tally.scenarios * 5, "{tally:?}");
    assert!(tally.cleaned_reused > tally.scenarios, "{tally:?}");
    assert!(tally.values_reused > tally.scenarios / 2, "{tally:?}");
}
