//! Snapshots: the same bytes everywhere, and nothing unsound is let in.

use crate::generator::{Clients, Spread};
use crate::harness::*;
use proptest::prelude::*;
use server::state_machine::{Origin, RestoreError, Restorer, State, ViewProgress};

const SPREAD: Spread = Spread { keys: 8, sessions: 4, locks: 3, tokens: 12 };

/// A state with something of every kind in it.
fn some_node() -> Node {
    let mut clients = Clients::new(3, SPREAD);
    let mut node = Node::new();
    let is_rich = |state: &State| state.waiters().count() >= 2 && state.keys() >= 4;
    let has_located = |node: &Node| checkpoint(&node.state).len() < snapshot(node).len();
    while !is_rich(&node.state) || !has_located(&node) || node.state.time_ms() < 1_060 {
        node.apply(&clients.entry(4));
    }
    node
}

#[test]
fn a_restored_state_is_the_same_and_writes_the_same_bytes() {
    let node = some_node();
    let (state, bytes) = (&node.state, snapshot(&node));
    let restored = restore(&bytes);
    assert_eq!(restored.state.hash(), state.hash());
    assert_eq!(restored.state.recompute_hash(), state.hash());
    assert_eq!(restored.state.applied_index(), state.applied_index());
    assert_eq!(restored.state.time_ms(), state.time_ms());
    assert_eq!(restored.state.grants(), state.grants());
    assert_eq!(snapshot(&restored), bytes);
}

#[test]
fn a_checkpoint_keeps_where_values_lie_and_a_peer_may_not_name_places() {
    let node = some_node();
    let bytes = checkpoint(&node.state);
    assert!(bytes.len() < snapshot(&node).len(), "some value lies in the log");
    let mut restorer = Restorer::new();
    restorer.push(&bytes).unwrap();
    let state = restorer.finish().unwrap();
    assert_eq!(checkpoint(&state), bytes);
    assert_eq!(state.hash(), node.state.hash());
    let refused = try_restore([bytes.as_slice()]).err();
    assert!(matches!(refused, Some(RestoreError::Item { kind: "key", .. })), "{refused:?}");
}

#[test]
fn pieces_of_any_size_give_the_same_bytes_and_the_same_state() {
    let node = some_node();
    let (expected, sent) = (checkpoint(&node.state), snapshot(&node));
    for bytes_max in [1, 2, 7, 64, 1_000] {
        let mut state = node.state.clone();
        let mut streamed = Vec::new();
        state.view_begin();
        while state.view_next(bytes_max, &mut streamed) == ViewProgress::More {}
        assert_eq!(streamed, expected);
        assert_eq!(expand(&streamed, &node.shelf, bytes_max), sent);
        let restored = try_restore(sent.chunks(bytes_max)).unwrap();
        assert_eq!(snapshot(&restored), sent);
    }
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let restored = restore(&snapshot(&Node::new())).state;
    assert_eq!(restored.hash(), State::new().hash());
    assert_eq!(restored.revision(), 1);
}

#[test]
fn a_view_can_be_given_up_and_begun_again() {
    let mut state = some_node().state;
    let expected = checkpoint(&state);
    state.view_begin();
    state.view_next(100, &mut Vec::new());
    state.view_end();
    state.view_begin();
    let mut streamed = Vec::new();
    while state.view_next(4_096, &mut streamed) == ViewProgress::More {}
    assert_eq!(streamed, expected);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = snapshot(&some_node());
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << bit;
            let result = try_restore([damaged.as_slice()]);
            assert!(result.is_err(), "bit {bit} of byte {place}");
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let mut bytes = snapshot(&some_node());
    for length in 0..bytes.len() {
        let result = try_restore([&bytes[..length]]).err();
        let cut = matches!(result, Some(RestoreError::Truncated { missing: 1.. }));
        assert!(cut, "{length}: {result:?}");
    }
    bytes.push(0);
    assert_eq!(try_restore([bytes.as_slice()]).err(), Some(RestoreError::Trailing));
}

