use super::*;

fn load(
    file: Option<&Path>,
    env: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<NodeConfig, String> {
    let env = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let flags: Vec<(&str, String)> =
        flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect();
    NodeConfig::load(file, env, &flags).map_err(|error| error.to_string())
}

fn flags(flags: &[(&str, &str)]) -> Result<NodeConfig, String> {
    load(None, &[], flags)
}

/// Writes `text` as a configuration file and loads it.
fn file(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<NodeConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), env, flags)
}

#[track_caller]
fn refused(result: Result<NodeConfig, String>, parts: &[&str]) {
    let message = result.expect_err("this configuration must be refused");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

const THREE: &str = "1=127.0.0.1:7410,2=127.0.0.1:7411,3=127.0.0.1:7412";

#[test]
fn nothing_given_is_a_cluster_of_one_with_the_documented_defaults() {
    let config = flags(&[]).unwrap();
    assert_eq!(config.id, 1);
    assert_eq!(config.listen, "127.0.0.1:7400");
    assert_eq!(config.advertise, "127.0.0.1:7400");
    assert_eq!(config.peer_listen, "127.0.0.1:7410");
    assert!(config.peers.is_empty());
    assert_eq!(config.value_bytes_max, 1 << 20);
    assert_eq!(config.checkpoint_interval_bytes, 1 << 30);
    assert_eq!(config.slot_bytes, 64 << 20);
    assert_eq!(config.inflight_frames_max, 4);
    assert_eq!((config.clean_below_percent, config.clean_bytes_per_second), (60, 8 << 20));
    assert_eq!(config.scrub_bytes_per_second, 4 << 20);
    assert_eq!(config.connections_max, 10_000);
    assert_eq!((config.tick_ms, config.heartbeat_ms, config.election_timeout_ms), (10, 50, 250));
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let text = "connections_max = 1\ntick_ms = 1\nheartbeat_ms = 40\n";
    let env = [("HOLDFAST_CONNECTIONS_MAX", "2"), ("HOLDFAST_TICK_MS", "2")];
    let config = file(text, &env, &[("connections-max", "3")]).unwrap();
    assert_eq!(config.connections_max, 3);
    assert_eq!(config.tick_ms, 2);
    assert_eq!(config.heartbeat_ms, 40);
    assert_eq!(config.election_timeout_ms, 250);
}

#[test]
fn every_setting_can_stand_in_file_environment_and_flags() {
    for setting in SETTINGS {
        let refused_by = |origin: &str, result: Result<NodeConfig, String>| {
            let message = result.expect_err("no setting takes a lone comma or nothing");
            assert!(message.starts_with(origin), "{message}");
        };
        let bad = if setting.flag == "data" { "\0" } else { "," };
        let key = setting.key();
        let text = format!("{key} = {:?}", bad.replace('\0', ""));
        refused_by(&format!("{key} in "), file(&text, &[], &[]));
        refused_by(&setting.env_name(), load(None, &[(&setting.env_name(), bad)], &[]));
        refused_by(&format!("--{}", setting.flag), flags(&[(setting.flag, bad)]));
    }
}

#[test]
fn empty_environment_variable_counts_as_not_set() {
    assert_eq!(load(None, &[("HOLDFAST_ID", "")], &[]).unwrap().id, 1);
}

#[test]
fn peers_of_the_file_are_a_string_or_a_table() {
    let table = "id = 2\n[peers]\n1 = '10.0.0.1:7410'\n2 = '10.0.0.2:7410'\n";
    let string = "id = 2\npeers = '1=10.0.0.1:7410,2=10.0.0.2:7410'\n";
    let config = file(table, &[], &[]).unwrap();
    assert_eq!(config, file(string, &[], &[]).unwrap());
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.peer_listen, "10.0.0.2:7410");
}

#[test]
fn unknown_key_of_the_file_is_named_with_the_file_and_the_known_keys() {
    refused(
        file("lisen = '127.0.0.1:1'", &[], &[]),
        &["node.toml", "unknown key `lisen`", "id, listen, peer_listen"],
    );
}

#[test]
fn file_that_is_not_toml_is_refused_with_its_line() {
    refused(file("id = 1\nlisten = \n", &[], &[]), &["node.toml", "not TOML", "line 2"]);
}

#[test]
fn missing_file_is_refused_with_its_path() {
    refused(
        load(Some(Path::new("/nowhere/node.toml")), &[], &[]),
        &["--config /nowhere/node.toml"],
    );
}

