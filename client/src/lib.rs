//! The async client of holdfast.

#![forbid(unsafe_code)]

mod connection;
pub mod core;
mod error;

pub use connection::{Connection, Reply};
pub use error::Error;
