//! Functions that take any bytes and panic when a promise is broken, and the world that they and the tests drive.
//! Only with the feature `simulated`.
//!
//! - Fuzz targets: [`log_recover`], damaged slots or a script of work and crashes; [`checkpoint_decode`], damaged
//!   checkpoints; [`store_ops`], everything an engine does, against a model.
//! - [`crash_images`] tries every way to lose power at every moment of a scenario.
//! - [`World`] is an engine on a simulated disk with an oracle: what was acknowledged is found, what is found was
//!   written, in order, without a gap. It has a small state whose values checkpoints state and the cleaner moves.

mod cabinet;
mod census;
mod checkpoint;
mod fuse;
mod image;
mod images;
mod oracle;
mod points;
mod script;
mod snapshot;
mod store;
mod world;

pub use checkpoint::checkpoint_decode;
pub use fuse::{Fuse, FusedDisk, PowerCut};
pub use images::{Choice, Difference, Tally, crash_images, replay};
pub use oracle::{Content, Oracle, payload};
pub use script::{run_script, run_script_cleaned, run_script_scrubbed};
pub use store::store_ops;
pub use world::{IDENTITY, World, body_of, small_options};

/// The fuzz target. The first byte chooses what the rest is.
pub fn log_recover(data: &[u8]) {
    match data.split_first() {
        Some((mode, rest)) if mode % 2 == 0 => image::recover_patched(rest),
        Some((mode, rest)) if mode & 2 != 0 => run_script_cleaned(rest),
        Some((_, rest)) => run_script(rest),
        None => {}
    }
}
