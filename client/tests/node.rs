//! The client against nodes that run in this process, answer from memory, and misbehave when told
//! to.

mod fake;

use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientOptions, Connection, Error, KeyRange, Wait};
use fake::{Fake, Mishap};
use protocol::{Certainty, ErrorCode, Expect, Hello, Origin, Request, Response};

fn client(endpoints: &[&Fake]) -> Client {
    let endpoints: Vec<String> = endpoints.iter().map(|node| node.addr()).collect();
    Client::connect(&endpoints, ClientOptions::default()).expect("the endpoints are sound")
}

const TTL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_was_put_is_read_changed_and_deleted() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    assert_eq!(client.put("a", "1").await.unwrap(), 2);
    let item = client.get("a").await.unwrap().item.expect("it was put");
    assert_eq!((item.value, item.mod_revision), (Bytes::from_static(b"1"), 2));

    let one = Expect::Value(Bytes::from_static(b"1"));
    let two = Some(Bytes::from_static(b"2"));
    assert!(client.compare_and_set("a", one.clone(), two.clone()).await.unwrap().swapped);
    assert!(!client.compare_and_set("a", one, two).await.unwrap().swapped);

    client.put("b", "3").await.unwrap();
    let page = client.range(KeyRange::all(), 1).await.unwrap();
    assert!(page.more);
    let next = KeyRange::all().after(&page.items[0].key);
    let page = client.range(next, 1).await.unwrap();
    assert_eq!(page.items[0].key, Bytes::from_static(b"b"));
    assert!(!page.more);

    assert_eq!(client.delete_range(KeyRange::prefix("")).await.unwrap().deleted, 2);
    assert_eq!(client.delete("a").await.unwrap().deleted, 0);
    assert_eq!(client.get("a").await.unwrap().item, None);
}

#[tokio::test]
async fn leader_is_found_from_a_follower_alone() {
    let leader = Fake::leader().await;
    let follower = Fake::follower_of(&leader).await;
    let client = client(&[&follower]);
    client.put("a", "1").await.unwrap();
    assert_eq!(leader.executed(), 1);
    assert_eq!(follower.executed(), 0);
    assert_eq!(client.status(&follower.addr()).await.unwrap().node, follower.node());
}

#[tokio::test]
async fn write_whose_answer_was_lost_is_unknown_without_a_session() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    client.put("warm", "up").await.unwrap();
    node.provoke(Mishap::ExecuteAndHangUp);
    let error = client.put("a", "1").await.expect_err("the answer was lost");
    assert_eq!(error.certainty(), Certainty::Unknown);
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
    assert_eq!(node.executed(), 2);
    assert_eq!(client.put("a", "2").await.unwrap(), 4, "the client connects again");
}

#[tokio::test]
async fn write_whose_answer_was_lost_is_done_once_in_a_session() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let session = client.session(TTL, "test").await.unwrap();
    node.provoke(Mishap::ExecuteAndHangUp);
    assert_eq!(session.put("a", "1").await.unwrap(), 2, "the answer of the first execution");
    assert_eq!(node.executed(), 1);
    session.close().await.unwrap();
    assert_eq!(node.sessions(), 0);
}

#[tokio::test]
async fn calls_of_many_tasks_share_one_connection() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let puts = (0..500).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.put(format!("key {number}"), "v").await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap().unwrap();
    }
    assert_eq!(node.executed(), 500);
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn lock_passes_on_when_it_is_released() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let first = client.session(TTL, "first").await.unwrap();
    let second = client.session(TTL, "second").await.unwrap();
    let guard = first.lock("l", Wait::Try).await.unwrap().expect("the lock is free");
    assert!(second.lock("l", Wait::Try).await.unwrap().is_none());
    let state = client.lock_state("l").await.unwrap();
    assert_eq!(state.holder.map(|holder| holder.token), Some(guard.token()));

    let waiting = tokio::spawn({
        let second = second.clone();
        async move { second.lock("l", Wait::Forever).await }
    });
    node.until(|state| state.waiters == 1).await;
    let token = guard.token();
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap().expect("it waits until it is granted");
    assert!(guard.token() > token);
}

