//! Three replicas on simulated disks, in one thread: what one sends is there at the other's next
//! turn, unless the test has cut it off. A step is a millisecond.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use engine::io::simulated::{SimDisk, SimFaults, SimHandle};
use engine::{Identity, Options};
use protocol::LeaderHint;
use raft::{Lane, Link, Membership, Micros, NodeId};
use server::identity::ClusterId;
use server::peer_message::PeerMessage;
use server::replica::{
    AcquireWait, Answer, ClientId, Input, Loader, Outbox, Proposal, Replica, ReplicaOptions,
    ReplyTo, Room,
};
use server::state_machine::{Command, Origin, Outcome, Wait, encode_command};

const LINK: Link = Link(1);
const STEP_US: u64 = 1_000;

/// What a node has sent and not yet handed on.
#[derive(Default)]
pub(crate) struct Sent {
    messages: Vec<(NodeId, PeerMessage)>,
    answers: BTreeMap<u64, Answer>,
    closed: Vec<NodeId>,
    /// How often the first bytes of a snapshot were asked for.
    installs_begun: u64,
}

impl Sent {
    /// How many snapshots this node began to receive.
    pub(crate) fn installs_begun(&self) -> u64 {
        self.installs_begun
    }

    /// The peers whose links were closed because they broke the protocol.
    pub(crate) fn closed(&self) -> &[NodeId] {
        &self.closed
    }
}

impl Outbox for Sent {
    fn send(&mut self, to: NodeId, _: Link, _: Lane, message: PeerMessage) {
        let is_first = matches!(message, PeerMessage::SnapshotPull { offset: 0, .. });
        self.installs_begun += u64::from(is_first);
        self.messages.push((to, message));
    }

    fn close(&mut self, peer: NodeId, _: Link) {
        self.closed.push(peer);
    }

    fn answer(&mut self, to: ReplyTo, answer: Answer) {
        let earlier = self.answers.insert(to.request, answer);
        assert!(earlier.is_none(), "request {} was answered twice", to.request);
    }

    fn leader(&mut self, _: Option<LeaderHint>) {}

    fn flush(&mut self) {}
}

pub(crate) type Node = Replica<SimHandle, Sent>;

struct Member {
    disk: SimDisk,
    replica: Node,
    inbox: Vec<Input>,
    is_cut_off: bool,
}

pub(crate) struct Cluster {
    members: BTreeMap<u64, Member>,
    now_us: u64,
    last_request: u64,
}

impl Cluster {
    /// Three nodes that know of each other and have no leader yet.
    pub(crate) fn new() -> Cluster {
        Cluster::with_checkpoints(1 << 30)
    }

    /// The same, with a checkpoint after so many bytes of log.
    fn with_checkpoints(interval_bytes: u64) -> Cluster {
        let members = (1..=3).map(|id| (id, member(id, interval_bytes))).collect();
        Cluster { members, now_us: 0, last_request: 0 }
    }

    /// A cluster whose leader may serve; and that leader.
    pub(crate) fn led() -> (Cluster, u64) {
        Cluster::new().into_led()
    }

    /// One whose logs begin late, so that who falls behind needs a snapshot; and its leader.
    pub(crate) fn led_with_short_logs() -> (Cluster, u64) {
        Cluster::with_checkpoints(1 << 20).into_led()
    }

    fn into_led(mut self) -> (Cluster, u64) {
        let leader = self.run_until(Cluster::ready_leader);
        (self, leader)
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        &mut self.member(id).replica
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("nodes 1 to 3")
    }

    /// The connected node that leads and may serve reads.
    pub(crate) fn ready_leader(&mut self) -> Option<u64> {
        let mut connected = self.members.iter().filter(|(_, member)| !member.is_cut_off);
        connected.find(|(_, member)| member.replica.raft().is_leader_ready()).map(|(id, _)| *id)
    }

    /// Nothing reaches the node and nothing leaves it from now on.
    pub(crate) fn cut_off(&mut self, id: u64) {
        self.member(id).is_cut_off = true;
    }

    /// It is connected again, and both ends know that what was sent meanwhile is lost.
    pub(crate) fn reconnect(&mut self, id: u64) {
        self.member(id).is_cut_off = false;
        for peer in (1..=3).filter(|peer| *peer != id) {
            for (at, other) in [(id, peer), (peer, id)] {
                self.push(at, Input::PeerLost { peer: NodeId(other), link: LINK });
                self.push(at, up(other));
            }
        }
    }

    pub(crate) fn push(&mut self, id: u64, input: Input) {
        self.member(id).inbox.push(input);
    }

    /// What waits for the node's next turn.
    pub(crate) fn waiting(&mut self, id: u64) -> &[Input] {
        &self.member(id).inbox
    }

    pub(crate) fn reply_to(&mut self) -> ReplyTo {
        self.last_request += 1;
        ReplyTo { client: ClientId(1), request: self.last_request }
    }

