//! Disks that are full: of all nodes, of the leader, of a majority that follows, of one that needs a snapshot.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{Certainty, ErrorCode};
use server::replica::Answer;
use server::state_machine::{Command, Origin, Outcome};

use crate::cluster::Cluster;

const VALUE_BYTES: usize = 40_000;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number:08}"))
}

/// Puts one key; whether there was room.
fn put(cluster: &mut Cluster, leader: u64, number: u64) -> bool {
    let value = Bytes::from(vec![number.to_le_bytes()[0]; VALUE_BYTES]);
    loop {
        let command = Command::Put { key: key(number), value: value.clone() };
        let request = cluster.propose(leader, Origin::NONE, &command);
        let answer = cluster.answer(leader, request);
        let Answer::Error(error) = answer else {
            assert!(matches!(answer, Answer::Outcome(Outcome::Put { .. })), "{answer:?}");
            return true;
        };
        assert_eq!(error.certainty, Certainty::NotDone);
        if error.code == ErrorCode::ResourceExhausted {
            return false;
        }
        assert_eq!(error.code, ErrorCode::TooManyRequests, "{error:?}");
    }
}

/// Deletes keys, all in one entry if there is room for it: so little log asks for no checkpoint by itself.
fn delete(cluster: &mut Cluster, leader: u64, mut numbers: Vec<u64>) {
    while !numbers.is_empty() {
        let propose = |number| {
            let command = Command::Delete { key: key(number) };
            (number, cluster.propose_freeing(leader, &command))
        };
        let requests: Vec<(u64, u64)> = numbers.drain(..).map(propose).collect();
        for (number, request) in requests {
            let answer = cluster.answer(leader, request);
            let Answer::Error(error) = answer else {
                assert!(matches!(answer, Answer::Outcome(Outcome::Deleted { .. })), "{answer:?}");
                continue;
            };
            assert_eq!(error.code, ErrorCode::TooManyRequests, "{error:?}");
            numbers.push(number);
        }
    }
}

/// Puts keys from `first` on, as soon as the first one is taken and until one is refused; how many.
fn fill(cluster: &mut Cluster, leader: u64, first: u64) -> u64 {
    (0..100).find(|_| put(cluster, leader, first)).expect("a leader hears of room within a second");
    let refused = (1..10_000).find(|number| !put(cluster, leader, first + number));
    refused.expect("some put is refused")
}

fn check_count(cluster: &mut Cluster, count: usize) {
    for id in 1..=3 {
        cluster.run_until(|cluster| {
            let state = cluster.node(id).state();
            let state = state.read();
            (state.keys() == count).then_some(())
        });
    }
}

/// Which half of the keys is deleted.
#[derive(Clone, Copy)]
enum Half {
    /// Whole slots become empty.
    Older,
    /// Every slot becomes half empty: nothing is free before the cleaner has been there.
    EveryOther,
}

impl Half {
    fn split(self, keys: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let is_gone = |at: usize| match self {
            Half::Older => at < keys.len() / 2,
            Half::EveryOther => at.is_multiple_of(2),
        };
        let (gone, kept): (Vec<_>, Vec<_>) =
            keys.iter().enumerate().partition(|(at, _)| is_gone(*at));
        let keys_of = |half: Vec<(usize, &u64)>| half.into_iter().map(|(_, key)| *key).collect();
        (keys_of(gone), keys_of(kept))
    }
}

/// Slots that are free again in the end: two more than a node with room makes ahead.
const SLOTS_AGAIN: usize = 8;

/// Fills up, deletes half of the keys, and fills up again, a few times.
fn fill_and_resume(half: Half, full: impl Fn(u64, u64) -> bool) {
    let (mut cluster, leader) = Cluster::led();
    cluster.run_until(|cluster| {
        let ready = (1..=3).map(|id| cluster.node(id).engine().status().slots_ready);
        ready.into_iter().all(|ready| ready == 6).then_some(())
    });
    for id in (1..=3).filter(|id| full(*id, leader)) {
        cluster.disk(id).set_capacity(Some(30 << 20));
    }
    let (mut keys, mut end) = (Vec::new(), 0);
    for round in 0..4 {
        let filled = fill(&mut cluster, leader, end);
        assert!(filled > 100, "only {filled} keys in round {round}");
        keys.extend(end..end + filled);
        end += filled;
        let (gone, kept) = half.split(&keys);
        delete(&mut cluster, leader, gone);
        keys = kept;
        // Nothing else is done about it: no put, no delete.
        cluster.run_until(|cluster| {
            let has_room = |id| {
                let status = cluster.node(id).engine().status();
                let is_free = !full(id, leader) || status.slots_ready >= SLOTS_AGAIN;
                status.room == engine::Room::Plenty && is_free
            };
            (1..=3).all(has_room).then_some(())
        });
        check_count(&mut cluster, keys.len());
        assert_eq!(cluster.ready_leader(), Some(leader), "nobody lost the leadership for it");
    }
}

#[test]
fn cluster_whose_disks_are_full_serves_again_when_half_its_keys_are_deleted() {
    fill_and_resume(Half::Older, |_, _| true);
}

