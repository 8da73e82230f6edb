//! A lock that is held.

use bytes::Bytes;

use crate::Result;
use crate::session::Session;

/// A lock held by a [`Session`]. Dropping it gives the lock back in the background.
///
/// Holding a guard does not prove that the lock is still held: the session may have ended
/// meanwhile, and this process may have been asleep. What must never be done by two holders carries
/// [`LockGuard::token`], and the resource refuses tokens lower than the highest that it has seen.
pub struct LockGuard {
    session: Session,
    name: Bytes,
    token: u64,
    held: bool,
}

impl LockGuard {
    pub(crate) fn new(session: Session, name: Bytes, token: u64) -> LockGuard {
        LockGuard { session, name, token, held: true }
    }

    /// The fencing token: higher than that of every grant before, of any lock.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The lock's name.
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// The session that holds it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether the session has ended, or must be taken to have ended, and with it the lock.
    pub fn is_lost(&self) -> bool {
        self.session.is_lost()
    }

    /// Waits until the lock is lost with its session; answers why. Stop what the lock protects.
    pub async fn lost(&self) -> String {
        self.session.lost().await
    }

    /// Gives the lock back. Once this is answered, others can have it.
    pub async fn release(mut self) -> Result<()> {
        // If this future is dropped, the request that is under way still comes to its end.
        self.held = false;
        self.session.release(self.name.clone(), self.token).await
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.held && !self.is_lost() {
            self.session.release_unwatched(self.name.clone(), self.token);
        }
    }
}
