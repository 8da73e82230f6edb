//! Entries: what is written is read, and nothing else is taken for one.

use crate::generator::{Clients, Spread};
use crate::harness::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use server::state_machine::{
    Command, CommandError, EntryBuilder, EntryError, EntryReader, Expect, KEY_BYTES_MAX, Origin,
    VALUE_BYTES_MAX, Wait, encode_command,
};

const SPREAD: Spread = Spread { keys: 8, sessions: 4, locks: 3, tokens: 12 };

fn some_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn a_name() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..50).prop_map(Bytes::from)
}

fn an_expectation() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        some_bytes(40).prop_map(Expect::Value),
        any::<u64>().prop_map(Expect::Revision),
    ]
}

fn a_command() -> impl Strategy<Value = Command> {
    let wait = prop_oneof![Just(Wait::Try), Just(Wait::Queue)];
    prop_oneof![
        (a_name(), some_bytes(300)).prop_map(|(key, value)| Command::Put { key, value }),
        a_name().prop_map(|key| Command::Delete { key }),
        (some_bytes(40), prop::option::of(some_bytes(40)))
            .prop_map(|(start, end)| Command::DeleteRange { start, end }),
        (a_name(), an_expectation(), prop::option::of(some_bytes(40)))
            .prop_map(|(key, expect, value)| Command::CompareAndSet { key, expect, value }),
        (any::<u64>(), any::<u128>(), some_bytes(40))
            .prop_map(|(ttl_ms, nonce, label)| Command::SessionOpen { ttl_ms, nonce, label }),
        any::<u64>().prop_map(|session| Command::SessionClose { session }),
        any::<(u64, u64)>()
            .prop_map(|(session, generation)| Command::SessionExpire { session, generation }),
        (a_name(), wait).prop_map(|(name, wait)| Command::LockAcquire { name, wait }),
        (a_name(), any::<u64>()).prop_map(|(name, token)| Command::LockRelease { name, token }),
        (a_name(), any::<(u64, u64)>()).prop_map(|(name, (session, sequence))| {
            Command::LockCancel { name, session, sequence }
        }),
    ]
}

fn an_origin() -> impl Strategy<Value = Origin> {
    (1_u64.., any::<u64>(), any::<u64>()).prop_map(|(session, sequence, lowest_unanswered)| {
        Origin { session, sequence, lowest_unanswered }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        now_ms: u64,
        commands in prop::collection::vec((an_origin(), a_command()), 1..20),
    ) {
        let payload = entry(now_ms, &commands);
        let reader = EntryReader::open(&payload).unwrap();
        prop_assert_eq!((reader.time_ms(), reader.count() as usize), (now_ms, commands.len()));
        let decoded = reader.commands().map(|decoded| (decoded.origin, decoded.command));
        let expected = commands.iter().map(|(origin, command)| (*origin, command.to_ref()));
        prop_assert!(decoded.eq(expected));
    }

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut out = Vec::new();
        prop_assert!(Node::new().apply_payload(1, &Bytes::from(bytes.clone()), &mut out).is_err());
        // Past the version there is more to get wrong.
        if let Some(version) = bytes.get_mut(..4) {
            version.copy_from_slice(&[1, 0, 0, 0]);
        }
        let result = Node::new().apply_payload(1, &Bytes::from(bytes.clone()), &mut out);
        prop_assert_eq!(result.is_err(), out.is_empty());
    }

    #[test]
    fn damaged_entries_are_applied_whole_or_not_at_all(
        seed: u64,
        place: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let mut clients = Clients::new(seed, SPREAD);
        let mut node = Node::new();
        for _ in 0..10 {
            node.apply(&clients.entry(6));
        }
        let mut payload = BytesMut::from(entry(9_999, &clients.entry(6)).as_ref());
        let place = place.index(payload.len());
        payload[place] ^= 1 << bit;
        let before = (node.state.hash(), node.state.applied_index());
        let mut out = Vec::new();
        let result = node.apply_payload(before.1 + 1, &payload.freeze(), &mut out);
        if result.is_err() {
            prop_assert!(out.is_empty());
            prop_assert_eq!((node.state.hash(), node.state.applied_index()), before);
        }
        prop_assert_eq!(node.state.hash(), node.state.recompute_hash());
    }
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let payload = entry(1, &[(from(1, 1), put("key", "value")), (from(1, 2), delete("key"))]);
    for length in 0..payload.len() {
        assert!(EntryReader::open(&payload[..length]).is_err(), "{length}");
    }
    let mut longer = payload.to_vec();
    longer.extend([0; 16]);
    let result = EntryReader::open(&longer).err();
    assert_eq!(result, Some(EntryError::Trailing { bytes: 16 }));
}

