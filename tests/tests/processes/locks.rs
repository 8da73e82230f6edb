//! Sessions and locks against real processes.

use std::time::Duration;

use client::{Client, ClientOptions, Wait};
use tests::cluster::PATIENCE;

use super::{run, runtime, three_nodes};

const TTL: Duration = Duration::from_secs(2);

#[test]
fn lock_passes_to_the_next_waiter_with_a_higher_token() {
    run(async {
        let cluster = three_nodes();
        cluster.leader().await;
        let client = cluster.client();
        let first = client.session(TTL, "first").await.unwrap();
        let second = client.session(TTL, "second").await.unwrap();
        let held = first.lock("job", Wait::Try).await.unwrap().expect("the lock is free");
        assert!(second.lock("job", Wait::Try).await.unwrap().is_none());
        let waiting = tokio::spawn(async move {
            let guard = second.lock("job", Wait::Forever).await.unwrap().expect("waited for ever");
            (guard.token(), second)
        });
        while client.lock_state("job").await.unwrap().waiters == 0 {
            tokio::task::yield_now().await;
        }
        let token = held.token();
        held.release().await.unwrap();
        let (next, _second) = waiting.await.unwrap();
        assert!(next > token);
    });
}

#[test]
fn lock_survives_the_leader_and_ends_with_its_session() {
    run(async {
        let mut cluster = three_nodes();
        let leader = cluster.leader().await;
        let client = cluster.client().with_timeout(PATIENCE);
        // The owner has a runtime of its own, so that it can die without a word.
        let owner = runtime();
        let endpoints = cluster.endpoints();
        let acquired = owner.spawn(async move {
            let client = Client::connect(&endpoints, ClientOptions::default()).unwrap();
            let session = client.session(TTL, "holder").await.unwrap();
            session.lock("job", Wait::Try).await.unwrap().expect("the lock is free")
        });
        let held = acquired.await.unwrap();
        let token = held.token();
        cluster.kill(leader);
        cluster.start_node(leader);
        let state = client.lock_state("job").await.unwrap();
        assert_eq!(state.holder.map(|holder| holder.token), Some(token));
        owner.shutdown_background();
        std::mem::forget(held);
        let waiter = client.session(TTL, "waiter").await.unwrap();
        let guard = waiter.lock("job", Wait::Forever).await.unwrap().expect("waited for ever");
        assert!(guard.token() > token);
    });
}

#[test]
fn acquire_that_waits_too_long_is_told_so_and_leaves_the_queue() {
    run(async {
        let cluster = three_nodes();
        cluster.leader().await;
        let client = cluster.client();
        let first = client.session(TTL, "first").await.unwrap();
        let second = client.session(TTL, "second").await.unwrap();
        let _held = first.lock("job", Wait::Try).await.unwrap().expect("the lock is free");
        assert!(second.lock("job", Wait::Millis(200)).await.unwrap().is_none());
        assert_eq!(client.lock_state("job").await.unwrap().waiters, 0);
    });
}
