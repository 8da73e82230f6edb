//! Bytes that change by themselves under a running node.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use client::Client;
use protocol::ErrorCode;
use tests::cluster::Cluster;

use super::{PROGRAM, run};

/// Flips a bit in the middle of these bytes of a slot.
fn rot(slot: &Path, bytes: &[u8]) {
    let file = std::fs::read(slot).expect("the slot is there");
    let at = file.windows(bytes.len()).position(|window| window == bytes).expect("they are there");
    let at = at + bytes.len() / 2;
    let file = File::options().write(true).open(slot).expect("the slot can be written");
    file.write_all_at(&[bytes[bytes.len() / 2] ^ 1], at as u64).expect("the slot can be written");
    file.sync_all().expect("the slot can be written");
}

/// More than is kept in memory.
async fn push_out_of_memory(client: &Client) {
    for number in 0..48 {
        client.put(number.to_string(), vec![b'v'; 1 << 20]).await.expect("the cluster serves");
    }
}

fn value_of(seed: u32) -> Vec<u8> {
    (seed..seed + 4_000).flat_map(u32::to_le_bytes).collect()
}

/// The first slot, where the first values lie.
fn first_slot(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.data(id).join("seg/00000000.seg")
}

#[test]
fn value_that_has_rotted_on_the_leader_is_read_from_a_peer() {
    run(async {
        let mut cluster = Cluster::start(PROGRAM, 3, &["--slot-bytes", "8MiB"]);
        let leader = cluster.leader().await;
        let client = cluster.client();
        let (read, lost) = (value_of(0), value_of(10_000));
        let values = [("read", &read), ("lost", &lost)];
        for (key, value) in values {
            client.put(key, value.clone()).await.unwrap();
        }
        push_out_of_memory(&client).await;
        for (_, value) in values {
            rot(&first_slot(&cluster, leader), value);
        }
        assert_eq!(client.get("read").await.unwrap().item.unwrap().value, read);
        // On all nodes.
        cluster.ids().into_iter().filter(|id| *id != leader).for_each(|id| {
            rot(&first_slot(&cluster, id), &lost);
        });
        let error = client.get("lost").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
        assert!(cluster.log(leader).contains("was fetched from a peer"), "{}", cluster.log(leader));
        assert!(cluster.ids().into_iter().all(|id| cluster.stop(id).success()));
    });
}

#[test]
fn value_that_has_rotted_is_an_error_of_its_key_alone() {
    run(async {
        let mut cluster = Cluster::start(PROGRAM, 1, &["--slot-bytes", "8MiB"]);
        cluster.leader().await;
        let client = cluster.client();
        let value = value_of(0);
        client.put("rotten", value.clone()).await.unwrap();
        client.put("sound", "sound").await.unwrap();
        push_out_of_memory(&client).await;
        rot(&first_slot(&cluster, 1), &value);
        let error = client.get("rotten").await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
        assert!(
            error.to_string().contains("a stored value cannot be read on this node"),
            "{error}"
        );
        assert_eq!(client.get("sound").await.unwrap().item.unwrap().value, "sound");
        client.put("rotten", "anew").await.unwrap();
        assert_eq!(client.get("rotten").await.unwrap().item.unwrap().value, "anew");
        assert!(cluster.stop(1).success());
    });
}
