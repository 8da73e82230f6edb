//! `holdfast wal`: what a data directory holds, without a server and without changing it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Subcommand;
use engine::io::offline::OfflineDisk;
use engine::{Hole, HoleFate, Inspection, LookLock, OpenError, SegmentKind};
use indicatif::{ProgressBar, ProgressStyle};

use super::outcome::{Exit, Failure};
use super::output::OutputArgs;

mod dump;
mod verify;

const LONG_ABOUT: &str = "\
Looks at the data directory of a node that does not run. Nothing in it is changed, and a node that is started \
meanwhile has to wait.

Exit codes: 0 sound; 1 a torn tail: the last writes before a crash had not ended, the next start cuts them \
off, and none of them was acknowledged; 2 damaged, with the place; 64 bad usage; 66 the directory \
cannot be read, or a node has it open.";

const AFTER_HELP: &str = "\
Examples:
  holdfast wal verify /var/lib/holdfast             is everything there, and is it whole?
  holdfast wal verify /var/lib/holdfast -o json
  holdfast wal dump /var/lib/holdfast | less        every segment, frame and record: the log, then values
  holdfast wal dump --commands /var/lib/holdfast    and what the entries do";

/// Look at a data directory offline
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read everything that a start would read, and both checkpoints whole
    Verify(verify::Args),
    /// Print every checkpoint, segment, frame and record that can be read
    Dump(dump::Args),
}

/// What both have in common.
#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// The data directory of a node
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    match args.action {
        Action::Verify(args) => verify::run(&args),
        Action::Dump(args) => dump::run(&args),
    }
}

/// How a directory is. Scripts rely on the codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Sound,
    Torn,
    Damaged,
    Unreadable,
}

impl State {
    fn of(found: &Result<Inspection, OpenError>) -> State {
        match found {
            Ok(found) if !found.damaged.is_empty() || !found.rotten.is_empty() => State::Damaged,
            Ok(found) if found.recovered.report.holes.iter().any(is_unrepaired) => State::Damaged,
            Ok(found) if found.recovered.report.torn.is_some() => State::Torn,
            Ok(_) => State::Sound,
            Err(error) => State::of_error(error),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else an open refuses a directory for is damage"
    )]
    fn of_error(error: &OpenError) -> State {
        match error {
            OpenError::Io { .. }
            | OpenError::Locked { .. }
            | OpenError::MetaForeign { .. }
            | OpenError::Unreadable { .. }
            | OpenError::Unsteady { .. } => State::Unreadable,
            _ => State::Damaged,
        }
    }

    fn name(self) -> &'static str {
        match self {
            State::Sound => "sound",
            State::Torn => "torn tail",
            State::Damaged => "damaged",
            State::Unreadable => "unreadable",
        }
    }

    fn exit(self) -> Exit {
        match self {
            State::Sound => Exit::Done,
            State::Torn => Exit::Of(1),
            State::Damaged => Exit::Of(2),
            State::Unreadable => Exit::Of(66),
        }
    }
}

/// What a segment is called in JSON; in capitals for people.
fn kind_name(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Log => "log",
        SegmentKind::Values => "val",
    }
}

/// A hole whose entries later frames hold is as good as sound.
fn is_unrepaired((_, fate): &(Hole, HoleFate)) -> bool {
    *fate != HoleFate::Repaired
}

/// A directory that nobody opens while this is there.
struct Looked<'a> {
    dir: &'a Path,
    _lock: LookLock,
}

impl<'a> Looked<'a> {
    fn open(dir: &'a Path) -> Result<Looked<'a>, Failure> {
        if !dir.join("META").try_exists().map_err(|error| cannot_open(dir, &error))? {
            let message =
                format!("{} holds no META: it is not the data directory of a node", dir.display());
            return Err(Failure::new(Exit::Of(66), message));
        }
        let lock = LookLock::acquire(dir).map_err(|error| unreadable(&error))?;
        Ok(Looked { dir, _lock: lock })
    }

    /// A disk on it; `on_read` is told of the bytes of each read.
    fn disk(&self, on_read: impl FnMut(u64) + 'static) -> Result<OfflineDisk, Failure> {
        OfflineDisk::open(self.dir, on_read).map_err(|error| cannot_open(self.dir, &error))
    }

    /// Shows on the terminal how far reading has come.
    fn verify(&self) -> Result<Result<Inspection, OpenError>, Failure> {
        let bar =
            ProgressBar::new(bytes_in(&self.dir.join("seg")) + bytes_in(&self.dir.join("ckpt")));
        let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
        bar.set_message("reading");
        let shown = bar.clone();
        let disk = self.disk(move |bytes| shown.inc(bytes))?;
        let found = engine::verify(disk, self.dir);
        bar.finish_and_clear();
        match found {
            Err(error) if State::of_error(&error) == State::Unreadable => Err(unreadable(&error)),
            found => Ok(found),
        }
    }
}

fn cannot_open(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Of(66), format!("cannot open {}: {error}", dir.display()))
}

fn unreadable(error: &OpenError) -> Failure {
    Failure::new(Exit::Of(66), error.to_string())
}

/// The size of all files in a directory; what cannot be told counts as nothing.
fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
