//! Between the wire and the state: requests into commands, outcomes into replies, reads into pages.
//!
//! A read looks the state up once. What is in memory is answered then and there; values that must come from the disk make
//! it a [`Fetch`], which is answered when they have come, from what was seen at that one look.

use bytes::{Bytes, BytesMut};
use engine::{Pin, ReadError, Reader, Wanted};
use protocol::{
    Certainty, Consistency, Error, ErrorCode, ItemRef, KeyRange, LockHolder, RangeReply, Request,
    Response, encode_get_reply,
};

use crate::bytes_reader::length_u32;
use crate::replica::{AcquireWait, Room};
use crate::state_machine::{
    Command, CommandRef, Expect, ItemRef as StoredItem, LockView, Origin, Outcome, State, ValueRef,
    Wait, encode_command_ref,
};

/// What a connection does with a request.
#[derive(Debug)]
pub enum Plan {
    /// Through the log.
    Write {
        /// Whether it needs room.
        room: Room,
        /// For an acquire that may wait.
        wait: Option<AcquireWait>,
    },
    /// From the state, once that may be read.
    Read(Query, Consistency),
    /// Of a session's owner.
    KeepAlive {
        /// The session.
        session: u64,
    },
    /// About this node.
    Status,
    /// At once.
    Ping,
}

/// A question that the state answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// One key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// One page of keys.
    Range {
        /// Which.
        range: KeyRange,
        /// At most so many; 0 is no limit but the page's size.
        limit: u32,
        /// Whether values are left out.
        keys_only: bool,
    },
    /// One lock.
    Lock {
        /// Its name.
        name: Bytes,
    },
}

/// Decides what to do, and encodes what goes through the log into `command`.
///
/// The request has been validated by the protocol's limits; the state machine's own are held against it here, because
/// an entry with a command beyond them would stop every replica.
pub fn plan(request: Request, command: &mut BytesMut) -> Result<Plan, Error> {
    Ok(match request {
        Request::Ping => Plan::Ping,
        Request::Status => Plan::Status,
        Request::SessionKeepAlive { session } => Plan::KeepAlive { session },
        Request::Get { consistency, key } => Plan::Read(Query::Get { key }, consistency),
        Request::Range { consistency, range, limit, keys_only } => {
            Plan::Read(Query::Range { range, limit, keys_only }, consistency)
        }
        Request::LockQuery { consistency, name } => Plan::Read(Query::Lock { name }, consistency),
        Request::Put { origin, key, value } => {
            let put = CommandRef::Put { key: &key, value: &value };
            encode(origin, &put, command)?;
            Plan::Write { room: Room::Needs, wait: None }
        }
        Request::LockAcquire { origin, name, wait } => plan_acquire(origin, name, wait, command)?,
        write @ (Request::Delete { .. }
        | Request::DeleteRange { .. }
        | Request::CompareAndSet { .. }
        | Request::SessionOpen { .. }
        | Request::SessionClose { .. }
        | Request::LockRelease { .. }) => plan_write(write, command)?,
    })
}

fn encode(
    origin: protocol::Origin,
    command: &CommandRef<'_>,
    out: &mut BytesMut,
) -> Result<(), Error> {
    let origin = origin_of(origin);
    let checked = command.check(origin);
    checked.map_err(|error| Error::not_done(ErrorCode::BadRequest, error.to_string()))?;
    encode_command_ref(origin, command, out);
    Ok(())
}

