//! The `holdfast` binary from outside: what it prints, and how it ends.

mod dev;
mod lock;
mod node;
mod support;
mod usage;
