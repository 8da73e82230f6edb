//! Disks that are full: of all nodes, of the leader, of a majority that follows.

use bytes::Bytes;
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