fn plan_write(request: Request, command: &mut BytesMut) -> Result<Plan, Error> {
    let (origin, write, room) = match request {
        Request::Delete { origin, key } => (origin, Command::Delete { key }, Room::Frees),
        Request::DeleteRange { origin, range } => {
            let KeyRange { start, end } = range;
            (origin, Command::DeleteRange { start, end }, Room::Frees)
        }
        Request::CompareAndSet { origin, key, expect, value } => {
            let room = if value.is_some() { Room::Needs } else { Room::Frees };
            let expect = expect_of(expect);
            (origin, Command::CompareAndSet { key, expect, value }, room)
        }
        Request::SessionOpen { nonce, ttl_ms, label } => {
            let open = Command::SessionOpen { ttl_ms, nonce, label };
            (protocol::Origin::NONE, open, Room::Needs)
        }
        Request::SessionClose { session } => {
            (protocol::Origin::NONE, Command::SessionClose { session }, Room::Frees)
        }
        Request::LockRelease { origin, name, token } => {
            (origin, Command::LockRelease { name, token }, Room::Frees)
        }
        Request::Ping
        | Request::Status
        | Request::Put { .. }
        | Request::Get { .. }
        | Request::Range { .. }
        | Request::SessionKeepAlive { .. }
        | Request::LockAcquire { .. }
        | Request::LockQuery { .. } => unreachable!("planned by the caller"),
    };
    encode(origin, &write.to_ref(), command)?;
    Ok(Plan::Write { room, wait: None })
}

fn plan_acquire(
    origin: protocol::Origin,
    name: Bytes,
    wait: protocol::Wait,
    command: &mut BytesMut,
) -> Result<Plan, Error> {
    let (in_queue, wait_ms) = match wait {
        protocol::Wait::Try => (Wait::Try, None),
        protocol::Wait::Millis(wait_ms) => (Wait::Queue, Some(wait_ms)),
        protocol::Wait::Forever => (Wait::Queue, None),
    };
    let acquire = CommandRef::LockAcquire { name: &name, wait: in_queue };
    encode(origin, &acquire, command)?;
    let (session, sequence) = (origin.session, origin.sequence);
    let wait = AcquireWait { session, sequence, name, wait_ms };
    // Both a place in the queue and a grant are stored.
    Ok(Plan::Write { room: Room::Needs, wait: Some(wait) })
}

fn origin_of(origin: protocol::Origin) -> Origin {
    Origin {
        session: origin.session,
        sequence: origin.sequence,
        lowest_unanswered: origin.lowest_unanswered,
    }
}

fn expect_of(expect: protocol::Expect) -> Expect {
    match expect {
        protocol::Expect::Absent => Expect::Absent,
        protocol::Expect::Value(value) => Expect::Value(value),
        protocol::Expect::Revision(revision) => Expect::Revision(revision),
    }
}

/// The reply to a command.
pub fn reply_of(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Put { revision } => Response::Put { revision },
        Outcome::Deleted { revision, deleted } => Response::Deleted { revision, deleted },
        Outcome::CompareAndSet { revision, swapped, mod_revision } => {
            Response::CompareAndSet { revision, swapped, mod_revision }
        }
        Outcome::SessionOpened { session, generation, ttl_ms } => {
            Response::SessionOpened { session, generation, ttl_ms }
        }
        Outcome::SessionClosed { existed, .. } => Response::SessionClosed { existed },
        Outcome::Granted { token } => Response::LockGranted { token },
        Outcome::NotAcquired | Outcome::Cancelled { .. } => Response::LockNotAcquired,
        Outcome::Released => Response::LockReleased,
        Outcome::NotHolder => refused(
            ErrorCode::NotHolder,
            Certainty::NotDone,
            "the session does not hold the lock under this token",
        ),
        Outcome::SessionUnknown => refused(
            ErrorCode::SessionUnknown,
            Certainty::NotDone,
            "there is no such session; open another one",
        ),
        Outcome::SessionEnded => refused(
            ErrorCode::SessionExpired,
            Certainty::NotDone,
            "the session ended while the acquire was queued",
        ),
        Outcome::SequenceStale => refused(
            ErrorCode::SequenceStale,
            Certainty::Unknown,
            "the client has said that it needs no answer to this sequence any more",
        ),
        Outcome::SequenceTooFar => refused(
            ErrorCode::SequenceTooFar,
            Certainty::NotDone,
            "the sequence is too far above the lowest unanswered one",
        ),
        Outcome::Queued => unreachable!("a queued acquire is answered when it is granted"),
    }
}