#[test]
fn a_value_that_changed_on_its_way_is_noticed() {
    let mut payload = entry(1, &[(Origin::NONE, put("key", "value"))]).to_vec();
    let place = payload.windows(5).position(|window| window == b"value").unwrap();
    payload[place] = b'V';
    let result = EntryReader::open(&payload).err();
    assert!(matches!(result, Some(EntryError::Checksum { position: 0, .. })), "{result:?}");
}

#[test]
fn what_is_not_canonical_is_not_an_entry() {
    let sound = entry(1, &[(Origin::NONE, put("key", "value"))]).to_vec();
    let with = |place: usize, byte: u8| {
        let mut bytes = sound.clone();
        assert_ne!(bytes[place], byte);
        bytes[place] = byte;
        EntryReader::open(&bytes).err()
    };
    assert_eq!(with(0, 2), Some(EntryError::Version { found: 2 }));
    assert_eq!(with(4, 0), Some(EntryError::Empty));
    assert_eq!(with(4, 2), Some(EntryError::Length { position: 1 }));
    assert_eq!(with(16, 80), Some(EntryError::Length { position: 0 }));
    let kind = Some(EntryError::Form { position: 0, kind: 99, variant: 0 });
    assert_eq!(with(20, 99), kind);
    assert!(with(21, 1).is_some(), "variant");
    assert!(with(56, 1).is_some(), "argument of a put");
    assert!(with(sound.len() - 1, 1).is_some(), "padding");
}

#[test]
fn limits_are_checked_before_and_within_an_entry() {
    let check = |command: Command| command.check(Origin::NONE);
    let long = |bytes: usize| Bytes::from(vec![b'k'; bytes]);
    let key = long(KEY_BYTES_MAX);
    assert_eq!(check(Command::Put { key: key.clone(), value: long(VALUE_BYTES_MAX) }), Ok(()));
    let too_long = |what, max| Err(CommandError::TooLong { what, bytes: max + 1, max });
    let value = long(VALUE_BYTES_MAX + 1);
    let expected = too_long("value", VALUE_BYTES_MAX);
    assert_eq!(check(Command::Put { key: key.clone(), value: value.clone() }), expected);
    let (expect, none) = (Expect::Value(value), None);
    let expected = too_long("expected value", VALUE_BYTES_MAX);
    assert_eq!(check(Command::CompareAndSet { key, expect, value: none }), expected);
    let expected = too_long("key", KEY_BYTES_MAX);
    assert_eq!(check(Command::Delete { key: long(KEY_BYTES_MAX + 1) }), expected);
    assert_eq!(check(delete("")), Err(CommandError::Empty { what: "key" }));
    let label = long(KEY_BYTES_MAX + 1);
    let open = Command::SessionOpen { ttl_ms: 1, nonce: 1, label };
    assert_eq!(check(open), too_long("label", KEY_BYTES_MAX));
    let lock = acquire("l", Wait::Try);
    assert_eq!(lock.check(Origin::NONE), Err(CommandError::SessionRequired));
    assert_eq!(lock.check(from(1, 1)), Ok(()));
    assert_eq!(
        acquire("", Wait::Try).check(from(1, 1)),
        Err(CommandError::Empty { what: "lock name" })
    );

    let mut payload = entry(1, &[(from(1, 1), lock)]).to_vec();
    payload[32] = 0;
    let limit = EntryError::Limit { position: 0, source: CommandError::SessionRequired };
    assert_eq!(EntryReader::open(&payload).err(), Some(limit));
}

#[test]
fn the_largest_value_passes_through_an_entry_and_a_snapshot() {
    let mut node = Node::new();
    let value = Bytes::from(vec![0xA5; VALUE_BYTES_MAX]);
    node.outcome(Origin::NONE, Command::Put { key: bytes("k"), value: value.clone() });
    let snapshot = snapshot(&node);
    let restored = try_restore(snapshot.chunks(100_000)).unwrap();
    assert_eq!(restored.value("k"), Some(value));
}

#[test]
fn a_builder_serves_one_entry_after_the_other() {
    let mut encoded = BytesMut::new();
    encode_command(Origin::NONE, &put("k", "v"), &mut encoded);
    let mut builder = EntryBuilder::new();
    let mut entries = Vec::new();
    for now_ms in [1, 2] {
        builder.begin(now_ms);
        builder.push(&encoded);
        builder.push(&encoded);
        assert_eq!((builder.count(), builder.bytes()), (2, 16 + 2 * 64));
        entries.push(builder.finish());
    }
    for (now_ms, payload) in [1, 2].into_iter().zip(&entries) {
        let reader = EntryReader::open(payload).unwrap();
        assert_eq!((reader.time_ms(), reader.count()), (now_ms, 2));
    }
}
