//! A node that keeps everything in memory and answers at once.

#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use protocol::{
    DiskStatus, Error, ErrorCode, Expect, HANDSHAKE_BODY_BYTES_MAX, Hello, ItemRef, LeaderHint,
    Limits, LockHolder, NodeStatus, Origin, RangeReply, Request, Response, Role, Wait, Welcome,
    frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const CLUSTER: u128 = 7;

/// What a node is to do wrong, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mishap {
    /// It executes the next write, and hangs up instead of answering.
    ExecuteAndHangUp,
    /// It greets the next client with bytes that are no frame.
    GreetWithGarbage,
}

pub(crate) struct Fake {
    node: u64,
    addr: String,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

struct Shared {
    node: u64,
    addr: String,
    leader: Option<LeaderHint>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    mishap: Option<Mishap>,
    connections: u64,
    executed: u64,
    revision: u64,
    keys: BTreeMap<Bytes, Key>,
    next_session: u64,
    /// Per session the answers by sequence.
    pub(crate) sessions: BTreeMap<u64, BTreeMap<u64, Response>>,
    nonces: BTreeMap<u128, u64>,
    locks: BTreeMap<Bytes, Lock>,
    pub(crate) grants: u64,
    pub(crate) held: usize,
    pub(crate) waiters: usize,
}

struct Key {
    value: Bytes,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
}

#[derive(Default)]
struct Lock {
    holder: Option<LockHolder>,
    queue: VecDeque<Waiter>,
}

struct Waiter {
    origin: Origin,
    request_id: u64,
    reply_to: mpsc::UnboundedSender<BytesMut>,
}

impl Key {
    fn item(&self) -> ItemRef<'_> {
        ItemRef {
            value: &self.value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            session: 0,
        }
    }
}

impl Fake {
    pub(crate) async fn leader() -> Fake {
        Fake::start(1, None).await
    }

    pub(crate) async fn follower_of(leader: &Fake) -> Fake {
        let hint = LeaderHint { node: leader.node, addr: leader.addr() };
        Fake::start(2, Some(hint)).await
    }

