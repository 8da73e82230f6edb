//! The handle that programs hold.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer of any other kind, present or future, is the same fault of the server"
)]

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    Certainty, Consistency, Expect, Hello, Item, KeyRange, LockHolder, NodeStatus, Origin,
    RangeItem, Request, Response,
};
use tokio::sync::{mpsc, oneshot};

use crate::core::{Core, SessionKey, Target};
use crate::driver::{self, Command, Opened};
use crate::session::Session;
use crate::{Error, Result};

/// How a client behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Who the client says it is, for people who look at connections; at most 255 bytes.
    pub name: String,
    /// The cluster that the client wants; `None` takes the first that answers, and then no other.
    pub cluster_id: Option<u128>,
    /// How long a call may take, with all its attempts.
    pub timeout: Duration,
    /// Seeds the jitter of waits and the nonces of sessions; `None` takes it from the system. For
    /// tests: clients with the same seed choose the same nonces, and so would share sessions.
    pub seed: Option<u64>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            name: "holdfast-client".to_owned(),
            cluster_id: None,
            timeout: Duration::from_secs(5),
            seed: None,
        }
    }
}

/// A client of one cluster. Clones share connections; when the last handle is gone (and the last
/// [`Session`]), they are closed.
///
/// Every call goes to the leader, wherever it moves, unless it says otherwise. A call that
/// certainly was not done is repeated until the timeout; a read always is. Only when every known
/// node refuses the client for good, as one of another release or cluster does, its calls end with
/// that refusal at once. A write outside of a session whose answer never came is never repeated:
/// [`Error::certainty`] is then [`Certainty::Unknown`]. In a [`Session`] it is repeated, and takes
/// effect once.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    timeout: Duration,
}

/// What a get saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GetReply {
    /// The store's revision.
    pub revision: u64,
    /// The key's item; `None` if there is no such key.
    pub item: Option<Item>,
}

/// What a range saw: one page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangePage {
    /// The store's revision.
    pub revision: u64,
    /// The items, in key order.
    pub items: Vec<RangeItem>,
    /// Whether there are more keys after the last item; [`KeyRange::after`] is where they begin.
    pub more: bool,
}

/// What a delete did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeleteReply {
    /// The revision of the delete; the store's current one if nothing was deleted.
    pub revision: u64,
    /// How many keys there were.
    pub deleted: u64,
}

/// What a compare-and-set did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompareAndSetReply {
    /// The revision of the write; the store's current one if nothing changed.
    pub revision: u64,
    /// Whether the key was as expected.
    pub swapped: bool,
    /// The revision of the key's last change after the call; 0 if there is no such key.
    pub mod_revision: u64,
}

/// How a lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockReply {
    /// The store's revision.
    pub revision: u64,
    /// Who holds it.
    pub holder: Option<LockHolder>,
    /// How many queue for it.
    pub waiters: u32,
}

impl Client {
    /// A client that starts from these nodes (`host:port` each; one is enough, the others are
    /// learned).
    ///
    /// Connects when the first call is made: an unreachable cluster shows as that call's error.
    /// Must be called within a tokio runtime.
    pub fn connect(endpoints: &[String], options: ClientOptions) -> Result<Client> {
        let hello = Hello { cluster_id: options.cluster_id, ..Hello::new(options.name) };
        let seed = options.seed.map_or_else(random_seed, Ok)?;
        let core = Core::new(hello, endpoints, seed)?;
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(driver::run(core, queue));
        Ok(Client { commands, timeout: options.timeout })
    }

    /// The same client with another timeout for its calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { timeout, ..self.clone() }
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets a key. Answers the revision of the write.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64> {
        self.put_in(None, key.into(), value.into()).await
    }

