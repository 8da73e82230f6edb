//! Drives the [`Core`] with real sockets and real time: one task, and one per connection.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol::{
    Certainty, Frame, FrameError, HANDSHAKE_BODY_BYTES_MAX, Limits, Response, VALUE_BYTES_MAX,
    frame,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Error;
use crate::connection::{poll_read_some, poll_write_all, prepare};
use crate::core::{Call, ConnId, Core, Micros, Output, SessionKey, Target, Ticket};

/// How many inputs are taken before what they lead to is sent: one write carries them all.
const INPUTS_PER_TURN_MAX: usize = 1024;

/// Where the outcome of a call goes.
pub(crate) type ReplyTo = oneshot::Sender<Result<Response, Error>>;

/// What handles ask of the driver.
pub(crate) enum Command {
    Call {
        request: protocol::Request,
        session: Option<SessionKey>,
        target: Target,
        /// `None` waits for ever.
        timeout: Option<Duration>,
        reply_to: ReplyTo,
    },
    OpenSession {
        ttl_ms: u64,
        label: Bytes,
        timeout: Duration,
        reply_to: oneshot::Sender<Result<Opened, Error>>,
    },
    CloseSession {
        session: SessionKey,
        timeout: Duration,
        reply_to: Option<ReplyTo>,
    },
    Release {
        session: SessionKey,
        name: Bytes,
        token: u64,
    },
}

/// A session that was opened.
pub(crate) struct Opened {
    pub(crate) session: SessionKey,
    pub(crate) id: u64,
    pub(crate) ttl_ms: u64,
    /// Why the session is lost, once it is.
    pub(crate) lost: watch::Receiver<Option<String>>,
}

/// What a connection's task tells the driver.
enum Event {
    Connected(ConnId),
    Frames(ConnId, Vec<Frame>),
    Garbage(ConnId, FrameError),
    Disconnected(ConnId, io::Error),
}

/// Whom a call's outcome goes to.
enum Waiter {
    Call {
        session: Option<SessionKey>,
        /// The lock that the call acquires, to be given back if nobody takes the outcome.
        lock: Option<Bytes>,
        reply_to: ReplyTo,
    },
    Open {
        session: SessionKey,
        reply_to: oneshot::Sender<Result<Opened, Error>>,
    },
    Nobody,
}

struct Driver {
    core: Core,
    started: Instant,
    waiters: BTreeMap<Ticket, Waiter>,
    sessions: BTreeMap<SessionKey, watch::Sender<Option<String>>>,
    /// To the task of each connection. Dropping it ends the task.
    links: BTreeMap<ConnId, mpsc::UnboundedSender<Bytes>>,
    events_from_links: mpsc::UnboundedSender<Event>,
}

/// Runs until every handle is gone.
pub(crate) async fn run(core: Core, mut commands: mpsc::UnboundedReceiver<Command>) {
    let (events_from_links, mut events) = mpsc::unbounded_channel();
    let mut driver = Driver {
        core,
        started: Instant::now(),
        waiters: BTreeMap::new(),
        sessions: BTreeMap::new(),
        links: BTreeMap::new(),
        events_from_links,
    };
    let mut command_batch = Vec::new();
    let mut event_batch = Vec::new();
    loop {
        let wake_at = driver.wake_at();
        tokio::select! {
            taken = commands.recv_many(&mut command_batch, INPUTS_PER_TURN_MAX) => {
                if taken == 0 {
                    return driver.finish(&mut events).await;
                }
            }
            _ = events.recv_many(&mut event_batch, INPUTS_PER_TURN_MAX) => {}
            () = sleep_until(wake_at) => {}
        }
        driver.turn(&mut command_batch, &mut event_batch);
    }
}

