//! What nodes send each other, and its bytes.
//!
//! A frame is a 16-byte header (body length u32, CRC-32 u32 over the rest of the header and the body,
//! kind u8, version u8, six zero bytes) and a body. Entry bodies are never copied into it: a frame is a list of shared
//! parts that one vectored write sends.
//!
//! A keep-alive is a frame without a body. It says nothing, so [`decode`] passes over it; a side
//! that has sent nothing for [`KEEP_ALIVE_AFTER`] sends one, and a link that is silent for longer is
//! dead.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use raft::{
    AppendOutcome, Batch, Kind, LogId, LogIndex, Membership, Message, Micros, NodeId, Round,
    SendId, SnapshotMeta, Term,
};
use thiserror::Error;

use crate::bytes_reader::{Malformed, Reader, length_u32};
use crate::identity::{Founding, Member};

/// The version of the peer protocol that this build speaks.
pub const PEER_VERSION: u8 = 3;
/// The largest body that is read before the handshake is done.
pub const HELLO_BYTES_MAX: usize = 4096;
/// The largest body that is read afterwards: one entry of the largest size and its header.
pub const BODY_BYTES_MAX: usize = 20 << 20;
/// After how long a silence of its own a side says that it is there.
pub const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(1);

const HEADER_BYTES: usize = 16;
/// Frames up to this long are copied out of the buffer that they came in.
pub const COPIED_BYTES_MAX: usize = 128 << 10;
/// Bodies beyond this many parts are refused, as no correct peer sends so many batches.
const BATCHES_COUNT_MAX: usize = 65_536;

/// One message between two nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// Opens a link, both ways.
    Hello(Hello),
    /// Closes a link and says why.
    Refused {
        /// For the operator.
        reason: String,
    },
    /// Of the consensus core.
    Raft(Message),
    /// Asks for the next bytes of an offered snapshot.
    SnapshotPull {
        /// Which transfer.
        send: SendId,
        /// The first wanted byte.
        offset: u64,
    },
    /// Bytes of a snapshot, in answer to a pull.
    SnapshotChunk {
        /// Which transfer.
        send: SendId,
        /// Where they belong.
        offset: u64,
        /// How many bytes the whole snapshot has.
        total: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The transfer cannot go on; wait for another offer.
    SnapshotGone {
        /// Which transfer.
        send: SendId,
    },
    /// Asks for a value that the sender cannot read any more.
    ValuePull {
        /// The sender's number for this question.
        id: u64,
        /// Whose value.
        key: Bytes,
        /// The revision that has set it.
        revision: u64,
    },
    /// The answer: the value, if the key has this one here and it can be read.
    Value {
        /// The number of the question.
        id: u64,
        /// The value.
        value: Option<Bytes>,
    },
}

/// Who calls, and what it knows of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who speaks.
    pub from: Member,
    /// Whom it means to speak to.
    pub to: NodeId,
    /// Where its clients reach it.
    pub advertise: String,
    /// The founding membership, once it is durable here.
    pub founding: Option<Founding>,
}

/// A frame cannot be read; the link must be closed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PeerFrameError {
    /// The announced length is above the limit.
    #[error("a peer frame of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// What the header says.
        bytes: usize,
        /// The limit in this state of the link.
        bytes_max: usize,
    },
    /// The bytes were changed on the way, or this is not a peer.
    #[error("a peer frame has a wrong checksum; is this the peer port of a holdfast node?")]
    Checksum,
    /// The other side speaks another version.
    #[error("the peer speaks version {version} of the peer protocol, this node {PEER_VERSION}")]
    Version {
        /// Its version.
        version: u8,
    },
    /// A field does not say what it should.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// An encoded frame as parts that are written one after the other.
pub type Parts = Vec<Bytes>;

/// Encodes a message.
pub fn encode(message: &PeerMessage) -> Parts {
    let mut body = Vec::with_capacity(64);
    let mut tail = Vec::new();
    let kind = encode_body(message, &mut body, &mut tail);
    encode_frame(kind, &body, tail)
}

/// The frame that says that its sender is there.
pub fn keep_alive() -> Parts {
    encode_frame(FrameKind::KeepAlive, &[], Vec::new())
}

