//! Links between nodes: one TCP connection a pair, dialled by the smaller label.
//!
//! A link begins with a hello each way, judged by the founding rule. Only two founded members of one cluster keep it; everyone
//! else closes it and the dialler tries again. Whoever has sent nothing for `KEEP_ALIVE_AFTER` says
//! that it is there, as followers have nothing else to say to each other; so a link from which
//! nothing comes for `SILENCE_MAX` is given up.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use raft::{Link, NodeId};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::edge::{PeerQueue, Replaced};
use crate::founding::{Founder, Heard, Refusal};
use crate::identity::Founding;
use crate::inbox::Inbox;
use crate::peer_message::{
    BODY_BYTES_MAX, COPIED_BYTES_MAX, HELLO_BYTES_MAX, Hello, KEEP_ALIVE_AFTER, Parts,
    PeerFrameError, PeerMessage, decode, encode, keep_alive,
};
use crate::replica::Input;
use crate::socket;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Peers, and strangers whose hello has not come yet; more are hung up on.
const ACCEPTED_MAX: usize = 64;
const READ_BYTES: usize = 256 << 10;
// What is not copied out of a buffer keeps it: that should be a good part of it. A buffer that had to grow around the
// first bytes of a long frame may be twice as large.
const _: () = assert!(2 * COPIED_BYTES_MAX >= READ_BYTES);
/// One vectored write takes at most this many parts, and bytes beyond this wait for the next.
const WRITE_PARTS_MAX: usize = 64;
const WRITE_BYTES_TARGET: usize = 1 << 20;

/// What the links tell whoever starts the node.
#[derive(Debug)]
pub enum PeerEvent {
    /// The founding membership is known; make it durable, then call [`Founder::founded`].
    Found(Founding),
    /// This node must not run.
    Fatal(Refusal),
    /// The node is asked to stop.
    Stop,
}

/// Why a link ended.
#[derive(Debug, Error)]
enum LinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] PeerFrameError),
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("the peer did not begin with a hello")]
    NoHello,
    #[error("the peer closed the link")]
    Closed,
    #[error("nothing was heard of the peer for {SILENCE_MAX:?}")]
    Silent,
    #[error("a newer link to the peer is in use")]
    Replaced,
    #[error("one of the two is not founded yet")]
    Unfounded,
}

impl From<Replaced> for LinkError {
    fn from(_: Replaced) -> LinkError {
        LinkError::Replaced
    }
}

/// All links of a node.
pub struct Links {
    /// What is known of the founding; shared with whoever makes it durable.
    pub founder: Arc<Mutex<Founder>>,
    /// Where this node's clients reach it.
    pub advertise: String,
    /// Into the replica.
    pub inbox: Arc<Inbox>,
    /// Out of the replica.
    pub queues: BTreeMap<NodeId, Arc<PeerQueue>>,
    /// To whoever starts the node.
    pub events: mpsc::UnboundedSender<PeerEvent>,
    next_link: AtomicU64,
}

impl Links {
    /// Links over these queues; nothing runs yet.
    pub fn new(
        founder: Arc<Mutex<Founder>>,
        advertise: String,
        inbox: Arc<Inbox>,
        queues: BTreeMap<NodeId, Arc<PeerQueue>>,
        events: mpsc::UnboundedSender<PeerEvent>,
    ) -> Arc<Links> {
        let next_link = AtomicU64::new(1);
        Arc::new(Links { founder, advertise, inbox, queues, events, next_link })
    }

