//! What judges holdfast from outside: histories of what clients saw, and checkers of them.

#![forbid(unsafe_code)]

pub mod check;
pub mod cluster;
pub mod history;
pub mod workload;
