//! Random histories against the naive model, and through snapshots.

use crate::generator::{Clients, Spread};
use crate::harness::{Node, checkpoint, entry, expand, restore, snapshot};
use crate::model::{Model, ModelItem};
use bytes::Bytes;
use server::state_machine::{Applied, RESOLVED, Restorer, ViewProgress};
use std::collections::BTreeMap;

const SMALL: Spread = Spread { keys: 12, sessions: 6, locks: 3, tokens: 12 };
const WIDE: Spread = Spread { keys: 700, sessions: 90, locks: 40, tokens: 200 };

fn assert_same(node: &Node, model: &Model) {
    let state = &node.state;
    assert_eq!(state.revision(), model.revision);
    assert_eq!(state.sessions().collect::<Vec<_>>(), model.sessions());
    let mut keys = Vec::new();
    state.range(b"", None, usize::MAX, usize::MAX, |key, item| {
        let value = node.value_of(key).unwrap();
        assert_eq!(item.checksum, crc32fast::hash(&value));
        let model_item = ModelItem {
            value,
            create_revision: item.create_revision,
            mod_revision: item.mod_revision,
            version: item.version,
        };
        keys.push((Bytes::copy_from_slice(key), model_item));
    });
    assert!(keys.iter().map(|(key, item)| (key, item)).eq(&model.keys));
    for lock in &model.locks {
        let view = state.lock(&lock.name).unwrap();
        assert_eq!((view.session, view.sequence), lock.claims[0]);
        assert_eq!((view.token, view.waiters), (lock.token, lock.claims.len() - 1));
        let queue = state.waiters().filter(|(_, _, name)| *name == lock.name);
        let queue = queue.map(|(session, sequence, _)| (session, sequence));
        assert_eq!(queue.collect::<Vec<_>>(), lock.claims[1..]);
    }
    let waiting = model.locks.iter().map(|lock| lock.claims.len() - 1).sum::<usize>();
    assert_eq!(state.waiters().count(), waiting);
}

/// The hash of the state that a checkpoint holds.
fn restored_hash(checkpoint: &[u8]) -> u128 {
    let mut restorer = Restorer::new();
    restorer.push(checkpoint).unwrap();
    restorer.finish().unwrap().hash()
}

/// What the histories came to, so that a test of nothing does not pass.
type Tally = BTreeMap<(bool, String), usize>;

fn count(tally: &mut Tally, applied: &[Applied]) {
    for applied in applied {
        let name = format!("{:?}", applied.outcome);
        let name = name.split(' ').next().unwrap_or_default().to_owned();
        *tally.entry((applied.position == RESOLVED, name)).or_default() += 1;
    }
}

/// Two replicas, one of which is restored from the other's snapshot now and then.
fn check(seed: u64, spread: Spread, entries: usize, tally: &mut Tally) {
    let mut clients = Clients::new(seed, spread);
    let mut model = Model::new();
    let mut node = Node::new();
    let mut replica = Node::new();
    for _ in 0..entries {
        clients.look_at(&node.state);
        let commands = clients.entry(6);
        let expected = model.apply(&commands);
        count(tally, &expected);
        assert_eq!(node.apply(&commands), expected, "seed {seed}");
        assert_same(&node, &model);
        if clients.random.below(10) == 0 {
            replica = restore(&snapshot(&node));
        } else {
            assert_eq!(replica.apply(&commands), expected, "seed {seed}");
        }
        assert_eq!(replica.state.hash(), node.state.hash(), "seed {seed}");
    }
    assert_eq!(snapshot(&replica), snapshot(&node));
}

#[test]
fn random_histories_give_the_models_outcomes_and_survive_snapshots() {
    let mut tally = Tally::new();
    for seed in 0..150 {
        check(seed, SMALL, 80, &mut tally);
    }
    let late = ["Granted", "NotAcquired", "SessionEnded"].map(|name| (true, name));
    let own = [
        "Cancelled",
        "CompareAndSet",
        "Deleted",
        "Granted",
        "NotAcquired",
        "NotHolder",
        "Put",
        "Queued",
        "Released",
        "SequenceStale",
        "SequenceTooFar",
        "SessionClosed",
        "SessionOpened",
        "SessionUnknown",
    ];
    for (is_late, name) in own.map(|name| (false, name)).into_iter().chain(late) {
        let times = tally.get(&(is_late, name.to_owned())).copied().unwrap_or_default();
        assert!(times >= 50, "{name} (late: {is_late}) was seen {times} times: {tally:?}");
    }
}

#[test]
fn wide_histories_give_the_models_outcomes_and_survive_snapshots() {
    for seed in 0..3 {
        check(seed, WIDE, 500, &mut Tally::new());
    }
}

#[test]
fn a_view_streamed_while_ten_thousand_commands_are_applied_shows_its_beginning() {
    for seed in 0..4 {
        let mut clients = Clients::new(seed, WIDE);
        let mut node = Node::new();
        for _ in 0..400 {
            node.apply(&clients.entry(6));
        }
        let expected = checkpoint(&node.state);
        node.state.view_begin();
        let mut streamed = Vec::new();
        let mut applied = 0;
        let mut progress = ViewProgress::More;
        while applied < 10_000 || progress == ViewProgress::More {
            clients.look_at(&node.state);
            let commands = clients.entry(40);
            applied += commands.len();
            let mut out = Vec::new();
            let index = node.state.applied_index() + 1;
            node.apply_payload(index, &entry(index, &commands), &mut out).unwrap();
            let bytes_max = 1 + clients.random.below_usize(expected.len() / 150);
            let before = streamed.len();
            progress = node.state.view_next(bytes_max, &mut streamed);
            assert!(streamed.len() - before <= bytes_max);
        }
        assert!(streamed == expected, "seed {seed}");
        node.state.view_end();
        assert_eq!(node.state.hash(), node.state.recompute_hash());
        let streamed = expand(&streamed, &node.shelf, 1_000);
        assert_eq!(restore(&streamed).state.hash(), restored_hash(&expected));
        assert_ne!(checkpoint(&node.state), expected);
    }
}
