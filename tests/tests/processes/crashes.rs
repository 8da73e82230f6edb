//! Nodes that die, stop and stand still under load.

use std::time::Duration;

use tests::cluster::PATIENCE;

use super::{judge, loaded, run, three_nodes};

#[test]
fn writes_go_on_after_the_leader_is_killed_and_nothing_acknowledged_is_lost() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        load.progress(500, PATIENCE).await;
        cluster.start_node(leader);
        load.progress(500, PATIENCE).await;
        judge(&load.finish().await);
        cluster.converged().await;
    });
}

#[test]
fn killed_follower_costs_nothing_and_catches_up() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        let leader = cluster.leader().await;
        let follower = leader % 3 + 1;
        cluster.kill(follower);
        load.progress(500, PATIENCE).await;
        cluster.start_node(follower);
        load.progress(500, PATIENCE).await;
        judge(&load.finish().await);
        cluster.converged().await;
    });
}

#[test]
fn cluster_that_was_killed_whole_keeps_what_it_acknowledged() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        for _ in 0..3 {
            cluster.kill_all();
            for id in cluster.ids() {
                cluster.start_node(id);
            }
            load.progress(300, PATIENCE).await;
        }
        judge(&load.finish().await);
        cluster.converged().await;
    });
}

/// A stopped leader's connections stay open; when it wakes it still believes that it leads. It must answer no read
/// from that belief.
#[test]
fn leader_that_stood_still_past_an_election_serves_nothing_stale_when_it_wakes() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        for _ in 0..3 {
            let leader = cluster.leader().await;
            cluster.pause(leader);
            load.progress(300, PATIENCE).await;
            cluster.resume(leader);
            load.progress(300, PATIENCE).await;
        }
        judge(&load.finish().await);
        cluster.converged().await;
    });
}

#[test]
fn stopped_node_ends_cleanly_and_starts_where_it_was() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        for id in cluster.ids() {
            assert!(cluster.stop(id).success(), "{}", cluster.log(id));
            load.progress(200, PATIENCE).await;
            cluster.start_node(id);
            load.progress(200, PATIENCE).await;
        }
        judge(&load.finish().await);
        cluster.converged().await;
    });
}

#[test]
fn majority_that_is_gone_means_no_acknowledgement_and_no_loss() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        let leader = cluster.leader().await;
        let followers: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
        for id in &followers {
            cluster.kill(*id);
        }
        // The leader notices within two election timeouts that it has no quorum, and says so.
        let client = cluster.client().with_timeout(Duration::from_secs(2));
        assert!(client.put("lonely", "write").await.is_err());
        for id in &followers {
            cluster.start_node(*id);
        }
        load.progress(300, PATIENCE).await;
        judge(&load.finish().await);
        cluster.converged().await;
    });
}
