//! Bytes that change by themselves under a running node.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

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

#[test]
fn value_that_has_rotted_is_an_error_of_its_key_alone() {
    run(async {
        let mut cluster = Cluster::start(PROGRAM, 1, &["--slot-bytes", "8MiB"]);
        cluster.leader().await;
        let client = cluster.client();
        let value: Vec<u8> = (0..4_000_u32).flat_map(u32::to_le_bytes).collect();
        client.put("rotten", value.clone()).await.unwrap();
        client.put("sound", "sound").await.unwrap();
        // More than is kept in memory.
        for number in 0..48 {
            client.put(number.to_string(), vec![b'v'; 1 << 20]).await.unwrap();
        }
        rot(&cluster.data(1).join("seg/00000000.seg"), &value);
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
