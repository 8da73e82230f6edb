//! `holdfast lock`: run a command while holding a lock.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use client::{LockGuard, Session};
use protocol::{LABEL_BYTES_MAX, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN, Wait};

use self::child::{Child, Ended};
use super::connect::{ConnectArgs, block_on, bytes_of, duration_arg, shown};
use super::outcome::{Exit, Failure};
use super::signals::{Signals, exit_of};

mod child;

const LONG_ABOUT: &str = "\
Waits for the lock NAME, runs COMMAND while holding it, and releases it when COMMAND has ended.

COMMAND finds the fencing token in HOLDFAST_FENCE and the lock's name in HOLDFAST_LOCK. The token is \
higher than that of every grant before: whatever COMMAND writes to should refuse lower ones, as a \
paused process cannot know that its lock has passed on.

If the nodes cannot be reached for the session's time to live, the lock is lost; COMMAND gets SIGTERM, \
and SIGKILL if it has not ended after 5 s. SIGINT, SIGTERM and SIGHUP are passed on to COMMAND.

The exit code is COMMAND's own (128 + N if signal N killed it), 4 if the lock was not acquired, 5 if \
the cluster did not answer or the lock was lost.";

const AFTER_HELP: &str = "\
Examples:
  holdfast lock backup -- ./backup.sh
  holdfast lock backup --try -- ./backup.sh          or not at all
  holdfast lock backup --wait 30s -- ./backup.sh     give up after 30 s
  holdfast lock job -- sh -c 'echo fencing token $HOLDFAST_FENCE'";

/// Run a command while holding a lock
#[derive(Debug, clap::Args)]
#[command(long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub struct Args {
    /// The lock's name, 1 to 4096 bytes; any name is a lock
    #[arg(value_name = "NAME")]
    name: OsString,
    /// How long the lock outlives this process if it is cut off, 1s to 24h
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = ttl_arg)]
    ttl: Duration,
    /// Give up when the lock is not free after this time [default: wait as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = wait_arg, conflicts_with = "try_once")]
    wait: Option<Duration>,
    /// Give up at once when the lock is not free
    #[arg(long = "try")]
    try_once: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

fn ttl_arg(text: &str) -> Result<Duration, String> {
    let ttl = duration_arg(text)?;
    let allowed = SESSION_TTL_MS_MIN.into()..=SESSION_TTL_MS_MAX.into();
    if allowed.contains(&ttl.as_millis()) { Ok(ttl) } else { Err("1s to 24h".to_owned()) }
}

fn wait_arg(text: &str) -> Result<Duration, String> {
    let wait = duration_arg(text)?;
    if wait.is_zero() { Err("not to wait at all is --try".to_owned()) } else { Ok(wait) }
}

/// Runs the command.
pub fn run(args: Args) -> Result<Exit, Failure> {
    block_on(acquire_and_run(args))
}

impl Args {
    fn wait(&self) -> Wait {
        match self.wait {
            _ if self.try_once => Wait::Try,
            None => Wait::Forever,
            Some(wait) => Wait::Millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX - 1)),
        }
    }

    fn label(&self) -> String {
        let label = format!("holdfast lock {}", self.name.display());
        let end = label.floor_char_boundary(LABEL_BYTES_MAX);
        label[..end].to_owned()
    }
}

async fn acquire_and_run(args: Args) -> Result<Exit, Failure> {
    let mut signals = Signals::catch()?;
    let client = args.connect.cluster()?.client;
    let session = tokio::select! {
        session = client.session(args.ttl, args.label()) => session?,
        signal = signals.next() => return Ok(exit_of(signal.as_raw())),
    };
    let acquired = tokio::select! {
        guard = session.lock(bytes_of(args.name.clone()), args.wait()) => guard,
        signal = signals.next() => {
            close(session, args.ttl).await;
            return Ok(exit_of(signal.as_raw()));
        }
    };
    let Some(guard) = acquired? else {
        close(session, args.ttl).await;
        return Err(not_acquired(&args));
    };
    let result = run_under(&guard, &args, &mut signals).await;
    release(guard, session, args.ttl).await;
    result
}

/// Runs the command until it ends, or until the lock is lost and the command with it.
async fn run_under(guard: &LockGuard, args: &Args, signals: &mut Signals) -> Result<Exit, Failure> {
    let mut child = Child::start(&args.command, &args.name, guard.token())?;
    match child.wait(guard.lost(), signals).await? {
        Ended::Exited(exit) => Ok(exit),
        Ended::LockLost => {
            let name = shown(guard.name());
            let message = format!("the lock `{name}` was lost, and the command stopped");
            Err(Failure::new(Exit::Unavailable, message)
                .hint("what it had begun may be half done; another holder may be at work"))
        }
    }
}

fn not_acquired(args: &Args) -> Failure {
    let name = shown(&bytes_of(args.name.clone()));
    let failure =
        Failure::new(Exit::ConditionFalse, format!("the lock `{name}` is held by another session"));
    if args.try_once {
        return failure.hint("without --try it is waited for");
    }
    failure
}

async fn release(guard: LockGuard, session: Session, ttl: Duration) {
    if guard.is_lost() {
        return;
    }
    if let Err(error) = guard.release().await {
        warn_held(&error, ttl);
    }
    close(session, ttl).await;
}

/// Ends the session; if that does not work, the servers do it when its time has passed.
async fn close(session: Session, ttl: Duration) {
    if let Err(error) = session.close().await {
        warn_held(&error, ttl);
    }
}

fn warn_held(error: &client::Error, ttl: Duration) {
    let seconds = ttl.as_secs_f32();
    notice(&format!("warning: {error}; the lock is free after {seconds} s at the latest"));
}

/// Says something to the person that does not end the command.
fn notice(text: &str) {
    // Nowhere is left to say that stderr is closed.
    writeln!(std::io::stderr().lock(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_out_of_range_are_refused() {
        assert_eq!(ttl_arg("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(ttl_arg("24h"), Ok(Duration::from_hours(24)));
        for bad in ["999ms", "25h", "10", ""] {
            assert!(ttl_arg(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn waiting_for_no_time_is_not_waiting() {
        assert!(wait_arg("0s").unwrap_err().contains("--try"));
    }
}
