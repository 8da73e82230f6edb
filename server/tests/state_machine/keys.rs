//! Keys, revisions and ranges.

use crate::harness::*;
use server::state_machine::{Command, Expect, ItemRef, Origin, Outcome, ValueRef};

fn none(node: &mut Node, command: Command) -> Outcome {
    node.outcome(Origin::NONE, command)
}

fn swap(revision: u64, swapped: bool, mod_revision: u64) -> Outcome {
    Outcome::CompareAndSet { revision, swapped, mod_revision }
}

#[test]
fn an_empty_store_is_at_revision_1_and_each_put_raises_it() {
    let mut node = Node::new();
    assert_eq!(node.state.revision(), 1);
    assert_eq!(none(&mut node, put("a", "1")), Outcome::Put { revision: 2 });
    assert_eq!(none(&mut node, put("a", "1")), Outcome::Put { revision: 3 });
}

#[test]
fn a_key_knows_when_it_was_created_and_changed_and_how_often() {
    let mut node = Node::new();
    for value in ["first", "same!", "longer than before", ""] {
        none(&mut node, put("k", value));
        none(&mut node, put("other", value));
    }
    let item = node.state.get(b"k").unwrap();
    let expected = ItemRef {
        value: ValueRef::Inline(b""),
        value_bytes: 0,
        checksum: 0,
        create_revision: 2,
        mod_revision: 8,
        version: 4,
        session: 0,
    };
    assert_eq!(item, expected);
    none(&mut node, delete("k"));
    none(&mut node, put("k", "again"));
    let item = node.state.get(b"k").unwrap();
    assert_eq!((item.create_revision, item.mod_revision, item.version), (11, 11, 1));
}

#[test]
fn deleting_nothing_keeps_the_revision() {
    let mut node = Node::new();
    none(&mut node, put("a", "1"));
    assert_eq!(none(&mut node, delete("b")), Outcome::Deleted { revision: 2, deleted: 0 });
    assert_eq!(none(&mut node, delete("a")), Outcome::Deleted { revision: 3, deleted: 1 });
    assert_eq!(node.value("a"), None);
}

#[test]
fn a_range_delete_is_one_revision_and_spares_its_end() {
    let mut node = Node::new();
    for key in ["a", "b", "bb", "c", "d"] {
        none(&mut node, put(key, "1"));
    }
    let range = |start, end: Option<&str>| Command::DeleteRange {
        start: bytes(start),
        end: end.map(bytes),
    };
    let outcome = none(&mut node, range("b", Some("c")));
    assert_eq!(outcome, Outcome::Deleted { revision: 7, deleted: 2 });
    assert_eq!(node.all_keys(), ["a", "c", "d"]);
    let outcome = none(&mut node, range("d", Some("a")));
    assert_eq!(outcome, Outcome::Deleted { revision: 7, deleted: 0 });
    let outcome = none(&mut node, range("", None));
    assert_eq!(outcome, Outcome::Deleted { revision: 8, deleted: 3 });
    assert_eq!(node.state.keys(), 0);
}

#[test]
fn compare_and_set_changes_only_what_is_expected() {
    let mut node = Node::new();
    let absent = || Expect::Absent;
    let value = |text| Expect::Value(bytes(text));
    assert_eq!(none(&mut node, compare_and_set("k", value("0"), Some("1"))), swap(1, false, 0));
    assert_eq!(none(&mut node, compare_and_set("k", absent(), Some("1"))), swap(2, true, 2));
    assert_eq!(none(&mut node, compare_and_set("k", absent(), Some("2"))), swap(2, false, 2));
    assert_eq!(none(&mut node, compare_and_set("k", value("2"), Some("3"))), swap(2, false, 2));
    assert_eq!(none(&mut node, compare_and_set("k", value("1"), Some("2"))), swap(3, true, 3));
    let at = Expect::Revision;
    assert_eq!(none(&mut node, compare_and_set("k", at(2), Some("x"))), swap(3, false, 3));
    assert_eq!(none(&mut node, compare_and_set("k", at(3), None)), swap(4, true, 0));
    assert_eq!(node.value("k"), None);
}

