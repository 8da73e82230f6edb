//! Bodies: what goes in comes out, and nothing else is taken for a message.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use protocol::{
    Certainty, Consistency, DecodeError, Error, ErrorCode, Expect, Hello, Item, KeyRange,
    LABEL_BYTES_MAX, LeaderHint, Limits, LockHolder, Origin, RangeItem, Request, Response,
    SESSION_TTL_MS_MAX, Wait, frame, fuzzing, kind,
};

use crate::samples;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn origin() -> impl Strategy<Value = Origin> {
    any::<[u64; 3]>().prop_map(|[session, sequence, lowest_unanswered]| Origin {
        session,
        sequence,
        lowest_unanswered,
    })
}

fn range() -> impl Strategy<Value = KeyRange> {
    (bytes(), option::of(bytes())).prop_map(|(start, end)| KeyRange { start, end })
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![Just(Consistency::Linearizable), Just(Consistency::Stale)]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        bytes().prop_map(Expect::Value),
        any::<u64>().prop_map(Expect::Revision),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let wait = any::<u64>().prop_map(Wait::from_millis);
    prop_oneof![
        Just(Request::Ping),
        Just(Request::Status),
        (origin(), bytes(), bytes()).prop_map(|(origin, key, value)| Request::Put {
            origin,
            key,
            value
        }),
        (origin(), bytes()).prop_map(|(origin, key)| Request::Delete { origin, key }),
        (origin(), range()).prop_map(|(origin, range)| Request::DeleteRange { origin, range }),
        (origin(), bytes(), expect(), option::of(bytes())).prop_map(
            |(origin, key, expect, value)| Request::CompareAndSet { origin, key, expect, value }
        ),
        (consistency(), bytes()).prop_map(|(consistency, key)| Request::Get { consistency, key }),
        (consistency(), range(), any::<u32>(), any::<bool>()).prop_map(
            |(consistency, range, limit, keys_only)| Request::Range {
                consistency,
                range,
                limit,
                keys_only
            }
        ),
        (any::<u128>(), any::<u64>(), bytes())
            .prop_map(|(nonce, ttl_ms, label)| Request::SessionOpen { nonce, ttl_ms, label }),
        any::<u64>().prop_map(|session| Request::SessionKeepAlive { session }),
        any::<u64>().prop_map(|session| Request::SessionClose { session }),
        (origin(), bytes(), wait).prop_map(|(origin, name, wait)| Request::LockAcquire {
            origin,
            name,
            wait
        }),
        (origin(), bytes(), any::<u64>()).prop_map(|(origin, name, token)| Request::LockRelease {
            origin,
            name,
            token
        }),
        (consistency(), bytes())
            .prop_map(|(consistency, name)| Request::LockQuery { consistency, name }),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    (bytes(), any::<[u64; 4]>()).prop_map(|(value, counters)| {
        let [create_revision, mod_revision, version, session] = counters;
        Item { value, create_revision, mod_revision, version, session }
    })
}

fn error() -> impl Strategy<Value = Error> {
    let certainty =
        prop_oneof![Just(Certainty::NotDone), Just(Certainty::Done), Just(Certainty::Unknown)];
    let leader = (any::<u64>(), any::<String>()).prop_map(|(node, addr)| LeaderHint { node, addr });
    let code = any::<u16>().prop_map(ErrorCode::from_u16);
    (code, certainty, any::<String>(), option::of(leader), option::of(any::<u32>())).prop_map(
        |(code, certainty, message, leader, retry_after_ms)| Error {
            code,
            certainty,
            message,
            leader,
            retry_after_ms,
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    let items = vec((bytes(), item()).prop_map(|(key, item)| RangeItem { key, item }), 0..20);
    let holder = any::<[u64; 2]>().prop_map(|[session, token]| LockHolder { session, token });
    prop_oneof![
        any::<u64>().prop_map(|revision| Response::Put { revision }),
        any::<[u64; 2]>().prop_map(|[revision, deleted]| Response::Deleted { revision, deleted }),
        (any::<[u64; 2]>(), any::<bool>()).prop_map(|([revision, mod_revision], swapped)| {
            Response::CompareAndSet { revision, swapped, mod_revision }
        }),
        (any::<u64>(), option::of(item()))
            .prop_map(|(revision, item)| Response::Get { revision, item }),
        (any::<u64>(), items, any::<bool>()).prop_map(|(revision, items, more)| Response::Range {
            revision,
            items,
            more
        }),
        any::<[u64; 3]>().prop_map(|[session, generation, ttl_ms]| Response::SessionOpened {
            session,
            generation,
            ttl_ms
        }),
        (any::<u64>(), option::of(holder), any::<u32>()).prop_map(|(revision, holder, waiters)| {
            Response::LockState { revision, holder, waiters }
        }),
        error().prop_map(Response::Error),
    ]
}

proptest! {
    #[test]
    fn any_request_survives_the_wire(request in request(), id in any::<u64>()) {
        let mut wire = BytesMut::new();
        request.encode_into(id, &mut wire);
        let frame = frame::decode(&mut wire, u32::MAX).unwrap().expect("it is whole");
        prop_assert!(wire.is_empty());
        prop_assert_eq!(frame.header.request_id, id);
        prop_assert_eq!(Request::decode(frame.header.kind, frame.body), Ok(request));
    }

    #[test]
    fn any_response_survives_the_wire(response in response(), id in any::<u64>()) {
        let mut wire = BytesMut::new();
        response.encode_into(id, &mut wire);
        let frame = frame::decode(&mut wire, u32::MAX).unwrap().expect("it is whole");
        prop_assert!(wire.is_empty());
        prop_assert_eq!(frame.header.request_id, id);
        prop_assert_eq!(Response::decode(frame.header.kind, frame.body), Ok(response));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(data in vec(any::<u8>(), 0..2000)) {
        fuzzing::frame_decode(&data);
    }

    /// A right frame around a damaged body: what a faulty client sends.
    #[test]
    fn any_damage_to_a_body_is_read_without_a_panic(
        sample in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let samples = samples::all();
        let (_, message) = sample.get(&samples);
        let wire = message.encode();
        let mut body = wire[frame::HEADER_BYTES..].to_vec();
        for (at, byte) in damage {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        body.truncate(body.len() - cut.index(body.len() + 1));
        let mut again = BytesMut::new();
        frame::encode(wire[12], 1, &mut again, |out| out.put_slice(&body));
        fuzzing::frame_decode(&again);
    }
}

#[test]
fn body_that_ends_early_or_goes_on_is_not_a_message() {
    for (name, message) in samples::all() {
        let wire = message.encode();
        let (kind, body) = (wire[12], &wire[frame::HEADER_BYTES..]);
        for cut in 0..body.len() {
            let decoded = message.decode_like(kind, Bytes::copy_from_slice(&body[..cut]));
            assert!(decoded.is_err(), "{name} cut to {cut} bytes gave {decoded:?}");
        }
        let longer = Bytes::from([body, &[0]].concat());
        let decoded = message.decode_like(kind, longer);
        assert_eq!(decoded, Err(DecodeError::TrailingBytes { left: 1 }), "{name}");
    }
}

#[test]
fn announced_count_of_items_makes_no_room() {
    let mut body = BytesMut::new();
    body.put_u64_le(1); // revision
    body.put_u8(0); // more
    body.put_u32_le(u32::MAX); // count
    let decoded = Response::decode(kind::RANGE_PAGE, body.freeze());
    assert!(matches!(decoded, Err(DecodeError::Truncated { .. })), "{decoded:?}");
}

#[test]
fn request_and_reply_are_not_taken_for_each_other() {
    assert_eq!(
        Request::decode(kind::PONG, Bytes::new()),
        Err(DecodeError::UnknownKind { kind: kind::PONG })
    );
    assert_eq!(
        Response::decode(kind::PING, Bytes::new()),
        Err(DecodeError::UnknownKind { kind: kind::PING })
    );
    assert_eq!(
        Request::decode(kind::HELLO, Bytes::new()),
        Err(DecodeError::UnknownKind { kind: kind::HELLO }),
        "a second hello is no request"
    );
}

#[test]
fn every_error_code_keeps_its_number_and_its_name() {
    for code in ErrorCode::all() {
        assert_eq!(ErrorCode::from_u16(code.to_u16()), code);
        assert_ne!(code.name(), "other");
    }
    assert_eq!(ErrorCode::from_u16(65_000), ErrorCode::Other(65_000));
    assert_eq!(ErrorCode::Other(65_000).to_u16(), 65_000);
}

fn refused(request: &Request) -> ErrorCode {
    let error = request.validate(&Limits::default()).expect_err("it breaks a rule");
    assert_eq!(error.certainty, Certainty::NotDone);
    error.code
}

fn delete(origin: Origin) -> Request {
    Request::Delete { origin, key: Bytes::from_static(b"k") }
}

#[test]
fn origin_that_contradicts_itself_is_refused() {
    let origin =
        |session, sequence, lowest_unanswered| Origin { session, sequence, lowest_unanswered };
    for sound in [Origin::NONE, origin(1, 1, 1), origin(1, 1024, 1), origin(1, u64::MAX, u64::MAX)]
    {
        assert_eq!(delete(sound).validate(&Limits::default()), Ok(()), "{sound:?}");
    }
    for bad in [origin(0, 1, 0), origin(0, 0, 1), origin(1, 0, 0), origin(1, 1, 0), origin(1, 1, 2)]
    {
        assert_eq!(refused(&delete(bad)), ErrorCode::BadRequest, "{bad:?}");
    }
    assert_eq!(refused(&delete(origin(1, 1025, 1))), ErrorCode::SequenceTooFar);
}

#[test]
fn lock_requests_need_a_session() {
    let name = Bytes::from_static(b"l");
    let acquire =
        Request::LockAcquire { origin: Origin::NONE, name: name.clone(), wait: Wait::Try };
    assert_eq!(refused(&acquire), ErrorCode::BadRequest);
    let release = Request::LockRelease { origin: Origin::NONE, name, token: 1 };
    assert_eq!(refused(&release), ErrorCode::BadRequest);
}

#[test]
fn empty_and_oversized_keys_are_refused() {
    let get = |bytes| Request::Get {
        consistency: Consistency::Linearizable,
        key: Bytes::from(vec![b'k'; bytes]),
    };
    assert_eq!(refused(&get(0)), ErrorCode::BadRequest);
    assert_eq!(get(4096).validate(&Limits::default()), Ok(()));
    assert_eq!(refused(&get(4097)), ErrorCode::TooLarge);
}

#[test]
fn page_after_the_longest_key_can_be_asked_for_but_not_deleted() {
    let range = KeyRange::all().after(&[b'k'; 4096]);
    let read = Request::Range {
        consistency: Consistency::Linearizable,
        range: range.clone(),
        limit: 0,
        keys_only: false,
    };
    assert_eq!(read.validate(&Limits::default()), Ok(()));
    let delete = Request::DeleteRange { origin: Origin::NONE, range };
    assert_eq!(refused(&delete), ErrorCode::TooLarge);
}

#[test]
fn expected_and_new_value_share_one_limit() {
    let half = Bytes::from(vec![0; 512 << 10]);
    let compare = |value: &Bytes| Request::CompareAndSet {
        origin: Origin::NONE,
        key: Bytes::from_static(b"k"),
        expect: Expect::Value(half.clone()),
        value: Some(value.clone()),
    };
    assert_eq!(compare(&half).validate(&Limits::default()), Ok(()));
    let more = Bytes::from(vec![0; (512 << 10) + 1]);
    assert_eq!(refused(&compare(&more)), ErrorCode::TooLarge);
}

#[test]
fn session_ttl_outside_its_bounds_is_refused() {
    let open = |ttl_ms| Request::SessionOpen { nonce: 1, ttl_ms, label: Bytes::new() };
    for ttl_ms in [1_000, 10_000, SESSION_TTL_MS_MAX] {
        assert_eq!(open(ttl_ms).validate(&Limits::default()), Ok(()));
    }
    for ttl_ms in [0, 999, SESSION_TTL_MS_MAX + 1, u64::MAX] {
        assert_eq!(refused(&open(ttl_ms)), ErrorCode::BadRequest, "{ttl_ms}");
    }
}

#[test]
fn label_of_a_session_that_is_too_long_is_too_large() {
    let open = |bytes| {
        let label = Bytes::from(vec![b'l'; bytes]);
        Request::SessionOpen { nonce: 1, ttl_ms: 10_000, label }
    };
    assert_eq!(open(LABEL_BYTES_MAX).validate(&Limits::default()), Ok(()));
    assert_eq!(refused(&open(LABEL_BYTES_MAX + 1)), ErrorCode::TooLarge);
}

#[test]
fn hello_is_refused_for_another_version_or_another_cluster() {
    let code = |hello: &Hello| hello.accept(7).map_err(|error| error.code);
    assert_eq!(code(&Hello::new("c")), Ok(1));
    assert_eq!(code(&Hello { cluster_id: Some(7), ..Hello::new("c") }), Ok(1));
    let other = Hello { cluster_id: Some(8), ..Hello::new("c") };
    assert_eq!(code(&other), Err(ErrorCode::WrongCluster));
    let newer = Hello { version_min: 2, version_max: 3, ..Hello::new("c") };
    assert_eq!(code(&newer), Err(ErrorCode::UnsupportedVersion));
    let wide = Hello { version_min: 1, version_max: 3, ..Hello::new("c") };
    assert_eq!(code(&wide), Ok(1));
}

#[test]
fn page_ends_before_it_exceeds_its_limit_but_takes_one_item_of_any_size() {
    let value = vec![0; 300 << 10];
    let item = protocol::ItemRef {
        value: &value,
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        session: 0,
    };
    let mut out = BytesMut::new();
    let mut page = protocol::RangeReply::begin(1, 2, &mut out);
    let taken = (0..10).take_while(|_| page.push(b"k", item)).count();
    assert_eq!(taken, 3);
    page.finish(true);
    let cap = Limits::default().reply_body_bytes_max();
    assert!(frame::decode(&mut out, cap).unwrap().is_some());

    let large = vec![0; protocol::VALUE_BYTES_MAX];
    let item = protocol::ItemRef { value: &large, ..item };
    let key = [b'k'; 4096];
    let mut page = protocol::RangeReply::begin(1, 2, &mut out);
    assert!(page.push(&key, item));
    assert!(!page.push(&key, item));
    page.finish(true);
    let cap = Limits::with_value_bytes_max(protocol::VALUE_BYTES_MAX).reply_body_bytes_max();
    assert!(frame::decode(&mut out, cap).unwrap().is_some());
}
