//! What leaves the replica's thread: queues that the network tasks empty.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use protocol::LeaderHint;
use raft::{Lane, Link, NodeId};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::peer_message::PeerMessage;
use crate::replica::{Answer, ClientId, Outbox, ReplyTo};

/// Answers on their way to one connection.
#[derive(Debug, Default)]
pub struct ClientQueue {
    answers: Mutex<Vec<(u64, Answer)>>,
    ready: Notify,
}

impl ClientQueue {
    /// Waits until there may be answers.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes all, into an empty vector.
    pub fn take(&self, into: &mut Vec<(u64, Answer)>) {
        assert!(into.is_empty());
        std::mem::swap(&mut *self.answers.lock(), into);
    }
}

/// The connections of this node.
#[derive(Debug, Default)]
pub struct Clients {
    queues: RwLock<BTreeMap<ClientId, Arc<ClientQueue>>>,
    leader: RwLock<Option<LeaderHint>>,
    closing: watch::Sender<bool>,
    left: Notify,
}

impl Clients {
    /// A new connection.
    pub fn enter(&self, client: ClientId) -> Arc<ClientQueue> {
        let queue = Arc::new(ClientQueue::default());
        self.queues.write().insert(client, Arc::clone(&queue));
        queue
    }

    /// The connection is gone; answers for it are dropped from now on.
    pub fn leave(&self, client: ClientId) {
        self.queues.write().remove(&client);
        self.left.notify_one();
    }

    /// Becomes true when connections must write their last answers and end.
    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Ends all connections; waits for them, but no longer than `limit`.
    pub async fn close(&self, limit: Duration) {
        self.closing.send_replace(true);
        let all_left = async {
            while self.count() > 0 {
                self.left.notified().await;
            }
        };
        if timeout(limit, all_left).await.is_err() {
            tracing::warn!(count = self.count(), "client connections did not end in time");
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.queues.read().len()
    }

    /// The leader as far as this node knows.
    pub fn leader(&self) -> Option<LeaderHint> {
        self.leader.read().clone()
    }

    fn queue(&self, client: ClientId) -> Option<Arc<ClientQueue>> {
        self.queues.read().get(&client).cloned()
    }
}

#[derive(Debug, Default)]
struct Lanes {
    link: Option<Link>,
    urgent: VecDeque<PeerMessage>,
    bulk: VecDeque<PeerMessage>,
}

/// Messages on their way to one peer. Heartbeats and elections overtake entries.
#[derive(Debug, Default)]
pub struct PeerQueue {
    lanes: Mutex<Lanes>,
    ready: Notify,
}

impl PeerQueue {
    /// From now on messages of `link` are queued, and those of any older link dropped.
    pub fn open(&self, link: Link) {
        *self.lanes.lock() = Lanes { link: Some(link), ..Lanes::default() };
        // Whoever empties the queue for an older link must see that it is not current any more.
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    /// The link is gone. Returns whether it was the current one.
    pub fn close(&self, link: Link) -> bool {
        let mut lanes = self.lanes.lock();
        let current = lanes.link == Some(link);
        if current {
            *lanes = Lanes::default();
        }
        current
    }

    /// Waits until there may be something.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// The next message, urgent ones first; `Err` if another link has taken this one's place.
    pub fn pop(&self, link: Link) -> Result<Option<PeerMessage>, Replaced> {
        let mut lanes = self.lanes.lock();
        if lanes.link != Some(link) {
            return Err(Replaced);
        }
        let urgent = lanes.urgent.pop_front();
        Ok(urgent.or_else(|| lanes.bulk.pop_front()))
    }

    fn push(&self, link: Link, lane: Lane, message: PeerMessage) {
        let mut lanes = self.lanes.lock();
        if lanes.link != Some(link) {
            return;
        }
        match lane {
            Lane::Urgent => lanes.urgent.push_back(message),
            Lane::Bulk => lanes.bulk.push_back(message),
        }
    }
}

/// Another link to the same peer is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced;

/// The production outbox.
pub struct Edge {
    clients: Arc<Clients>,
    peers: BTreeMap<NodeId, Arc<PeerQueue>>,
    touched_clients: Vec<Arc<ClientQueue>>,
    touched_peers: Vec<Arc<PeerQueue>>,
    /// The queue of the last answer: answers come in runs per connection.
    last: Option<(ClientId, Arc<ClientQueue>)>,
}

impl Edge {
    /// Sends to these.
    pub fn new(clients: Arc<Clients>, peers: BTreeMap<NodeId, Arc<PeerQueue>>) -> Edge {
        Edge { clients, peers, touched_clients: Vec::new(), touched_peers: Vec::new(), last: None }
    }

    fn queue_of(&mut self, client: ClientId) -> Option<&Arc<ClientQueue>> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != client) {
            let queue = self.clients.queue(client)?;
            self.touched_clients.push(Arc::clone(&queue));
            self.last = Some((client, queue));
        }
        self.last.as_ref().map(|(_, queue)| queue)
    }
}

impl Outbox for Edge {
    fn send(&mut self, to: NodeId, link: Link, lane: Lane, message: PeerMessage) {
        let Some(queue) = self.peers.get(&to) else { return };
        queue.push(link, lane, message);
        if !self.touched_peers.iter().any(|touched| Arc::ptr_eq(touched, queue)) {
            self.touched_peers.push(Arc::clone(queue));
        }
    }

    fn close(&mut self, peer: NodeId, link: Link) {
        let Some(queue) = self.peers.get(&peer) else { return };
        queue.close(link);
        // Whoever empties the queue sees that the link is not current any more, and ends it.
        queue.ready.notify_one();
    }

    fn answer(&mut self, to: ReplyTo, mut answer: Answer) {
        if let Answer::Status(status) = &mut answer {
            status.connections = self.clients.count() as u64;
        }
        if let Some(queue) = self.queue_of(to.client) {
            queue.answers.lock().push((to.request, answer));
        }
    }

    fn leader(&mut self, leader: Option<LeaderHint>) {
        *self.clients.leader.write() = leader;
    }

    fn flush(&mut self) {
        for queue in self.touched_peers.drain(..) {
            queue.ready.notify_one();
        }
        for queue in self.touched_clients.drain(..) {
            queue.ready.notify_one();
        }
        self.last = None;
    }
}
