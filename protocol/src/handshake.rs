//! The first frame of each side. Their layout stays the same in every protocol version.

#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{DecodeError, Reader, put_bytes, put_optional};
use crate::error::{Error, ErrorCode, LeaderHint};
use crate::limits::{LABEL_BYTES_MAX, Limits};
use crate::{PROTOCOL_VERSION, frame, kind};

/// The client's first frame: what it speaks, whom it wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The lowest protocol version that the client speaks.
    pub version_min: u16,
    /// The highest protocol version that the client speaks.
    pub version_max: u16,
    /// The cluster that the client wants; `None` takes any.
    pub cluster_id: Option<u128>,
    /// Who the client says it is, for people who look at connections; at most 255 bytes of UTF-8.
    pub client: String,
}

/// The server's first frame: what is spoken from here on, and to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The protocol version of this connection: the highest one that both sides speak.
    pub version: u16,
    /// The cluster; the same on all its nodes, for ever.
    pub cluster_id: u128,
    /// The id of the answering node.
    pub node: u64,
    /// Who leads, as far as the answering node knows; may be the node itself.
    pub leader: Option<LeaderHint>,
    /// What the server takes from this connection.
    pub limits: Limits,
}

impl Hello {
    /// The hello of a client that speaks this crate's version and takes any cluster.
    pub fn new(client: impl Into<String>) -> Hello {
        Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            cluster_id: None,
            client: client.into(),
        }
    }

    /// What a server of this crate's version that belongs to `cluster_id` makes of it: the version
    /// to speak.
    pub fn accept(&self, cluster_id: u128) -> Result<u16, Error> {
        if !(self.version_min..=self.version_max).contains(&PROTOCOL_VERSION) {
            let (min, max) = (self.version_min, self.version_max);
            let message = format!(
                "the client speaks protocol versions {min} to {max}, this server \
                 {PROTOCOL_VERSION}; use a client of this server's release"
            );
            return Err(Error::not_done(ErrorCode::UnsupportedVersion, message));
        }
        match self.cluster_id {
            Some(wanted) if wanted != cluster_id => {
                let message = format!(
                    "the client wants cluster {wanted:032x}, this is {cluster_id:032x}; \
                     check the endpoints"
                );
                Err(Error::not_done(ErrorCode::WrongCluster, message))
            }
            _ => Ok(PROTOCOL_VERSION),
        }
    }

    /// Appends a whole frame with this hello.
    pub fn encode_into(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(kind::HELLO, request_id, out, |out| {
            out.put_u16_le(self.version_min);
            out.put_u16_le(self.version_max);
            put_optional(out, self.cluster_id, BufMut::put_u128_le);
            put_bytes(out, self.client.as_bytes());
        });
    }

    /// Reads the body of a frame whose type is `kind`.
    pub fn decode(kind: u8, body: Bytes) -> Result<Hello, DecodeError> {
        if kind != kind::HELLO {
            return Err(DecodeError::UnknownKind { kind });
        }
        let mut reader = Reader::new(body);
        let hello = Hello {
            version_min: reader.u16("version_min")?,
            version_max: reader.u16("version_max")?,
            cluster_id: reader.optional("cluster_id", |reader| reader.u128("cluster_id"))?,
            client: reader.text("client")?,
        };
        if hello.client.len() > LABEL_BYTES_MAX {
            let value = hello.client.len() as u64;
            return Err(DecodeError::BadField { field: "client length", value });
        }
        reader.finish()?;
        Ok(hello)
    }
}

impl Welcome {
    /// Appends a whole frame with this welcome.
    pub fn encode_into(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(kind::WELCOME, request_id, out, |out| {
            out.put_u16_le(self.version);
            out.put_u128_le(self.cluster_id);
            out.put_u64_le(self.node);
            put_optional(out, self.leader.as_ref(), |out, leader| {
                leader.encode_body(out);
            });
            out.put_u32_le(self.limits.key_bytes_max);
            out.put_u32_le(self.limits.value_bytes_max);
            out.put_u32_le(self.limits.inflight_requests_max);
            out.put_u32_le(self.limits.inflight_bytes_max);
        });
    }

    /// Reads the body of a frame whose type is `kind`: a welcome, or the error with which the
    /// server refuses.
    pub fn decode(kind: u8, body: Bytes) -> Result<Result<Welcome, Error>, DecodeError> {
        match kind {
            kind::WELCOME => Welcome::decode_body(body).map(Ok),
            kind::ERROR => Error::decode(body).map(Err),
            _ => Err(DecodeError::UnknownKind { kind }),
        }
    }

    fn decode_body(body: Bytes) -> Result<Welcome, DecodeError> {
        let mut reader = Reader::new(body);
        let welcome = Welcome {
            version: reader.u16("version")?,
            cluster_id: reader.u128("cluster_id")?,
            node: reader.u64("node")?,
            leader: reader.optional("leader", LeaderHint::read)?,
            limits: Limits {
                key_bytes_max: reader.u32("key_bytes_max")?,
                value_bytes_max: reader.u32("value_bytes_max")?,
                inflight_requests_max: reader.u32("inflight_requests_max")?,
                inflight_bytes_max: reader.u32("inflight_bytes_max")?,
            },
        };
        reader.finish()?;
        Ok(welcome)
    }
}
