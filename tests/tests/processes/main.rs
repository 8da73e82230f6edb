//! Real processes on loopback under load, and what they survive.

use std::time::Duration;

use tests::check::linearizable;
use tests::cluster::{Cluster, PATIENCE};
use tests::history::Record;
use tests::workload::{Running, Workload};

mod bad_input;
mod crashes;
mod damage;
mod limits;
mod locks;
mod membership;
mod snapshots;
mod space;

const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast-node");

/// Three nodes with small slots, so that a test's disk use stays small.
fn three_nodes() -> Cluster {
    Cluster::start(PROGRAM, 3, &["--slot-bytes", "8MiB"])
}

async fn loaded(cluster: &Cluster) -> Running {
    cluster.leader().await;
    let load = Workload::default().start(&cluster.client());
    load.progress(200, PATIENCE).await;
    load
}

/// Enough was done, and what was done is linearizable.
fn judge(history: &[Record]) {
    let options = linearizable::Options { ops_min: 1_000, ..linearizable::Options::default() };
    linearizable::check(history, &options).expect_ok();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

fn run(test: impl Future<Output = ()>) {
    // A hang is a failure with a name, not a build that never ends.
    let bounded = async { tokio::time::timeout(Duration::from_mins(3), test).await };
    assert!(runtime().block_on(bounded).is_ok(), "the test did not end in three minutes");
}
