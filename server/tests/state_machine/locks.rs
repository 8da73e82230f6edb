//! Locks: who holds, who waits, and which token says so.

use crate::harness::*;
use server::state_machine::{Command, LockView, Origin, Outcome, Wait};

fn granted(token: u64) -> Outcome {
    Outcome::Granted { token }
}

fn holder(node: &Node, name: &str) -> Option<(u64, u64)> {
    node.state.lock(name.as_bytes()).map(|lock| (lock.session, lock.token))
}

fn three() -> (Node, [u64; 3]) {
    let mut node = Node::new();
    let sessions = [node.open(1), node.open(2), node.open(3)];
    (node, sessions)
}

#[test]
fn a_lock_is_exclusive_and_every_grant_has_a_greater_token() {
    let (mut node, [a, b, _]) = three();
    assert_eq!(node.outcome(from(a, 1), acquire("l", Wait::Try)), granted(1));
    assert_eq!(node.outcome(from(b, 1), acquire("l", Wait::Try)), Outcome::NotAcquired);
    assert_eq!(node.outcome(from(b, 2), acquire("m", Wait::Try)), granted(2));
    assert_eq!(node.outcome(from(a, 2), release("l", 1)), Outcome::Released);
    assert_eq!(holder(&node, "l"), None);
    assert_eq!(node.outcome(from(b, 3), acquire("l", Wait::Queue)), granted(3));
    let expected = LockView { session: b, sequence: 3, token: 3, waiters: 0 };
    assert_eq!(node.state.lock(b"l"), Some(expected));
}