#[test]
fn an_error_is_reported_again_by_every_later_call() {
    let mut bytes = snapshot(&some_node());
    bytes[0] ^= 1;
    let mut restorer = Restorer::new();
    assert_eq!(restorer.push(&bytes), Err(RestoreError::Magic));
    assert_eq!(restorer.push(&[]), Err(RestoreError::Magic));
    assert!(restorer.finish().is_err());
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = snapshot(&some_node());
    bytes[8] = 3;
    assert_eq!(try_restore([bytes.as_slice()]).err(), Some(RestoreError::Version { found: 3 }));
}

/// Where the header holds the applied index.
const APPLIED_INDEX: std::ops::Range<usize> = 16..24;

#[test]
fn a_header_that_states_another_length_of_the_values_is_refused() {
    let mut bytes = snapshot(&some_node());
    let hash = u128::from_le_bytes(bytes[88..104].try_into().unwrap());
    bytes[80..88].fill(0);
    forge_header(&mut bytes, hash);
    let refused = try_restore([bytes.as_slice()]).err();
    assert!(matches!(refused, Some(RestoreError::LocatedBytes { stated: 0, found: 1.. })));
}

/// Sets the header's hash and checksum to fit the rest, as somebody who means harm would.
fn forge_header(bytes: &mut [u8], hash: u128) {
    bytes[88..104].copy_from_slice(&hash.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..104]);
    bytes[104..108].copy_from_slice(&checksum.to_le_bytes());
}

proptest! {
    #[test]
    fn damaged_snapshots_never_panic(
        splices in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 8]>()), 1..4),
        piece in 1_usize..300,
    ) {
        let sound = snapshot(&some_node());
        let mut bytes = sound.clone();
        for (at, with) in splices {
            let at = at.index(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&with);
        }
        let forged_hash = u128::from_le_bytes(bytes[88..104].try_into().unwrap());
        forge_header(&mut bytes, forged_hash);
        let result = try_restore(bytes.chunks(piece));
        if let Ok(node) = &result {
            // The applied index is whoever stores the snapshot's to compare; all else is checked here.
            prop_assert_eq!(snapshot(node), bytes.as_slice());
            bytes[APPLIED_INDEX].copy_from_slice(&sound[APPLIED_INDEX]);
            forge_header(&mut bytes, forged_hash);
            prop_assert_eq!(&bytes, &sound);
        }
        // A forger who knows the hash gets a state that can be worked with, or an error.
        if let Some(RestoreError::Hash { found, .. }) = result.err() {
            forge_header(&mut bytes, found);
            let mut node = restore(&bytes);
            let mut clients = Clients::new(1, SPREAD);
            for _ in 0..20 {
                node.apply(&clients.entry(6));
            }
            snapshot(&node);
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(try_restore([bytes.as_slice()]).is_err());
    }
}

/// So many keys that a checkpoint of them is several stretches.
fn many_keys() -> Node {
    let mut node = Node::new();
    for first in (0..40_000).step_by(1_000) {
        let puts = (first..first + 1_000).map(|number| {
            (Origin::NONE, put(&format!("key-{number:020}"), &"v".repeat(40 + number % 50)))
        });
        node.apply(&puts.collect::<Vec<_>>());
    }
    node
}

#[test]
fn a_checkpoint_that_several_threads_decode_gives_the_same_state() {
    let node = many_keys();
    let bytes = checkpoint(&node.state);
    for threads in [0, 1, 3] {
        let mut restorer = Restorer::on_threads(threads);
        bytes.chunks(300_000).for_each(|piece| restorer.push(piece).unwrap());
        let state = restorer.finish().unwrap();
        assert_eq!(state.hash(), node.state.hash());
        assert!(checkpoint(&state) == bytes, "{threads} threads");
    }
}

#[test]
fn damage_that_another_thread_finds_is_named_by_the_number_of_its_key() {
    let mut bytes = checkpoint(&many_keys().state);
    // The first letter of a key in the last stretch: it comes before the others then.
    let at = bytes.windows(24).rposition(|window| window == b"key-00000000000000039000").unwrap();
    bytes[at] = b'a';
    let mut restorer = Restorer::on_threads(2);
    let pushed = bytes.chunks(300_000).try_for_each(|piece| restorer.push(piece));
    let result = pushed.and_then(|()| restorer.finish().map(drop));
    let (kind, number, problem) = ("key", 39_000, "it is out of order");
    assert_eq!(result, Err(RestoreError::Item { kind, number, problem }));
}
