//! How a node is told to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks a node to stop cleanly. Dropping it asks as well.
#[derive(Debug)]
pub struct StopHandle {
    asked: watch::Sender<bool>,
}

impl StopHandle {
    /// Stop: answer nobody new, make durable what is queued, end.
    pub fn stop(&self) {
        self.asked.send_replace(true);
    }
}

/// Waits for the request to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: Option<watch::Receiver<bool>>,
    signals: bool,
}

impl Stop {
    /// On SIGTERM or SIGINT.
    pub fn on_signals() -> Stop {
        Stop { asked: None, signals: true }
    }

    /// By the handle alone.
    pub fn manual() -> (StopHandle, Stop) {
        let (sender, receiver) = watch::channel(false);
        (StopHandle { asked: sender }, Stop { asked: Some(receiver), signals: false })
    }

    /// By the handle, or on SIGTERM or SIGINT.
    pub fn on_signals_or_handle() -> (StopHandle, Stop) {
        let (handle, stop) = Stop::manual();
        (handle, Stop { signals: true, ..stop })
    }

    /// Returns once somebody asked. Must run within a runtime whose I/O is enabled.
    pub async fn asked(mut self) -> std::io::Result<()> {
        let asked = async {
            match &mut self.asked {
                // A dropped handle ends the wait, too.
                Some(asked) => drop(asked.wait_for(|asked| *asked).await),
                None => std::future::pending().await,
            }
        };
        let signalled = async {
            if !self.signals {
                return std::future::pending().await;
            }
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::select! {
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
            }
        };
        tokio::select! {
            () = asked => Ok(()),
            signalled = signalled => signalled,
        }
    }
}