    async fn start(node: u64, leader: Option<LeaderHint>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let state = Mutex::new(State { revision: 1, ..State::default() });
        let changed = watch::Sender::new(0);
        let shared = Arc::new(Shared { node, addr: addr.clone(), leader, state, changed });
        let accepting = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&accepting), stream));
            }
        });
        Fake { node, addr, shared, listener }
    }

    pub(crate) async fn shut_down(self) -> String {
        self.listener.abort();
        assert!(self.listener.await.is_err());
        self.addr
    }

    pub(crate) fn node(&self) -> u64 {
        self.node
    }

    pub(crate) fn addr(&self) -> String {
        self.addr.clone()
    }

    pub(crate) fn provoke(&self, mishap: Mishap) {
        self.shared.state().mishap = Some(mishap);
    }

    /// How many writes took effect.
    pub(crate) fn executed(&self) -> u64 {
        self.shared.state().executed
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    pub(crate) fn sessions(&self) -> usize {
        self.shared.state().sessions.len()
    }

    pub(crate) fn end_all_sessions(&self) {
        self.shared.state().sessions.clear();
    }

    /// Waits until the state is so.
    pub(crate) async fn until(&self, condition: impl Fn(&State) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !condition(&self.shared.state()) {
            changed.changed().await.unwrap();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(shared: Arc<Shared>, mut stream: TcpStream) {
    let mut input = BytesMut::new();
    let (reply_to, mut replies) = mpsc::unbounded_channel::<BytesMut>();
    if greet(&shared, &mut stream, &mut input).await.is_none() {
        return;
    }
    let (mut read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        while let Some(bytes) = replies.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    'connection: loop {
        while let Some(frame) = frame::decode(&mut input, u32::MAX).unwrap() {
            let request = Request::decode(frame.header.kind, frame.body).unwrap();
            let id = frame.header.request_id;
            if shared.answer(id, request, &reply_to) == Hangs::Up {
                break 'connection;
            }
        }
        if !matches!(read.read_buf(&mut input).await, Ok(1..)) {
            break;
        }
    }
    writer.abort();
}

async fn greet(shared: &Shared, stream: &mut TcpStream, input: &mut BytesMut) -> Option<()> {
    let frame = loop {
        if let Some(frame) = frame::decode(input, HANDSHAKE_BODY_BYTES_MAX).unwrap() {
            break frame;
        }
        stream.read_buf(input).await.ok().filter(|read| *read > 0)?;
    };
    let hello = Hello::decode(frame.header.kind, frame.body).unwrap();
    let mut out = BytesMut::new();
    let garbage = shared.state().mishap.take_if(|mishap| *mishap == Mishap::GreetWithGarbage);
    if garbage.is_some() {
        stream.write_all(b"220 mail ready\r\n").await.ok()?;
        return None;
    }
    match hello.accept(CLUSTER) {
        Ok(version) => {
            shared.state().connections += 1;
            let leader = shared.leader.clone();
            let limits = Limits::default();
            let (cluster_id, node) = (CLUSTER, shared.node);
            let welcome = Welcome { version, cluster_id, node, leader, limits };
            welcome.encode_into(frame.header.request_id, &mut out);
        }
        Err(error) => error.encode_into(frame.header.request_id, &mut out),
    }
    stream.write_all(&out).await.ok()
}

#[derive(PartialEq, Eq)]
enum Hangs {
    On,
    Up,
}

impl Shared {
    fn answer(&self, id: u64, request: Request, to: &mpsc::UnboundedSender<BytesMut>) -> Hangs {
        let mut out = BytesMut::new();
        let mut state = self.state();
        let executed_before = state.executed;
        let response = match (&self.leader, &request) {
            (_, Request::Status) => Some(self.status(&state)),
            (Some(leader), _) => Some(Response::Error(Error::not_leader(Some(leader.clone())))),
            (None, Request::Range { range, limit, .. }) => {
                state.answer_range(id, range, *limit, &mut out);
                None
            }
            (None, _) => state.once(id, request, to),
        };
        if let Some(response) = response {
            response.encode_into(id, &mut out);
        }
        let executed = state.executed > executed_before;
        let hang_up =
            executed && state.mishap.take_if(|m| *m == Mishap::ExecuteAndHangUp).is_some();
        drop(state);
        self.changed.send_modify(|version| *version += 1);
        if hang_up {
            return Hangs::Up;
        }
        if to.send(out).is_err() { Hangs::Up } else { Hangs::On }
    }

    fn status(&self, state: &State) -> Response {
        let leader = LeaderHint { node: self.node, addr: self.addr.clone() };
        Response::Status(Box::new(NodeStatus {
            node: self.node,
            cluster_id: CLUSTER,
            version: "fake".to_owned(),
            role: if self.leader.is_some() { Role::Follower } else { Role::Leader },
            term: 1,
            leader: self.leader.clone().or(Some(leader)),
            commit_index: 0,
            applied_index: 0,
            last_index: 0,
            durable_index: 0,
            revision: state.revision,
            keys: state.keys.len() as u64,
            sessions: state.sessions.len() as u64,
            locks: state.locks.len() as u64,
            connections: state.connections,
            disk: DiskStatus { backend: "none".to_owned(), direct: false, damaged: 0 },
            peers: Vec::new(),
        }))
    }
}

fn refusal(code: ErrorCode, message: &str) -> Response {
    Response::Error(Error::not_done(code, message))
}

impl State {
    /// Executes a request, or answers what its first execution answered.
    fn once(
        &mut self,
        id: u64,
        request: Request,
        to: &mpsc::UnboundedSender<BytesMut>,
    ) -> Option<Response> {
        let Some(origin) = request.origin().filter(|origin| origin.session != 0) else {
            return self.execute(id, request, to);
        };
        let Some(answers) = self.sessions.get(&origin.session) else {
            return Some(refusal(ErrorCode::SessionUnknown, "no such session"));
        };
        if let Some(answer) = answers.get(&origin.sequence) {
            return Some(answer.clone());
        }
        let response = self.execute(id, request, to);
        if let (Some(response), Some(answers)) = (&response, self.sessions.get_mut(&origin.session))
        {
            answers.insert(origin.sequence, response.clone());
        }
        response
    }

    fn execute(
        &mut self,
        request_id: u64,
        request: Request,
        to: &mpsc::UnboundedSender<BytesMut>,
    ) -> Option<Response> {
        match request {
            Request::Ping => Some(Response::Pong),
            Request::Put { key, value, .. } => {
                self.put(key, value);
                Some(Response::Put { revision: self.revision })
            }
            Request::Get { key, .. } => {
                let item = self.keys.get(&key).map(Key::item);
                let item = item.map(|item| protocol::Item {
                    value: Bytes::copy_from_slice(item.value),
                    create_revision: item.create_revision,
                    mod_revision: item.mod_revision,
                    version: item.version,
                    session: 0,
                });
                Some(Response::Get { revision: self.revision, item })
            }
            Request::Delete { key, .. } => Some(self.delete(|known| *known == key)),
            Request::DeleteRange { range, .. } => Some(self.delete(|known| range.contains(known))),
            Request::CompareAndSet { key, expect, value, .. } => {
                Some(self.compare(&key, &expect, value))
            }
            Request::SessionOpen { nonce, ttl_ms, .. } => Some(self.open(nonce, ttl_ms)),
            Request::SessionKeepAlive { session } if self.sessions.contains_key(&session) => {
                Some(Response::SessionAlive { ttl_ms: 10_000 })
            }
            Request::SessionKeepAlive { .. } => {
                Some(refusal(ErrorCode::SessionUnknown, "no such session"))
            }
            Request::SessionClose { session } => Some(self.close(session)),
            Request::LockAcquire { origin, name, wait } => {
                let reply_to = to.clone();
                self.acquire(name, wait, Waiter { origin, request_id, reply_to })
            }
            Request::LockRelease { origin, name, token } => {
                let holder = LockHolder { session: origin.session, token };
                Some(self.release(&name, holder))
            }
            Request::LockQuery { name, .. } => {
                let lock = self.locks.get(&name);
                Some(Response::LockState {
                    revision: self.revision,
                    holder: lock.and_then(|lock| lock.holder),
                    waiters: lock.map_or(0, |lock| u32::try_from(lock.queue.len()).unwrap()),
                })
            }
            Request::Status | Request::Range { .. } => unreachable!("answered by the caller"),
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes) {
        self.executed += 1;
        self.revision += 1;
        let revision = self.revision;
        let new =
            Key { value: Bytes::new(), create_revision: revision, mod_revision: 0, version: 0 };
        let known = self.keys.entry(key).or_insert(new);
        known.value = value;
        known.mod_revision = revision;
        known.version += 1;
    }

    fn delete(&mut self, doomed: impl Fn(&Bytes) -> bool) -> Response {
        let before = self.keys.len();
        self.keys.retain(|key, _| !doomed(key));
        let deleted = (before - self.keys.len()) as u64;
        self.executed += 1;
        self.revision += deleted.min(1);
        Response::Deleted { revision: self.revision, deleted }
    }

    fn compare(&mut self, key: &Bytes, expect: &Expect, value: Option<Bytes>) -> Response {
        let known = self.keys.get(key);
        let swapped = match expect {
            Expect::Absent => known.is_none(),
            Expect::Value(value) => known.is_some_and(|known| known.value == value),
            Expect::Revision(revision) => known.map_or(0, |known| known.mod_revision) == *revision,
        };
        match value {
            Some(value) if swapped => self.put(key.clone(), value),
            None if swapped => {
                self.delete(|known| known == key);
            }
            _ => {}
        }
        let mod_revision = self.keys.get(key).map_or(0, |known| known.mod_revision);
        Response::CompareAndSet { revision: self.revision, swapped, mod_revision }
    }

    fn answer_range(&self, id: u64, range: &protocol::KeyRange, limit: u32, out: &mut BytesMut) {
        let mut page = RangeReply::begin(id, self.revision, out);
        let mut more = false;
        for (key, known) in self.keys.iter().filter(|(key, _)| range.contains(key)) {
            if limit > 0 && page.count() == limit || !page.push(key, known.item()) {
                more = true;
                break;
            }
        }
        page.finish(more);
    }

    fn open(&mut self, nonce: u128, ttl_ms: u64) -> Response {
        let session = *self.nonces.entry(nonce).or_insert_with(|| {
            self.next_session += 1;
            self.sessions.insert(self.next_session, BTreeMap::new());
            self.next_session
        });
        Response::SessionOpened { session, generation: 1, ttl_ms }
    }

    fn close(&mut self, session: u64) -> Response {
        let existed = self.sessions.remove(&session).is_some();
        let names: Vec<Bytes> = self.locks.keys().cloned().collect();
        for name in names {
            let lock = self.locks.get(&name);
            if let Some(holder) = lock.and_then(|lock| lock.holder)
                && holder.session == session
            {
                self.release(&name, holder);
            }
        }
        Response::SessionClosed { existed }
    }

    fn acquire(&mut self, name: Bytes, wait: Wait, waiter: Waiter) -> Option<Response> {
        let lock = self.locks.entry(name).or_default();
        if lock.holder.is_none() {
            self.grants += 1;
            self.held += 1;
            let token = self.grants;
            lock.holder = Some(LockHolder { session: waiter.origin.session, token });
            return Some(Response::LockGranted { token });
        }
        if wait == Wait::Try {
            return Some(Response::LockNotAcquired);
        }
        lock.queue.push_back(waiter);
        self.waiters += 1;
        None
    }

    fn release(&mut self, name: &Bytes, holder: LockHolder) -> Response {
        let Some(lock) = self.locks.get_mut(name).filter(|lock| lock.holder == Some(holder)) else {
            return refusal(ErrorCode::NotHolder, "not the holder");
        };
        lock.holder = None;
        self.held -= 1;
        if let Some(Waiter { origin, request_id, reply_to }) = lock.queue.pop_front() {
            self.grants += 1;
            self.held += 1;
            self.waiters -= 1;
            let token = self.grants;
            lock.holder = Some(LockHolder { session: origin.session, token });
            let mut out = BytesMut::new();
            Response::LockGranted { token }.encode_into(request_id, &mut out);
            assert!(reply_to.send(out).is_ok(), "the waiter is still connected");
        }
        Response::LockReleased
    }
}
