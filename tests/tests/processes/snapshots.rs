//! Followers that lag behind the log.

use std::time::Duration;

use tests::cluster::{Cluster, PATIENCE};
use tests::workload::Workload;

use super::{PROGRAM, judge, run};

/// Checkpoints every 2 MiB of 1 MiB slots: the log that an absent follower needs is soon recycled.
const SMALL: [&str; 6] =
    ["--slot-bytes", "1MiB", "--value-bytes-max", "128KiB", "--checkpoint-interval-bytes", "2MiB"];

#[test]
fn follower_that_missed_recycled_log_is_fed_a_snapshot_under_load() {
    run(async {
        let mut cluster = Cluster::start(PROGRAM, 3, &SMALL);
        let leader = cluster.leader().await;
        let load = Workload::default().start(&cluster.client());
        let follower = leader % 3 + 1;
        cluster.kill(follower);
        let client = cluster.client().with_timeout(Duration::from_secs(10));
        // Far more than two intervals of log, in 100 KiB values.
        for round in 0..200_u8 {
            let value = vec![round; 100 << 10];
            client.put(format!("large-{}", round % 7), value).await.expect("a majority is there");
        }
        cluster.start_node(follower);
        load.progress(300, PATIENCE).await;
        judge(&load.finish().await);
        cluster.converged().await;
        assert!(cluster.log(follower).contains("snapshot installed"), "{}", cluster.log(follower));
        let bytes = cluster.data_bytes(follower).expect("the directory is there");
        assert!(bytes < 64 << 20, "{bytes} bytes after 20 MB of log with 2 MiB checkpoints");
    });
}
