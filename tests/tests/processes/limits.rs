//! What many or greedy clients cannot take from a node: its descriptors, its memory, its time.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use bytes::{Bytes, BytesMut};
use protocol::{Consistency, Hello, Request, frame};
use tempfile::TempDir;
use tests::cluster::{Cluster, PATIENCE};

use super::{PROGRAM, judge, loaded, run, three_nodes};

/// The node's program under a limit of open files.
fn limited_to(files: u32, dir: &TempDir) -> String {
    script(&format!("ulimit -n {files}\nexec {PROGRAM} \"$@\""), dir)
}

/// A program of these lines of shell.
pub(super) fn script(lines: &str, dir: &TempDir) -> String {
    let path = dir.path().join("node");
    let script = format!("#!/bin/sh\n{lines}\n");
    // By a shell: a file that this process has open for writing cannot be run.
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", "printf %s \"$1\" > \"$0\" && chmod +x \"$0\""]).arg(&path).arg(script);
    assert!(writer.status().expect("there is a shell").success());
    path.to_str().expect("the path is text").to_owned()
}

/// Clients took every descriptor, and the node ended when its log needed one for the next slot.
#[test]
fn log_grows_while_more_clients_connect_than_there_are_descriptors() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let program = limited_to(320, &dir);
        let mut cluster = Cluster::start(program, 1, &["--slot-bytes", "8MiB"]);
        cluster.leader().await;
        let client = cluster.client();
        client.put("first", "value").await.unwrap();
        let _strangers: Vec<TcpStream> = (0..400)
            .map(|_| TcpStream::connect(cluster.endpoint(1)).expect("the node listens"))
            .collect();
        for number in 0..60 {
            client.put(number.to_string(), vec![b'v'; 1 << 20]).await.unwrap();
        }
        let log = cluster.log(1);
        let warning = "--connections-max 10000 is too much for a limit of 320 open files";
        assert!(log.contains(warning) && log.contains("at most 64 clients"), "{log}");
        assert!(cluster.stop(1).success());
    });
}

/// A client that reads its answers late gets all of them (refusals, if the leader changes), and
/// nobody waits for it meanwhile.
#[test]
fn reads_of_large_values_that_are_taken_late_are_all_answered_and_delay_nobody() {
    const READS: u64 = 200;
    run(async {
        let cluster = three_nodes();
        let load = loaded(&cluster).await;
        let leader = cluster.leader().await;
        cluster.client().put("large", vec![b'v'; 1 << 20]).await.unwrap();
        let mut requests = BytesMut::new();
        Hello::new("greedy").encode_into(READS + 1, &mut requests);
        let key = Bytes::from_static(b"large");
        let get = Request::Get { consistency: Consistency::Linearizable, key };
        (1..=READS).for_each(|id| get.encode_into(id, &mut requests));
        let mut greedy = TcpStream::connect(cluster.endpoint(leader)).unwrap();
        greedy.set_read_timeout(Some(PATIENCE)).unwrap();
        greedy.write_all(&requests).unwrap();
        load.progress(300, PATIENCE).await;
        let mut answered = BTreeSet::new();
        let mut input = BytesMut::new();
        let mut arrived = vec![0; 1 << 20];
        while answered.len() as u64 <= READS {
            let bytes = greedy.read(&mut arrived).expect("there is more to come");
            assert!(bytes > 0, "the node has closed the connection");
            input.extend_from_slice(&arrived[..bytes]);
            while let Some(frame) = frame::decode(&mut input, u32::MAX).unwrap() {
                assert!(answered.insert(frame.header.request_id));
            }
        }
        judge(&load.finish().await);
    });
}
