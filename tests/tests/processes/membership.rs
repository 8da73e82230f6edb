//! Who may be a member: directories, incarnations, ports.

use std::time::Duration;

use tests::cluster::{Cluster, PATIENCE};

use super::{PROGRAM, judge, loaded, run, three_nodes};

#[test]
fn wiped_node_refuses_to_start_and_the_others_go_on() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        let wiped = cluster.leader().await % 3 + 1;
        cluster.kill(wiped);
        cluster.wipe(wiped);
        cluster.start_node(wiped);
        let status = cluster.wait_for_exit(wiped);
        assert_eq!(status.code(), Some(1));
        let log = cluster.log(wiped);
        assert!(log.contains("wiped") && log.contains("member replace"), "{log}");
        load.progress(200, PATIENCE).await;
        judge(&load.finish().await);
    });
}

#[test]
fn second_process_on_a_directory_is_refused() {
    run(async {
        let cluster = three_nodes();
        cluster.leader().await;
        // Ports of its own, but the directory of node 1.
        let ports = [("--listen", "127.0.0.1:17990"), ("--peer-listen", "127.0.0.1:17991")];
        let output = cluster.command_with(1, &ports).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("in use") || text.contains("locked"), "{text}");
        cluster.leader().await;
    });
}

#[test]
fn port_in_use_is_named_with_its_flag_and_nothing_is_written() {
    run(async {
        let mut cluster = Cluster::start(PROGRAM, 1, &["--slot-bytes", "8MiB"]);
        cluster.leader().await;
        let other = cluster.data(1).with_extension("other");
        let data = other.to_str().expect("the path is text");
        let output =
            cluster.command_with(1, &[("--data", data)]).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("--listen") && text.contains(&cluster.endpoint(1)), "{text}");
        assert!(!other.exists());
        assert!(cluster.stop(1).success());
    });
}

#[test]
fn directory_of_another_node_is_refused_and_left_as_it_was() {
    run(async {
        let mut cluster = three_nodes();
        cluster.leader().await;
        cluster.stop(1);
        cluster.stop(2);
        let data = cluster.data(2);
        let data = data.to_str().expect("the path is text");
        let output =
            cluster.command_with(1, &[("--data", data)]).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("node 2"), "{text}");
        cluster.start_node(1);
        cluster.start_node(2);
        cluster.leader().await;
    });
}

#[test]
fn cluster_of_one_serves_alone() {
    run(async {
        let mut cluster = Cluster::start(PROGRAM, 1, &["--slot-bytes", "8MiB"]);
        let load = loaded(&cluster).await;
        cluster.kill(1);
        cluster.start_node(1);
        load.progress(500, PATIENCE).await;
        judge(&load.finish().await);
    });
}

#[test]
fn founded_node_whose_peers_are_not_the_members_does_not_start() {
    run(async {
        let mut cluster = three_nodes();
        cluster.leader().await;
        assert!(cluster.stop(1).success());
        let peer = |id| format!("{id}={}", cluster.peer_endpoint(id));
        for (peers, names) in [
            (vec![peer(1)], "--peers names 1,"),
            (vec![peer(1), peer(2)], "--peers names 1, 2,"),
            (
                vec![peer(1), peer(2), peer(3), "4=127.0.0.1:1".to_owned()],
                "--peers names 1, 2, 3, 4,",
            ),
        ] {
            let mut command = cluster.command_with(1, &[("--peers", &peers.join(","))]);
            let output = command.output().expect("the program runs");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(names) && text.contains("founded by 1, 2, 3;"), "{text}");
        }
        cluster.start_node(1);
        cluster.converged().await;
    });
}

/// The link between two followers, who have nothing to say to each other, was torn down and made
/// anew every five seconds.
#[test]
fn links_between_followers_stay() {
    run(async {
        let cluster = three_nodes();
        cluster.leader().await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        for id in cluster.ids() {
            let log = cluster.log(id);
            assert!(log.contains("peer linked"), "{log}");
            assert!(!log.contains("nothing was heard of the peer"), "{log}");
        }
    });
}