async fn sleep_until(wake_at: Option<Instant>) {
    match wake_at {
        Some(wake_at) => tokio::time::sleep_until(wake_at).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Every handle is gone. What they left behind that others wait for is done first: locks are
    /// given back, sessions are closed. It ends by the deadlines that those calls have.
    async fn finish(mut self, events: &mut mpsc::UnboundedReceiver<Event>) {
        while self.core.pending_calls() > 0 {
            let wake_at = self.wake_at();
            let mut batch = Vec::new();
            tokio::select! {
                _ = events.recv_many(&mut batch, INPUTS_PER_TURN_MAX) => {}
                () = sleep_until(wake_at) => {}
            }
            self.turn(&mut Vec::new(), &mut batch);
        }
    }

    fn turn(&mut self, commands: &mut Vec<Command>, events: &mut Vec<Event>) {
        let now = self.now();
        for event in events.drain(..) {
            self.take_event(now, event);
        }
        for command in commands.drain(..) {
            self.take_command(now, command);
        }
        self.core.tick(now);
        while let Some(output) = self.core.poll_output() {
            self.act(now, output);
        }
    }

    fn now(&self) -> Micros {
        let since_start = self.started.elapsed().as_micros();
        Micros(u64::try_from(since_start).expect("no client runs for half a million years"))
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.core.wake_at() {
            Micros::NEVER => None,
            // The timer counts in milliseconds: rounded up, so that the time has come when it
            // fires.
            Micros(at) => Some(self.started + Duration::from_millis(at.div_ceil(1000))),
        }
    }

    fn take_event(&mut self, now: Micros, event: Event) {
        match event {
            Event::Connected(conn) => self.core.connected(now, conn),
            Event::Frames(conn, frames) => {
                for frame in frames {
                    self.core.received(now, conn, frame);
                }
            }
            Event::Garbage(conn, error) => self.core.received_garbage(now, conn, &error),
            Event::Disconnected(conn, error) => {
                self.links.remove(&conn);
                self.core.disconnected(now, conn, &error.to_string());
            }
        }
    }

    fn take_command(&mut self, now: Micros, command: Command) {
        match command {
            Command::Call { request, session, target, timeout, reply_to } => {
                let lock = lock_acquired_by(&request);
                let deadline = deadline(now, timeout);
                let call = Call { request, session, target, deadline };
                let ticket = self.core.submit(now, call);
                self.waiters.insert(ticket, Waiter::Call { session, lock, reply_to });
            }
            Command::OpenSession { ttl_ms, label, timeout, reply_to } => {
                let deadline = deadline(now, Some(timeout));
                let (session, ticket) = self.core.open_session(now, ttl_ms, label, deadline);
                self.sessions.insert(session, watch::Sender::new(None));
                self.waiters.insert(ticket, Waiter::Open { session, reply_to });
            }
            Command::CloseSession { session, timeout, reply_to } => {
                let deadline = deadline(now, Some(timeout));
                let ticket = self.core.close_session(now, session, deadline);
                let waiter = reply_to.map_or(Waiter::Nobody, |reply_to| Waiter::Call {
                    session: None,
                    lock: None,
                    reply_to,
                });
                self.waiters.insert(ticket, waiter);
            }
            Command::Release { session, name, token } => {
                self.core.release_unwatched(now, session, name, token);
            }
        }
    }

    fn act(&mut self, now: Micros, output: Output) {
        match output {
            Output::Connect { conn, addr } => {
                let (outgoing, queue) = mpsc::unbounded_channel();
                self.links.insert(conn, outgoing);
                tokio::spawn(run_link(conn, addr, queue, self.events_from_links.clone()));
            }
            Output::Close { conn } => {
                self.links.remove(&conn);
            }
            Output::Send { conn, bytes } => {
                // A link that is gone has told, or will tell, that it is disconnected.
                if let Some(link) = self.links.get(&conn)
                    && link.send(bytes).is_err()
                {
                    tracing::debug!(?conn, "a connection ended before its last bytes left");
                }
            }
            Output::Done { ticket, result } => self.deliver(now, ticket, result),
            Output::SessionOpened { .. } => {}
            Output::SessionLost { session, reason } => {
                if let Some(lost) = self.sessions.remove(&session) {
                    lost.send_replace(Some(reason));
                }
            }
        }
    }

    fn deliver(&mut self, now: Micros, ticket: Ticket, result: Result<Response, Error>) {
        match self.waiters.remove(&ticket) {
            Some(Waiter::Call { session, lock, reply_to }) => {
                let undelivered = reply_to.send(result);
                if let (Err(Ok(Response::LockGranted { token })), Some(session), Some(name)) =
                    (undelivered, session, lock)
                {
                    self.core.release_unwatched(now, session, name, token);
                }
            }
            Some(Waiter::Open { session, reply_to }) => {
                let opened = result.and_then(|response| self.opened(session, &response));
                if reply_to.send(opened).is_err() {
                    // Nobody takes it, and its close has no caller either.
                    let deadline = deadline(now, Some(Duration::from_secs(1)));
                    let close = self.core.close_session(now, session, deadline);
                    self.waiters.insert(close, Waiter::Nobody);
                }
            }
            Some(Waiter::Nobody) | None => {}
        }
    }

    fn opened(&self, session: SessionKey, response: &Response) -> Result<Opened, Error> {
        if let Response::SessionOpened { session: id, ttl_ms, .. } = *response
            && let Some(lost) = self.sessions.get(&session)
        {
            return Ok(Opened { session, id, ttl_ms, lost: lost.subscribe() });
        }
        let reason = "it ended while it was opened".to_owned();
        Err(Error::SessionLost { certainty: Certainty::Unknown, reason })
    }
}

fn deadline(now: Micros, timeout: Option<Duration>) -> Micros {
    timeout.map_or(Micros::NEVER, |timeout| {
        now.plus(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX))
    })
}

