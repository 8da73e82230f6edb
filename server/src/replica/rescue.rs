//! Values that cannot be read here and are asked for from the peers.
//!
//! A peer is asked for one value at a time, by its key, its length and its checksum: so whatever the peer has applied by
//! now, it answers with this value or with none. When no peer is left to ask, the error stands.
//!
//! Invariant: a value that is taken has the length and the checksum that this node's state has for its key.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use engine::{ReadError, Wanted};
use raft::{Lane, Micros, NodeId};

use super::Outbox;
use super::peers::Peers;
use super::values::Purpose;
use crate::peer_message::PeerMessage;

/// How long a peer may take to answer.
const ANSWER_US: u64 = 1_000_000;

/// A read that has ended.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) purpose: Purpose,
    pub(super) wanted: Vec<Wanted>,
    pub(super) results: Vec<Result<Bytes, ReadError>>,
}

/// One of which something is missing.
#[derive(Debug)]
struct Rescue {
    read: Read,
    /// Which of its values is asked for.
    at: usize,
    asked: NodeId,
    /// Whom to ask after that.
    left: VecDeque<NodeId>,
    until: Micros,
}

/// What asking needs.
pub(super) struct Means<'a, O> {
    pub(super) peers: &'a Peers,
    pub(super) out: &'a mut O,
    pub(super) now: Micros,
}

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Rescues {
    /// The number of the newest one.
    asked: u64,
    open: BTreeMap<u64, Rescue>,
}

impl Rescues {
    /// Asks for what is missing of a read, and gives it back when nothing is, or nobody can be asked.
    pub(super) fn begin<O: Outbox>(
        &mut self,
        read: Read,
        means: &mut Means<'_, O>,
    ) -> Option<Read> {
        let (asked, left, until) = (NodeId(0), means.peers.linked(), Micros(0));
        self.ask(Rescue { read, at: 0, asked, left, until }, means)
    }

    /// A peer has answered question `id`. Gives the read back when it is complete or nobody is left to ask.
    pub(super) fn answered<O: Outbox>(
        &mut self,
        (from, id): (NodeId, u64),
        value: Option<Bytes>,
        means: &mut Means<'_, O>,
    ) -> Option<Read> {
        self.open.get(&id).filter(|rescue| rescue.asked == from)?;
        let mut rescue = self.open.remove(&id)?;
        let Read { wanted, results, .. } = &mut rescue.read;
        if let Some(value) = value.filter(|value| is_it(&wanted[rescue.at], value)) {
            tracing::warn!(location = %wanted[rescue.at].location, %from, "a value that cannot be read here was fetched from a peer");
            results[rescue.at] = Ok(value);
        }
        self.ask(rescue, means)
    }

    /// Goes on without those that take too long; what ends with that.
    pub(super) fn tick<O: Outbox>(&mut self, means: &mut Means<'_, O>) -> Vec<Read> {
        let late = self.open.extract_if(.., |_, rescue| rescue.until <= means.now);
        let late: Vec<Rescue> = late.map(|(_, rescue)| rescue).collect();
        late.into_iter().filter_map(|rescue| self.ask(rescue, means)).collect()
    }

    /// Nobody is asked any more.
    pub(super) fn give_up(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.open).into_values().map(|rescue| rescue.read).collect()
    }

    fn ask<O: Outbox>(&mut self, mut rescue: Rescue, means: &mut Means<'_, O>) -> Option<Read> {
        loop {
            let Read { wanted, results, .. } = &rescue.read;
            let Some(at) = (rescue.at..results.len()).find(|at| results[*at].is_err()) else {
                return Some(rescue.read);
            };
            if at > rescue.at {
                (rescue.at, rescue.left) = (at, means.peers.linked());
            }
            let Some(peer) = rescue.left.pop_front() else {
                (rescue.at, rescue.left) = (at + 1, means.peers.linked());
                continue;
            };
            let Some(link) = means.peers.link(peer) else { continue };
            self.asked += 1;
            let Wanted { key, value_bytes, checksum, .. } = wanted[at].clone();
            let ask = PeerMessage::ValuePull { id: self.asked, key, value_bytes, checksum };
            means.out.send(peer, link, Lane::Bulk, ask);
            (rescue.asked, rescue.until) = (peer, Micros(means.now.0 + ANSWER_US));
            self.open.insert(self.asked, rescue);
            return None;
        }
    }
}

fn is_it(wanted: &Wanted, value: &[u8]) -> bool {
    wanted.value_bytes as usize == value.len() && wanted.checksum == crc32fast::hash(value)
}

