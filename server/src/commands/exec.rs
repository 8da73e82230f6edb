//! Processes that must not outlive the one that started them.
//!
//! The kernel ends a process with its parent if the process itself asked for that. A node of `dev` asks
//! by a hidden flag; a foreign command is started through a hidden command of ours, which asks and then
//! becomes it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::outcome::{Exit, Failure};

/// The name of the hidden command.
pub const NAME: &str = "__exec";

/// The hidden flag.
const PARENT_FLAG: &str = "--die-with-parent";

/// Whose end is also this process's end.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ParentArgs {
    /// The id of the process that starts this one
    #[arg(long = "die-with-parent", hide = true, value_name = "PID")]
    parent: Option<i32>,
}

impl ParentArgs {
    /// If a parent is named: asks the kernel to kill this process when it ends; fails if it has already.
    pub fn die_with_parent(self) -> Result<(), Failure> {
        let Some(parent) = self.parent else { return Ok(()) };
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| Failure::failed(format!("cannot follow process {parent}: {error}")))?;
        // It may have ended before the kernel knew.
        if getppid().map(Pid::as_raw_nonzero).is_some_and(|pid| pid.get() == parent) {
            return Ok(());
        }
        Err(Failure::failed(format!("process {parent}, which started this one, is gone")))
    }
}

/// Become another command
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    parent: ParentArgs,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// This program, to be given arguments.
pub fn own_program() -> Result<Command, Failure> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
    Ok(Command::new(path))
}

/// The hidden flag and its value: for processes that end with this one.
///
/// The kernel watches the thread that starts the process, so that has to be one that stays.
pub fn parent_flag() -> [String; 2] {
    [PARENT_FLAG.to_owned(), std::process::id().to_string()]
}

/// What starts a foreign command that ends with this process.
pub fn command(foreign: &[OsString]) -> Result<Command, Failure> {
    let mut command = own_program()?;
    command.arg(NAME).args(parent_flag()).arg("--").args(foreign);
    Ok(command)
}

/// Becomes the command; returns only if that does not work, with the codes that shells use.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    args.parent.die_with_parent()?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::usage("there is no command to run"));
    };
    let error = Command::new(program).args(arguments).exec();
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::Of(127) } else { Exit::Of(126) };
    Err(Failure::new(exit, format!("cannot run {}: {error}", program.display())))
}
