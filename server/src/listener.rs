//! Accepts client connections, within limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use protocol::{Error, ErrorCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::{self, Shared};
use crate::founding::Founder;
use crate::replica::ClientId;

/// After a failed accept: out of file descriptors passes only when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// So many clients are told at once that there are too many; more are hung up on.
const REFUSALS_MAX: usize = 64;

/// What a node tells clients.
pub enum Phase {
    /// Its log is being opened.
    Opening,
    /// The cluster is being formed; after that the state is loaded.
    Founding(Arc<Mutex<Founder>>),
    /// It serves.
    Serving(Arc<Shared>),
}

impl Phase {
    /// What connections share, or why there are none yet.
    fn shared(&self) -> Result<Arc<Shared>, String> {
        match self {
            Phase::Opening => Err("this node is opening its log".to_owned()),
            Phase::Founding(founder) => Err(founding_reason(&founder.lock())),
            Phase::Serving(shared) => Ok(Arc::clone(shared)),
        }
    }
}

fn founding_reason(founder: &Founder) -> String {
    if founder.founding().is_some() {
        return "this node is loading its state".to_owned();
    }
    let missing: Vec<String> = founder.missing().iter().map(ToString::to_string).collect();
    if missing.is_empty() {
        return "the cluster is being formed".to_owned();
    }
    format!("the cluster is not formed yet: waiting for nodes {}", missing.join(", "))
}

/// Accepts for ever.
pub async fn accept(listener: TcpListener, phase: Arc<RwLock<Phase>>, connections_max: usize) {
    let permits = Arc::new(Semaphore::new(connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
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
            // A refusal holds a descriptor, too, until the client has said hello.
            if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(refuse_full(stream, connections_max, permit));
            }
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
    let shared = phase.read().shared();
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

async fn refuse_full(stream: TcpStream, connections_max: usize, _permit: OwnedSemaphorePermit) {
    let message = format!("this node has {connections_max} connections, its limit; retry later");
    let error = Error::not_done(ErrorCode::TooManyRequests, message);
    if let Err(error) = connection::refuse(stream, error).await {
        tracing::debug!(%error, "a refused client connection ended");
    }
}

#[cfg(test)]
mod tests {
    use raft::NodeId;

    use super::*;
    use crate::identity::Member;
    use crate::peer_message::Hello;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), incarnation: u128::from(id) }
    }

    /// A founded node that loaded its state used to say that it waited for the others, and a node
    /// that did wait named those that had been missing when it started.
    #[test]
    fn node_that_cannot_serve_yet_says_what_it_waits_for_now() {
        let founder = Founder::new(member(1), (1..=3).map(NodeId), None);
        let founder = Arc::new(Mutex::new(founder));
        let phase = Phase::Founding(Arc::clone(&founder));
        let reason = || phase.shared().err().expect("it does not serve");
        assert!(reason().ends_with("waiting for nodes 2, 3"), "{}", reason());
        let mut founding = None;
        for (id, then) in [(2, "waiting for nodes 3"), (3, "is being formed")] {
            let advertise = String::new();
            let hello = Hello { from: member(id), to: NodeId(1), advertise, founding: None };
            founding = Some(founder.lock().hear(&hello).unwrap());
            assert!(reason().ends_with(then), "{}", reason());
        }
        let Some(crate::founding::Heard::Found(founding)) = founding else {
            panic!("{founding:?}")
        };
        founder.lock().founded(founding);
        assert_eq!(reason(), "this node is loading its state");
    }
}