/// No slot was empty, and slots that the log still needed were no victims: nothing asked for the checkpoints that would
/// have made them some.
#[test]
fn cluster_whose_disks_are_full_serves_again_when_every_other_key_is_deleted() {
    fill_and_resume(Half::EveryOther, |_, _| true);
}

#[test]
fn leader_whose_disk_alone_is_full_refuses_and_serves_again() {
    fill_and_resume(Half::Older, |id, leader| id == leader);
    fill_and_resume(Half::EveryOther, |id, leader| id == leader);
}

/// A leader with room took what a majority had none for. No delete could get through behind it.
#[test]
fn leader_with_room_refuses_what_a_majority_has_none_for() {
    fill_and_resume(Half::Older, |id, leader| id != leader);
    fill_and_resume(Half::EveryOther, |id, leader| id != leader);
}

#[test]
fn deletes_that_free_nothing_go_on_on_a_full_disk() {
    let (mut cluster, leader) = Cluster::led();
    for id in 1..=3 {
        cluster.disk(id).set_capacity(Some(24 << 20));
    }
    let end = fill(&mut cluster, leader, 0);
    // Each takes a frame of its own: six slots of them.
    (0..1_500).for_each(|number| delete(&mut cluster, leader, vec![end + number]));
    assert!(!put(&mut cluster, leader, end), "nothing has been freed");
    check_count(&mut cluster, usize::try_from(end).unwrap());
}

/// What was logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    /// Warnings of this thread, from now on until the guard goes.
    fn warnings() -> (Logged, tracing::subscriber::DefaultGuard) {
        let (logged, level) = (Logged::default(), tracing::Level::WARN);
        let writer = logged.clone();
        let lines = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        let lines = lines.with_writer(move || writer.clone()).finish();
        (logged, tracing::subscriber::set_default(lines))
    }

    fn count(&self, what: &str) -> usize {
        let bytes = self.0.lock();
        String::from_utf8_lossy(&bytes).lines().filter(|line| line.contains(what)).count()
    }
}

/// A cluster one of whose followers was cut off when it had ten keys; the leader, the follower, and how many keys there
/// are by now, for which the follower needs a snapshot.
fn with_follower_behind() -> (Cluster, u64, u64, u64) {
    let (mut cluster, leader) = Cluster::led_with_short_logs();
    let follower = leader % 3 + 1;
    (0..10).for_each(|number| assert!(put(&mut cluster, leader, number)));
    cluster.run_until(|cluster| {
        let node = cluster.node(follower);
        let is_applied = node.state().read().keys() == 10;
        (is_applied && node.engine().status().slots_ready == 6).then_some(())
    });
    cluster.cut_off(follower);
    (10..300).for_each(|number| assert!(put(&mut cluster, leader, number)));
    cluster.run_until(|cluster| {
        let last = cluster.node(follower).engine().status().last;
        (cluster.node(leader).engine().status().log_start.index > last.index).then_some(())
    });
    (cluster, leader, follower, 300)
}

/// Its values waited for a slot for ever, and it took no checkpoint, so that nothing was freed either.
#[test]
fn follower_without_room_for_a_snapshot_gives_it_up_and_installs_it_when_there_is_room() {
    let (logged, _guard) = Logged::warnings();
    let (mut cluster, leader, follower, keys) = with_follower_behind();
    let before = cluster.node(follower).engine().status();
    let used = cluster.disk(follower).used_bytes();
    cluster.disk(follower).set_capacity(Some(used));
    cluster.reconnect(follower);
    (0..5_000).for_each(|_| cluster.step());
    let begun = cluster.node(follower).outbox().installs_begun();
    assert!((2..=4).contains(&begun), "begun {begun} times in five seconds");
    assert_eq!(logged.count("no room for a snapshot"), 1);
    // Nothing of what it had is gone, and nothing of what it tried is left.
    assert_eq!(cluster.node(follower).state().read().keys(), 10);
    cluster.run_until(|cluster| {
        let after = cluster.node(follower).engine().status();
        (after.slots_values == 0 && after.slots_ready >= before.slots_ready).then_some(())
    });
    let after = cluster.node(follower).engine().status();
    assert_eq!((after.last, after.slots), (before.last, before.slots));
    assert!(put(&mut cluster, leader, keys), "the others do not mind");
    cluster.disk(follower).set_capacity(None);
    check_count(&mut cluster, usize::try_from(keys + 1).unwrap());
    assert_eq!(logged.count("no room for a snapshot"), 1);
}

/// One attempt after another filled slots that came back only with checkpoints, and a node that needs a snapshot has
/// nothing to take one of.
#[test]
fn attempts_that_found_no_room_take_none_from_the_one_that_does() {
    let (mut cluster, _, follower, keys) = with_follower_behind();
    let used = cluster.disk(follower).used_bytes();
    cluster.disk(follower).set_capacity(Some(used));
    cluster.reconnect(follower);
    cluster
        .run_until(|cluster| (cluster.node(follower).outbox().installs_begun() == 3).then_some(()));
    // 300 values of 40 kB are 12 slots, and four more are kept in reserve.
    cluster.disk(follower).set_capacity(Some(used + (12 << 20)));
    check_count(&mut cluster, usize::try_from(keys).unwrap());
}