fn encode_frame(kind: FrameKind, body: &[u8], mut tail: Vec<Bytes>) -> Parts {
    let body_bytes = body.len() + tail.iter().map(Bytes::len).sum::<usize>();
    let mut head = Vec::with_capacity(HEADER_BYTES + body.len());
    head.extend_from_slice(&length_u32(body_bytes).to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&[kind as u8, PEER_VERSION, 0, 0, 0, 0, 0, 0]);
    head.extend_from_slice(body);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[8..]);
    for part in &tail {
        crc.update(part);
    }
    head[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
    let mut parts = Vec::with_capacity(1 + tail.len());
    parts.push(Bytes::from(head));
    parts.append(&mut tail);
    parts
}

/// Takes the first message off `buf`, or says that more bytes are needed. Keep-alives before it are
/// dropped.
pub fn decode(buf: &mut BytesMut, bytes_max: usize) -> Result<Option<PeerMessage>, PeerFrameError> {
    while let Some((kind, body)) = decode_frame(buf, bytes_max)? {
        if kind != FrameKind::KeepAlive as u8 {
            return Ok(Some(decode_body(kind, &body)?));
        }
        if !body.is_empty() {
            return Err(Malformed { what: "keep-alive: bytes are left over" }.into());
        }
    }
    Ok(None)
}

/// The kind and the body of the first whole frame.
fn decode_frame(
    buf: &mut BytesMut,
    bytes_max: usize,
) -> Result<Option<(u8, Bytes)>, PeerFrameError> {
    let Some(header) = buf.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let mut reader = Reader::new(header);
    let bytes = reader.u32("header")? as usize;
    let crc = reader.u32("header")?;
    let (kind, version) = (reader.u8("header")?, reader.u8("header")?);
    if bytes > bytes_max {
        return Err(PeerFrameError::TooLarge { bytes, bytes_max });
    }
    if buf.len() < HEADER_BYTES + bytes {
        buf.reserve(HEADER_BYTES + bytes - buf.len());
        return Ok(None);
    }
    let frame = take(buf, HEADER_BYTES + bytes);
    if crc32fast::hash(&frame[8..]) != crc {
        return Err(PeerFrameError::Checksum);
    }
    if version != PEER_VERSION {
        return Err(PeerFrameError::Version { version });
    }
    Ok(Some((kind, frame.slice(HEADER_BYTES..))))
}

/// The first bytes of `buf`. Entries are kept for long, and what is kept of a buffer keeps all of it: so a frame that
/// fills little of one is copied.
fn take(buf: &mut BytesMut, bytes: usize) -> Bytes {
    let frame = buf.split_to(bytes);
    if bytes <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&frame) } else { frame.freeze() }
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum FrameKind {
    Hello = 1,
    Refused = 2,
    KeepAlive = 3,
    Append = 16,
    AppendReply = 17,
    Heartbeat = 18,
    HeartbeatReply = 19,
    PreVote = 20,
    PreVoteReply = 21,
    Vote = 22,
    VoteReply = 23,
    Snapshot = 24,
    SnapshotPull = 32,
    SnapshotChunk = 33,
    SnapshotGone = 34,
    ValuePull = 35,
    Value = 36,
}

fn encode_body(message: &PeerMessage, body: &mut Vec<u8>, tail: &mut Vec<Bytes>) -> FrameKind {
    match message {
        PeerMessage::Hello(hello) => {
            body.extend_from_slice(&hello.from.id.0.to_le_bytes());
            body.extend_from_slice(&hello.from.incarnation.to_le_bytes());
            put_u64(body, hello.to.0);
            put_string(body, &hello.advertise);
            body.push(u8::from(hello.founding.is_some()));
            if let Some(founding) = &hello.founding {
                founding.encode_into(body);
            }
            FrameKind::Hello
        }
        PeerMessage::Refused { reason } => {
            put_string(body, reason);
            FrameKind::Refused
        }
        PeerMessage::Raft(message) => encode_raft(message, body, tail),
        PeerMessage::SnapshotPull { send, offset } => {
            put_u64(body, send.0);
            put_u64(body, *offset);
            FrameKind::SnapshotPull
        }
        PeerMessage::SnapshotChunk { send, offset, total, bytes } => {
            put_u64(body, send.0);
            put_u64(body, *offset);
            put_u64(body, *total);
            tail.push(bytes.clone());
            FrameKind::SnapshotChunk
        }
        PeerMessage::SnapshotGone { send } => {
            put_u64(body, send.0);
            FrameKind::SnapshotGone
        }
        PeerMessage::ValuePull { id, key, revision } => {
            put_u64(body, *id);
            put_u64(body, *revision);
            body.extend_from_slice(&length_u32(key.len()).to_le_bytes());
            tail.push(key.clone());
            FrameKind::ValuePull
        }
        PeerMessage::Value { id, value } => {
            put_u64(body, *id);
            body.push(u8::from(value.is_some()));
            if let Some(value) = value {
                body.extend_from_slice(&length_u32(value.len()).to_le_bytes());
                tail.push(value.clone());
            }
            FrameKind::Value
        }
    }
}

