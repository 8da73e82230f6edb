//! Replies: what a server answers to each request.

#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{DecodeError, Reader, put_bytes, put_optional};
use crate::error::Error;
use crate::limits::RANGE_PAGE_BYTES_MAX;
use crate::status::NodeStatus;
use crate::{frame, kind};

/// A key's value and history.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Item {
    /// The value.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: u64,
    /// The revision that changed the key last.
    pub mod_revision: u64,
    /// How often the key was written since it was created, from 1.
    pub version: u64,
    /// The session that the key belongs to; 0 is none.
    pub session: u64,
}

/// An [`Item`] whose value is borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ItemRef<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The revision that created the key.
    pub create_revision: u64,
    /// The revision that changed the key last.
    pub mod_revision: u64,
    /// How often the key was written since it was created, from 1.
    pub version: u64,
    /// The session that the key belongs to; 0 is none.
    pub session: u64,
}

/// A key of a range with its item.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RangeItem {
    /// The key.
    pub key: Bytes,
    /// What it holds; the value is empty if keys only were asked for.
    pub item: Item,
}

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LockHolder {
    /// The session that holds it.
    pub session: u64,
    /// The fencing token of its grant.
    pub token: u64,
}

/// What a server answers. A `revision` is the store's: of the write, or of what a read saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// The node lives.
    Pong,
    /// How the node is.
    Status(Box<NodeStatus>),
    /// The key is set.
    Put {
        /// The revision of the write.
        revision: u64,
    },
    /// The keys are gone.
    Deleted {
        /// The revision of the delete; the store's current one if nothing was deleted.
        revision: u64,
        /// How many keys there were.
        deleted: u64,
    },
    /// The comparison was made.
    CompareAndSet {
        /// The revision of the write; the store's current one if nothing changed.
        revision: u64,
        /// Whether the key was as expected (and so was set or deleted).
        swapped: bool,
        /// The revision of the key's last change after this request; 0 if there is no such key.
        mod_revision: u64,
    },
    /// What the key holds.
    Get {
        /// The revision that the read saw.
        revision: u64,
        /// The key's item; `None` if there is no such key.
        item: Option<Item>,
    },
    /// One page of a range.
    Range {
        /// The revision that the page saw.
        revision: u64,
        /// The items, in key order.
        items: Vec<RangeItem>,
        /// Whether the range holds more keys after the last item.
        more: bool,
    },
    /// The session lives.
    SessionOpened {
        /// Its id; never given again.
        session: u64,
        /// Its generation; never given again.
        generation: u64,
        /// Its time to live, in milliseconds.
        ttl_ms: u64,
    },
    /// The session lives on.
    SessionAlive {
        /// Its time to live, in milliseconds, from when the keep-alive was sent.
        ttl_ms: u64,
    },
    /// The session is gone.
    SessionClosed {
        /// Whether it was there.
        existed: bool,
    },
    /// The lock is held.
    LockGranted {
        /// The fencing token: higher than that of every grant before.
        token: u64,
    },
    /// The lock is not held: it was busy, or stayed so for as long as the request waited.
    LockNotAcquired,
    /// The lock is no longer held.
    LockReleased,
    /// How a lock is.
    LockState {
        /// The revision that the read saw.
        revision: u64,
        /// Who holds it.
        holder: Option<LockHolder>,
        /// How many sessions queue for it.
        waiters: u32,
    },
    /// The request failed.
    Error(Error),
}

impl Item {
    /// The same, borrowed.
    pub fn as_ref(&self) -> ItemRef<'_> {
        ItemRef {
            value: &self.value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            session: self.session,
        }
    }

    fn read(reader: &mut Reader) -> Result<Item, DecodeError> {
        Ok(Item {
            create_revision: reader.u64("create_revision")?,
            mod_revision: reader.u64("mod_revision")?,
            version: reader.u64("version")?,
            session: reader.u64("session")?,
            value: reader.bytes("value")?,
        })
    }
}

impl ItemRef<'_> {
    fn encode_body(self, out: &mut BytesMut) {
        out.put_u64_le(self.create_revision);
        out.put_u64_le(self.mod_revision);
        out.put_u64_le(self.version);
        out.put_u64_le(self.session);
        put_bytes(out, self.value);
    }
}

/// Bytes of an item of a page besides its key and value.
const RANGE_ITEM_BYTES_MIN: usize = 4 + 4 * 8 + 4;

/// Writes a [`Response::Range`] item by item, from borrowed bytes, straight into the connection's
/// buffer.
///
/// ```
/// # use bytes::BytesMut;
/// # use protocol::{ItemRef, RangeReply};
/// # let mut out = BytesMut::new();
/// # let item = ItemRef { value: b"v", create_revision: 2, mod_revision: 2, version: 1, session: 0 };
/// let mut page = RangeReply::begin(7, 2, &mut out);
/// let more = !page.push(b"key", item);
/// page.finish(more);
/// ```
pub struct RangeReply<'a> {
    out: &'a mut BytesMut,
    frame_start: usize,
    items_start: usize,
    count: u32,
}

