//! One command of `holdfast` per file, and what they share.

pub mod connect;
pub mod del;
pub mod dev;
pub mod exec;
pub mod get;
pub mod lock;
pub mod outcome;
pub mod output;
pub mod put;
pub mod range;
pub mod serve;
pub mod signals;
pub mod status;
pub mod wal;
