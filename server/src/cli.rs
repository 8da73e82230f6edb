//! The command line: what there is, and how it ends.
//!
//! Results go to stdout and nothing else does; errors go to stderr as `error: …`, with `hint: …`
//! where there is something to do. The exit codes are those of [`Exit`].

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::outcome::{Exit, Failure};
use crate::commands::{del, dev, exec, get, lock, put, range, serve, status, wal};

const LONG_ABOUT: &str = "\
holdfast keeps keys, locks and sessions on several machines at once and loses nothing that it has \
acknowledged, as long as a majority of them comes back.

Start with `holdfast dev`: three real nodes on this machine, with one command.";

const AFTER_HELP: &str = "\
Examples:
  holdfast dev                               a cluster of three nodes on this machine
  holdfast put city Berlin                   set a key
  holdfast get city                          read it back
  holdfast range --prefix user/              read all keys that begin with user/
  holdfast lock backup -- ./backup.sh        run a program while holding a lock
  holdfast status                            how every node is
  holdfast wal verify DIR                    whether the data of a stopped node is whole

Exit codes: 0 done, 1 failed, 2 bad usage, 3 not found, 4 condition false,
5 unavailable or timed out.";

/// A replicated log database
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Serve(Box<serve::Args>),
    Put(put::Args),
    Get(get::Args),
    Del(del::Args),
    Range(range::Args),
    Lock(lock::Args),
    Status(status::Args),
    Wal(wal::Args),
    #[command(name = exec::NAME, hide = true)]
    Exec(exec::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => cli.command.run(),
        Err(error) => return usage(&error),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => report(&failure),
    }
}

impl Command {
    fn run(self) -> Result<Exit, Failure> {
        match self {
            Command::Dev(args) => dev::run(args),
            Command::Serve(args) => serve::run(&args),
            Command::Put(args) => put::run(args),
            Command::Get(args) => get::run(args),
            Command::Del(args) => del::run(args),
            Command::Range(args) => range::run(args),
            Command::Lock(args) => lock::run(args),
            Command::Status(args) => status::run(&args),
            Command::Wal(args) => wal::run(args),
            Command::Exec(args) => exec::run(&args),
        }
    }
}

/// Help and version go to stdout and are no error; everything else goes to stderr and is.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that went away, as in `holdfast --help | head -1`, wants no more.
    error.print().ok();
    // `wal` tells of damage with the code that bad usage has elsewhere.
    let is_wal = std::env::args_os().nth(1).is_some_and(|command| command == "wal");
    match (error.use_stderr(), is_wal) {
        (false, _) => Exit::Done.into(),
        (true, false) => Exit::Usage.into(),
        (true, true) => Exit::Of(64).into(),
    }
}

fn report(failure: &Failure) -> ExitCode {
    // Nowhere is left to say that stderr is closed.
    write!(std::io::stderr().lock(), "{failure}").ok();
    failure.exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_of_the_command_line_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shown_command_teaches_with_examples() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let examples = command.get_after_help().expect(name).to_string();
            assert!(examples.contains(&format!("holdfast {name}")), "{name}: {examples}");
            assert!(command.get_about().is_some(), "{name}");
            assert!(command.get_long_about().is_some(), "{name}");
        }
    }
}
