//! Random work and crashes against the oracle: what is acknowledged is found, and nothing that was not written.

use engine::fuzzing::{run_script, run_script_cleaned, run_script_scrubbed};

/// How many scripts: the environment may ask for more.
fn rounds() -> u64 {
    let asked = std::env::var("HOLDFAST_LOG_SCRIPTS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(150)
}

fn script(seed: u64) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut byte = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        u8::try_from(word >> 56).unwrap()
    };
    (0..96).map(|_| byte()).collect()
}

#[test]
fn random_scripts_keep_every_acknowledged_write_and_invent_nothing() {
    for_each_script(run_script);
}

#[test]
fn the_scrubber_beside_random_scripts_finds_nothing_on_a_sound_disk() {
    for_each_script(run_script_scrubbed);
}

#[test]
fn the_cleaner_beside_random_scripts_loses_no_value() {
    for_each_script(run_script_cleaned);
}

fn for_each_script(run: fn(&[u8])) {
    for seed in 0..rounds() {
        let script = script(seed);
        let ended = std::panic::catch_unwind(|| run(&script));
        assert!(ended.is_ok(), "seed {seed} fails: {script:02x?}");
    }
}
