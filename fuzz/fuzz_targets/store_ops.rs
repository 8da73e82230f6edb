//! Everything that an engine does, against a model: appends, truncations, checkpoints, installs, cleaning, power cuts,
//! kills, flipped bits, and reads of entries, values and checkpoints between them. The same function runs over the committed
//! corpus in `engine/tests/log/corpus.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| engine::fuzzing::store_ops(data));
