//! The `holdfast` binary: a server and its command line.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// The index's small, long-lived nodes lie between buffers of a megabyte that come and go: the system's allocator
/// leaves half as much again unused between them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    server::cli::main()
}