#[cfg(test)]
mod tests {
    use engine::Location;
    use protocol::LeaderHint;
    use raft::{Link, SendId};

    use super::*;
    use crate::replica::{Answer, ReplyTo};

    const LINK: Link = Link(3);

    /// Whom the questions went to, and their numbers.
    #[derive(Default)]
    struct Asked(Vec<(u64, u64)>);

    impl Outbox for Asked {
        fn send(&mut self, to: NodeId, link: Link, _: Lane, message: PeerMessage) {
            assert_eq!(link, LINK);
            let PeerMessage::ValuePull { id, .. } = message else { panic!("{message:?}") };
            self.0.push((to.0, id));
        }

        fn close(&mut self, _: NodeId, _: Link) {}

        fn answer(&mut self, _: ReplyTo, _: Answer) {}

        fn leader(&mut self, _: Option<LeaderHint>) {}

        fn flush(&mut self) {}
    }

    struct World {
        rescues: Rescues,
        peers: Peers,
        asked: Asked,
        now: Micros,
    }

    impl World {
        /// Of three values the first and the last are missing.
        fn begin(peers: &[u64]) -> (World, Option<Read>) {
            let mut world = World {
                rescues: Rescues::default(),
                peers: Peers::default(),
                asked: Asked::default(),
                now: Micros(5),
            };
            for id in peers {
                world.peers.up(NodeId(*id), LINK, String::new());
            }
            let wanted = [b"one", b"two", b"six"].map(|value| Wanted {
                location: Location::new(1, 4096),
                key: Bytes::from_static(b"key"),
                value_bytes: 3,
                checksum: crc32fast::hash(value),
            });
            let gone = || Err(ReadError::Beyond { last: engine::Position::default() });
            let results = vec![gone(), Ok(Bytes::from_static(b"two")), gone()];
            let read =
                Read { purpose: Purpose::Snapshot(SendId(1)), wanted: wanted.into(), results };
            let ended = world.act(|rescues, means| rescues.begin(read, means));
            (world, ended)
        }

        fn act<R>(&mut self, act: impl FnOnce(&mut Rescues, &mut Means<'_, Asked>) -> R) -> R {
            let World { rescues, peers, asked, now } = self;
            act(rescues, &mut Means { peers, out: asked, now: *now })
        }

        fn answer(&mut self, from: u64, value: Option<&'static [u8]>) -> Option<Read> {
            let (_, id) = *self.asked.0.last().unwrap();
            let value = value.map(Bytes::from_static);
            self.act(|rescues, means| rescues.answered((NodeId(from), id), value, means))
        }
    }

    fn found(read: &Read) -> Vec<Option<&[u8]>> {
        read.results.iter().map(|result| result.as_deref().ok()).collect()
    }

    #[test]
    fn one_peer_after_the_other_is_asked_for_one_value_after_the_other() {
        let (mut world, ended) = World::begin(&[2, 3]);
        assert!(ended.is_none());
        assert!(world.answer(2, None).is_none());
        assert!(world.answer(3, Some(b"one")).is_none());
        let read = world.answer(2, Some(b"six")).unwrap();
        assert_eq!(found(&read), [Some(&b"one"[..]), Some(b"two"), Some(b"six")]);
        assert_eq!(world.asked.0, [(2, 1), (3, 2), (2, 3)]);
    }

    #[test]
    fn another_value_and_an_answer_that_nobody_asked_for_are_not_taken() {
        let (mut world, _) = World::begin(&[2]);
        assert!(world.answer(4, Some(b"one")).is_none(), "it was not asked");
        assert_eq!(world.asked.0.len(), 1, "the answer is still waited for");
        assert!(world.answer(2, Some(b"two")).is_none());
        let read = world.answer(2, Some(b"longer")).unwrap();
        assert_eq!(found(&read), [None, Some(&b"two"[..]), None]);
        assert!(world.answer(2, Some(b"six")).is_none(), "it is too late");
    }

    #[test]
    fn without_a_peer_or_an_answer_the_error_stands() {
        let (world, ended) = World::begin(&[]);
        assert_eq!(found(&ended.unwrap()), [None, Some(&b"two"[..]), None]);
        assert!(world.asked.0.is_empty());
        let (mut world, _) = World::begin(&[2, 3]);
        let mut ended = Vec::new();
        for question in 1..=4 {
            assert_eq!(world.asked.0.len(), question);
            world.now.0 += ANSWER_US - 1;
            assert!(world.act(Rescues::tick).is_empty());
            world.now.0 += 1;
            ended = world.act(Rescues::tick);
        }
        assert_eq!(found(&ended[0]), [None, Some(&b"two"[..]), None]);
    }
}
