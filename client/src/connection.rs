//! One connection, for programs that send very much: submit many, exchange once, take the replies.
//!
//! There is no task, timer, channel or lock behind it, and no retry, no leader discovery and no
//! session: what [`Client`](crate::Client) does for a program, the user of a [`Connection`] does
//! itself. All that was submitted leaves in one write, all that has arrived is read at once.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::Connection;
//! use protocol::{Hello, Origin};
//!
//! let mut connection = Connection::connect("127.0.0.1:7400", &Hello::new("load")).await?;
//! let mut replies = Vec::new();
//! for _ in 0..64 {
//!     connection.submit_put(Origin::NONE, b"key", b"value");
//! }
//! let mut answered = 0;
//! while answered < 64 {
//!     connection.exchange(&mut replies).await?;
//!     for reply in replies.drain(..) {
//!         answered += 1;
//!         println!("{}: {:?}", reply.request_id, reply.response);
//!     }
//! }
//! # Ok(()) }
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use protocol::{
    Certainty, Consistency, Frame, HANDSHAKE_BODY_BYTES_MAX, Hello, Origin, Request, Response,
    Welcome, frame,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::Error;

/// How many bytes a read has room for at least.
const READ_BYTES: usize = 64 * 1024;

/// An answer with the id of its request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// What the submit answered; 0 for an error about the connection as a whole.
    pub request_id: u64,
    /// The answer.
    pub response: Response,
}

/// A connection whose handshake is done.
pub struct Connection {
    stream: TcpStream,
    addr: String,
    welcome: Welcome,
    out: BytesMut,
    input: BytesMut,
    next_request_id: u64,
}

impl Connection {
    /// Connects to one node and shakes hands.
    pub async fn connect(addr: &str, hello: &Hello) -> Result<Connection, Error> {
        let stream = TcpStream::connect(addr).await.map_err(|error| unreachable(addr, &error))?;
        prepare(&stream).map_err(|error| unreachable(addr, &error))?;
        let mut wire = Wire { stream, out: BytesMut::new(), input: BytesMut::new() };
        hello.encode_into(1, &mut wire.out);
        let reply = wire.first_frame().await.map_err(|error| unreachable(addr, &error))?;
        let welcome = Welcome::decode(reply.header.kind, reply.body)
            .map_err(|error| Error::UnexpectedReply { problem: format!("{addr}: {error}") })??;
        let Wire { stream, out, input } = wire;
        let addr = addr.to_owned();
        Ok(Connection { stream, addr, welcome, out, input, next_request_id: 2 })
    }

    /// What the server said of itself, and its limits.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The address that was connected to.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Queues a request; answers its id.
    pub fn submit(&mut self, request: &Request) -> u64 {
        let id = self.take_id();
        request.encode_into(id, &mut self.out);
        id
    }

    /// Queues a put of borrowed bytes; answers its id.
    pub fn submit_put(&mut self, origin: Origin, key: &[u8], value: &[u8]) -> u64 {
        let id = self.take_id();
        protocol::encode_put_request(id, origin, key, value, &mut self.out);
        id
    }

    /// Queues a get of a borrowed key; answers its id.
    pub fn submit_get(&mut self, consistency: Consistency, key: &[u8]) -> u64 {
        let id = self.take_id();
        protocol::encode_get_request(id, consistency, key, &mut self.out);
        id
    }

    /// How many queued bytes have not left yet.
    pub fn queued_bytes(&self) -> usize {
        self.out.len()
    }

    /// Sends what is queued, waits until at least one reply has arrived, and appends all that have.
    ///
    /// May be dropped and called again at any time: nothing is lost. After an error the connection
    /// is of no use, and the outcome of every request without a reply is unknown.
    pub async fn exchange(&mut self, replies: &mut Vec<Reply>) -> Result<(), Error> {
        poll_fn(|cx| self.poll_exchange(cx, replies)).await
    }

    /// Does what [`Connection::exchange`] does, for hand-written futures.
    pub fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        replies: &mut Vec<Reply>,
    ) -> Poll<Result<(), Error>> {
        loop {
            // Writing first and reading whatever the write's outcome: a server that waits for us to
            // read must not be waited for.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(self.lost(&error)));
            }
            if let Err(error) = ready!(self.poll_receive(cx)) {
                return Poll::Ready(Err(self.lost(&error)));
            }
            if self.take_replies(replies)? > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_request_id;
        self.next_request_id += 1;
        id
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_write_all(&mut self.stream, cx, &mut self.out)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_read_some(&mut self.stream, cx, &mut self.input)
    }

    /// Appends every reply that has arrived whole; answers how many.
    fn take_replies(&mut self, replies: &mut Vec<Reply>) -> Result<usize, Error> {
        let before = replies.len();
        let cap = self.welcome.limits.reply_body_bytes_max();
        let bad = |problem: String| Error::UnexpectedReply { problem };
        while let Some(Frame { header, body }) =
            frame::decode(&mut self.input, cap).map_err(|error| bad(error.to_string()))?
        {
            let response =
                Response::decode(header.kind, body).map_err(|error| bad(error.to_string()))?;
            replies.push(Reply { request_id: header.request_id, response });
        }
        Ok(replies.len() - before)
    }

    fn lost(&self, error: &io::Error) -> Error {
        Error::Disconnected {
            certainty: Certainty::Unknown,
            problem: format!("{}: {error}", self.addr),
        }
    }
}

/// A connection before its handshake.
struct Wire {
    stream: TcpStream,
    out: BytesMut,
    input: BytesMut,
}

impl Wire {
    async fn first_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = frame::decode(&mut self.input, HANDSHAKE_BODY_BYTES_MAX)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            {
                return Ok(frame);
            }
            poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = poll_write_all(&mut self.stream, cx, &mut self.out)
                {
                    return Poll::Ready(Err(error));
                }
                poll_read_some(&mut self.stream, cx, &mut self.input)
            })
            .await?;
        }
    }
}

/// Small frames leave at once, and a node that went away without a word is noticed, after a minute
/// and a half, also by a connection on which nothing is asked.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}

/// Writes `out` until it is empty or the socket is full.
pub(crate) fn poll_write_all(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    out: &mut BytesMut,
) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, out))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => out.advance(written),
        }
    }
    Poll::Ready(Ok(()))
}

/// Reads once; the end of the stream is an error.
pub(crate) fn poll_read_some(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    input: &mut BytesMut,
) -> Poll<io::Result<()>> {
    if input.capacity() - input.len() < READ_BYTES / 2 {
        input.reserve(READ_BYTES);
    }
    match ready!(pin!(stream.read_buf(input)).poll(cx))? {
        0 => Poll::Ready(Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ))),
        _ => Poll::Ready(Ok(())),
    }
}

fn unreachable(addr: &str, error: &io::Error) -> Error {
    Error::Disconnected {
        certainty: Certainty::NotDone,
        problem: format!("cannot reach {addr}: {error}"),
    }
}
