//! A holdfast node for the process tests: the same entry function as `holdfast`, so that a fresh clone needs no earlier
//! build.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::cli::main()
}
