//! The committed corpus of the fuzz target, on the stable compiler.

use std::path::Path;

use engine::fuzzing::log_recover;

#[test]
fn the_corpus_of_log_recover_breaks_no_promise() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/log_recover");
    let mut inputs: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= 10);
    for input in inputs {
        log_recover(&std::fs::read(&input).unwrap());
    }
}

#[test]
fn inputs_of_every_short_corpus_length_are_accepted() {
    for bytes in 0..24u8 {
        for mode in 0..2 {
            let input: Vec<u8> = (0..bytes).map(|at| at.wrapping_mul(37) ^ mode).collect();
            log_recover(&input);
        }
    }
}
