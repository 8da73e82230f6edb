//! What many or greedy clients cannot take from a node: its descriptors, its memory, its time.

use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;
use tests::cluster::Cluster;

use super::{PROGRAM, run};

/// The node's program under a limit of open files.
fn limited_to(files: u32, dir: &TempDir) -> String {
    let path = dir.path().join("node");
    let script = format!("#!/bin/sh\nulimit -n {files}\nexec {PROGRAM} \"$@\"\n");
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