    /// Hands a command to a node and returns the request's number.
    pub(crate) fn propose(&mut self, id: u64, origin: Origin, command: &Command) -> u64 {
        self.propose_waiting(id, origin, command, (Room::Needs, None))
    }

    /// The same for one that stores nothing.
    pub(crate) fn propose_freeing(&mut self, id: u64, command: &Command) -> u64 {
        self.propose_waiting(id, Origin::NONE, command, (Room::Frees, None))
    }

    pub(crate) fn disk(&mut self, id: u64) -> &SimDisk {
        &self.member(id).disk
    }

    /// An acquire that gives up after `wait_ms`.
    pub(crate) fn acquire(&mut self, id: u64, origin: Origin, wait_ms: u64) -> u64 {
        let name = Bytes::from_static(b"lock");
        let command = Command::LockAcquire { name: name.clone(), wait: Wait::Queue };
        let Origin { session, sequence, .. } = origin;
        let wait = AcquireWait { session, sequence, name, wait_ms: Some(wait_ms) };
        self.propose_waiting(id, origin, &command, (Room::Needs, Some(wait)))
    }

    fn propose_waiting(
        &mut self,
        id: u64,
        origin: Origin,
        command: &Command,
        (room, wait): (Room, Option<AcquireWait>),
    ) -> u64 {
        let mut encoded = BytesMut::new();
        encode_command(origin, command, &mut encoded);
        let (reply_to, command) = (self.reply_to(), encoded.freeze());
        self.push(id, Input::Propose(Proposal { reply_to, command, room, wait }));
        reply_to.request
    }

    /// Puts a key and returns the request's number.
    pub(crate) fn put(&mut self, id: u64) -> u64 {
        let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        self.propose(id, Origin::NONE, &Command::Put { key, value })
    }

    /// Opens a session that lives for a minute.
    pub(crate) fn open_session(&mut self, leader: u64, nonce: u128) -> u64 {
        let command = Command::SessionOpen { ttl_ms: 60_000, nonce, label: Bytes::new() };
        let request = self.propose(leader, Origin::NONE, &command);
        let answer = self.answer(leader, request);
        let Answer::Outcome(Outcome::SessionOpened { session, .. }) = answer else {
            panic!("{answer:?}");
        };
        session
    }

    /// Runs until the node has answered the request.
    pub(crate) fn answer(&mut self, id: u64, request: u64) -> Answer {
        self.run_until(|cluster| cluster.node(id).outbox().answers.remove(&request))
    }

    /// Steps until `look` finds something; for ten seconds at most.
    pub(crate) fn run_until<T>(&mut self, mut look: impl FnMut(&mut Cluster) -> Option<T>) -> T {
        for _ in 0..10_000 {
            if let Some(found) = look(self) {
                return found;
            }
            self.step();
        }
        panic!("nothing within ten seconds");
    }

    /// A millisecond passes: every node takes a turn, then what they sent is delivered.
    pub(crate) fn step(&mut self) {
        self.now_us += STEP_US;
        for member in self.members.values_mut() {
            member.disk.advance(self.now_us);
            let turned = member.replica.turn(Micros(self.now_us), 1, &mut member.inbox);
            turned.expect("no fault is injected");
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for from in ids {
            let sender = self.member(from);
            let is_cut_off = sender.is_cut_off;
            let messages = std::mem::take(&mut sender.replica.outbox().messages);
            for (to, message) in messages {
                let receiver = self.member(to.0);
                if !is_cut_off && !receiver.is_cut_off {
                    let from = NodeId(from);
                    receiver.inbox.push(Input::Peer { from, link: LINK, message });
                }
            }
        }
    }
}

fn up(peer: u64) -> Input {
    Input::PeerUp { peer: NodeId(peer), link: LINK, advertise: format!("node-{peer}") }
}

fn member(id: u64, checkpoint_interval_bytes: u64) -> Member {
    let disk = SimDisk::new(id, SimFaults::none());
    let options = Options { slot_bytes: 1 << 20, seed: [id, 1], ..Options::default() };
    let identity = Identity { node: id, incarnation: u128::from(id), log_id: u128::from(id) };
    let opened = engine::open(disk.handle(), Path::new("simulated"), options, identity);
    let opened = opened.expect("an empty disk opens");
    let options = ReplicaOptions {
        raft: raft::Config { entry_bytes_max: 128 << 10, ..raft::Config::new(NodeId(id)) },
        checkpoint_interval_bytes,
        advertise: format!("node-{id}"),
        cluster_id: ClusterId(7),
        seed: id,
    };
    let membership = Membership { voters: (1..=3).map(NodeId).collect() };
    let (engine, recovered) = (opened.engine, opened.recovered);
    let replica =
        Replica::new(options, engine, (&recovered, Loader::inline()), membership, Sent::default());
    let peers = (1..=3).filter(|peer| *peer != id);
    let ups = peers.map(up);
    let replica = replica.expect("an empty log recovers");
    Member { disk, replica, inbox: ups.collect(), is_cut_off: false }
}