fn encode_raft(message: &Message, body: &mut Vec<u8>, tail: &mut Vec<Bytes>) -> FrameKind {
    put_u64(body, message.term().0);
    match message {
        Message::Append { prev, commit, batches, .. } => {
            put_log_id(body, *prev);
            put_u64(body, commit.0);
            body.extend_from_slice(&length_u32(batches.len()).to_le_bytes());
            for batch in batches {
                encode_batch(batch, body);
                tail.push(batch.body());
            }
            FrameKind::Append
        }
        Message::AppendReply { outcome, last_index, credit_bytes, .. } => {
            match outcome {
                AppendOutcome::Accepted { match_index } => {
                    body.push(0);
                    put_u64(body, match_index.0);
                }
                AppendOutcome::Rejected { prev, hint } => {
                    body.push(1);
                    put_log_id(body, *prev);
                    put_log_id(body, *hint);
                }
            }
            put_u64(body, last_index.0);
            body.extend_from_slice(&credit_bytes.to_le_bytes());
            FrameKind::AppendReply
        }
        Message::Heartbeat { commit, round, sent_at, .. } => {
            put_u64(body, commit.0);
            put_u64(body, round.0);
            put_u64(body, sent_at.0);
            FrameKind::Heartbeat
        }
        Message::HeartbeatReply { round, sent_at, last_index, credit_bytes, .. } => {
            put_u64(body, round.0);
            put_u64(body, sent_at.0);
            put_u64(body, last_index.0);
            body.extend_from_slice(&credit_bytes.to_le_bytes());
            FrameKind::HeartbeatReply
        }
        Message::PreVote { last, .. } => {
            put_log_id(body, *last);
            FrameKind::PreVote
        }
        Message::PreVoteReply { granted, .. } => {
            body.push(u8::from(*granted));
            FrameKind::PreVoteReply
        }
        Message::Vote { last, transfer, .. } => {
            put_log_id(body, *last);
            body.push(u8::from(*transfer));
            FrameKind::Vote
        }
        Message::VoteReply { granted, .. } => {
            body.push(u8::from(*granted));
            FrameKind::VoteReply
        }
        Message::Snapshot { meta, send, .. } => {
            put_u64(body, send.0);
            encode_snapshot_meta(meta, body);
            FrameKind::Snapshot
        }
    }
}

fn encode_batch(batch: &Batch, body: &mut Vec<u8>) {
    put_u64(body, batch.term().0);
    put_u64(body, batch.first().0);
    body.push(kind_code(batch.kind()));
    let ends = batch.ends();
    body.extend_from_slice(&length_u32(ends.len()).to_le_bytes());
    for end in ends {
        body.extend_from_slice(&end.to_le_bytes());
    }
}

/// Appends last (term, index) and the voters.
pub(crate) fn encode_snapshot_meta(meta: &SnapshotMeta, body: &mut Vec<u8>) {
    put_log_id(body, meta.last);
    body.extend_from_slice(&length_u32(meta.membership.voters.len()).to_le_bytes());
    for voter in &meta.membership.voters {
        put_u64(body, voter.0);
    }
}