#[test]
fn value_of_a_wrong_type_is_refused_with_key_and_file() {
    refused(file("listen = true", &[], &[]), &["listen in ", "node.toml", "`true`"]);
    refused(file("id = 1.5", &[], &[]), &["id in ", "`1.5`"]);
}

#[test]
fn bad_value_is_refused_even_where_a_flag_overrides_it() {
    refused(file("id = 0", &[], &[("id", "1")]), &["id in ", "node.toml", "`0`"]);
}

#[test]
fn errors_name_the_flag_the_value_and_what_is_allowed() {
    refused(flags(&[("id", "0")]), &["--id: `0` is not a whole number from 1 to"]);
    refused(flags(&[("id", "x")]), &["--id: `x` is not a whole number from 1 to"]);
    refused(flags(&[("listen", "here")]), &["--listen: `here` is not an address `host:port`"]);
    refused(flags(&[("io", "fast")]), &["--io: `fast` is not auto, uring or syscall"]);
    refused(flags(&[("value-bytes-max", "9MiB")]), &["`9MiB`", "from 1 to 8388608 bytes"]);
    refused(flags(&[("connections-max", "0")]), &["--connections-max: `0`", "from 1 to 1000000"]);
}

#[test]
fn peers_need_ids_that_differ_addresses_that_differ_and_this_node() {
    refused(flags(&[("peers", THREE)]), &["--id is required with --peers", "1, 2, 3"]);
    refused(flags(&[("peers", THREE), ("id", "4")]), &["--id 4 is not in --peers", "1, 2, 3"]);
    refused(flags(&[("peers", "1=a:1,1=b:1"), ("id", "1")]), &["id 1 is there twice"]);
    refused(flags(&[("peers", "1=a:1,2=a:1"), ("id", "1")]), &["nodes 1 and 2", "a:1"]);
    refused(flags(&[("peers", "a:1"), ("id", "1")]), &["`a:1` has no `=`"]);
    refused(flags(&[("peers", "0=a:1"), ("id", "1")]), &["the id `0`"]);
    refused(flags(&[("peers", "1=0.0.0.0:1,2=a:1"), ("id", "1")]), &["0.0.0.0:1", "node 1"]);
}

#[test]
fn more_than_nine_nodes_are_refused() {
    let ten: Vec<String> = (1..=10).map(|id| format!("{id}=host{id}:7410")).collect();
    refused(flags(&[("peers", &ten.join(",")), ("id", "1")]), &["at most 9 nodes", "10"]);
}

#[test]
fn wildcard_listener_of_a_cluster_needs_an_address_for_clients() {
    let cluster = [("peers", THREE), ("id", "1"), ("listen", "0.0.0.0:7400")];
    refused(flags(&cluster), &["0.0.0.0:7400", "--advertise"]);
    let mut told = cluster.to_vec();
    told.push(("advertise", "db1.example.org:7400"));
    assert_eq!(flags(&told).unwrap().advertise, "db1.example.org:7400");
    assert!(flags(&[("listen", "0.0.0.0:7400")]).is_ok(), "a cluster of one never redirects");
}

#[test]
fn sizes_that_do_not_fit_together_are_refused() {
    refused(flags(&[("slot-bytes", "1536KiB")]), &["--slot-bytes 1572864", "whole MiB"]);
    refused(
        flags(&[("value-bytes-max", "1MiB"), ("slot-bytes", "4MiB")]),
        &["--value-bytes-max 1048576", "--slot-bytes 4194304", "slots of 5MiB"],
    );
    refused(
        flags(&[("checkpoint-interval-bytes", "32MiB")]),
        &["--checkpoint-interval-bytes 33554432", "--slot-bytes 67108864"],
    );
    refused(flags(&[("space-max", "511MiB")]), &["--space-max 535822336", "at least 536870912"]);
    assert_eq!(flags(&[("space-max", "512MiB")]).unwrap().space_bytes_max, 512 << 20);
    assert!(flags(&[("value-bytes-max", "8MiB")]).is_ok());
}

#[test]
fn timings_that_cannot_work_are_refused() {
    refused(flags(&[("heartbeat-ms", "5")]), &["--heartbeat-ms 5", "--tick-ms 10"]);
    refused(
        flags(&[("election-timeout-ms", "149")]),
        &["--election-timeout-ms 149", "3 times --heartbeat-ms 50"],
    );
    assert!(flags(&[("election-timeout-ms", "150")]).is_ok());
}

#[test]
fn listening_twice_on_one_address_is_refused() {
    refused(flags(&[("listen", "127.0.0.1:7410")]), &["--listen and --peer-listen"]);
}
