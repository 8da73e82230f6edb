//! Keys, ranges and status against a cluster of one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::json;

use crate::support::{Node, run, run_with_input};

#[test]
fn put_get_and_del_do_what_they_say_and_end_as_they_should() {
    let node = Node::start();
    let put = node.run(&["put", "city", "Berlin"]).expect(0, &[]);
    assert_eq!(put.text(), "revision 2\n");
    assert_eq!(node.run(&["get", "city"]).expect(0, &[]).text(), "Berlin\n");
    assert_eq!(node.run(&["get", "city", "--stale"]).expect(0, &[]).text(), "Berlin\n");
    assert_eq!(node.run(&["del", "city"]).expect(0, &[]).text(), "deleted 1\n");
    assert_eq!(node.run(&["del", "city"]).expect(3, &[]).text(), "deleted 0\n");
    let absent = node.run(&["get", "city"]).expect(3, &["there is no key `city`"]);
    assert!(absent.stdout.is_empty());
}

#[test]
fn acknowledged_keys_are_there_after_a_restart() {
    let mut node = Node::start();
    node.run(&["put", "kept", "yes"]).expect(0, &[]);
    node.restart();
    assert_eq!(node.run(&["get", "kept"]).expect(0, &[]).text(), "yes\n");
}

#[test]
fn bytes_come_back_as_they_went_in() {
    let node = Node::start();
    let bytes = b"\x00\xff\n\x80";
    run_with_input(&mut node.client(&["put", "raw", "-"]), bytes).expect(0, &[]);
    assert_eq!(node.run(&["get", "raw"]).stdout, b"\x00\xff\n\x80\n");
    assert_eq!(node.run(&["get", "raw", "-o", "json"]).json()["value_hex"], "00ff0a80");

    let key = OsStr::from_bytes(b"\xfe\xff");
    run(node.client(&["put"]).arg(key).arg("-1")).expect(0, &[]);
    let got = run(node.client(&["get", "-o", "json"]).arg(key)).expect(0, &[]).json();
    assert_eq!((&got["key_hex"], &got["value"]), (&json!("feff"), &json!("-1")));
}

#[test]
fn conditions_decide_whether_a_put_is_done() {
    let node = Node::start();
    node.run(&["put", "k", "1", "--if-value", "0"]).expect(4, &["there is no key `k`"]);
    node.run(&["put", "k", "1", "--if-absent"]).expect(0, &[]);
    node.run(&["put", "k", "2", "--if-absent"]).expect(4, &["last changed at revision 2"]);
    node.run(&["put", "k", "2", "--if-value", "1"]).expect(0, &[]);
    let stale = node.run(&["put", "k", "3", "--if-revision", "2", "-o", "json"]).expect(4, &[]);
    assert_eq!(stale.json(), json!({ "swapped": false, "mod_revision": 3 }));
    node.run(&["put", "k", "3", "--if-revision", "3"]).expect(0, &[]);
    assert_eq!(node.run(&["get", "k"]).text(), "3\n");
}

#[test]
fn json_of_a_key_has_its_history() {
    let node = Node::start();
    node.run(&["put", "other", "x"]).expect(0, &[]);
    let put = node.run(&["put", "k", "a", "-o", "json"]).expect(0, &[]);
    assert_eq!(put.json(), json!({ "swapped": true, "revision": 3 }));
    node.run(&["put", "k", "b"]).expect(0, &[]);
    let expected = json!({
        "key": "k", "value": "b", "create_revision": 3, "mod_revision": 4, "version": 2, "revision": 4
    });
    assert_eq!(node.run(&["get", "k", "-o", "json"]).json(), expected);
    let del = node.run(&["del", "k", "-o", "json"]).expect(0, &[]);
    assert_eq!(del.json(), json!({ "deleted": 1, "revision": 5 }));
}