/// Reads what [`encode_snapshot_meta`] wrote.
pub(crate) fn decode_snapshot_meta(reader: &mut Reader<'_>) -> Result<SnapshotMeta, Malformed> {
    const WHAT: &str = "snapshot position";
    let last = log_id(reader, WHAT)?;
    let count = reader.u32(WHAT)? as usize;
    if count > Founding::MEMBERS_COUNT_MAX {
        return Err(Malformed { what: WHAT });
    }
    let voters = (0..count).map(|_| reader.u64(WHAT).map(NodeId)).collect::<Result<Vec<_>, _>>()?;
    if !voters.is_sorted_by(|a, b| a < b) {
        return Err(Malformed { what: WHAT });
    }
    Ok(SnapshotMeta { last, membership: Membership { voters } })
}

fn decode_body(kind: u8, frame: &Bytes) -> Result<PeerMessage, Malformed> {
    if kind == FrameKind::Append as u8 {
        return decode_append(frame);
    }
    if kind == FrameKind::SnapshotChunk as u8 {
        return decode_chunk(frame);
    }
    let mut reader = Reader::new(frame);
    let message = decode_small(kind, &mut reader)?;
    reader.finish("message: bytes are left over")?;
    Ok(message)
}

fn decode_small(kind: u8, reader: &mut Reader<'_>) -> Result<PeerMessage, Malformed> {
    const WHAT: &str = "message";
    let is = |wanted: FrameKind| kind == wanted as u8;
    if is(FrameKind::Hello) {
        return decode_hello(reader).map(PeerMessage::Hello);
    }
    if is(FrameKind::Refused) {
        return Ok(PeerMessage::Refused { reason: reader.string("reason")?.to_owned() });
    }
    if is(FrameKind::SnapshotPull) {
        return Ok(PeerMessage::SnapshotPull {
            send: SendId(reader.u64(WHAT)?),
            offset: reader.u64(WHAT)?,
        });
    }
    if is(FrameKind::SnapshotGone) {
        return Ok(PeerMessage::SnapshotGone { send: SendId(reader.u64(WHAT)?) });
    }
    if is(FrameKind::ValuePull) {
        return Ok(PeerMessage::ValuePull {
            id: reader.u64(WHAT)?,
            revision: reader.u64(WHAT)?,
            key: decode_bytes(reader)?,
        });
    }
    if is(FrameKind::Value) {
        let id = reader.u64(WHAT)?;
        let value = if reader.bool(WHAT)? { Some(decode_bytes(reader)?) } else { None };
        return Ok(PeerMessage::Value { id, value });
    }
    decode_raft(kind, reader).map(PeerMessage::Raft)
}

/// A length and so many bytes.
fn decode_bytes(reader: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    const WHAT: &str = "value";
    let bytes = reader.u32(WHAT)? as usize;
    reader.bytes(bytes, WHAT).map(Bytes::copy_from_slice)
}

fn decode_hello(reader: &mut Reader<'_>) -> Result<Hello, Malformed> {
    const WHAT: &str = "hello";
    let id = NodeId(reader.u64(WHAT)?);
    let from = Member { id, incarnation: reader.u128(WHAT)? };
    let to = NodeId(reader.u64(WHAT)?);
    let advertise = reader.string(WHAT)?.to_owned();
    let founding = if reader.bool(WHAT)? { Some(Founding::decode(reader)?) } else { None };
    Ok(Hello { from, to, advertise, founding })
}

fn decode_raft(kind: u8, reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    const WHAT: &str = "raft message";
    let is = |wanted: FrameKind| kind == wanted as u8;
    let term = Term(reader.u64(WHAT)?);
    if is(FrameKind::AppendReply) {
        return decode_append_reply(term, reader);
    }
    if is(FrameKind::Heartbeat) {
        let (commit, round) = (LogIndex(reader.u64(WHAT)?), Round(reader.u64(WHAT)?));
        return Ok(Message::Heartbeat { term, commit, round, sent_at: Micros(reader.u64(WHAT)?) });
    }
    if is(FrameKind::HeartbeatReply) {
        return Ok(Message::HeartbeatReply {
            term,
            round: Round(reader.u64(WHAT)?),
            sent_at: Micros(reader.u64(WHAT)?),
            last_index: LogIndex(reader.u64(WHAT)?),
            credit_bytes: reader.u32(WHAT)?,
        });
    }
    if is(FrameKind::PreVote) {
        return Ok(Message::PreVote { term, last: log_id(reader, WHAT)? });
    }
    if is(FrameKind::PreVoteReply) {
        return Ok(Message::PreVoteReply { term, granted: reader.bool(WHAT)? });
    }
    if is(FrameKind::Vote) {
        let last = log_id(reader, WHAT)?;
        return Ok(Message::Vote { term, last, transfer: reader.bool(WHAT)? });
    }
    if is(FrameKind::VoteReply) {
        return Ok(Message::VoteReply { term, granted: reader.bool(WHAT)? });
    }
    if is(FrameKind::Snapshot) {
        let send = SendId(reader.u64(WHAT)?);
        return Ok(Message::Snapshot { term, meta: decode_snapshot_meta(reader)?, send });
    }
    Err(Malformed { what: "message kind" })
}

