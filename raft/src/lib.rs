//! A Raft core.
mod batch;
mod error;
mod message;
mod ready;
mod types;
pub use batch::*;
pub use error::*;
pub use message::*;
pub use ready::*;
pub use types::*;
