//! Signals that ask a command to end.

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::outcome::{Exit, Failure};

/// SIGINT, SIGTERM and SIGHUP, caught from the making of this on.
#[derive(Debug)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Must be called within a runtime.
    pub fn catch() -> Result<Signals, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot catch signals: {error}")))
        };
        Ok(Signals {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// How a command ends that a signal has ended.
pub fn exit_of(signal: i32) -> Exit {
    Exit::Of(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