    /// Reads a key, seeing every write that was answered before.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<GetReply> {
        self.get_with(Consistency::Linearizable, key).await
    }

    /// Reads a key, as fresh as asked for.
    pub async fn get_with(
        &self,
        consistency: Consistency,
        key: impl Into<Bytes>,
    ) -> Result<GetReply> {
        match self.call(Request::Get { consistency, key: key.into() }).await? {
            Response::Get { revision, item } => Ok(GetReply { revision, item }),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a key, if it is there.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<DeleteReply> {
        self.delete_in(None, key.into()).await
    }

    /// Deletes all keys of a range, as one change.
    pub async fn delete_range(&self, range: KeyRange) -> Result<DeleteReply> {
        self.delete_range_in(None, range).await
    }

    /// Reads one page of a range: at most `limit` items (0: as many as a page holds), in key order.
    pub async fn range(&self, range: KeyRange, limit: u32) -> Result<RangePage> {
        let request = Request::Range {
            consistency: Consistency::Linearizable,
            range,
            limit,
            keys_only: false,
        };
        self.range_with(request).await
    }

    /// Like [`Client::range`], but the items have no values.
    pub async fn range_keys(&self, range: KeyRange, limit: u32) -> Result<RangePage> {
        let request = Request::Range {
            consistency: Consistency::Linearizable,
            range,
            limit,
            keys_only: true,
        };
        self.range_with(request).await
    }

    /// Sets a key, or deletes it (`None`), if it is as expected.
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: Option<Bytes>,
    ) -> Result<CompareAndSetReply> {
        self.compare_and_set_in(None, key.into(), expect, value).await
    }

    /// How the node at `endpoint` (`host:port`) says it is. It is asked once, whether it leads or
    /// not.
    pub async fn status(&self, endpoint: &str) -> Result<NodeStatus> {
        match self.call_endpoint(endpoint, Request::Status).await? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Looks at a lock.
    pub async fn lock_state(&self, name: impl Into<Bytes>) -> Result<LockReply> {
        let consistency = Consistency::Linearizable;
        match self.call(Request::LockQuery { consistency, name: name.into() }).await? {
            Response::LockState { revision, holder, waiters } => {
                Ok(LockReply { revision, holder, waiters })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a session that lives for `ttl` (1 s to 24 h) after this client was last heard, and is
    /// kept alive until it is closed or dropped. The label is for people who look at sessions.
    pub async fn session(&self, ttl: Duration, label: impl Into<Bytes>) -> Result<Session> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let (reply_to, reply) = oneshot::channel();
        let label = label.into();
        self.send(Command::OpenSession { ttl_ms, label, timeout: self.timeout, reply_to })?;
        let Opened { session, id, ttl_ms, lost } = reply.await.map_err(|_| closed())??;
        Ok(Session::new(self.clone(), session, id, Duration::from_millis(ttl_ms), lost))
    }

    /// Sends any request to the leader.
    pub async fn call(&self, request: Request) -> Result<Response> {
        self.call_in(None, request, Some(self.timeout)).await
    }

    /// Sends any request to one node, once.
    pub async fn call_endpoint(&self, endpoint: &str, request: Request) -> Result<Response> {
        let target = Target::Endpoint(endpoint.to_owned());
        let timeout = Some(self.timeout);
        let (reply_to, reply) = oneshot::channel();
        self.send(Command::Call { request, session: None, target, timeout, reply_to })?;
        reply.await.map_err(|_| closed())?
    }

    pub(crate) async fn call_in(
        &self,
        session: Option<SessionKey>,
        request: Request,
        timeout: Option<Duration>,
    ) -> Result<Response> {
        self.start_call(session, request, timeout)?.await.map_err(|_| closed())?
    }

    pub(crate) fn start_call(
        &self,
        session: Option<SessionKey>,
        request: Request,
        timeout: Option<Duration>,
    ) -> Result<oneshot::Receiver<Result<Response>>> {
        let (reply_to, reply) = oneshot::channel();
        let target = Target::Leader;
        self.send(Command::Call { request, session, target, timeout, reply_to })?;
        Ok(reply)
    }

    pub(crate) fn send(&self, command: Command) -> Result<()> {
        let not_done = |_| Error::Closed { certainty: Certainty::NotDone };
        self.commands.send(command).map_err(not_done)
    }

    async fn range_with(&self, request: Request) -> Result<RangePage> {
        match self.call(request).await? {
            Response::Range { revision, items, more } => Ok(RangePage { revision, items, more }),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn put_in(
        &self,
        session: Option<SessionKey>,
        key: Bytes,
        value: Bytes,
    ) -> Result<u64> {
        let request = Request::Put { origin: Origin::NONE, key, value };
        match self.call_in(session, request, Some(self.timeout)).await? {
            Response::Put { revision } => Ok(revision),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn delete_in(
        &self,
        session: Option<SessionKey>,
        key: Bytes,
    ) -> Result<DeleteReply> {
        let request = Request::Delete { origin: Origin::NONE, key };
        deleted(self.call_in(session, request, Some(self.timeout)).await?)
    }

    pub(crate) async fn delete_range_in(
        &self,
        session: Option<SessionKey>,
        range: KeyRange,
    ) -> Result<DeleteReply> {
        let request = Request::DeleteRange { origin: Origin::NONE, range };
        deleted(self.call_in(session, request, Some(self.timeout)).await?)
    }

    pub(crate) async fn compare_and_set_in(
        &self,
        session: Option<SessionKey>,
        key: Bytes,
        expect: Expect,
        value: Option<Bytes>,
    ) -> Result<CompareAndSetReply> {
        let request = Request::CompareAndSet { origin: Origin::NONE, key, expect, value };
        match self.call_in(session, request, Some(self.timeout)).await? {
            Response::CompareAndSet { revision, swapped, mod_revision } => {
                Ok(CompareAndSetReply { revision, swapped, mod_revision })
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn deleted(response: Response) -> Result<DeleteReply> {
    match response {
        Response::Deleted { revision, deleted } => Ok(DeleteReply { revision, deleted }),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn unexpected(response: &Response) -> Error {
    Error::UnexpectedReply { problem: format!("{response:?}") }
}

/// The driver is gone, and with it every call's fate.
pub(crate) fn closed() -> Error {
    Error::Closed { certainty: Certainty::Unknown }
}

fn random_seed() -> Result<u64> {
    getrandom::u64().map_err(|error| Error::NoRandomNumber { problem: error.to_string() })
}
