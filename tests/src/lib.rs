//! What judges holdfast from outside: histories of what clients saw, checkers of them, clusters of real
//! processes, and whole clusters simulated in one thread.

#![forbid(unsafe_code)]

pub mod check;
pub mod cluster;
pub mod history;
pub mod sim;
pub mod workload;
