//! Functions that take any bytes and panic when a promise is broken, and the world that they and the tests drive.
//! Only with the feature `simulated`.
//!
//! - [`log_recover`] is the fuzz target: damaged slots, or a script of work and crashes.
//! - [`World`] is an engine on a simulated disk with an oracle: what was acknowledged is found, what is found was
//!   written, in order, without a gap.

mod fuse;
mod image;
mod images;
mod oracle;
mod points;
mod script;
mod world;

pub use fuse::{Fuse, FusedDisk, PowerCut};
pub use images::{Choice, Difference, Tally, crash_images, replay};
pub use oracle::{Content, Oracle, payload};
pub use script::{run_script, run_script_scrubbed};
pub use world::{IDENTITY, Value, World, body_of, small_options};

/// The fuzz target. The first byte chooses what the rest is.
pub fn log_recover(data: &[u8]) {
    match data.split_first() {
        Some((mode, rest)) if mode % 2 == 0 => image::recover_patched(rest),
        Some((_, rest)) => run_script(rest),
        None => {}
    }
}
