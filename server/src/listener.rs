//! Accepts client connections, within limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use protocol::{Error, ErrorCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::connection::{self, Shared};
use crate::replica::ClientId;

/// After a failed accept: out of file descriptors passes only when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a node tells clients.
pub enum Phase {
    /// It cannot serve yet.
    Waiting {
        /// Why, for the client's error.
        reason: String,
    },
    /// It serves.
    Serving(Arc<Shared>),
}

/// Accepts for ever.
pub async fn accept(listener: TcpListener, phase: Arc<RwLock<Phase>>, connections_max: usize) {
    let permits = Arc::new(Semaphore::new(connections_max));
    let next = AtomicU64::new(1);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let id = ClientId(next.fetch_add(1, Ordering::Relaxed));
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tokio::spawn(refuse_full(stream, connections_max));
            continue;
        };
        let phase = Arc::clone(&phase);
        tokio::spawn(async move {
            serve(stream, id, &phase).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, id: ClientId, phase: &RwLock<Phase>) {
    let shared = match &*phase.read() {
        Phase::Serving(shared) => Ok(Arc::clone(shared)),
        Phase::Waiting { reason } => Err(reason.clone()),
    };
    let ended = match shared {
        Ok(shared) => connection::serve(stream, id, shared).await,
        Err(reason) => {
            let error = Error::not_done(ErrorCode::Unavailable, reason);
            connection::refuse(stream, error).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, client = id.0, "a client connection ended");
    }
}

async fn refuse_full(stream: TcpStream, connections_max: usize) {
    let message = format!("this node has {connections_max} connections, its limit; retry later");
    let error = Error::not_done(ErrorCode::TooManyRequests, message);
    if let Err(error) = connection::refuse(stream, error).await {
        tracing::debug!(%error, "a refused client connection ended");
    }
}
