//! The loop of a replica: what its clients are told when leaderships begin and end, and when a
//! node is asked to stop.

mod cluster;
mod space;

use bytes::Bytes;
use cluster::Cluster;
use protocol::{Certainty, ErrorCode};
use raft::{AppendOutcome, Link, LogIndex, Message, NodeId, RoleKind};
use server::peer_message::PeerMessage;
use server::replica::{Answer, Input};
use server::state_machine::{Command, Origin, Outcome, Wait};

/// A cluster with a leader, one session that holds the lock, and another one, which is returned.
fn with_held_lock() -> (Cluster, u64, u64) {
    let (mut cluster, leader) = Cluster::led();
    let holder = cluster.open_session(leader, 1);
    let other = cluster.open_session(leader, 2);
    let acquire = Command::LockAcquire { name: Bytes::from_static(b"lock"), wait: Wait::Try };
    let held = cluster.propose(leader, origin(holder), &acquire);
    assert!(matches!(cluster.answer(leader, held), Answer::Outcome(Outcome::Granted { .. })));
    (cluster, leader, other)
}

fn origin(session: u64) -> Origin {
    Origin { session, sequence: 1, lowest_unanswered: 1 }
}

/// The log of a follower comes to rest only when nothing is appended for some milliseconds: under
/// a leader with steady work a node that was asked to stop went on for as long as the work did.
#[test]
fn follower_stops_although_its_leader_has_steady_work() {
    let (mut cluster, leader) = Cluster::led();
    let follower = leader % 3 + 1;
    cluster.push(follower, Input::Stop);
    let mut steps = 0;
    cluster.run_until(|cluster| {
        cluster.put(leader);
        steps += 1;
        cluster.node(follower).is_stopped().then_some(())
    });
    assert!(steps < 100, "{steps} milliseconds");
}

/// A stop answered every proposal with "unknown", though most of them committed a moment later.
#[test]
fn stopping_leader_tells_the_outcome_of_what_it_has_proposed() {
    let (mut cluster, leader) = Cluster::led();
    let before = cluster.put(leader);
    cluster.push(leader, Input::Stop);
    let after = cluster.put(leader);
    assert!(matches!(cluster.answer(leader, before), Answer::Outcome(Outcome::Put { .. })));
    let Answer::Error(error) = cluster.answer(leader, after) else { panic!("it was taken") };
    assert_eq!((error.code, error.certainty), (ErrorCode::ShuttingDown, Certainty::NotDone));
    cluster.run_until(|cluster| cluster.node(leader).is_stopped().then_some(()));
}

#[test]
fn stopping_leader_without_a_majority_ends_with_an_unknown_outcome() {
    let (mut cluster, leader) = Cluster::led();
    cluster.cut_off(leader);
    let request = cluster.put(leader);
    cluster.push(leader, Input::Stop);
    let Answer::Error(error) = cluster.answer(leader, request) else { panic!("it committed") };
    assert_eq!(error.certainty, Certainty::Unknown);
    cluster.run_until(|cluster| cluster.node(leader).is_stopped().then_some(()));
}

/// A client that lost its leader sends its acquire to the next one at once, before that has
/// committed the first entry of its term. The limit of such a wait was forgotten when it had.
#[test]
fn acquire_that_came_before_the_leader_was_ready_gives_up_when_its_wait_is_over() {
    let (mut cluster, old, waiter) = with_held_lock();
    cluster.cut_off(old);
    let new = cluster.run_until(|cluster| {
        let mut others = (1..=3).filter(|id| *id != old);
        others.find(|id| cluster.node(*id).raft().role() == RoleKind::Leader)
    });
    assert!(!cluster.node(new).raft().is_leader_ready());
    let request = cluster.acquire(new, origin(waiter), 50);
    let answer = cluster.answer(new, request);
    assert!(matches!(answer, Answer::Outcome(Outcome::NotAcquired)), "{answer:?}");
}

/// The read round of a keep-alive can complete in the very turn in which its leader learns of a
/// newer term. The leader had dropped all deadlines by then and called the session unknown, and
/// its owner gave up locks that it still held.
#[test]
fn keep_alive_is_not_refused_as_unknown_by_a_leader_that_just_stepped_down() {
    let (mut cluster, leader) = Cluster::led();
    let session = cluster.open_session(leader, 1);
    let reply_to = cluster.reply_to();
    cluster.push(leader, Input::KeepAlive { reply_to, session });
    cluster.run_until(|cluster| {
        let inbox = cluster.waiting(leader);
        inbox.iter().any(is_heartbeat_reply).then_some(())
    });
    let term = raft::Term(cluster.node(leader).raft().term().0 + 1);
    let newer = Message::VoteReply { term, granted: false };
    let (from, message) = (NodeId(leader % 3 + 1), PeerMessage::Raft(newer));
    cluster.push(leader, Input::Peer { from, link: Link(1), message });
    let Answer::Error(error) = cluster.answer(leader, reply_to.request) else {
        panic!("a leader that stepped down says nothing of sessions");
    };
    assert_ne!(error.code, ErrorCode::SessionUnknown);
}

fn is_heartbeat_reply(input: &Input) -> bool {
    let Input::Peer { message: PeerMessage::Raft(message), .. } = input else { return false };
    matches!(message, Message::HeartbeatReply { .. })
}

#[test]
fn retried_acquire_takes_the_answer_and_the_first_try_is_told_so() {
    let (mut cluster, leader, waiter) = with_held_lock();
    let first = cluster.acquire(leader, origin(waiter), 100);
    let second = cluster.acquire(leader, origin(waiter), 100);
    let Answer::Error(error) = cluster.answer(leader, first) else { panic!("it went on") };
    assert_eq!(error.certainty, Certainty::Unknown);
    let answer = cluster.answer(leader, second);
    assert!(matches!(answer, Answer::Outcome(Outcome::NotAcquired)), "{answer:?}");
}

/// A follower that acknowledges what was never sent to it.
#[test]
fn link_of_a_peer_that_breaks_the_protocol_is_closed() {
    let (mut cluster, leader) = Cluster::led();
    let from = NodeId(leader % 3 + 1);
    let term = cluster.node(leader).raft().term();
    let match_index = LogIndex(1_000);
    let outcome = AppendOutcome::Accepted { match_index };
    let reply = Message::AppendReply { term, outcome, last_index: match_index, credit_bytes: 0 };
    let message = PeerMessage::Raft(reply);
    cluster.push(leader, Input::Peer { from, link: Link(1), message });
    cluster.step();
    assert_eq!(cluster.node(leader).outbox().closed(), [from]);
}

#[test]
fn put_is_applied_on_every_node() {
    let (mut cluster, leader) = Cluster::led();
    let request = cluster.put(leader);
    cluster.answer(leader, request);
    let index = cluster.node(leader).raft().commit_index();
    assert!(index > LogIndex(1));
    cluster.run_until(|cluster| {
        let applied = (1..=3).map(|id| cluster.node(id).raft().applied_index());
        applied.into_iter().all(|applied| applied >= index).then_some(())
    });
}