#[test]
fn compare_and_set_that_holds_but_changes_nothing_keeps_the_revision() {
    let mut node = Node::new();
    assert_eq!(none(&mut node, compare_and_set("k", Expect::Absent, None)), swap(1, true, 0));
    assert_eq!(none(&mut node, compare_and_set("k", Expect::Revision(0), None)), swap(1, true, 0));
    none(&mut node, compare_and_set("k", Expect::Revision(0), Some("v")));
    assert_eq!(node.value("k"), Some(bytes("v")));
}

#[test]
fn commands_of_one_entry_see_each_other_in_order() {
    let mut node = Node::new();
    let commands = [put("k", "1"), delete("k"), put("k", "2"), put("l", "3")];
    let applied = node.apply(&commands.map(|command| (Origin::NONE, command)));
    let positions = applied.iter().map(|applied| applied.position).collect::<Vec<_>>();
    assert_eq!(positions, [0, 1, 2, 3]);
    assert_eq!(applied[3].outcome, Outcome::Put { revision: 5 });
    assert_eq!(node.state.get(b"k").unwrap().create_revision, 4);
}

#[test]
fn range_stops_at_limit_and_bytes_but_gives_at_least_one_item() {
    let mut node = Node::new();
    for key in ["a", "b", "c", "d"] {
        none(&mut node, put(key, "123456789"));
    }
    let range = |limit, bytes_max| {
        let mut seen = Vec::new();
        let more = node.state.range(b"b", Some(b"d"), limit, bytes_max, |key, item| {
            assert_eq!(item.value, ValueRef::Inline(b"123456789"));
            seen.push(key[0]);
        });
        (seen, more)
    };
    assert_eq!(range(9, 1_000), (b"bc".to_vec(), false));
    assert_eq!(range(2, 20), (b"bc".to_vec(), false));
    assert_eq!(range(1, 1_000), (b"b".to_vec(), true));
    assert_eq!(range(9, 19), (b"b".to_vec(), true));
    assert_eq!(range(9, 1), (b"b".to_vec(), true));
    assert_eq!(range(0, 1_000), (vec![], true));
}

#[test]
fn keys_short_and_long_live_in_one_order() {
    let mut node = Node::new();
    let keys = ["k".repeat(29), "k".repeat(30), "k".repeat(31), "k".repeat(4096)];
    for key in &keys {
        none(&mut node, put(key, "v"));
    }
    assert_eq!(node.all_keys(), keys);
}

#[test]
fn time_follows_the_leaders_and_never_goes_back() {
    let mut node = Node::new();
    let mut out = Vec::new();
    for (index, now_ms, expected) in [(1, 500, 500), (2, 400, 500), (3, 501, 501)] {
        let payload = entry(now_ms, &[(Origin::NONE, delete("k"))]);
        node.apply_payload(index, &payload, &mut out).unwrap();
        assert_eq!(node.state.time_ms(), expected);
    }
}

#[test]
fn the_hash_depends_on_what_is_there_and_not_on_how_it_came() {
    let mut node = Node::new();
    let empty = node.state.hash();
    none(&mut node, put("a", "1"));
    let one = node.state.hash();
    assert_ne!(one, empty);
    let mut other = Node::new();
    none(&mut other, put("a", "2"));
    assert_ne!(other.state.hash(), one);
    let mut late = Node::new();
    late.state.set_applied_index(0x1000);
    let mut out = Vec::new();
    let payload = entry(1_001, &[(Origin::NONE, put("a", "1"))]);
    late.apply_payload(0x1001, &payload, &mut out).unwrap();
    assert_eq!(late.state.hash(), one);
}
