//! The peer links of one process: the same hellos, the same founding rule and the same bytes as on real sockets.
//!
//! The smaller label dials and tries again after a pause that doubles. A side that has sent nothing
//! for `KEEP_ALIVE_US` says that it is there, and a link from which nothing comes for `SILENCE_US` is
//! given up; a newer link to the same peer takes the place of the older one, whose last bytes may
//! still be read for a moment.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use raft::{Lane, Link, NodeId};
use server::founding::{Founder, Heard, Refusal};
use server::identity::Founding;
use server::peer_message::{
    BODY_BYTES_MAX, HELLO_BYTES_MAX, Hello, Parts, PeerMessage, decode, encode, keep_alive,
};
use server::replica::Input;

use super::network::{ConnId, Host, Network, Port};
use super::random::Random;

const HANDSHAKE_US: u64 = 5_000_000;
const SILENCE_US: u64 = 5_000_000;
const KEEP_ALIVE_US: u64 = 1_000_000;
const RETRY_US_MIN: u64 = 20_000;
const RETRY_US_MAX: u64 = 500_000;

/// What a process must do at a later time for its links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// Dial a peer.
    Dial(NodeId),
    /// Look whether a connection has been silent for too long.
    Check(ConnId),
    /// Look whether nothing was sent over a link for long.
    KeepAlive(ConnId),
}

/// What a hello led to that concerns the whole process.
#[derive(Debug)]
pub enum News {
    /// The founding membership is known, and must be made durable.
    Found(Founding),
    /// This process must not run.
    Fatal(Refusal),
}

#[derive(Debug, Default)]
struct Peer {
    /// The attempt under way, and when it began.
    dialled: Option<(ConnId, u64)>,
    pause_us: u64,
    current: Option<(Link, ConnId)>,
}

#[derive(Debug)]
struct Conn {
    peer: Option<NodeId>,
    is_dialled: bool,
    link: Option<Link>,
    input: BytesMut,
    heard_us: u64,
    sent_us: u64,
    /// A newer link is in use; this one ends then.
    replaced_us: Option<u64>,
}

/// All links of one process.
#[derive(Debug)]
pub struct Links {
    founder: Founder,
    advertise: String,
    peers: BTreeMap<NodeId, Peer>,
    conns: BTreeMap<ConnId, Conn>,
    next_link: u64,
    random: Random,
    now_us: u64,
    /// For the process's inbox.
    pub inputs: Vec<Input>,
    /// For the schedule.
    pub later: Vec<(u64, LinkEvent)>,
    /// For the process.
    pub news: Vec<News>,
}

/// The machine of a node.
pub fn host_of(node: NodeId) -> Host {
    Host::Node(usize::try_from(node.0 - 1).expect("labels are small"))
}

impl Links {
    /// Links to `peers`; those with a larger label are dialled at once.
    pub fn new(
        founder: Founder,
        advertise: String,
        peers: &[NodeId],
        now_us: u64,
        random: Random,
    ) -> Links {
        let me = founder.me().id;
        let others = peers.iter().copied().filter(|peer| *peer != me);
        let dials = others.clone().filter(|peer| *peer > me);
        Links {
            later: dials.map(|peer| (now_us, LinkEvent::Dial(peer))).collect(),
            peers: others.map(|peer| (peer, Peer::default())).collect(),
            founder,
            advertise,
            conns: BTreeMap::new(),
            next_link: 1,
            random,
            now_us,
            inputs: Vec::new(),
            news: Vec::new(),
        }
    }

    /// What is known of the founding.
    pub fn founder(&mut self) -> &mut Founder {
        &mut self.founder
    }

