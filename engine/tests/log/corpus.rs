//! The committed corpora of the fuzz targets, on the stable compiler.

use std::path::Path;

use engine::fuzzing::{checkpoint_decode, log_recover, store_ops};

/// Runs a target over its corpus.
fn replay(name: &str, inputs_min: usize, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut inputs: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= inputs_min);
    for input in inputs {
        target(&std::fs::read(&input).unwrap());
    }
}

#[test]
fn the_corpus_of_log_recover_breaks_no_promise() {
    replay("log_recover", 10, log_recover);
}

#[test]
fn the_corpus_of_checkpoint_decode_breaks_no_promise() {
    replay("checkpoint_decode", 10, checkpoint_decode);
}

#[test]
fn the_corpus_of_store_ops_breaks_no_promise() {
    replay("store_ops", 8, store_ops);
}

#[test]
fn inputs_of_every_short_corpus_length_are_accepted() {
    for target in [log_recover, checkpoint_decode, store_ops] {
        for bytes in 0..24u8 {
            for mode in 0..2 {
                target(&(0..bytes).map(|at| at.wrapping_mul(37) ^ mode).collect::<Vec<_>>());
            }
        }
    }
}