#[test]
fn a_released_lock_passes_on_in_the_order_of_asking() {
    let (mut node, [a, b, c]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    assert_eq!(node.outcome(from(c, 1), acquire("l", Wait::Queue)), Outcome::Queued);
    assert_eq!(node.outcome(from(b, 1), acquire("l", Wait::Queue)), Outcome::Queued);
    let waiters = node.state.waiters().collect::<Vec<_>>();
    assert_eq!(waiters, [(c, 1, b"l".as_slice()), (b, 1, b"l".as_slice())]);
    let (outcome, late_outcomes) = node.run(from(a, 2), release("l", 1));
    assert_eq!((outcome, late_outcomes), (Outcome::Released, vec![late(c, 1, granted(2))]));
    let (_, late_outcomes) = node.run(from(c, 2), release("l", 2));
    assert_eq!(late_outcomes, [late(b, 1, granted(3))]);
}

#[test]
fn lock_passes_to_next_waiter_when_session_expires() {
    let (mut node, [a, b, _]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    node.outcome(from(b, 1), acquire("l", Wait::Queue));
    let expire = Command::SessionExpire { session: a, generation: 1 };
    let (outcome, late_outcomes) = node.run(Origin::NONE, expire);
    assert_eq!(outcome, Outcome::SessionClosed { session: a, existed: true });
    assert_eq!(late_outcomes, [late(b, 1, granted(2))]);
    assert_eq!(holder(&node, "l"), Some((b, 2)));
}

#[test]
fn only_the_holder_releases_and_only_under_its_token() {
    let (mut node, [a, b, _]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    node.outcome(from(b, 1), acquire("l", Wait::Queue));
    assert_eq!(node.outcome(waiting_from(b, 2, 1), release("l", 1)), Outcome::NotHolder);
    assert_eq!(node.outcome(from(a, 2), release("l", 2)), Outcome::NotHolder);
    assert_eq!(node.outcome(from(a, 3), release("m", 1)), Outcome::NotHolder);
    assert_eq!(holder(&node, "l"), Some((a, 1)));
}

#[test]
fn a_retried_queued_acquire_attaches_again_and_then_learns_its_outcome() {
    let (mut node, [a, b, _]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    for _ in 0..3 {
        assert_eq!(node.outcome(from(b, 1), acquire("l", Wait::Queue)), Outcome::Queued);
    }
    assert_eq!(node.state.lock(b"l").unwrap().waiters, 1);
    node.run(from(a, 2), release("l", 1));
    assert_eq!(node.outcome(from(b, 1), acquire("l", Wait::Queue)), granted(2));
    // A retried release is answered and passes nothing on.
    assert_eq!(node.outcome(from(a, 2), release("l", 1)), Outcome::Released);
    assert_eq!(holder(&node, "l"), Some((b, 2)));
}

#[test]
fn a_cancelled_waiter_is_not_granted_and_its_retry_says_so() {
    let (mut node, [a, b, c]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    node.outcome(from(b, 1), acquire("l", Wait::Queue));
    node.outcome(from(c, 1), acquire("l", Wait::Queue));
    let cancel = |session| Command::LockCancel { name: bytes("l"), session, sequence: 1 };
    let (outcome, late_outcomes) = node.run(Origin::NONE, cancel(b));
    assert_eq!(outcome, Outcome::Cancelled { existed: true });
    assert_eq!(late_outcomes, [late(b, 1, Outcome::NotAcquired)]);
    let retried = node.outcome(from(b, 1), acquire("l", Wait::Queue));
    assert_eq!(retried, Outcome::NotAcquired);
    let (_, late_outcomes) = node.run(from(a, 2), release("l", 1));
    assert_eq!(late_outcomes, [late(c, 1, granted(2))]);
}

#[test]
fn a_cancel_that_comes_after_the_grant_does_nothing() {
    let (mut node, [a, b, _]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    node.outcome(from(b, 1), acquire("l", Wait::Queue));
    node.run(from(a, 2), release("l", 1));
    let cancel = Command::LockCancel { name: bytes("l"), session: b, sequence: 1 };
    assert_eq!(node.outcome(Origin::NONE, cancel), Outcome::Cancelled { existed: false });
    assert_eq!(holder(&node, "l"), Some((b, 2)));
}

#[test]
fn claims_of_one_session_exclude_each_other() {
    let (mut node, [a, _, _]) = three();
    let origin = |sequence| waiting_from(a, sequence, 1);
    assert_eq!(node.outcome(origin(1), acquire("l", Wait::Queue)), granted(1));
    assert_eq!(node.outcome(origin(2), acquire("l", Wait::Try)), Outcome::NotAcquired);
    assert_eq!(node.outcome(origin(3), acquire("l", Wait::Queue)), Outcome::Queued);
    let (outcome, late_outcomes) = node.run(origin(4), release("l", 1));
    assert_eq!((outcome, late_outcomes), (Outcome::Released, vec![late(a, 3, granted(2))]));
    assert_eq!(node.outcome(origin(5), release("l", 1)), Outcome::NotHolder);
    assert_eq!(node.outcome(origin(6), release("l", 2)), Outcome::Released);
    assert_eq!(holder(&node, "l"), None);
}

#[test]
fn a_session_that_ends_frees_what_it_holds_and_waits_no_more() {
    let (mut node, [a, b, c]) = three();
    let origin = |sequence| waiting_from(a, sequence, 1);
    node.outcome(origin(1), acquire("z", Wait::Queue));
    node.outcome(from(b, 1), acquire("m", Wait::Queue));
    node.outcome(origin(2), acquire("m", Wait::Queue));
    node.outcome(origin(3), acquire("a", Wait::Queue));
    node.outcome(origin(4), acquire("z", Wait::Queue));
    node.outcome(from(c, 1), acquire("z", Wait::Queue));
    node.outcome(waiting_from(c, 2, 1), acquire("a", Wait::Queue));
    let (outcome, late_outcomes) = node.run(Origin::NONE, Command::SessionClose { session: a });
    assert_eq!(outcome, Outcome::SessionClosed { session: a, existed: true });
    let expected = [
        late(a, 2, Outcome::SessionEnded),
        late(a, 4, Outcome::SessionEnded),
        late(c, 1, granted(4)),
        late(c, 2, granted(5)),
    ];
    assert_eq!(late_outcomes, expected);
    assert_eq!(node.state.waiters().count(), 0);
    assert_eq!(holder(&node, "m"), Some((b, 2)));
}

#[test]
fn an_acquire_whose_client_gave_up_leaves_the_queue() {
    let (mut node, [a, b, c]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    node.outcome(from(b, 1), acquire("l", Wait::Queue));
    node.outcome(from(c, 1), acquire("l", Wait::Queue));
    // The client of b says that it waits for nothing below 2 any more.
    let (outcome, late_outcomes) = node.run(from(b, 2), put("k", "v"));
    assert_eq!(outcome, Outcome::Put { revision: 2 });
    assert_eq!(late_outcomes, [late(b, 1, Outcome::NotAcquired)]);
    let (_, late_outcomes) = node.run(from(a, 2), release("l", 1));
    assert_eq!(late_outcomes, [late(c, 1, granted(2))]);
}

#[test]
fn queues_and_tokens_survive_a_snapshot() {
    let (mut node, [a, b, c]) = three();
    node.outcome(from(a, 1), acquire("l", Wait::Queue));
    node.outcome(from(c, 1), acquire("l", Wait::Queue));
    node.outcome(from(b, 1), acquire("l", Wait::Queue));
    let mut node = restore(&snapshot(&node));
    assert_eq!(node.outcome(from(b, 1), acquire("l", Wait::Queue)), Outcome::Queued);
    let (_, late_outcomes) = node.run(Origin::NONE, Command::SessionClose { session: a });
    assert_eq!(late_outcomes, [late(c, 1, granted(2))]);
    let (_, late_outcomes) = node.run(from(c, 2), release("l", 2));
    assert_eq!(late_outcomes, [late(b, 1, granted(3))]);
}
