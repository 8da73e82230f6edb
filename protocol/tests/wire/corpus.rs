//! Replays the corpus of the fuzz target `frame_decode` on a stable compiler.
//!
//! `HOLDFAST_REWRITE_GOLDEN=1` writes one seed for every sample message, beside what fuzzing has
//! found.

use std::path::PathBuf;
use std::{env, fs};

use protocol::fuzzing;

use crate::samples;

#[test]
fn corpus_of_the_fuzz_target_is_read_without_a_panic() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frame_decode");
    if env::var_os("HOLDFAST_REWRITE_GOLDEN").is_some() {
        for (name, message) in samples::all() {
            fs::write(dir.join(name), message.encode()).unwrap();
        }
    }
    let mut replayed = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let data = fs::read(entry.unwrap().path()).unwrap();
        fuzzing::frame_decode(&data);
        replayed += 1;
    }
    assert!(replayed >= samples::all().len(), "{replayed} seeds in {}", dir.display());
}
