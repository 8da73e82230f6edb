//! A whole cluster in one thread from one seed.
//!
//! The replica's loop, the log, the consensus core, the state machine and the client's core are the ones that run in
//! production, down to the bytes on the wire; disk, network, time and processes are simulated. The same seed gives
//! the same schedule, event by event, which a hash of the trace shows.
//!
//! - [`world`]: the acts of a seed, and the one queue that makes time pass;
//! - [`node`], [`links`], [`edge`], [`power`]: a node's disk and its processes;
//! - [`client`], [`values`], [`book`]: clients, what they write, what they were told;
//! - [`network`], [`nemesis`], [`profile`]: what goes wrong, and how often;
//! - [`oracle`]: what must hold at every moment; [`report`], [`trace`]: what happened;
//! - [`mutant`]: deliberate bugs, by which all of this is tested.
//!
//! Nothing here reads a clock, starts a thread or depends on the order of a hash.

pub mod book;
pub mod client;
pub mod edge;
pub mod ground;
pub mod links;
pub mod mutant;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod oracle;
pub mod power;
pub mod profile;
pub mod random;
pub mod report;
pub mod schedule;
pub mod trace;
pub mod values;
pub mod world;

pub use mutant::Mutant;
pub use profile::Profile;
pub use report::{Report, Summary};
pub use world::{Failure, Options, run};