fn refused(code: ErrorCode, certainty: Certainty, message: &str) -> Response {
    Response::Error(Error::new(code, certainty, message))
}

/// What reading one value from the disk may bring in besides.
const READ_BYTES_AROUND: usize = 8 << 10;
/// A page ends before it needs more values than this from the disk.
const PAGE_READS_MAX: usize = 1_024;

/// A read that was looked up and lacks values.
#[derive(Debug)]
pub struct Fetch {
    request_id: u64,
    revision: u64,
    page: Page,
    /// Holds the slots of `wanted`.
    pin: Option<Pin>,
    wanted: Vec<Wanted>,
    wanted_bytes: usize,
}

/// What was seen.
#[derive(Debug)]
enum Page {
    Get(Seen),
    Range { items: Vec<(Bytes, Seen)>, more: bool },
}

/// An item, and its value if that was in memory.
#[derive(Debug)]
struct Seen {
    value: Option<Bytes>,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
    session: u64,
}

impl Seen {
    fn to_ref<'a>(&'a self, value: &'a [u8]) -> ItemRef<'a> {
        let Seen { create_revision, mod_revision, version, session, .. } = *self;
        let value = self.value.as_deref().unwrap_or(value);
        ItemRef { value, create_revision, mod_revision, version, session }
    }
}

impl Fetch {
    /// The values to be read, with what keeps their slots.
    pub fn take_wanted(&mut self) -> (Vec<Wanted>, Pin) {
        let pin = self.pin.take().expect("the values of a read are fetched once");
        (std::mem::take(&mut self.wanted), pin)
    }

    /// Whose read it is.
    pub fn request_id(&self) -> u64 {
        self.request_id
    }

    /// Bytes that it may hold when the values have come, with the blocks around them.
    pub fn bytes(&self) -> usize {
        self.wanted_bytes
    }

    /// Encodes the reply.
    pub fn answer(self, values: Vec<Result<Bytes, ReadError>>, out: &mut BytesMut) {
        let request_id = self.request_id;
        if let Err(error) = self.encode(values, out) {
            let message = format!("a stored value cannot be read on this node: {error}");
            Error::not_done(ErrorCode::Corrupt, message).encode_into(request_id, out);
        }
    }

    fn encode(
        self,
        values: Vec<Result<Bytes, ReadError>>,
        out: &mut BytesMut,
    ) -> Result<(), ReadError> {
        let mut values = values.into_iter().collect::<Result<Vec<Bytes>, ReadError>>()?.into_iter();
        let mut value_of = |seen: &Seen| match &seen.value {
            Some(_) => Bytes::new(),
            None => values.next().expect("one value was asked for each that was missing"),
        };
        match self.page {
            Page::Get(seen) => {
                let value = value_of(&seen);
                encode_get_reply(self.request_id, self.revision, Some(seen.to_ref(&value)), out);
            }
            Page::Range { items, more } => {
                let mut page = RangeReply::begin(self.request_id, self.revision, out);
                for (key, seen) in &items {
                    let value = value_of(seen);
                    assert!(page.push(key, seen.to_ref(&value)), "the look has counted the bytes");
                }
                page.finish(more);
            }
        }
        Ok(())
    }
}

/// What reads look at: the state, and the values that are in memory.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Guarded by whoever reads.
    pub state: &'a State,
    /// Of the same node.
    pub reader: &'a Reader,
}

