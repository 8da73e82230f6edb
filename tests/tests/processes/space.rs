//! A disk that is full: a small file system of its own, and a limit on a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use client::Client;
use protocol::ErrorCode;
use tempfile::TempDir;
use tests::cluster::{Cluster, clusters_dir};

use super::{PROGRAM, limits, run};

/// Small slots, so that a small disk has many.
const FLAGS: [&str; 4] = ["--slot-bytes", "1MiB", "--value-bytes-max", "64KiB"];
const VALUE_BYTES: usize = 40_000;

/// An ext4 of 64 MiB, mounted for the time of a test.
struct SmallDisk {
    dir: TempDir,
    is_mounted: bool,
}

impl SmallDisk {
    /// None, with a word about it, where mounting is not allowed.
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir_in(clusters_dir()).expect("the build directory is writable");
        let mut disk = SmallDisk { dir, is_mounted: false };
        let image = disk.dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("there is space");
        std::fs::create_dir(disk.path()).expect("the directory is writable");
        disk.is_mounted = ran(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))
            && ran(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()));
        if !disk.is_mounted {
            eprintln!("skipped: a file system cannot be made and mounted here");
        }
        disk.is_mounted.then_some(disk)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that was just killed may have files open: the mount goes with the last of them.
        let goes = !self.is_mounted || ran(Command::new("umount").arg("--lazy").arg(self.path()));
        if !goes {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

fn ran(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Keys that were acknowledged, and the byte that their values consist of.
#[derive(Default)]
struct Acknowledged {
    keys: BTreeMap<u64, u8>,
    next: u64,
}

/// Which keys are deleted.
#[derive(Clone, Copy)]
enum Half {
    /// Whole slots become empty.
    Older,
    /// Every slot becomes half empty: nothing is free before the cleaner has been there.
    EveryOther,
}

impl Half {
    fn of(self, keys: &BTreeMap<u64, u8>) -> Vec<u64> {
        let keys_in_order = keys.keys().copied();
        match self {
            Half::Older => keys_in_order.take(keys.len() / 2).collect(),
            Half::EveryOther => keys_in_order.step_by(2).collect(),
        }
    }
}

fn key(number: u64) -> String {
    format!("key-{number:08}")
}

impl Acknowledged {
    async fn put(&mut self, client: &Client) -> Result<(), client::Error> {
        let (number, byte) = (self.next, self.next.to_le_bytes()[0]);
        client.put(key(number), vec![byte; VALUE_BYTES]).await?;
        self.keys.insert(number, byte);
        self.next += 1;
        Ok(())
    }

    /// Puts keys until one is refused, which must be for want of space; how many were taken.
    async fn fill(&mut self, client: &Client) -> u64 {
        let first = self.next;
        loop {
            if let Err(error) = self.put(client).await {
                assert_eq!(error.code(), ErrorCode::ResourceExhausted, "{error}");
                return self.next - first;
            }
        }
    }

    async fn delete(&mut self, client: &Client, half: Half) {
        for number in half.of(&self.keys) {
            self.keys.remove(&number);
            client.delete(key(number)).await.expect("deletes go on");
        }
    }

    /// Waits until so many puts are taken. Nothing else is done meanwhile.
    async fn resumed(&mut self, client: &Client, puts: u64) {
        let until = self.next + puts;
        while self.next < until {
            if self.put(client).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn check(&self, client: &Client) {
        for (number, byte) in &self.keys {
            let found = client.get(key(*number)).await.expect("reads go on");
            let value = found.item.unwrap_or_else(|| panic!("{} is lost", key(*number))).value;
            assert!(value.len() == VALUE_BYTES && value.iter().all(|found| found == byte));
        }
    }
}

/// Filled, half deleted, served again, a few times over; all nodes are killed while they are full.
async fn fill_and_resume(mut cluster: Cluster, limit_bytes: u64) {
    let mut acknowledged = Acknowledged::default();
    cluster.leader().await;
    for (round, half) in (0..).zip([Half::Older, Half::EveryOther, Half::EveryOther, Half::Older]) {
        let client = cluster.client();
        let filled = acknowledged.fill(&client).await;
        assert!(round > 0 || filled > 500, "{filled} keys fit");
        cluster.kill_all();
        // Beside what is counted lie META and the lock file.
        let bytes = cluster.data_bytes(1).expect("the data can be looked at");
        assert!(bytes <= limit_bytes + 8192, "{bytes} in round {round}");
        cluster.ids().into_iter().for_each(|id| cluster.start_node(id));
        cluster.leader().await;
        let client = cluster.client();
        acknowledged.check(&client).await;
        acknowledged.delete(&client, half).await;
        acknowledged.resumed(&client, 100).await;
        acknowledged.check(&client).await;
    }
    assert!(cluster.ids().into_iter().all(|id| cluster.stop(id).success()));
}

#[test]
fn full_file_system_is_served_out_of_when_half_of_the_keys_are_deleted() {
    let Some(disk) = SmallDisk::mount() else { return };
    let cluster = Cluster::start_with_data(Some(&disk.path()), PROGRAM, 1, &FLAGS);
    run(fill_and_resume(cluster, 64 << 20));
}

#[test]
fn directories_at_their_limit_are_served_out_of_when_half_of_the_keys_are_deleted() {
    let flags = [FLAGS.as_slice(), &["--space-max", "40MiB"]].concat();
    run(fill_and_resume(Cluster::start(PROGRAM, 3, &flags), 40 << 20));
}

/// A node that could not write its log, as on the disk that was full, ended with the attempt to say so.
#[test]
fn node_whose_log_cannot_be_written_goes_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let program = limits::script(&format!("exec {PROGRAM} \"$@\" 2>/dev/full"), &dir);
        let mut cluster = Cluster::start(program, 1, &FLAGS);
        cluster.leader().await;
        cluster.client().put("key", "value").await.unwrap();
        assert!(cluster.stop(1).success());
    });
}