    /// Accepts and dials until the runtime ends. `peers` are the other members' addresses.
    pub async fn run(self: Arc<Links>, listener: TcpListener, peers: BTreeMap<NodeId, String>) {
        let me = self.founder.lock().me().id;
        for (peer, address) in peers {
            if me < peer {
                tokio::spawn(Arc::clone(&self).dial(peer, address));
            }
        }
        let permits = Arc::new(Semaphore::new(ACCEPTED_MAX));
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                        tokio::spawn(Arc::clone(&self).accept(stream, from, permit));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a peer could not be accepted");
                    sleep(RETRY_MIN).await;
                }
            }
        }
    }

    async fn dial(self: Arc<Links>, peer: NodeId, address: String) {
        let mut pause = RETRY_MIN;
        loop {
            let began = tokio::time::Instant::now();
            let Err(error) = self.dial_once(peer, &address).await;
            tracing::debug!(%peer, address, %error, "link");
            self.report(&error);
            // A link that lasted starts the back-off anew.
            pause =
                if began.elapsed() > RETRY_MAX { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
            sleep(pause).await;
        }
    }

    async fn dial_once(&self, peer: NodeId, address: &str) -> Result<Infallible, LinkError> {
        let connect = timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(address)).await;
        let mut stream = connect.map_err(|_| LinkError::Silent)??;
        socket::prepare(&stream)?;
        let mut input = BytesMut::new();
        self.say_hello(&mut stream, peer).await?;
        let hello = read_hello(&mut stream, &mut input).await?;
        let heard = self.founder.lock().hear(&hello);
        self.go_on(heard?)?;
        self.link(stream, input, hello).await
    }

    async fn accept(
        self: Arc<Links>,
        stream: TcpStream,
        from: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        let Err(error) = self.accept_one(stream).await;
        tracing::debug!(%from, %error, "link");
        self.report(&error);
    }

    async fn accept_one(&self, mut stream: TcpStream) -> Result<Infallible, LinkError> {
        socket::prepare(&stream)?;
        let mut input = BytesMut::new();
        let hello = read_hello(&mut stream, &mut input).await?;
        let heard = self.founder.lock().hear(&hello);
        match heard {
            Ok(heard) => {
                // The answer tells the founding membership even when the caller's link is not kept.
                self.say_hello(&mut stream, hello.from.id).await?;
                self.go_on(heard)?;
                self.link(stream, input, hello).await
            }
            Err(refusal @ Refusal::Wiped { .. }) if !refusal.is_fatal_for(self.me()) => {
                // It learns of its standing from our hello.
                self.say_hello(&mut stream, hello.from.id).await?;
                Err(refusal.into())
            }
            Err(refusal) => {
                let refused = PeerMessage::Refused { reason: refusal.to_string() };
                write_message(&mut stream, &refused).await?;
                Err(refusal.into())
            }
        }
    }

    fn me(&self) -> NodeId {
        self.founder.lock().me().id
    }

    async fn say_hello(&self, stream: &mut TcpStream, to: NodeId) -> Result<(), LinkError> {
        let hello = {
            let founder = self.founder.lock();
            let founding = founder.founding().cloned();
            Hello { from: founder.me(), to, advertise: self.advertise.clone(), founding }
        };
        write_message(stream, &PeerMessage::Hello(hello)).await
    }

    fn go_on(&self, heard: Heard) -> Result<(), LinkError> {
        match heard {
            Heard::Linked => Ok(()),
            Heard::Later => Err(LinkError::Unfounded),
            Heard::Found(founding) => {
                self.tell(PeerEvent::Found(founding));
                Err(LinkError::Unfounded)
            }
        }
    }

    fn report(&self, error: &LinkError) {
        match error {
            LinkError::Refusal(refusal) if refusal.is_fatal_for(self.me()) => {
                self.tell(PeerEvent::Fatal(refusal.clone()));
            }
            LinkError::Refusal(refusal) => tracing::warn!(%refusal, "a peer was refused"),
            LinkError::Refused(reason) => tracing::warn!(reason, "a peer refused this node"),
            LinkError::Frame(error) => tracing::warn!(%error, "a peer link was closed"),
            LinkError::Io(_)
            | LinkError::NoHello
            | LinkError::Closed
            | LinkError::Silent
            | LinkError::Replaced
            | LinkError::Unfounded => {}
        }
    }

    fn tell(&self, event: PeerEvent) {
        // Nobody listens any more once the node runs; then the event has had its effect.
        self.events.send(event).ok();
    }

    async fn link(
        &self,
        mut stream: TcpStream,
        input: BytesMut,
        hello: Hello,
    ) -> Result<Infallible, LinkError> {
        let peer = hello.from.id;
        let Some(queue) = self.queues.get(&peer) else { return Err(LinkError::Unfounded) };
        let link = Link(self.next_link.fetch_add(1, Ordering::Relaxed));
        queue.open(link);
        tracing::info!(%peer, link = link.0, "peer linked");
        self.inbox.push(Input::PeerUp { peer, link, advertise: hello.advertise });
        let (read, write) = stream.split();
        let Err(reason) = tokio::select! {
            ended = self.receive(read, input, peer, link) => ended,
            ended = send(write, queue, link) => ended,
        };
        queue.close(link);
        self.inbox.push(Input::PeerLost { peer, link });
        tracing::info!(%peer, link = link.0, %reason, "peer link ended");
        Err(reason)
    }

    async fn receive(
        &self,
        mut read: ReadHalf<'_>,
        mut input: BytesMut,
        from: NodeId,
        link: Link,
    ) -> Result<Infallible, LinkError> {
        let mut inputs = Vec::new();
        loop {
            while let Some(message) = decode(&mut input, BODY_BYTES_MAX)? {
                inputs.push(Input::Peer { from, link, message });
            }
            self.inbox.push_all(&mut inputs);
            input.reserve(READ_BYTES);
            let read = timeout(SILENCE_MAX, read.read_buf(&mut input)).await;
            if read.map_err(|_| LinkError::Silent)?? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}

async fn read_hello(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Hello, LinkError> {
    let message = timeout(HANDSHAKE_TIMEOUT, async {
        loop {
            if let Some(message) = decode(input, HELLO_BYTES_MAX)? {
                return Ok::<_, LinkError>(message);
            }
            if stream.read_buf(input).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    });
    match message.await.map_err(|_| LinkError::Silent)?? {
        PeerMessage::Hello(hello) => Ok(hello),
        PeerMessage::Refused { reason } => Err(LinkError::Refused(reason)),
        PeerMessage::Raft(_)
        | PeerMessage::SnapshotPull { .. }
        | PeerMessage::SnapshotChunk { .. }
        | PeerMessage::SnapshotGone { .. }
        | PeerMessage::ValuePull { .. }
        | PeerMessage::Value { .. } => Err(LinkError::NoHello),
    }
}

async fn write_message(stream: &mut TcpStream, message: &PeerMessage) -> Result<(), LinkError> {
    for mut part in encode(message) {
        stream.write_all_buf(&mut part).await?;
    }
    Ok(())
}

async fn send(
    mut write: WriteHalf<'_>,
    queue: &PeerQueue,
    link: Link,
) -> Result<Infallible, LinkError> {
    let mut parts = Parts::new();
    loop {
        let mut bytes = 0;
        while bytes < WRITE_BYTES_TARGET && parts.len() < WRITE_PARTS_MAX {
            let Some(message) = queue.pop(link)? else { break };
            for part in encode(&message) {
                bytes += part.len();
                parts.push(part);
            }
        }
        if parts.is_empty() {
            if timeout(KEEP_ALIVE_AFTER, queue.ready()).await.is_ok() {
                continue;
            }
            parts = keep_alive();
        }
        write_parts(&mut write, &mut parts).await?;
    }
}

async fn write_parts(write: &mut WriteHalf<'_>, parts: &mut Vec<Bytes>) -> io::Result<()> {
    let mut chain = PartsBuf { parts: std::mem::take(parts), at: 0 };
    while chain.has_remaining() {
        write.write_buf(&mut chain).await?;
    }
    chain.parts.clear();
    *parts = chain.parts;
    Ok(())
}

/// Parts as one buffer, so that one system call writes many of them.
struct PartsBuf {
    parts: Vec<Bytes>,
    at: usize,
}

impl Buf for PartsBuf {
    fn remaining(&self) -> usize {
        self.parts[self.at..].iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.get(self.at).map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [io::IoSlice<'a>]) -> usize {
        let parts = self.parts[self.at..].iter();
        let pairs = into.iter_mut().zip(parts);
        pairs.map(|(slice, part)| *slice = io::IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let part = &mut self.parts[self.at];
            let step = count.min(part.len());
            part.advance(step);
            count -= step;
            self.skip_empty();
        }
    }
}

impl PartsBuf {
    fn skip_empty(&mut self) {
        while self.parts.get(self.at).is_some_and(Bytes::is_empty) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two followers said nothing to each other, and their link was torn down and made anew every
    /// five seconds for ever.
    #[tokio::test]
    async fn link_without_messages_is_not_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let queue = PeerQueue::default();
        queue.open(Link(1));
        let expected = keep_alive().concat();
        let mut heard = vec![0; expected.len()];
        let (_, write) = near.split();
        tokio::select! {
            read = timeout(SILENCE_MAX, far.read_exact(&mut heard)) => {
                read.expect("the other side says that it is there").unwrap();
            }
            ended = send(write, &queue, Link(1)) => panic!("{ended:?}"),
        }
        assert_eq!(heard, expected);
    }
}