#[test]
fn range_answers_keys_in_order_within_its_bounds() {
    let node = Node::start();
    for key in ["b/2", "a", "b/1", "c"] {
        node.run(&["put", key, &format!("value of {key}")]).expect(0, &[]);
    }
    let keys = |arguments: &[&str]| {
        let run = node.run(&[&["range", "--keys-only"], arguments].concat()).expect(0, &[]);
        run.text().lines().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(keys(&[]), ["a", "b/1", "b/2", "c"]);
    assert_eq!(keys(&["b/"]), ["b/1", "b/2"]);
    assert_eq!(keys(&["--prefix", "b/"]), ["b/1", "b/2"]);
    assert_eq!(keys(&["--from", "b/2"]), ["b/2", "c"]);
    assert_eq!(keys(&["--to", "b/2"]), ["a", "b/1"]);
    assert_eq!(keys(&["--from", "a", "--to", "c", "--limit", "2"]), ["a", "b/1"]);
    assert_eq!(keys(&["x"]), [""; 0]);
    assert_eq!(node.run(&["range", "b/1"]).text(), "b/1\tvalue of b/1\n");

    let json = node.run(&["range", "--limit", "1", "-o", "json"]).expect(0, &[]).json();
    assert_eq!((&json["items"][0]["key"], &json["more"]), (&json!("a"), &json!(true)));
    let empty = node.run(&["range", "x", "-o", "json"]).expect(0, &[]).json();
    assert_eq!(empty, json!({ "items": [], "more": false, "revision": 5 }));

    assert_eq!(node.run(&["del", "--prefix", "b/"]).expect(0, &[]).text(), "deleted 2\n");
    assert_eq!(node.run(&["del", "--from", "b", "--to", "d"]).text(), "deleted 1\n");
    assert_eq!(node.run(&["del", "--all"]).text(), "deleted 1\n");
    node.run(&["del", "--all"]).expect(3, &[]);
}

#[test]
fn range_of_many_pages_is_whole() {
    let node = Node::start();
    let big = vec![b'v'; 700_000];
    for key in ["1", "2", "3", "4"] {
        run_with_input(&mut node.client(&["put", key, "-"]), &big).expect(0, &[]);
    }
    let plain = node.run(&["range"]).expect(0, &[]);
    assert_eq!(plain.stdout.len(), 4 * (700_000 + 3));
    let json = node.run(&["range", "-o", "json"]).expect(0, &[]).json();
    assert_eq!(json["items"].as_array().unwrap().len(), 4);
    assert_eq!(json["more"], false);
}

#[test]
fn reader_of_a_range_may_stop_early() {
    let node = Node::start();
    run_with_input(&mut node.client(&["put", "k", "-"]), &vec![b'v'; 1_000_000]).expect(0, &[]);
    let mut range = node.client(&["range"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(range.stdout.take());
    assert!(range.wait().unwrap().success());
}

#[test]
fn oversized_keys_and_values_are_refused_with_the_reason() {
    let node = Node::start();
    node.run(&["put", &"k".repeat(4097), "v"]).expect(1, &["error: ", "4096"]);
    node.run(&["put", "", "v"]).expect(1, &["error: "]);
    let long = vec![b'v'; (1 << 20) + 1];
    run_with_input(&mut node.client(&["put", "k", "-"]), &long)
        .expect(1, &["1048576", "hint: ", "--value-bytes-max"]);
    node.run(&["get", "k"]).expect(3, &[]);
}

#[test]
fn status_shows_the_node_and_what_is_unreachable() {
    let node = Node::start();
    let table = node.run(&["status"]).expect(0, &[]);
    let rows: Vec<&str> = table.text().lines().collect();
    assert!(rows[0].starts_with("NODE  ADDRESS"), "{rows:?}");
    assert!(rows[1].starts_with(&format!("1     {}", node.endpoint)), "{rows:?}");
    assert!(rows[1].contains("leader"), "{rows:?}");

    let dead = format!("127.0.0.1:{}", crate::support::free_port());
    let both = format!("{dead},{}", node.endpoint);
    let status = node.run(&["status", "-o", "json", "--endpoints", &both]).expect(0, &[]).json();
    let [one, other] = status.as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!(
        (&one["role"], &one["node"], &one["leader"]),
        (&json!("leader"), &json!(1), &json!(1))
    );
    assert!(one["durable"].as_u64() >= one["commit"].as_u64(), "a cluster of one: {one}");
    assert_eq!((&other["reachable"], &other["address"]), (&json!(false), &json!(dead)));
}

#[test]
fn second_node_on_the_same_directory_is_refused_with_the_reason() {
    let node = Node::start();
    let listen = format!("127.0.0.1:{}", crate::support::free_port());
    let peers = format!("127.0.0.1:{}", crate::support::free_port());
    let mut second = node.client(&["serve", "--listen", &listen, "--peer-listen", &peers]);
    second.args(["--slot-bytes", "8MiB", "--checkpoint-interval-bytes", "64MiB", "--data"]);
    let refused = run(second.arg(node.directory())).expect(1, &["error: "]);
    assert!(refused.stderr.contains(&node.directory().display().to_string()), "{refused:?}");
}

#[test]
fn port_in_use_is_refused_with_address_and_flag() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    let mut second = node.client(&["serve", "--listen", &node.endpoint, "--data"]);
    run(second.arg(dir.path())).expect(1, &["error: ", &node.endpoint, "--listen"]);
}