    /// Moves the time of the links.
    pub fn advance(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Whether the connection is one of these.
    pub fn has(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Does what was left for later.
    pub fn handle(&mut self, event: LinkEvent, network: &mut Network) {
        match event {
            LinkEvent::Dial(peer) => self.dial(peer, network),
            LinkEvent::Check(conn) => self.check(conn, network),
            LinkEvent::KeepAlive(conn) => self.keep_alive(conn, network),
        }
    }

    fn dial(&mut self, to: NodeId, network: &mut Network) {
        let me = host_of(self.founder.me().id);
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let conn = network.dial(me, host_of(to), Port::Peers);
        peer.dialled = Some((conn, self.now_us));
        self.open(conn, Some(to));
    }

    fn open(&mut self, conn: ConnId, dialled: Option<NodeId>) {
        let state = Conn {
            peer: dialled,
            is_dialled: dialled.is_some(),
            link: None,
            input: BytesMut::new(),
            heard_us: self.now_us,
            sent_us: self.now_us,
            replaced_us: None,
        };
        self.conns.insert(conn, state);
        self.later.push((self.now_us + HANDSHAKE_US, LinkEvent::Check(conn)));
    }

    /// A peer has connected.
    pub fn accepted(&mut self, conn: ConnId) {
        self.open(conn, None);
    }

    /// The peer that was dialled has answered.
    pub fn connected(&mut self, conn: ConnId, network: &mut Network) {
        let Some(peer) = self.conns.get(&conn).and_then(|conn| conn.peer) else { return };
        self.say_hello(conn, peer, network);
    }

    /// The other end is gone.
    pub fn closed(&mut self, conn: ConnId) {
        self.forget(conn);
    }

    /// Bytes have come.
    pub fn data(&mut self, id: ConnId, bytes: &[u8], network: &mut Network) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.heard_us = self.now_us;
        conn.input.extend_from_slice(bytes);
        while let Some(conn) = self.conns.get_mut(&id) {
            let bytes_max = if conn.link.is_some() { BODY_BYTES_MAX } else { HELLO_BYTES_MAX };
            match decode(&mut conn.input, bytes_max) {
                Ok(Some(message)) => self.heard(id, message, network),
                Ok(None) => break,
                Err(error) => unreachable!("the simulated wire changes no byte: {error}"),
            }
        }
    }

    fn heard(&mut self, id: ConnId, message: PeerMessage, network: &mut Network) {
        let Some(conn) = self.conns.get(&id) else { return };
        if let (Some(link), Some(from)) = (conn.link, conn.peer) {
            return self.inputs.push(Input::Peer { from, link, message });
        }
        match message {
            PeerMessage::Hello(hello) => self.judge(id, &hello, network),
            PeerMessage::Refused { .. }
            | PeerMessage::Raft(_)
            | PeerMessage::SnapshotPull { .. }
            | PeerMessage::SnapshotChunk { .. }
            | PeerMessage::SnapshotGone { .. }
            | PeerMessage::ValuePull { .. }
            | PeerMessage::Value { .. } => self.end(id, network),
        }
    }

    fn judge(&mut self, id: ConnId, hello: &Hello, network: &mut Network) {
        let is_dialled = self.conns.get(&id).is_some_and(|conn| conn.is_dialled);
        let heard = self.founder.hear(hello);
        let me = self.founder.me().id;
        let answers = match &heard {
            Ok(_) => true,
            Err(refusal) => matches!(refusal, Refusal::Wiped { .. }) && !refusal.is_fatal_for(me),
        };
        if !is_dialled && answers {
            // The answer tells the founding membership even when the caller's link is not kept.
            self.say_hello(id, hello.from.id, network);
        }
        match heard {
            Ok(Heard::Linked) => self.link(id, hello),
            Ok(Heard::Later) => self.end(id, network),
            Ok(Heard::Found(founding)) => {
                self.news.push(News::Found(founding));
                self.end(id, network);
            }
            Err(refusal) => {
                if refusal.is_fatal_for(me) {
                    self.news.push(News::Fatal(refusal));
                }
                self.end(id, network);
            }
        }
    }

    fn link(&mut self, id: ConnId, hello: &Hello) {
        let from = hello.from.id;
        let (Some(conn), Some(peer)) = (self.conns.get_mut(&id), self.peers.get_mut(&from)) else {
            return;
        };
        let link = Link(self.next_link);
        self.next_link += 1;
        conn.peer = Some(from);
        conn.link = Some(link);
        self.later.push((self.now_us + KEEP_ALIVE_US, LinkEvent::KeepAlive(id)));
        let older = peer.current.replace((link, id));
        self.inputs.push(Input::PeerUp { peer: from, link, advertise: hello.advertise.clone() });
        if let Some((_, older)) = older
            && let Some(conn) = self.conns.get_mut(&older)
        {
            let end_us = self.now_us + self.random.below(2_000);
            conn.replaced_us = Some(end_us);
            self.later.push((end_us, LinkEvent::Check(older)));
        }
    }

    fn say_hello(&mut self, conn: ConnId, to: NodeId, network: &mut Network) {
        let founding = self.founder.founding().cloned();
        let from = self.founder.me();
        let hello = Hello { from, to, advertise: self.advertise.clone(), founding };
        let bytes = joined(encode(&PeerMessage::Hello(hello)));
        network.send(conn, host_of(from.id), bytes.freeze());
    }

    fn check(&mut self, id: ConnId, network: &mut Network) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.replaced_us.is_some_and(|end_us| end_us <= self.now_us) {
            return self.end(id, network);
        }
        let silence_us = if conn.link.is_some() { SILENCE_US } else { HANDSHAKE_US };
        let due_us = conn.heard_us + silence_us;
        if due_us <= self.now_us {
            self.end(id, network);
        } else {
            self.later.push((due_us, LinkEvent::Check(id)));
        }
    }