impl<'a> RangeReply<'a> {
    /// Starts the reply to `request_id`, a page that saw `revision`.
    pub fn begin(request_id: u64, revision: u64, out: &'a mut BytesMut) -> RangeReply<'a> {
        let frame_start = frame::begin(kind::RANGE_PAGE, request_id, out);
        out.put_u64_le(revision);
        out.put_u8(0); // more
        out.put_u32_le(0); // count
        let items_start = out.len();
        RangeReply { out, frame_start, items_start, count: 0 }
    }

    /// Appends an item; or answers false, having appended nothing, because the page is full: its
    /// items would exceed [`RANGE_PAGE_BYTES_MAX`]. An empty page takes any item.
    #[must_use]
    pub fn push(&mut self, key: &[u8], item: ItemRef<'_>) -> bool {
        let page_bytes = self.out.len() - self.items_start;
        let item_bytes = RangeReply::item_bytes(key, item.value.len());
        if !RangeReply::has_room(self.count as usize, page_bytes, item_bytes) {
            return false;
        }
        put_bytes(self.out, key);
        item.encode_body(self.out);
        self.count += 1;
        true
    }

    /// What an item adds to a page.
    pub fn item_bytes(key: &[u8], value_bytes: usize) -> usize {
        RANGE_ITEM_BYTES_MIN + key.len() + value_bytes
    }

    /// Whether a page of `count` items in `page_bytes` takes another one of `item_bytes`.
    pub fn has_room(count: usize, page_bytes: usize, item_bytes: usize) -> bool {
        count == 0 || page_bytes + item_bytes <= RANGE_PAGE_BYTES_MAX
    }

    /// How many items the page has so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Completes the reply; `more` says whether the range holds keys after the last item.
    pub fn finish(self, more: bool) {
        let mut fields = [0; 5];
        let [more_field, count_field @ ..] = &mut fields;
        *more_field = u8::from(more);
        *count_field = self.count.to_le_bytes();
        self.out
            .get_mut(self.items_start - fields.len()..self.items_start)
            .expect("`begin` appended these fields")
            .copy_from_slice(&fields);
        frame::finish(self.frame_start, self.out);
    }
}

/// Appends a whole frame with a [`Response::Get`] of a borrowed item.
pub fn encode_get_reply(
    request_id: u64,
    revision: u64,
    item: Option<ItemRef<'_>>,
    out: &mut BytesMut,
) {
    frame::encode(kind::GOT, request_id, out, |out| {
        encode_get_body(revision, item, out);
    });
}

fn encode_get_body(revision: u64, item: Option<ItemRef<'_>>, out: &mut BytesMut) {
    out.put_u64_le(revision);
    put_optional(out, item, |out, item| item.encode_body(out));
}

impl Response {
    /// Appends a whole frame with this reply to `request_id`.
    ///
    /// Requires of a [`Response::Range`]: its items fit one page.
    pub fn encode_into(&self, request_id: u64, out: &mut BytesMut) {
        if let Response::Range { revision, items, more } = self {
            let mut page = RangeReply::begin(request_id, *revision, out);
            for RangeItem { key, item } in items {
                assert!(page.push(key, item.as_ref()), "a range reply is one page");
            }
            return page.finish(*more);
        }
        frame::encode(self.kind(), request_id, out, |out| self.encode_body(out));
    }

    /// The type of this reply's frame.
    pub fn kind(&self) -> u8 {
        match self {
            Response::Pong => kind::PONG,
            Response::Status(_) => kind::NODE_STATUS,
            Response::Put { .. } => kind::PUT_DONE,
            Response::Deleted { .. } => kind::DELETED,
            Response::CompareAndSet { .. } => kind::COMPARED,
            Response::Get { .. } => kind::GOT,
            Response::Range { .. } => kind::RANGE_PAGE,
            Response::SessionOpened { .. } => kind::SESSION_OPENED,
            Response::SessionAlive { .. } => kind::SESSION_ALIVE,
            Response::SessionClosed { .. } => kind::SESSION_CLOSED,
            Response::LockGranted { .. } => kind::LOCK_GRANTED,
            Response::LockNotAcquired => kind::LOCK_NOT_ACQUIRED,
            Response::LockReleased => kind::LOCK_RELEASED,
            Response::LockState { .. } => kind::LOCK_STATE,
            Response::Error(_) => kind::ERROR,
        }
    }