fn lock_acquired_by(request: &protocol::Request) -> Option<Bytes> {
    if let protocol::Request::LockAcquire { name, .. } = request {
        return Some(name.clone());
    }
    None
}

/// One connection: made, written and read until either side ends it.
async fn run_link(
    conn: ConnId,
    addr: String,
    queue: mpsc::UnboundedReceiver<Bytes>,
    events: mpsc::UnboundedSender<Event>,
) {
    let last = match connect(&addr, &queue).await {
        Ok(None) => return,
        Ok(Some(stream)) => {
            if events.send(Event::Connected(conn)).is_err() {
                return;
            }
            let mut link = Link { stream, queue, out: BytesMut::new(), input: BytesMut::new() };
            match link.exchange(conn, &events).await {
                Ended::ByUs => return,
                Ended::Garbage(error) => Event::Garbage(conn, error),
                Ended::Broken(error) => Event::Disconnected(conn, error),
            }
        }
        Err(error) => Event::Disconnected(conn, error),
    };
    if events.send(last).is_err() {
        tracing::debug!(%addr, "a connection outlived its client");
    }
}

/// Connects, unless the driver has lost interest meanwhile.
async fn connect(
    addr: &str,
    queue: &mpsc::UnboundedReceiver<Bytes>,
) -> io::Result<Option<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    prepare(&stream)?;
    Ok((!queue.is_closed()).then_some(stream))
}

struct Link {
    stream: TcpStream,
    queue: mpsc::UnboundedReceiver<Bytes>,
    out: BytesMut,
    input: BytesMut,
}

enum Ended {
    ByUs,
    Garbage(FrameError),
    Broken(io::Error),
}

impl Link {
    async fn exchange(&mut self, conn: ConnId, events: &mpsc::UnboundedSender<Event>) -> Ended {
        // Only the driver knows the server's limits. Memory follows the bytes that have arrived, so
        // the protocol's own limit does here.
        let cap_after = Limits::with_value_bytes_max(VALUE_BYTES_MAX).reply_body_bytes_max();
        let mut cap = HANDSHAKE_BODY_BYTES_MAX;
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Ok(Turn::Received) => {}
                Ok(Turn::Closed) => return Ended::ByUs,
                Err(error) => return Ended::Broken(error),
            }
            let mut frames = Vec::new();
            let verdict = loop {
                match frame::decode(&mut self.input, cap) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                cap = cap_after;
            };
            if !frames.is_empty() && events.send(Event::Frames(conn, frames)).is_err() {
                return Ended::ByUs;
            }
            if let Some(error) = verdict {
                return Ended::Garbage(error);
            }
        }
    }

    /// Writes what is queued and reads once.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        loop {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(bytes)) => self.out.extend_from_slice(&bytes),
                Poll::Ready(None) => return Poll::Ready(Ok(Turn::Closed)),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = poll_write_all(&mut self.stream, cx, &mut self.out) {
            return Poll::Ready(Err(error));
        }
        poll_read_some(&mut self.stream, cx, &mut self.input)
            .map(|received| received.map(|()| Turn::Received))
    }
}

enum Turn {
    Received,
    Closed,
}