fn decode_append_reply(term: Term, reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    const WHAT: &str = "append reply";
    let outcome = match reader.u8(WHAT)? {
        0 => AppendOutcome::Accepted { match_index: LogIndex(reader.u64(WHAT)?) },
        1 => AppendOutcome::Rejected { prev: log_id(reader, WHAT)?, hint: log_id(reader, WHAT)? },
        _ => return Err(Malformed { what: WHAT }),
    };
    let last_index = LogIndex(reader.u64(WHAT)?);
    Ok(Message::AppendReply { term, outcome, last_index, credit_bytes: reader.u32(WHAT)? })
}

struct BatchHead {
    term: Term,
    first: LogIndex,
    kind: Kind,
    ends: Vec<u32>,
}

fn decode_append(frame: &Bytes) -> Result<PeerMessage, Malformed> {
    const WHAT: &str = "append";
    let mut reader = Reader::new(frame);
    let term = Term(reader.u64(WHAT)?);
    let prev = log_id(&mut reader, WHAT)?;
    let commit = LogIndex(reader.u64(WHAT)?);
    let count = reader.u32(WHAT)? as usize;
    if count > BATCHES_COUNT_MAX {
        return Err(Malformed { what: WHAT });
    }
    let mut heads = Vec::new();
    for _ in 0..count {
        heads.push(decode_batch_head(&mut reader)?);
    }
    let mut bodies = frame.slice(frame.len() - reader.remaining()..);
    let mut batches = Vec::with_capacity(heads.len());
    for head in heads {
        let bytes = head.ends.last().copied().unwrap_or(0) as usize;
        if bytes > bodies.len() {
            return Err(Malformed { what: WHAT });
        }
        let body = bodies.split_to(bytes);
        let batch = Batch::from_body(head.term, head.first, head.kind, &head.ends, body);
        batches.push(batch.ok_or(Malformed { what: WHAT })?);
    }
    if bodies.has_remaining() {
        return Err(Malformed { what: WHAT });
    }
    Ok(PeerMessage::Raft(Message::Append { term, prev, commit, batches }))
}

fn decode_batch_head(reader: &mut Reader<'_>) -> Result<BatchHead, Malformed> {
    const WHAT: &str = "batch";
    let term = Term(reader.u64(WHAT)?);
    let first = LogIndex(reader.u64(WHAT)?);
    let kind = kind_of(reader.u8(WHAT)?).ok_or(Malformed { what: WHAT })?;
    let count = reader.u32(WHAT)? as usize;
    let ends = reader.bytes(count.checked_mul(4).ok_or(Malformed { what: WHAT })?, WHAT)?;
    let (ends, _) = ends.as_chunks::<4>();
    Ok(BatchHead {
        term,
        first,
        kind,
        ends: ends.iter().copied().map(u32::from_le_bytes).collect(),
    })
}

fn decode_chunk(frame: &Bytes) -> Result<PeerMessage, Malformed> {
    const WHAT: &str = "snapshot chunk";
    let mut reader = Reader::new(frame);
    let send = SendId(reader.u64(WHAT)?);
    let (offset, total) = (reader.u64(WHAT)?, reader.u64(WHAT)?);
    let bytes = frame.slice(frame.len() - reader.remaining()..);
    Ok(PeerMessage::SnapshotChunk { send, offset, total, bytes })
}

/// The number under which an entry's kind is stored and sent.
pub(crate) fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Normal => 1,
        Kind::Noop => 2,
        Kind::Membership => 3,
    }
}

