//! The log beside two other logs and beside the disk itself: the same appends through each, in one run.
//!
//! Every system is opened once and kept; a round runs each kind of work through one system after the other, so the
//! figures of one round share the machine's mood. What is compared are the ratios of each round, by their median.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use engine::io::open::Backend;

mod host;
mod rivals;
mod table;
mod work;

#[path = "../../../../engine/benches/support/mod.rs"]
mod support;

use table::Table;
use work::{Bench, Work};

/// How much longer than the others the first round is.
const WARM_UP_LENGTHS: u32 = 5;

/// Appends through holdfast's log, raft-engine and okaywal, beside raw durable writes.
#[derive(Debug, Parser)]
#[command(name = "append-rivals", max_term_width = 100)]
struct Cli {
    /// Rounds to measure; one of five times the length goes before them, so that every log has come round its files
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each system does each kind of work in a round
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Where the logs are written, in a directory of its own that is removed again
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How holdfast and the raw writes reach the disk
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// Only these kinds of work
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    only: Vec<Work>,
    /// Leave the other logs out
    #[arg(long)]
    alone: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Io {
    Auto,
    Uring,
    Syscall,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("append-rivals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let backend = match cli.io {
        Io::Auto => Backend::Auto,
        Io::Uring => Backend::Uring,
        Io::Syscall => Backend::Syscall,
    };
    let dir = tempfile::tempdir_in(&cli.dir)?;
    let mut bench = Bench::new(dir.path(), backend)?;
    let length = Duration::from_millis(cli.millis);
    print(&host::description(dir.path()));
    let mut table = Table::default();
    for round in 0..=cli.rounds {
        bench.set_length(if round == 0 { WARM_UP_LENGTHS * length } else { length });
        let works = cli.only.iter();
        let figures = works.flat_map(|work| bench.round(*work, round, cli.alone)).collect();
        if round > 0 {
            table.add(figures);
        }
    }
    print(&table.to_string());
    print(&bench.notes());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is a command")]
fn print(text: &str) {
    println!("{text}");
}

/// A directory below `dir`.
fn below(dir: &Path, name: &str) -> std::io::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::create_dir(&path)?;
    Ok(path)
}
