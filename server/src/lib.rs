//! The holdfast server: the replica's loop, the deterministic state machine, the network edges, the command line.
//!
//! The loop and the state machine know nothing of sockets, threads or clocks; the simulator drives them as
//! production does. Everything asynchronous lives at the edges: [`listener`], [`connection`], [`peer`].

pub mod bytes_reader;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod connection;
mod descriptors;
pub mod dev;
pub mod edge;
pub mod founding;
pub mod identity;
pub mod inbox;
pub mod listener;
pub mod log_store;
pub mod node;
pub mod peer;
pub mod peer_message;
pub mod replica;
pub mod requests;
pub mod shutdown;
mod socket;
pub mod state_machine;
