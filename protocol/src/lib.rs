//! The client protocol of holdfast: frames, the handshake, requests, replies and errors, as bytes.
//!
//! This crate does no I/O and knows nothing of servers: it turns values into bytes and bytes into
//! values, and says what is wrong with bytes that are not a message. Everything on the wire is
//! little-endian. `docs/protocol.md` describes the same in words and byte tables, complete enough
//! to write a client from.
//!
//! A connection goes through two states. First the client sends one [`Hello`] and the server
//! answers with one [`Welcome`] or an [`Error`]; frames are small here
//! ([`HANDSHAKE_BODY_BYTES_MAX`]). Then the client sends any number of [`Request`]s without
//! waiting, and each gets exactly one [`Response`] that carries its request id, in any order.
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use protocol::{Limits, Origin, Request, frame};
//!
//! let request = Request::Put {
//!     origin: Origin::NONE,
//!     key: Bytes::from_static(b"city"),
//!     value: Bytes::from_static(b"Berlin"),
//! };
//! let mut wire = BytesMut::new();
//! request.encode_into(7, &mut wire);
//!
//! let cap = Limits::default().request_body_bytes_max();
//! let frame = frame::decode(&mut wire, cap)?.expect("the frame is whole");
//! assert_eq!(frame.header.request_id, 7);
//! assert_eq!(Request::decode(frame.header.kind, frame.body)?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod codec;
mod error;
pub mod frame;
pub mod fuzzing;
mod handshake;
pub mod kind;
mod limits;
mod range;
mod request;
mod response;
mod status;

pub use codec::DecodeError;
pub use error::{Certainty, Error, ErrorCode, LeaderHint};
pub use frame::{Frame, FrameError, Header};
pub use handshake::{Hello, Welcome};
pub use limits::{
    FRAME_SLACK_BYTES, HANDSHAKE_BODY_BYTES_MAX, KEY_BYTES_MAX, LABEL_BYTES_MAX, Limits,
    RANGE_PAGE_BYTES_MAX, SESSION_TTL_MS_DEFAULT, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN,
    SESSION_WINDOW, VALUE_BYTES_MAX, VALUE_BYTES_MAX_DEFAULT,
};
pub use range::KeyRange;
pub use request::{
    Consistency, Expect, Origin, Request, Wait, encode_get_request, encode_put_request,
};
pub use response::{Item, ItemRef, LockHolder, RangeItem, RangeReply, Response, encode_get_reply};
pub use status::{DiskStatus, NodeStatus, PeerState, PeerStatus, Role};

/// The protocol version that this crate speaks; [`Hello`] and [`Welcome`] settle on one.
pub const PROTOCOL_VERSION: u16 = 1;