    /// Everything but a range, which [`RangeReply`] writes.
    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Response::Pong
            | Response::LockNotAcquired
            | Response::LockReleased
            | Response::Range { .. } => {}
            Response::Status(status) => status.encode_body(out),
            Response::Put { revision } => out.put_u64_le(*revision),
            Response::Deleted { revision, deleted } => {
                out.put_u64_le(*revision);
                out.put_u64_le(*deleted);
            }
            Response::CompareAndSet { revision, swapped, mod_revision } => {
                out.put_u64_le(*revision);
                out.put_u8(u8::from(*swapped));
                out.put_u64_le(*mod_revision);
            }
            Response::Get { revision, item } => {
                encode_get_body(*revision, item.as_ref().map(Item::as_ref), out);
            }
            Response::SessionOpened { session, generation, ttl_ms } => {
                out.put_u64_le(*session);
                out.put_u64_le(*generation);
                out.put_u64_le(*ttl_ms);
            }
            Response::SessionAlive { ttl_ms } => out.put_u64_le(*ttl_ms),
            Response::SessionClosed { existed } => out.put_u8(u8::from(*existed)),
            Response::LockGranted { token } => out.put_u64_le(*token),
            Response::LockState { revision, holder, waiters } => {
                out.put_u64_le(*revision);
                put_optional(out, *holder, |out, holder| {
                    out.put_u64_le(holder.session);
                    out.put_u64_le(holder.token);
                });
                out.put_u32_le(*waiters);
            }
            Response::Error(error) => error.encode_body(out),
        }
    }

    /// Reads the body of a frame whose type is `kind`. Keys and values are slices of the body.
    pub fn decode(kind: u8, body: Bytes) -> Result<Response, DecodeError> {
        if kind == kind::ERROR {
            return Error::decode(body).map(Response::Error);
        }
        let mut reader = Reader::new(body);
        let response = Response::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(response)
    }

    fn read(kind: u8, reader: &mut Reader) -> Result<Response, DecodeError> {
        match kind {
            kind::PONG => Ok(Response::Pong),
            kind::NODE_STATUS => Ok(Response::Status(Box::new(NodeStatus::read(reader)?))),
            kind::PUT_DONE => Ok(Response::Put { revision: reader.u64("revision")? }),
            kind::DELETED => Ok(Response::Deleted {
                revision: reader.u64("revision")?,
                deleted: reader.u64("deleted")?,
            }),
            kind::COMPARED => Ok(Response::CompareAndSet {
                revision: reader.u64("revision")?,
                swapped: reader.bool("swapped")?,
                mod_revision: reader.u64("mod_revision")?,
            }),
            kind::GOT => Ok(Response::Get {
                revision: reader.u64("revision")?,
                item: reader.optional("item", Item::read)?,
            }),
            kind::RANGE_PAGE => read_range(reader),
            kind::SESSION_OPENED
            | kind::SESSION_ALIVE
            | kind::SESSION_CLOSED
            | kind::LOCK_GRANTED
            | kind::LOCK_NOT_ACQUIRED
            | kind::LOCK_RELEASED
            | kind::LOCK_STATE => Response::read_session_or_lock(kind, reader),
            _ => Err(DecodeError::UnknownKind { kind }),
        }
    }

    fn read_session_or_lock(kind: u8, reader: &mut Reader) -> Result<Response, DecodeError> {
        match kind {
            kind::SESSION_OPENED => Ok(Response::SessionOpened {
                session: reader.u64("session")?,
                generation: reader.u64("generation")?,
                ttl_ms: reader.u64("ttl")?,
            }),
            kind::SESSION_ALIVE => Ok(Response::SessionAlive { ttl_ms: reader.u64("ttl")? }),
            kind::SESSION_CLOSED => {
                Ok(Response::SessionClosed { existed: reader.bool("existed")? })
            }
            kind::LOCK_GRANTED => Ok(Response::LockGranted { token: reader.u64("token")? }),
            kind::LOCK_NOT_ACQUIRED => Ok(Response::LockNotAcquired),
            kind::LOCK_RELEASED => Ok(Response::LockReleased),
            kind::LOCK_STATE => Ok(Response::LockState {
                revision: reader.u64("revision")?,
                holder: reader.optional("holder", |reader| {
                    Ok(LockHolder {
                        session: reader.u64("holder session")?,
                        token: reader.u64("holder token")?,
                    })
                })?,
                waiters: reader.u32("waiters")?,
            }),
            _ => Err(DecodeError::UnknownKind { kind }),
        }
    }
}

fn read_range(reader: &mut Reader) -> Result<Response, DecodeError> {
    let revision = reader.u64("revision")?;
    let more = reader.bool("more")?;
    let count = reader.u32("count")?;
    // The count is only believed as far as the bytes that came with it could bear it out.
    let room = (reader.left() / RANGE_ITEM_BYTES_MIN).min(count as usize);
    let mut items = Vec::with_capacity(room);
    for _ in 0..count {
        items.push(RangeItem { key: reader.bytes("key")?, item: Item::read(reader)? });
    }
    Ok(Response::Range { revision, items, more })
}
