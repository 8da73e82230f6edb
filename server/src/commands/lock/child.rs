//! The command that runs under a lock.
//!
//! In the foreground of a terminal it stays in our process group, so that it can read from the terminal;
//! ctrl-C then reaches it without us. Anywhere else it gets a group of its own, so that stopping it
//! also stops what it has started.

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgrp, kill_process, kill_process_group};
use rustix::termios::tcgetpgrp;
use tokio::process::Command;
use tokio::time::timeout;

use super::notice;
use crate::commands::exec;
use crate::commands::outcome::{Exit, Failure};
use crate::commands::signals::{Signals, exit_of};

/// How long a command may take to end after SIGTERM when its lock is lost.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// How it ended.
pub(super) enum Ended {
    /// By itself, or by a signal of somebody else.
    Exited(Exit),
    /// It was stopped, because its lock was lost.
    LockLost,
}

/// A running command.
pub(super) struct Child {
    process: tokio::process::Child,
    pid: Pid,
    group: Group,
}

/// Whose process group it is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Own,
    Shared,
}

impl Child {
    /// Starts it with the lock's name and token in its environment. It dies with this process.
    pub(super) fn start(
        command: &[OsString],
        name: &OsString,
        token: u64,
    ) -> Result<Child, Failure> {
        let group = if in_foreground() { Group::Shared } else { Group::Own };
        let mut starter = Command::from(exec::command(command)?);
        starter.env("HOLDFAST_FENCE", token.to_string()).env("HOLDFAST_LOCK", name);
        if group == Group::Own {
            starter.process_group(0);
        }
        let failed = |error| Failure::failed(format!("cannot start the command: {error}"));
        let process = starter.spawn().map_err(failed)?;
        let pid = process.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.expect("a process that nobody has waited for has an id");
        Ok(Child { process, pid, group })
    }

    /// Waits for its end, passes signals on, and stops it when `lost` answers.
    pub(super) async fn wait(
        &mut self,
        lost: impl Future<Output = String>,
        signals: &mut Signals,
    ) -> Result<Ended, Failure> {
        let mut lost = Box::pin(lost);
        loop {
            tokio::select! {
                status = self.process.wait() => return Ok(Ended::Exited(exit(status)?)),
                reason = &mut lost => {
                    notice(&format!("warning: the lock is lost: {reason}; stopping the command"));
                    self.stop().await?;
                    return Ok(Ended::LockLost);
                }
                signal = signals.next() => self.pass_on(signal),
            }
        }
    }

    /// The terminal has sent its own signals to the whole foreground.
    fn pass_on(&self, signal: Signal) {
        if self.group == Group::Own || signal == Signal::TERM {
            self.signal(signal);
        }
    }

    async fn stop(&mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        let in_time = timeout(KILL_AFTER, self.process.wait()).await;
        // What it has started may have missed its end.
        self.signal(Signal::KILL);
        if in_time.is_err() {
            exit(self.process.wait().await)?;
        }
        Ok(())
    }

    /// Whoever has ended meanwhile needs no signal.
    fn signal(&self, signal: Signal) {
        match self.group {
            Group::Own => kill_process_group(self.pid, signal).ok(),
            // The id is not given again while nobody has waited.
            Group::Shared => self.process.id().and_then(|_| kill_process(self.pid, signal).ok()),
        };
    }
}

fn exit(status: std::io::Result<ExitStatus>) -> Result<Exit, Failure> {
    let status =
        status.map_err(|error| Failure::failed(format!("cannot wait for the command: {error}")))?;
    if let Some(signal) = status.signal() {
        return Ok(exit_of(signal));
    }
    let code = status.code().expect("what no signal has killed has a code");
    Ok(Exit::Of(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Whether a terminal sends its ctrl-C to this process group.
fn in_foreground() -> bool {
    let foreground = File::open("/dev/tty").ok().and_then(|tty| tcgetpgrp(&tty).ok());
    foreground.is_some_and(|group| group == getpgrp())
}
