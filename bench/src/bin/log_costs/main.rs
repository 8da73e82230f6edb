//! What the log writes for each byte of its users, and what bulk work costs the appends beside it.
//!
//! `cargo run --release -p bench --bin log-costs -- space` and `… -- latency`.

#![forbid(unsafe_code)]

mod clean;
mod driver;
mod latency;
mod scan;
mod space;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the log of one directory, driven inline.
#[derive(Debug, Parser)]
#[command(name = "log-costs", version, max_term_width = 100)]
struct Cli {
    /// Where the log is made; removed afterwards
    #[arg(long, global = true, default_value = "target/log-costs")]
    dir: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bytes of frames, padding, slots and checkpoints for each byte of keys and values, and what the device counts
    Space {
        /// MiB of keys and values at each number of commands a frame
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// What the cleaner adds: bytes of the log and of moved values for each byte of keys and values, at some use of space
    Clean {
        /// The cleaner's target, in hundredths
        #[arg(long, default_value_t = 50)]
        below_percent: u8,
        /// Four of five writes go to one of five keys; else to all alike
        #[arg(long)]
        skewed: bool,
        /// The length of a value
        #[arg(long, default_value_t = 4096)]
        value_bytes: usize,
        /// Bytes of values in an entry, of which 8 are in flight
        #[arg(long, default_value_t = 256 << 10)]
        entry_bytes: usize,
        /// MiB of keys and values that are measured
        #[arg(long, default_value_t = 4096)]
        mib: u64,
        /// MB of keys and values that are written in a second
        #[arg(long, default_value_t = 150)]
        mb_per_second: u64,
    },
    /// Latency of appends at half of the peak, with and without bulk work beside them all the time
    Latency {
        /// Which bulk work
        #[arg(long, value_enum, default_value = "checkpoint")]
        beside: latency::Beside,
        /// Paired rounds
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of each half of a round
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    let Cli { dir, command } = Cli::parse();
    let table = match command {
        Command::Space { mib } => space::measure(&dir, mib << 20),
        Command::Clean { below_percent, skewed, value_bytes, entry_bytes, mib, mb_per_second } => {
            let plan = clean::Plan {
                below_percent,
                load: clean::Load { value_bytes, entry_bytes, is_skewed: skewed },
                bytes: mib << 20,
                bytes_per_second: mb_per_second * 1_000_000,
            };
            clean::measure(&dir, &plan)
        }
        Command::Latency { beside, rounds, seconds } => {
            latency::measure(&dir, rounds, seconds, beside)
        }
    };
    match table.and_then(|table| writeln!(io::stdout(), "{table}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("log-costs: {error}");
            ExitCode::FAILURE
        }
    }
}
