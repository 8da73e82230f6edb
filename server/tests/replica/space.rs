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

fn delete(cluster: &mut Cluster, leader: u64, number: u64) {
    loop {
        let request = cluster.propose_freeing(leader, &Command::Delete { key: key(number) });
        let answer = cluster.answer(leader, request);
        let Answer::Error(error) = answer else {
            assert!(matches!(answer, Answer::Outcome(Outcome::Deleted { .. })), "{answer:?}");
            return;
        };
        assert_eq!(error.code, ErrorCode::TooManyRequests, "{error:?}");
    }
}

/// Fills the disks of some nodes from key `first` on; how many keys there was room for.
fn fill(cluster: &mut Cluster, leader: u64, first: u64) -> u64 {
    let refused = (0..10_000).find(|number| !put(cluster, leader, first + number));
    refused.expect("some put is refused")
}

fn check_keys(cluster: &mut Cluster, numbers: std::ops::Range<u64>) {
    let count = numbers.end - numbers.start;
    for id in 1..=3 {
        cluster.run_until(|cluster| {
            let state = cluster.node(id).state();
            let state = state.read();
            (state.keys() as u64 == count).then_some(())
        });
    }
}

/// Fills up, deletes the older half, and fills up again, a few times.
fn fill_and_resume(full: impl Fn(u64, u64) -> bool) {
    let (mut cluster, leader) = Cluster::led();
    cluster.run_until(|cluster| {
        let ready = (1..=3).map(|id| cluster.node(id).engine().status().slots_ready);
        ready.into_iter().all(|ready| ready == 6).then_some(())
    });
    for id in (1..=3).filter(|id| full(*id, leader)) {
        cluster.disk(id).set_capacity(Some(30 << 20));
    }
    let (mut first, mut end) = (0_u64, 0_u64);
    for round in 0..4 {
        let filled = fill(&mut cluster, leader, end);
        assert!(filled > 100, "only {filled} keys in round {round}");
        end += filled;
        let half = first.midpoint(end);
        (first..half).for_each(|number| delete(&mut cluster, leader, number));
        first = half;
        // Nothing else is done about it: no put, no delete.
        cluster.run_until(|cluster| {
            let rooms = (1..=3).map(|id| cluster.node(id).engine().room());
            rooms.into_iter().all(|room| room == engine::Room::Plenty).then_some(())
        });
        check_keys(&mut cluster, first..end);
        assert_eq!(cluster.ready_leader(), Some(leader), "nobody lost the leadership for it");
    }
}

#[test]
fn cluster_whose_disks_are_full_serves_again_when_half_its_keys_are_deleted() {
    fill_and_resume(|_, _| true);
}

#[test]
fn leader_whose_disk_alone_is_full_refuses_and_serves_again() {
    fill_and_resume(|id, leader| id == leader);
}

/// A leader with room took what a majority had none for. No delete could get through behind it.
#[test]
fn leader_with_room_refuses_what_a_majority_has_none_for() {
    fill_and_resume(|id, leader| id != leader);
}

#[test]
fn deletes_that_free_nothing_go_on_on_a_full_disk() {
    let (mut cluster, leader) = Cluster::led();
    for id in 1..=3 {
        cluster.disk(id).set_capacity(Some(24 << 20));
    }
    let end = fill(&mut cluster, leader, 0);
    // Each takes a frame of its own: six slots of them.
    (0..1_500).for_each(|number| delete(&mut cluster, leader, end + number));
    assert!(!put(&mut cluster, leader, end), "nothing has been freed");
    check_keys(&mut cluster, 0..end);
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
    check_keys(&mut cluster, 0..keys + 1);
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
    check_keys(&mut cluster, 0..keys);
}