/// The kind that a stored or received number stands for.
pub(crate) fn kind_of(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Normal),
        2 => Some(Kind::Noop),
        3 => Some(Kind::Membership),
        _ => None,
    }
}

fn log_id(reader: &mut Reader<'_>, what: &'static str) -> Result<LogId, Malformed> {
    Ok(LogId { term: Term(reader.u64(what)?), index: LogIndex(reader.u64(what)?) })
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    put_u64(out, id.term.0);
    put_u64(out, id.index.0);
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Cut at a character border: an operator's message may be long, a frame's field may not.
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&u16::try_from(end).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(message: &PeerMessage) -> BytesMut {
        let mut wire = BytesMut::new();
        for part in encode(message) {
            wire.extend_from_slice(&part);
        }
        wire
    }

    fn log_id(term: u64, index: u64) -> LogId {
        LogId { term: Term(term), index: LogIndex(index) }
    }

    /// One of every kind.
    fn samples() -> Vec<PeerMessage> {
        let member = |id| Member { id: NodeId(id), incarnation: u128::from(id) << 100 | 7 };
        let founding = Founding::new(vec![member(1), member(2)]).unwrap();
        let (term, payload) = (Term(5), Bytes::from_static(b"payload"));
        let batches = vec![
            Batch::new(
                Term(4),
                LogIndex(8),
                Kind::Normal,
                &[payload.clone(), Bytes::new(), payload.clone()],
            ),
            Batch::new(term, LogIndex(11), Kind::Noop, &[Bytes::new()]),
        ];
        let meta = SnapshotMeta { last: log_id(4, 7), membership: founding.membership() };
        let accepted = AppendOutcome::Accepted { match_index: LogIndex(11) };
        let rejected = AppendOutcome::Rejected { prev: log_id(4, 9), hint: log_id(3, 2) };
        let reply = |outcome| Message::AppendReply {
            term,
            outcome,
            last_index: LogIndex(12),
            credit_bytes: 77,
        };
        let (commit, round, sent_at) = (LogIndex(10), Round(3), Micros(99));
        let raft = [
            Message::Append { term, prev: log_id(4, 7), commit, batches },
            Message::Append { term, prev: log_id(4, 7), commit, batches: Vec::new() },
            reply(accepted),
            reply(rejected),
            Message::Heartbeat { term, commit, round, sent_at },
            Message::HeartbeatReply {
                term,
                round,
                sent_at,
                last_index: LogIndex(12),
                credit_bytes: 5,
            },
            Message::PreVote { term, last: log_id(4, 11) },
            Message::PreVoteReply { term, granted: true },
            Message::Vote { term, last: log_id(4, 11), transfer: true },
            Message::VoteReply { term, granted: false },
            Message::Snapshot { term, meta, send: SendId(6) },
        ];
        let (send, offset) = (SendId(6), 4096);
        let hello = |founding| Hello {
            from: member(1),
            to: NodeId(2),
            advertise: "a:1".to_owned(),
            founding,
        };
        raft.into_iter()
            .map(PeerMessage::Raft)
            .chain([
                PeerMessage::Hello(hello(None)),
                PeerMessage::Hello(hello(Some(founding))),
                PeerMessage::Refused { reason: "wiped".to_owned() },
                PeerMessage::SnapshotPull { send, offset },
                PeerMessage::SnapshotChunk { send, offset, total: 8192, bytes: payload.clone() },
                PeerMessage::SnapshotGone { send },
                PeerMessage::ValuePull { id: 9, key: payload.clone(), revision: 0x1234 },
                PeerMessage::Value { id: 9, value: Some(payload) },
                PeerMessage::Value { id: 9, value: None },
            ])
            .collect()
    }

    #[test]
    fn every_message_comes_back_as_it_was_sent_whole_or_byte_by_byte() {
        for message in samples() {
            let wire = joined(&message);
            let mut arrived = BytesMut::new();
            for (at, byte) in wire.iter().enumerate() {
                arrived.extend_from_slice(&[*byte]);
                let decoded = decode(&mut arrived, BODY_BYTES_MAX).unwrap();
                assert_eq!(decoded.is_some(), at + 1 == wire.len());
                assert!(decoded.is_none_or(|decoded| decoded == message));
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_an_error_or_waits_for_more() {
        for message in samples() {
            let wire = joined(&message);
            for bit in 0..wire.len() * 8 {
                let mut flipped = wire.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let decoded = decode(&mut flipped, BODY_BYTES_MAX);
                assert!(!matches!(decoded, Ok(Some(_))), "bit {bit} of {message:?}");
            }
        }
    }

    /// A sound checksum does not make sound fields: every cut of a body is refused, none panics.
    #[test]
    fn cut_bodies_with_sound_checksums_are_refused() {
        for message in samples() {
            let wire = joined(&message);
            for bytes in 0..wire.len() - HEADER_BYTES {
                let mut cut = wire.clone();
                cut.truncate(HEADER_BYTES + bytes);
                cut[..4].copy_from_slice(&length_u32(bytes).to_le_bytes());
                let crc = crc32fast::hash(&cut[8..]);
                cut[4..8].copy_from_slice(&crc.to_le_bytes());
                let decoded = decode(&mut cut, BODY_BYTES_MAX);
                let chunk = matches!(message, PeerMessage::SnapshotChunk { .. });
                assert!(decoded.is_err() || chunk, "{bytes} bytes of {message:?}");
            }
        }
    }

    #[test]
    fn keep_alives_are_sixteen_bytes_that_say_nothing() {
        let message = PeerMessage::SnapshotGone { send: SendId(6) };
        let mut wire = BytesMut::new();
        wire.extend(keep_alive().into_iter().flatten());
        assert_eq!(wire[..], [0, 0, 0, 0, 0x17, 0xc2, 0x45, 0xda, 3, 3, 0, 0, 0, 0, 0, 0]);
        wire.extend_from_slice(&joined(&message));
        wire.extend(keep_alive().into_iter().flatten());
        assert_eq!(decode(&mut wire, HELLO_BYTES_MAX), Ok(Some(message)));
        assert_eq!(decode(&mut wire, HELLO_BYTES_MAX), Ok(None));
        assert!(wire.is_empty());
    }

    /// Each entry that a follower kept for its peers held the 256 KiB that it was read into: a single client's puts
    /// filled gigabytes, and clearing the memory for them took half of the processor.
    #[test]
    fn a_short_message_that_is_kept_does_not_keep_the_buffer_it_came_in() {
        let message = |bytes| PeerMessage::SnapshotChunk {
            send: SendId(6),
            offset: 0,
            total: 1 << 30,
            bytes: vec![7; bytes].into(),
        };
        for (bytes, is_free) in [(400, true), (1 << 20, false)] {
            let mut wire = BytesMut::with_capacity(2 << 20);
            wire.extend_from_slice(&joined(&message(bytes)));
            let kept = decode(&mut wire, BODY_BYTES_MAX).unwrap();
            assert_eq!(wire.try_reclaim(2 << 20), is_free);
            assert_eq!(kept, Some(message(bytes)));
        }
    }

    #[test]
    fn keep_alive_with_a_body_is_refused() {
        let mut wire = joined(&PeerMessage::SnapshotGone { send: SendId(6) });
        wire[8] = FrameKind::KeepAlive as u8;
        let crc = crc32fast::hash(&wire[8..]);
        wire[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode(&mut wire, 4096), Err(PeerFrameError::Malformed(_))));
    }

    #[test]
    fn announced_length_is_held_against_the_limit_before_it_is_waited_for() {
        let mut wire = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        wire.extend_from_slice(&[0; HEADER_BYTES]);
        let refused = decode(&mut wire, HELLO_BYTES_MAX);
        assert!(matches!(refused, Err(PeerFrameError::TooLarge { .. })));
    }

    #[test]
    fn other_version_is_refused_by_name() {
        let mut wire = joined(&PeerMessage::SnapshotGone { send: SendId(1) });
        wire[9] = PEER_VERSION + 1;
        let crc = crc32fast::hash(&wire[8..]);
        wire[4..8].copy_from_slice(&crc.to_le_bytes());
        let version = PEER_VERSION + 1;
        assert_eq!(decode(&mut wire, 4096), Err(PeerFrameError::Version { version }));
    }
}
