//! Values that cannot be read here and are asked for from the peers.
//!
//! A peer is asked for one value at a time, by its key and the revision that has set it: so whatever the peer has applied
//! by now, it answers with this value or with none. When no peer is left to ask for one, or it has taken too long, the
//! error stands, and with it that of the whole read.
//!
//! Invariants: a value that is taken has the length and the checksum that this node's state has for its key, and was set
//! by the same revision; a key that has been set anew since the read is not asked for.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use engine::{Location, ReadError, Wanted};
use raft::{Lane, Micros, NodeId};

use super::Outbox;
use super::peers::Peers;
use super::values::{Purpose, is_wanted};
use crate::peer_message::PeerMessage;
use crate::state_machine::State;

/// How long a peer may take to answer, and all of them for one read.
const ANSWER_US: u64 = 1_000_000;
const READ_US: u64 = 5_000_000;

/// Reads that peers are asked for at a time.
const OPEN_MAX: usize = 64;

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
    /// The end of all asking.
    deadline: Micros,
}

/// What asking needs.
pub(super) struct Means<'a, O> {
    pub(super) state: &'a State,
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
    /// What was brought last: it is named once.
    named: Option<Location>,
}

impl Rescues {
    /// Asks for what is missing of a read, and gives it back when nothing is, or nobody can be asked.
    pub(super) fn begin<O: Outbox>(
        &mut self,
        read: Read,
        means: &mut Means<'_, O>,
    ) -> Option<Read> {
        if self.open.len() >= OPEN_MAX {
            return Some(read);
        }
        let (asked, left, until) = (NodeId(0), means.peers.linked(), Micros(0));
        let deadline = Micros(means.now.0 + READ_US);
        self.ask(Rescue { read, at: 0, asked, left, until, deadline }, means)
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
        if let Some(value) = value.filter(|value| is_wanted(&wanted[rescue.at], value)) {
            let location = wanted[rescue.at].location;
            if self.named.replace(location) != Some(location) {
                tracing::warn!(%location, %from, "a value that cannot be read here was fetched from a peer");
            }
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
        let Read { wanted, results, .. } = &rescue.read;
        let Some(at) = (rescue.at..results.len()).find(|at| results[*at].is_err()) else {
            return Some(rescue.read);
        };
        if at > rescue.at {
            (rescue.at, rescue.left) = (at, means.peers.linked());
        }
        let asks = revision_of(means.state, &wanted[at]).filter(|_| means.now < rescue.deadline);
        let Some(revision) = asks else { return Some(rescue.read) };
        let linked = |peer: NodeId| Some((peer, means.peers.link(peer)?));
        let Some((peer, link)) = std::iter::from_fn(|| rescue.left.pop_front()).find_map(linked)
        else {
            return Some(rescue.read);
        };
        self.asked += 1;
        let ask = PeerMessage::ValuePull { id: self.asked, key: wanted[at].key.clone(), revision };
        means.out.send(peer, link, Lane::Bulk, ask);
        (rescue.asked, rescue.until) = (peer, Micros(means.now.0 + ANSWER_US));
        self.open.insert(self.asked, rescue);
        None
    }
}

/// Which revision has set the value, if it still is the key's.
fn revision_of(state: &State, wanted: &Wanted) -> Option<u64> {
    let item = state.get(&wanted.key)?;
    let is_it = item.wanted(&wanted.key).is_some_and(|own| own.location == wanted.location);
    is_it.then_some(item.mod_revision)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use protocol::LeaderHint;
    use raft::Link;

    use super::*;
    use crate::replica::{Answer, ClientId, ReplyTo};
    use crate::state_machine::{CommandRef, EntryBuilder, Loaded, Origin, encode_command_ref};

    const LINK: Link = Link(3);
    const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

    /// Whom the questions went to, their numbers, and the revisions that were asked for.
    #[derive(Default)]
    struct Asked(Vec<(u64, u64, u64)>);

    impl Outbox for Asked {
        fn send(&mut self, to: NodeId, link: Link, _: Lane, message: PeerMessage) {
            assert_eq!(link, LINK);
            let PeerMessage::ValuePull { id, revision, .. } = message else {
                panic!("{message:?}")
            };
            self.0.push((to.0, id, revision));
        }

        fn close(&mut self, _: NodeId, _: Link) {}

        fn answer(&mut self, _: ReplyTo, _: Answer) {}

        fn leader(&mut self, _: Option<LeaderHint>) {}

        fn flush(&mut self) {}
    }

    struct World {
        state: State,
        rescues: Rescues,
        peers: Peers,
        asked: Asked,
        now: Micros,
    }

    fn value(number: u8) -> Bytes {
        vec![number; 100].into()
    }

    impl World {
        fn new(peers: &[u64]) -> World {
            let mut world = World {
                state: State::new(),
                rescues: Rescues::default(),
                peers: Peers::default(),
                asked: Asked::default(),
                now: Micros(5),
            };
            for id in peers {
                world.peers.up(NodeId(*id), LINK, String::new());
            }
            (1..).zip(KEYS).for_each(|(number, key)| world.put(number, key));
            world
        }

        /// Puts value `number` in the entry of that index, which sets revision `number` + 1.
        fn put(&mut self, number: u8, key: &[u8]) {
            let (mut builder, mut encoded) = (EntryBuilder::new(), BytesMut::new());
            builder.begin(1);
            let command = CommandRef::Put { key, value: &value(number) };
            encode_command_ref(Origin::NONE, &command, &mut encoded);
            builder.push(&encoded);
            let place = Location::new(1, 4096 * u64::from(number));
            let (loaded, mut outcomes) = (Loaded::new(), Vec::new());
            let payload = builder.finish();
            self.state.apply(number.into(), &payload, place, &loaded, &mut outcomes).unwrap();
        }

        /// Of the three values the first and the last are missing.
        fn begin(&mut self) -> Option<Read> {
            let wanted = KEYS.map(|key| self.state.get(key).unwrap().wanted(key).unwrap());
            let gone = || Err(ReadError::Beyond { last: engine::Position::default() });
            let purpose = Purpose::Fetch(ReplyTo { client: ClientId(1), request: 1 });
            let results = vec![gone(), Ok(value(2)), gone()];
            let read = Read { purpose, wanted: wanted.into(), results };
            self.act(|rescues, means| rescues.begin(read, means))
        }

        fn act<R>(&mut self, act: impl FnOnce(&mut Rescues, &mut Means<'_, Asked>) -> R) -> R {
            let World { state, rescues, peers, asked, now } = self;
            act(rescues, &mut Means { state, peers, out: asked, now: *now })
        }

        fn answer(&mut self, from: u64, value: Option<Bytes>) -> Option<Read> {
            let (_, id, _) = *self.asked.0.last().unwrap();
            self.act(|rescues, means| rescues.answered((NodeId(from), id), value, means))
        }
    }

    fn found(read: &Read) -> Vec<Option<Bytes>> {
        read.results.iter().map(|result| result.clone().ok()).collect()
    }

    #[test]
    fn one_peer_after_the_other_is_asked_for_one_value_after_the_other() {
        let mut world = World::new(&[2, 3]);
        assert!(world.begin().is_none());
        assert!(world.answer(2, None).is_none());
        assert!(world.answer(3, Some(value(1))).is_none());
        let read = world.answer(2, Some(value(3))).unwrap();
        assert_eq!(found(&read), [1, 2, 3].map(|number| Some(value(number))));
        assert_eq!(world.asked.0, [(2, 1, 2), (3, 2, 2), (2, 3, 4)]);
    }

    #[test]
    fn another_value_and_an_answer_that_nobody_asked_for_are_not_taken() {
        let mut world = World::new(&[2]);
        world.begin();
        assert!(world.answer(4, Some(value(1))).is_none(), "it was not asked");
        assert_eq!(world.asked.0.len(), 1, "the answer is still waited for");
        let read = world.answer(2, Some(value(2))).unwrap();
        assert_eq!(found(&read), [None, Some(value(2)), None]);
        assert!(world.answer(2, Some(value(1))).is_none(), "it is too late");
    }

    /// It might have the same length and checksum, and would be given out as what the read had found.
    #[test]
    fn a_value_that_was_set_anew_is_not_asked_for() {
        let mut world = World::new(&[2]);
        world.begin();
        world.put(4, KEYS[2]);
        let read = world.answer(2, Some(value(1))).unwrap();
        assert_eq!(found(&read), [Some(value(1)), Some(value(2)), None]);
    }

    #[test]
    fn without_a_peer_or_an_answer_the_error_stands() {
        let mut world = World::new(&[]);
        assert_eq!(found(&world.begin().unwrap()), [None, Some(value(2)), None]);
        assert!(world.asked.0.is_empty());
        let mut world = World::new(&[2, 3]);
        world.begin();
        let mut ended = Vec::new();
        for question in 1..=2 {
            assert_eq!(world.asked.0.len(), question);
            world.now.0 += ANSWER_US - 1;
            assert!(world.act(Rescues::tick).is_empty());
            world.now.0 += 1;
            ended = world.act(Rescues::tick);
        }
        assert_eq!(found(&ended[0]), [None, Some(value(2)), None]);
    }

    #[test]
    fn all_asking_for_one_read_has_an_end() {
        let mut world = World::new(&[2]);
        world.begin();
        world.now.0 += READ_US;
        let read = world.answer(2, Some(value(1))).unwrap();
        assert_eq!(found(&read), [Some(value(1)), Some(value(2)), None]);
    }
}
