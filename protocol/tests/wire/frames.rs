//! Frames: what is accepted, what is refused and when.

use crate::samples;
use bytes::{BufMut, Bytes, BytesMut};
use protocol::frame::{self, HEADER_BYTES};
use protocol::{FrameError, HANDSHAKE_BODY_BYTES_MAX, Limits, Request, kind};

const CAP: u32 = 1 << 20;

fn decode(bytes: &[u8], cap: u32) -> Result<Option<frame::Frame>, FrameError> {
    frame::decode(&mut BytesMut::from(bytes), cap)
}

fn some_frame() -> BytesMut {
    let mut wire = BytesMut::new();
    frame::encode(kind::PUT, 7, &mut wire, |out| out.put_slice(b"some body"));
    wire
}

#[test]
fn frame_is_not_decoded_before_its_last_byte_has_arrived() {
    let whole = some_frame();
    for arrived in 0..whole.len() {
        assert_eq!(decode(&whole[..arrived], CAP), Ok(None), "{arrived} bytes");
    }
    let frame = decode(&whole, CAP).unwrap().expect("it is whole");
    assert_eq!(frame.body, &b"some body"[..]);
    assert_eq!(frame.header.request_id, 7);
}

#[test]
fn partial_frame_stays_in_the_buffer() {
    let whole = some_frame();
    let mut buf = BytesMut::from(&whole[..whole.len() - 1]);
    assert_eq!(frame::decode(&mut buf, CAP), Ok(None));
    buf.put_slice(&whole[whole.len() - 1..]);
    assert!(frame::decode(&mut buf, CAP).unwrap().is_some());
    assert!(buf.is_empty());
}

#[test]
fn frames_that_arrive_together_are_decoded_one_after_the_other() {
    let mut wire = BytesMut::new();
    for id in 1..=3 {
        Request::Ping.encode_into(id, &mut wire);
    }
    for id in 1..=3 {
        assert_eq!(frame::decode(&mut wire, CAP).unwrap().unwrap().header.request_id, id);
    }
    assert_eq!(frame::decode(&mut wire, CAP), Ok(None));
}

#[test]
fn id_0_is_for_replies_only() {
    let mut wire = BytesMut::new();
    Request::Ping.encode_into(0, &mut wire);
    let refused = frame::decode_request(&mut wire.clone(), CAP);
    assert_eq!(refused, Err(FrameError::NoRequestId));
    assert!(frame::decode(&mut wire, CAP).unwrap().is_some());
    Request::Ping.encode_into(1, &mut wire);
    assert!(frame::decode_request(&mut wire, CAP).unwrap().is_some());
}

#[test]
fn garbage_is_refused_by_its_first_bytes() {
    for garbage in ["GET / HTTP/1.1\r\n", "\x16\x03\x01", "ruok", "\0", "HF1", "H\0\0\0"] {
        let error = decode(garbage.as_bytes(), CAP).expect_err(garbage);
        assert!(matches!(error, FrameError::BadMagic { .. }), "{garbage}: {error}");
    }
    assert_eq!(decode(b"H", CAP), Ok(None), "this may become a frame");
}

#[test]
fn other_frame_version_is_refused_by_name() {
    assert_eq!(decode(b"HFD\x02", CAP), Err(FrameError::UnsupportedVersion { found: 2 }));
    assert_eq!(decode(b"HFD\x00", CAP), Err(FrameError::UnsupportedVersion { found: 0 }));
}

#[test]
fn length_is_held_against_the_cap_before_the_body_arrives() {
    let mut wire = BytesMut::new();
    frame::encode(kind::PUT, 1, &mut wire, |out| out.put_bytes(0, 4097));
    let header = &wire[..HEADER_BYTES];
    let too_long = FrameError::TooLong { length: 4097, max: HANDSHAKE_BODY_BYTES_MAX };
    assert_eq!(decode(header, HANDSHAKE_BODY_BYTES_MAX), Err(too_long));
    assert_eq!(decode(header, 4097), Ok(None));
}

#[test]
fn announced_length_of_four_gigabytes_makes_no_room() {
    let mut wire = some_frame();
    wire[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let capacity = wire.capacity();
    assert_eq!(frame::decode(&mut wire, u32::MAX), Ok(None));
    assert_eq!(wire.capacity(), capacity);
}

#[test]
fn any_flipped_bit_is_noticed_in_every_message() {
    for (name, message) in samples::all() {
        let whole = message.encode();
        for bit in 0..whole.len() * 8 {
            let mut wire = whole.clone();
            wire[bit / 8] ^= 1 << (bit % 8);
            let decoded = frame::decode(&mut wire, CAP);
            // A length that grew makes the decoder wait for bytes that never come, or exceeds the
            // cap.
            let waits = (64..96).contains(&bit) && decoded == Ok(None);
            assert!(waits || decoded.is_err(), "{name}: bit {bit} gave {decoded:?}");
        }
    }
}

#[test]
fn bits_without_a_meaning_are_refused_even_with_a_right_checksum() {
    for offset in [13, 14, 15] {
        let mut wire = some_frame();
        wire[offset] = 1;
        let checksum = crc32fast::hash(&[&wire[..4], &wire[8..]].concat());
        wire[4..8].copy_from_slice(&checksum.to_le_bytes());
        let error = frame::decode(&mut wire, CAP).expect_err("the bits have no meaning");
        assert!(matches!(error, FrameError::ReservedBits { .. }), "{error}");
    }
}

#[test]
fn body_shares_the_buffer_it_arrived_in() {
    let mut wire = some_frame();
    let arrived_at = wire.as_ptr().addr() + HEADER_BYTES;
    let frame = frame::decode(&mut wire, CAP).unwrap().unwrap();
    assert_eq!(frame.body.as_ptr().addr(), arrived_at);
}

#[test]
fn largest_allowed_requests_fit_their_cap_and_one_byte_more_is_too_large() {
    let limits = Limits::default();
    let key = Bytes::from(vec![1; limits.key_bytes_max as usize]);
    let value = |extra| Bytes::from(vec![2; limits.value_bytes_max as usize + extra]);
    let put = |extra| Request::Put {
        origin: protocol::Origin::NONE,
        key: key.clone(),
        value: value(extra),
    };
    assert!(put(0).validate(&limits).is_ok());
    let mut wire = BytesMut::new();
    put(0).encode_into(1, &mut wire);
    assert!(frame::decode(&mut wire, limits.request_body_bytes_max()).unwrap().is_some());
    let error = put(1).validate(&limits).expect_err("the value is one byte too long");
    assert_eq!(error.code, protocol::ErrorCode::TooLarge);
}