impl View<'_> {
    /// Passes the value to `take` if it is in memory.
    fn value<R>(
        &self,
        key: &[u8],
        item: &StoredItem<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        match item.value {
            ValueRef::Inline(value) => Some(take(value)),
            ValueRef::At(location) => {
                let value = (item.value_bytes, item.checksum);
                self.reader.with_recent(location, key, value, take)
            }
        }
    }

    fn see(&self, key: &[u8], item: &StoredItem<'_>) -> Seen {
        let StoredItem { create_revision, mod_revision, version, session, .. } = *item;
        let value = self.value(key, item, Bytes::copy_from_slice);
        Seen { value, create_revision, mod_revision, version, session }
    }

    /// The state is guarded still, so the slots of `wanted` are those of its items until the pin holds them.
    fn fetch(&self, request_id: u64, page: Page, wanted: Vec<Wanted>) -> Fetch {
        let cost = |wanted: &Wanted| wanted.value_bytes as usize + READ_BYTES_AROUND;
        let wanted_bytes = wanted.iter().map(cost).sum();
        let revision = self.state.revision();
        let pin = (!wanted.is_empty()).then(|| self.reader.pin());
        Fetch { request_id, revision, page, pin, wanted, wanted_bytes }
    }
}

/// Answers a query from memory, or says what it lacks.
pub fn answer_query(
    view: View<'_>,
    request_id: u64,
    query: &Query,
    out: &mut BytesMut,
) -> Option<Fetch> {
    let state = view.state;
    match query {
        Query::Get { key } => return answer_get(view, request_id, key, out),
        Query::Range { range, limit, keys_only: true } => {
            answer_keys(state, request_id, (range, *limit), out);
        }
        Query::Range { range, limit, keys_only: false } => {
            return answer_range(view, request_id, (range, *limit), out);
        }
        Query::Lock { name } => {
            let lock = state.lock(name);
            let holder = |lock: LockView| LockHolder { session: lock.session, token: lock.token };
            let reply = Response::LockState {
                revision: state.revision(),
                holder: lock.map(holder),
                waiters: lock.map_or(0, |lock| length_u32(lock.waiters)),
            };
            reply.encode_into(request_id, out);
        }
    }
    None
}

fn answer_get(view: View<'_>, request_id: u64, key: &[u8], out: &mut BytesMut) -> Option<Fetch> {
    let revision = view.state.revision();
    let Some(item) = view.state.get(key) else {
        encode_get_reply(request_id, revision, None, out);
        return None;
    };
    let mut answer =
        |value: &[u8]| encode_get_reply(request_id, revision, Some(item_ref(item, value)), out);
    if view.value(key, &item, &mut answer).is_some() {
        return None;
    }
    let wanted = item.wanted(key).into_iter().collect();
    let page = Page::Get(view.see(key, &item));
    Some(view.fetch(request_id, page, wanted))
}

fn answer_keys(
    state: &State,
    request_id: u64,
    (range, limit): (&KeyRange, u32),
    out: &mut BytesMut,
) {
    let limit = if limit == 0 { u32::MAX } else { limit };
    let mut page = RangeReply::begin(request_id, state.revision(), out);
    let mut more = false;
    for (key, item) in state.scan(&range.start, range.end.as_deref()) {
        if page.count() == limit || !page.push(key, item_ref(item, &[])) {
            more = true;
            break;
        }
    }
    page.finish(more);
}

fn answer_range(
    view: View<'_>,
    request_id: u64,
    (range, limit): (&KeyRange, u32),
    out: &mut BytesMut,
) -> Option<Fetch> {
    let limit = if limit == 0 { usize::MAX } else { limit as usize };
    let (mut items, mut wanted, mut bytes, mut more) = (Vec::new(), Vec::new(), 0, false);
    for (key, item) in view.state.scan(&range.start, range.end.as_deref()) {
        let item_bytes = RangeReply::item_bytes(key, item.value_bytes as usize);
        let is_full = items.len() == limit || wanted.len() == PAGE_READS_MAX;
        if is_full || !RangeReply::has_room(items.len(), bytes, item_bytes) {
            more = true;
            break;
        }
        bytes += item_bytes;
        let seen = view.see(key, &item);
        if seen.value.is_none() {
            wanted.extend(item.wanted(key));
        }
        items.push((Bytes::copy_from_slice(key), seen));
    }
    let is_complete = wanted.is_empty();
    let fetch = view.fetch(request_id, Page::Range { items, more }, wanted);
    if is_complete {
        fetch.answer(Vec::new(), out);
        return None;
    }
    Some(fetch)
}

