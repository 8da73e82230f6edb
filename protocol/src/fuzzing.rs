//! What the fuzz target and the test that replays its corpus run: any bytes, no panic.

#![deny(clippy::indexing_slicing)]

use bytes::BytesMut;

use crate::frame::{self, Frame};
use crate::{HANDSHAKE_BODY_BYTES_MAX, Hello, Limits, Request, Response, Welcome};

/// Reads `data` as a connection of each kind would; whatever is understood must survive a round
/// trip.
pub fn frame_decode(data: &[u8]) {
    for cap in [HANDSHAKE_BODY_BYTES_MAX, Limits::default().request_body_bytes_max()] {
        let mut buf = BytesMut::from(data);
        while let Ok(Some(frame)) = frame::decode(&mut buf, cap) {
            assert!(frame.body.len() <= cap as usize);
            read_as_everything(&frame);
        }
    }
    read_body_without_frame(data);
}

/// The first byte as the type, the rest as the body: bodies are reached without a right checksum.
fn read_body_without_frame(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let mut wire = BytesMut::new();
    frame::encode(*kind, 1, &mut wire, |out| out.extend_from_slice(body));
    let frame = frame::decode(&mut wire, u32::MAX);
    read_as_everything(&frame.expect("we wrote the frame").expect("we wrote it whole"));
}

fn read_as_everything(frame: &Frame) {
    let kind = frame.header.kind;
    if let Ok(hello) = Hello::decode(kind, frame.body.clone()) {
        round_trip(frame, |id, out| hello.encode_into(id, out));
    }
    match Welcome::decode(kind, frame.body.clone()) {
        Ok(Ok(welcome)) => round_trip(frame, |id, out| welcome.encode_into(id, out)),
        Ok(Err(error)) => round_trip(frame, |id, out| error.encode_into(id, out)),
        Err(_) => {}
    }
    if let Ok(request) = Request::decode(kind, frame.body.clone()) {
        let verdict = request.validate(&Limits::default());
        assert!(verdict.is_ok() || verdict.is_err_and(|error| !error.message.is_empty()));
        round_trip(frame, |id, out| request.encode_into(id, out));
    }
    if let Ok(response) = Response::decode(kind, frame.body.clone()) {
        // A page that no server would write is read, but cannot be written.
        if frame.body.len() <= crate::RANGE_PAGE_BYTES_MAX {
            round_trip(frame, |id, out| response.encode_into(id, out));
        }
    }
}

/// What was decoded encodes to the bytes that it came from: there is one way to write a message.
fn round_trip(frame: &Frame, encode: impl FnOnce(u64, &mut BytesMut)) {
    let mut again = BytesMut::new();
    encode(frame.header.request_id, &mut again);
    assert_eq!(again.get(frame::HEADER_BYTES..), Some(&*frame.body));
}
