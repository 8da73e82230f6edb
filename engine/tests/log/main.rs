//! What the log keeps, cuts, refuses and gives back. On the simulated disk, except where a backend is the matter.
#![cfg(feature = "simulated")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backends;
mod checkpoints;
mod cleaning;
mod corpus;
mod crashes;
mod damage;
mod faults;
mod holes;
mod images;
mod inspection;
mod lies;
#[cfg(feature = "mutants")]
mod mutants;
mod reads;
mod refusals;
mod scripts;
mod scrub;
mod slots;
mod space;
mod values;