fn item_ref<'a>(item: StoredItem<'_>, value: &'a [u8]) -> ItemRef<'a> {
    ItemRef {
        value,
        create_revision: item.create_revision,
        mod_revision: item.mod_revision,
        version: item.version,
        session: item.session,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::{EntryBuilder, Loaded, encode_command};

    fn room_of(request: Request) -> Room {
        match plan(request, &mut BytesMut::new()) {
            Ok(Plan::Write { room, .. }) => room,
            other => panic!("{other:?}"),
        }
    }

    /// A page of a million short values once asked the disk for all of them, a block each.
    #[test]
    fn a_page_ends_before_it_needs_too_many_values_from_the_disk() {
        let disk = engine::io::simulated::SimDisk::new(1, engine::io::simulated::SimFaults::none());
        let identity = engine::Identity { node: 1, incarnation: 1, log_id: 1 };
        let options = engine::Options { slot_bytes: 1 << 20, ..engine::Options::default() };
        let dir = std::path::Path::new("simulated");
        let opened = engine::open(disk.handle(), dir, options, identity).unwrap();
        let reader = opened.engine.reader();
        let mut state = State::new();
        let mut entry = EntryBuilder::new();
        entry.begin(1);
        for number in 0..1_500 {
            let (key, value) = (format!("{number:04}").into(), vec![7; 65].into());
            let mut command = BytesMut::new();
            let origin = Origin { session: 0, sequence: 0, lowest_unanswered: 0 };
            encode_command(origin, &Command::Put { key, value }, &mut command);
            entry.push(&command);
        }
        let place = engine::Location::new(0, 1 << 16);
        let payload = entry.finish();
        state.apply(1, &payload, place, &Loaded::new(), &mut Vec::new()).unwrap();
        let view = View { state: &state, reader: &reader };
        let fetch = answer_range(view, 9, (&KeyRange::all(), 0), &mut BytesMut::new());
        let mut fetch = fetch.expect("nothing is in memory");
        assert!(matches!(&fetch.page, Page::Range { items, more: true } if items.len() == 1_024));
        // What it may hold counts the blocks around the values, so that few such reads go on at once.
        assert_eq!(fetch.bytes(), 1_024 * (65 + (8 << 10)));
        assert_eq!(fetch.take_wanted().0.len(), 1_024);
    }

    /// Acquires counted among what frees room, and filled the last of a full disk.
    #[test]
    fn what_stores_needs_room_and_what_releases_deletes_or_ends_does_not() {
        let origin = protocol::Origin { session: 1, sequence: 1, lowest_unanswered: 1 };
        let bytes = || Bytes::from_static(b"b");
        let compare = |value| Request::CompareAndSet {
            origin,
            key: bytes(),
            expect: protocol::Expect::Absent,
            value,
        };
        let stores = [
            Request::Put { origin, key: bytes(), value: bytes() },
            compare(Some(bytes())),
            Request::SessionOpen { nonce: 1, ttl_ms: 10_000, label: bytes() },
            Request::LockAcquire { origin, name: bytes(), wait: protocol::Wait::Try },
            Request::LockAcquire { origin, name: bytes(), wait: protocol::Wait::Forever },
        ];
        let frees = [
            Request::Delete { origin, key: bytes() },
            Request::DeleteRange { origin, range: KeyRange::all() },
            compare(None),
            Request::SessionClose { session: 1 },
            Request::LockRelease { origin, name: bytes(), token: 1 },
        ];
        assert!(stores.into_iter().all(|request| room_of(request) == Room::Needs));
        assert!(frees.into_iter().all(|request| room_of(request) == Room::Frees));
    }
}
