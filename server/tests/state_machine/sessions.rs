//! Sessions, and that what they send is executed once.

use crate::harness::*;
use server::state_machine::{Command, Expect, Origin, Outcome, SESSION_WINDOW};

fn expire(session: u64, generation: u64) -> Command {
    Command::SessionExpire { session, generation }
}

#[test]
fn a_retried_put_answers_the_first_outcome_and_changes_nothing() {
    let mut node = Node::new();
    let session = node.open(1);
    let origin = waiting_from(session, 1, 1);
    let first = node.outcome(origin, put("k", "1"));
    node.outcome(Origin::NONE, put("k", "2"));
    let hash = node.state.hash();
    let again = node.outcome(origin, put("k", "1"));
    assert_eq!(again, first);
    assert_eq!(node.value("k"), Some(bytes("2")));
    // Only the time moved on.
    assert_ne!(node.state.hash(), hash);
    assert_eq!(node.state.revision(), 3);
}

#[test]
fn a_retry_within_the_same_entry_is_executed_once() {
    let mut node = Node::new();
    let session = node.open(1);
    let command = (from(session, 1), compare_and_set("k", Expect::Absent, Some("v")));
    let applied = node.apply(&[command.clone(), command]);
    assert_eq!(applied[0].outcome, applied[1].outcome);
    let expected = Outcome::CompareAndSet { revision: 2, swapped: true, mod_revision: 2 };
    assert_eq!(applied[1].outcome, expected);
}

#[test]
fn requests_may_arrive_in_any_order_within_the_window() {
    let mut node = Node::new();
    let session = node.open(1);
    for (sequence, revision) in [(3, 2), (1, 3), (SESSION_WINDOW, 4), (2, 5)] {
        let origin = waiting_from(session, sequence, 1);
        assert_eq!(node.outcome(origin, put("k", "v")), Outcome::Put { revision });
        assert_eq!(node.outcome(origin, put("k", "v")), Outcome::Put { revision });
    }
}

#[test]
fn a_sequence_below_the_lowest_unanswered_is_stale() {
    let mut node = Node::new();
    let session = node.open(1);
    node.outcome(from(session, 1), put("k", "1"));
    node.outcome(from(session, 2), put("k", "2"));
    let outcome = node.outcome(waiting_from(session, 1, 1), put("k", "1"));
    assert_eq!(outcome, Outcome::SequenceStale);
    assert_eq!(node.outcome(from(session, 0), put("k", "0")), Outcome::SequenceStale);
    assert_eq!(node.value("k"), Some(bytes("2")));
}

#[test]
fn a_sequence_beyond_the_window_is_refused_until_the_window_moves() {
    let mut node = Node::new();
    let session = node.open(1);
    let beyond = SESSION_WINDOW + 1;
    let outcome = node.outcome(waiting_from(session, beyond, 1), put("k", "1"));
    assert_eq!(outcome, Outcome::SequenceTooFar);
    assert_eq!(node.value("k"), None);
    let outcome = node.outcome(waiting_from(session, beyond, 2), put("k", "1"));
    assert_eq!(outcome, Outcome::Put { revision: 2 });
}

#[test]
fn a_window_at_the_end_of_all_numbers_is_still_a_window() {
    let mut node = Node::new();
    let session = node.open(1);
    let origin = from(session, u64::MAX);
    assert_eq!(node.outcome(origin, put("k", "1")), Outcome::Put { revision: 2 });
    assert_eq!(node.outcome(origin, put("k", "1")), Outcome::Put { revision: 2 });
    let outcome = node.outcome(waiting_from(session, 5, u64::MAX), put("k", "1"));
    assert_eq!(outcome, Outcome::SequenceStale);
    let restored = restore(&snapshot(&node)).state;
    assert_eq!(restored.hash(), node.state.hash());
}

#[test]
fn a_command_of_an_unknown_session_is_not_executed() {
    let mut node = Node::new();
    assert_eq!(node.outcome(from(7, 1), put("k", "1")), Outcome::SessionUnknown);
    let session = node.open(1);
    node.outcome(Origin::NONE, Command::SessionClose { session });
    assert_eq!(node.outcome(from(session, 1), put("k", "1")), Outcome::SessionUnknown);
    assert_eq!((node.value("k"), node.state.revision()), (None, 1));
}

#[test]
fn a_retried_open_finds_the_living_session_under_a_new_generation() {
    let mut node = Node::new();
    let open = |ttl_ms, nonce| Command::SessionOpen { ttl_ms, nonce, label: bytes("worker") };
    let opened =
        |session, generation, ttl_ms| Outcome::SessionOpened { session, generation, ttl_ms };
    assert_eq!(node.outcome(Origin::NONE, open(5_000, 9)), opened(1, 1, 5_000));
    assert_eq!(node.outcome(Origin::NONE, open(5_000, 8)), opened(2, 1, 5_000));
    assert_eq!(node.outcome(Origin::NONE, open(5_000, 9)), opened(1, 2, 5_000));
    // An expiry decided before the retry comes too late.
    let outcome = node.outcome(Origin::NONE, expire(1, 1));
    assert_eq!(outcome, Outcome::SessionClosed { session: 1, existed: false });
    let outcome = node.outcome(Origin::NONE, expire(1, 2));
    assert_eq!(outcome, Outcome::SessionClosed { session: 1, existed: true });
    assert_eq!(node.outcome(Origin::NONE, open(5_000, 9)), opened(3, 1, 5_000));
    assert_eq!(node.state.session(3).unwrap().label, b"worker");
}

#[test]
fn sessions_without_a_nonce_are_never_shared() {
    let mut node = Node::new();
    assert_eq!((node.open(0), node.open(0)), (1, 2));
    node.outcome(Origin::NONE, Command::SessionClose { session: 1 });
    assert_eq!(node.open(0), 3);
}

#[test]
fn a_time_to_live_is_brought_within_its_limits() {
    let mut node = Node::new();
    for (nonce, wished, granted) in [(1, 0, 1_000), (2, 10_000, 10_000), (3, u64::MAX, 86_400_000)]
    {
        let command = Command::SessionOpen { ttl_ms: wished, nonce, label: bytes("") };
        let session = u64::try_from(nonce).unwrap();
        let expected = Outcome::SessionOpened { session, generation: 1, ttl_ms: granted };
        assert_eq!(node.outcome(Origin::NONE, command), expected);
    }
    let sessions = node.state.sessions().collect::<Vec<_>>();
    assert_eq!(sessions, [(1, 1, 1_000), (2, 1, 10_000), (3, 1, 86_400_000)]);
}

#[test]
fn expiry_of_an_absent_session_does_nothing() {
    let mut node = Node::new();
    let outcome = node.outcome(Origin::NONE, expire(1, 1));
    assert_eq!(outcome, Outcome::SessionClosed { session: 1, existed: false });
    let session = node.open(1);
    let outcome = node.outcome(Origin::NONE, Command::SessionClose { session });
    assert_eq!(outcome, Outcome::SessionClosed { session, existed: true });
    let outcome = node.outcome(Origin::NONE, Command::SessionClose { session });
    assert_eq!(outcome, Outcome::SessionClosed { session, existed: false });
}

#[test]
fn answers_survive_a_snapshot() {
    let mut node = Node::new();
    let session = node.open(1);
    let origin = waiting_from(session, 5, 3);
    let first = node.outcome(origin, put("k", "1"));
    let mut other = restore(&snapshot(&node));
    assert_eq!(other.outcome(origin, put("k", "1")), first);
    assert_eq!(other.state.revision(), 2);
    assert_eq!(other.open(1), session);
}
