//! Sessions: exactly-once writes, and locks that end with the client.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer of any other kind, present or future, is the same fault of the server"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Expect, KeyRange, Origin, Request, Response, Wait};
use tokio::sync::{oneshot, watch};

use crate::client::{Client, CompareAndSetReply, DeleteReply, closed, unexpected};
use crate::core::SessionKey;
use crate::driver::Command;
use crate::lock::LockGuard;
use crate::{Error, Result};

/// A session at the server, kept alive in the background. Clones are the same session.
///
/// Writes made in a session take effect exactly once, however often they had to be sent. The
/// session's locks are held until they are released or the session ends: by [`Session::close`], by
/// the drop of its last clone and guard, or because the server could not be reached for its time to
/// live, counted from the sending of the last keep-alive that was answered.
///
/// At most 1,024 requests of one session can be unanswered. While an acquire waits for its lock,
/// 1,023 writes can follow it in the same session; wait for locks in a session of their own if that
/// can take long.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    key: SessionKey,
    id: u64,
    ttl: Duration,
    lost: watch::Receiver<Option<String>>,
}

impl Session {
    pub(crate) fn new(
        client: Client,
        key: SessionKey,
        id: u64,
        ttl: Duration,
        lost: watch::Receiver<Option<String>>,
    ) -> Session {
        Session { inner: Arc::new(Inner { client, key, id, ttl, lost }) }
    }

    /// The session's number at the server; never given again.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// How long the session outlives its last keep-alive.
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// The client, for reads and for writes outside of the session.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Sets a key, exactly once. Answers the revision of the write.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64> {
        self.inner.client.put_in(Some(self.inner.key), key.into(), value.into()).await
    }

    /// Deletes a key, exactly once.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<DeleteReply> {
        self.inner.client.delete_in(Some(self.inner.key), key.into()).await
    }

    /// Deletes all keys of a range as one change, exactly once.
    pub async fn delete_range(&self, range: KeyRange) -> Result<DeleteReply> {
        self.inner.client.delete_range_in(Some(self.inner.key), range).await
    }

    /// Sets a key, or deletes it (`None`), if it is as expected; exactly once.
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: Option<Bytes>,
    ) -> Result<CompareAndSetReply> {
        let key = key.into();
        self.inner.client.compare_and_set_in(Some(self.inner.key), key, expect, value).await
    }

    /// Acquires a lock: `None` when others hold it, or did so for as long as `wait` says.
    ///
    /// Two acquires of one session exclude each other like those of two. If the returned future is
    /// dropped, the lock is given back as soon as it is granted.
    pub async fn lock(&self, name: impl Into<Bytes>, wait: Wait) -> Result<Option<LockGuard>> {
        let name = name.into();
        let origin = Origin::NONE;
        let request = Request::LockAcquire { origin, name: name.clone(), wait };
        let timeout = self.inner.client.timeout();
        let timeout = match wait {
            Wait::Try => Some(timeout),
            Wait::Millis(millis) => Some(timeout.saturating_add(Duration::from_millis(millis))),
            Wait::Forever => None,
        };
        let reply = self.inner.client.start_call(Some(self.inner.key), request, timeout)?;
        let mut acquire = Acquire { session: self, name, reply };
        match (&mut acquire.reply).await.map_err(|_| closed())?? {
            Response::LockGranted { token } => Ok(Some(acquire.into_guard(token))),
            Response::LockNotAcquired => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the session has ended, or must be taken to have ended.
    pub fn is_lost(&self) -> bool {
        self.inner.lost.borrow().is_some()
    }

    /// Waits until the session has ended, or must be taken to have ended; answers why.
    pub async fn lost(&self) -> String {
        let mut lost = self.inner.lost.clone();
        let reason = lost.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_else(|| "the client is closed".to_owned())
    }

    /// Ends the session and releases its locks. Once this is answered, others can have them.
    pub async fn close(self) -> Result<()> {
        let (reply_to, reply) = oneshot::channel();
        let Inner { client, key, .. } = &*self.inner;
        let timeout = client.timeout();
        client.send(Command::CloseSession { session: *key, timeout, reply_to: Some(reply_to) })?;
        match reply.await.map_err(|_| closed())?? {
            Response::SessionClosed { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn release(&self, name: Bytes, token: u64) -> Result<()> {
        let request = Request::LockRelease { origin: Origin::NONE, name, token };
        let Inner { client, key, .. } = &*self.inner;
        match client.call_in(Some(*key), request, Some(client.timeout())).await? {
            Response::LockReleased => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a lock back in the background.
    pub(crate) fn release_unwatched(&self, name: Bytes, token: u64) {
        let Inner { client, key, .. } = &*self.inner;
        if let Err(error) = client.send(Command::Release { session: *key, name, token }) {
            tracing::debug!(%error, "a lock ends with its session");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A session that was closed or lost is not known any more, and closing it again does
        // nothing.
        let close = Command::CloseSession {
            session: self.key,
            timeout: self.client.timeout(),
            reply_to: None,
        };
        if let Err(Error::Closed { .. }) = self.client.send(close) {
            tracing::debug!(session = self.id, "a session is left to its time to live");
        }
    }
}

/// An acquire whose answer may arrive just when nobody wants it any more.
struct Acquire<'a> {
    session: &'a Session,
    name: Bytes,
    reply: oneshot::Receiver<Result<Response>>,
}

impl Acquire<'_> {
    fn into_guard(self, token: u64) -> LockGuard {
        LockGuard::new(self.session.clone(), self.name.clone(), token)
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        self.reply.close();
        if let Ok(Ok(Response::LockGranted { token })) = self.reply.try_recv() {
            self.session.release_unwatched(self.name.clone(), token);
        }
    }
}