#[tokio::test]
async fn dropped_guard_and_dropped_acquire_give_the_lock_back() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let first = client.session(TTL, "first").await.unwrap();
    let second = client.session(TTL, "second").await.unwrap();
    let guard = first.lock("l", Wait::Try).await.unwrap().expect("the lock is free");

    let waiting = tokio::spawn({
        let second = second.clone();
        async move { second.lock("l", Wait::Forever).await.map(|_| ()) }
    });
    node.until(|state| state.waiters == 1).await;
    waiting.abort();
    assert!(waiting.await.is_err());
    drop(guard);
    node.until(|state| state.grants == 2 && state.held == 0).await;
    assert!(!second.is_lost());
}

#[tokio::test]
async fn guard_learns_that_its_session_is_lost() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let session = client.session(TTL, "test").await.unwrap();
    let guard = session.lock("l", Wait::Try).await.unwrap().expect("the lock is free");
    assert!(!guard.is_lost());
    node.end_all_sessions();
    let error = session.put("a", "1").await.expect_err("the session has ended");
    assert_eq!(error.code(), ErrorCode::SessionUnknown);
    assert!(guard.lost().await.contains("no such session"));
    assert!(guard.is_lost());
    let error = session.put("a", "1").await.expect_err("it stays lost");
    assert_eq!(error.certainty(), Certainty::NotDone);
}

#[tokio::test]
async fn dropped_session_is_closed_even_when_it_was_the_last_handle() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let session = client.session(TTL, "test").await.unwrap();
    let guard = session.lock("l", Wait::Try).await.unwrap().expect("the lock is free");
    assert_eq!(node.sessions(), 1);
    drop(client);
    drop(session);
    drop(guard);
    node.until(|state| state.sessions.is_empty() && state.held == 0).await;
}

#[tokio::test]
async fn garbage_from_a_node_ends_the_connection_and_not_the_call() {
    let good = Fake::leader().await;
    let bad = Fake::follower_of(&good).await;
    bad.provoke(Mishap::GreetWithGarbage);
    let client = client(&[&bad]);
    client.put("a", "1").await.unwrap();
    assert_eq!(good.executed(), 1);
    assert_eq!(bad.connections(), 1, "garbage first, then a welcome");
}

#[tokio::test]
async fn node_that_is_not_there_is_told_apart_from_one_that_is() {
    let node = Fake::leader().await;
    let client = client(&[&node]);
    let gone = Fake::leader().await;
    let addr = gone.shut_down().await;
    let error = client.status(&addr).await.expect_err("nobody listens there");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert_eq!(error.certainty(), Certainty::NotDone);
    assert!(error.to_string().contains(&addr), "{error}");
    client.put("a", "1").await.unwrap();
}

#[tokio::test]
async fn connection_matches_many_replies_to_their_requests() {
    let node = Fake::leader().await;
    let mut connection = Connection::connect(&node.addr(), &Hello::new("test")).await.unwrap();
    assert_eq!(connection.welcome().node, node.node());
    let mut expected: Vec<u64> =
        (0..1000).map(|_| connection.submit_put(Origin::NONE, b"k", b"v")).collect();
    expected.push(connection.submit(&Request::Ping));
    let mut replies = Vec::new();
    while replies.len() < expected.len() {
        connection.exchange(&mut replies).await.unwrap();
    }
    assert_eq!(connection.queued_bytes(), 0);
    let answered: Vec<u64> = replies.iter().map(|reply| reply.request_id).collect();
    assert_eq!(answered, expected, "this node answers in order");
    assert_eq!(replies.last().map(|reply| &reply.response), Some(&Response::Pong));
    assert_eq!(node.executed(), 1000);
}

#[tokio::test]
async fn connection_that_breaks_leaves_its_requests_unknown() {
    let node = Fake::leader().await;
    let mut connection = Connection::connect(&node.addr(), &Hello::new("test")).await.unwrap();
    node.provoke(Mishap::ExecuteAndHangUp);
    connection.submit_put(Origin::NONE, b"k", b"v");
    let error = connection.exchange(&mut Vec::new()).await.expect_err("the node hung up");
    assert_eq!(error.certainty(), Certainty::Unknown);
}

#[tokio::test]
async fn connection_to_another_cluster_is_refused_with_its_code() {
    let node = Fake::leader().await;
    let hello = Hello { cluster_id: Some(12345), ..Hello::new("test") };
    let refused = Connection::connect(&node.addr(), &hello).await.map(|_| ());
    let error = refused.expect_err("it is another cluster");
    assert_eq!(error.code(), ErrorCode::WrongCluster);
}