    fn keep_alive(&mut self, id: ConnId, network: &mut Network) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.sent_us + KEEP_ALIVE_US <= self.now_us {
            conn.sent_us = self.now_us;
            network.send(id, host_of(self.founder.me().id), joined(keep_alive()).freeze());
        }
        self.later.push((conn.sent_us + KEEP_ALIVE_US, LinkEvent::KeepAlive(id)));
    }

    fn end(&mut self, id: ConnId, network: &mut Network) {
        network.close(id, host_of(self.founder.me().id));
        self.forget(id);
    }

    fn forget(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let Some(to) = conn.peer else { return };
        if let Some(link) = conn.link {
            self.inputs.push(Input::PeerLost { peer: to, link });
        }
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.current.is_some_and(|(_, current)| current == id) {
            peer.current = None;
        }
        if let Some((_, began_us)) = peer.dialled.take_if(|(dialled, _)| *dialled == id) {
            // A link that lasted starts the back-off anew.
            let lasted = self.now_us - began_us > RETRY_US_MAX;
            let doubled = (peer.pause_us * 2).clamp(RETRY_US_MIN, RETRY_US_MAX);
            peer.pause_us = if lasted { RETRY_US_MIN } else { doubled };
            self.later.push((self.now_us + peer.pause_us, LinkEvent::Dial(to)));
        }
    }

    /// Sends what a turn has queued for one peer; messages of an older link are dropped.
    pub fn send(&mut self, to: NodeId, link: Link, message: &PeerMessage, network: &mut Network) {
        let current = self.peers.get(&to).and_then(|peer| peer.current);
        if let Some((current, id)) = current
            && current == link
            && let Some(conn) = self.conns.get_mut(&id)
        {
            conn.sent_us = self.now_us;
            network.send(id, host_of(self.founder.me().id), joined(encode(message)).freeze());
        }
    }
}

/// A frame as one run of bytes.
fn joined(parts: Parts) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// In which order a turn's messages leave: urgent ones first.
pub fn order_of(lane: Lane) -> u8 {
    match lane {
        Lane::Urgent => 0,
        Lane::Bulk => 1,
    }
}
