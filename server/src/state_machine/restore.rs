//! A state from a snapshot's bytes, which come in pieces of any size and are not trusted.
//!
//! A record is decoded once it is there whole; memory grows with the bytes received, never by a
//! length that they announce. What the state machine relies on is checked: order, limits, value
//! checksums, that every claim has its session, and at the end the state hash.
//!
//! A checkpoint of this node says where its long values lie. A peer's snapshot brings them: they are collected into
//! batches, which the driver puts into this node's segments of values; an item is added when its batch has a place there.
#![deny(clippy::indexing_slicing)]

use super::codec::Reader;
use super::command::{KEY_BYTES_MAX, SESSION_WINDOW, VALUE_BYTES_MAX};
use super::key::Key;
use super::kv::{INLINE_BYTES_MAX, Item, KeysBuilder, Stored};
use super::lock::{Claim, Lock, Waiter};
use super::outcome::Outcome;
use super::session::Session;
use super::snapshot::{
    ANSWER_BYTES, HEADER_BYTES, HEADER_CHECKED_BYTES, Header, KEY_HEADER_BYTES, LOCATION_BYTES,
    LOCK_HEADER_BYTES, MAGIC, SESSION_HEADER_BYTES, SNAPSHOT_VERSION, VALUE_HERE, VALUE_LOCATED,
    WAITER_BYTES,
};
use super::{Locks, Sessions, State};
use engine::{Location, ValueBatch, value_footprint};
use std::collections::VecDeque;

mod decoders;
use decoders::{Decoders, Wait};

/// Bytes that are not a snapshot, or not a sound one. Fetch it again, or take another.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The first bytes are not those of a snapshot.
    #[error("this is not a snapshot of the state")]
    Magic,
    /// A snapshot of another version.
    #[error("snapshot version {found} is not {SNAPSHOT_VERSION}; it is another release's")]
    Version {
        /// The version that it names.
        found: u32,
    },
    /// The header is damaged.
    #[error("the snapshot's header is damaged: its checksum does not match")]
    HeaderChecksum,
    /// The header states a counter that cannot be.
    #[error("the snapshot's header states a counter beyond 2^63")]
    Counter,
    /// Acquires are queued in a session but in no lock.
    #[error("{count} acquires of the snapshot are queued in their session but in no lock")]
    Queued {
        /// How many.
        count: usize,
    },
    /// The bytes end before the last item.
    #[error("the snapshot is cut short: {missing} items or more are missing")]
    Truncated {
        /// How many items were not seen whole.
        missing: u64,
    },
    /// Bytes follow the last item.
    #[error("bytes follow the last item of the snapshot")]
    Trailing,
    /// An item that cannot be.
    #[error("{kind} {number} of the snapshot is not sound: {problem}")]
    Item {
        /// Which kind of item.
        kind: &'static str,
        /// Its number among those of its kind, from 0.
        number: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The values' lengths do not add up to what the header says.
    #[error(
        "long values of the snapshot add {found} bytes to a checkpoint, its header says {stated}"
    )]
    LocatedBytes {
        /// The sum in the header.
        stated: u64,
        /// The sum over the items.
        found: u64,
    },
    /// Every item is sound but together they are not the state that was written.
    #[error("the restored state has hash {found:032x}, the snapshot says {stated:032x}")]
    Hash {
        /// The hash in the header.
        stated: u128,
        /// The hash of what was restored.
        found: u128,
    },
}

/// No counter gets there by counting; beyond it the next step could overflow.
const COUNTER_MAX: u64 = 1 << 63;

/// More slots than any directory has.
const SLOTS_MAX: u32 = 1 << 22;

/// Builds a state from a snapshot.
pub struct Restorer {
    /// Received bytes that do not make a whole record yet.
    buffer: Vec<u8>,
    header: Option<Header>,
    state: State,
    keys: KeysBuilder,
    origin: Origin,
    /// Of a checkpoint's keys, where there are threads.
    decoders: Option<Decoders>,
}

/// Whose bytes they are.
enum Origin {
    /// This node's: values may be locations.
    Checkpoint,
    /// A peer's: values need a place.
    Peer(Placing),
}

/// Values on their way into segments of values.
struct Placing {
    batch_bytes_max: usize,
    /// The batch that is being filled, and its number.
    batch: ValueBatch,
    number: u64,
    /// Full batches that the driver has not taken.
    full: VecDeque<ValueBatch>,
    /// How many batches have a place.
    placed: u64,
    /// Items in order, from the first whose value has no place on.
    waiting: VecDeque<WaitingItem>,
}

struct WaitingItem {
    key: Key,
    item: Item,
    /// The batch that holds its value, and where in it.
    value: Option<(u64, usize)>,
}

/// What is wrong with one item.
type Problem = &'static str;

/// The result of looking for one item at the front of the received bytes.
enum Step {
    /// It was decoded from that many bytes.
    Took(usize),
    /// It is not there whole.
    Wait,
}

impl Default for Restorer {
    fn default() -> Restorer {
        Restorer::new()
    }
}

impl Restorer {
    /// A restorer of a checkpoint of this node that has seen no bytes.
    pub fn new() -> Restorer {
        Restorer {
            buffer: Vec::new(),
            header: None,
            state: State::new(),
            keys: KeysBuilder::new(),
            origin: Origin::Checkpoint,
            decoders: None,
        }
    }

    /// The same, with keys decoded on so many threads; with 0 on the caller's.
    pub fn on_threads(threads: usize) -> Restorer {
        let decoders = (threads > 0).then(|| Decoders::start(threads));
        Restorer { decoders, ..Restorer::new() }
    }

    /// A restorer of a peer's snapshot, whose values get a place in batches of about so many bytes.
    pub fn of_peer(batch_bytes_max: usize) -> Restorer {
        let placing = Placing {
            batch_bytes_max,
            batch: ValueBatch::default(),
            number: 0,
            full: VecDeque::new(),
            placed: 0,
            waiting: VecDeque::new(),
        };
        Restorer { origin: Origin::Peer(placing), ..Restorer::new() }
    }

    /// The next batch of values that needs a place.
    pub fn take_batch(&mut self) -> Option<ValueBatch> {
        match &mut self.origin {
            Origin::Checkpoint => None,
            Origin::Peer(placing) => placing.full.pop_front(),
        }
    }

    /// The oldest batch without a place lies here.
    pub fn placed(&mut self, place: Location) {
        let Origin::Peer(placing) = &mut self.origin else { return };
        placing.give_place(place);
        placing.give_items(&mut self.keys);
    }

    /// No bytes follow: what is left of the values becomes the last batch.
    pub fn seal(&mut self) {
        if let Origin::Peer(placing) = &mut self.origin {
            placing.end_batch();
        }
    }

    /// Whether every value has a place.
    pub fn is_placed(&self) -> bool {
        match &self.origin {
            Origin::Checkpoint => true,
            Origin::Peer(placing) => placing.waiting.is_empty(),
        }
    }

    /// Takes the next bytes. After an error every later call reports it again.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let mut reader = Reader::new(&buffer);
        let result = self.decode_all(&mut reader);
        let decoded = buffer.len() - reader.remaining();
        buffer.drain(..decoded);
        self.buffer = buffer;
        result?;
        self.take_stretches(Wait::No)
    }

    /// Ends the snapshot and gives the state, its hash compared with what the snapshot says.
    ///
    /// Requires: every value has a place.
    pub fn finish(mut self) -> Result<State, RestoreError> {
        assert!(self.is_placed(), "the driver places every batch before it ends the snapshot");
        if let Some(decoders) = &mut self.decoders {
            decoders.end(self.state.revision);
        }
        self.take_stretches(Wait::Yes)?;
        let Some(header) = self.header else {
            return Err(RestoreError::Truncated { missing: 1 });
        };
        match self.missing(&header) {
            0 => {}
            missing => return Err(RestoreError::Truncated { missing }),
        }
        if !self.buffer.is_empty() {
            return Err(RestoreError::Trailing);
        }
        let waiting = self.state.locks.waiters().count();
        match self.state.sessions.queued_count().abs_diff(waiting) {
            0 => {}
            count => return Err(RestoreError::Queued { count }),
        }
        self.state.keys = self.keys.finish();
        let (stated, found) = (header.located_bytes, self.state.keys.located_bytes());
        if stated != found {
            return Err(RestoreError::LocatedBytes { stated, found });
        }
        match self.state.hash() {
            found if found == header.hash => Ok(self.state),
            found => Err(RestoreError::Hash { stated: header.hash, found }),
        }
    }

    fn missing(&self, header: &Header) -> u64 {
        let keys = header.keys - self.keys_seen();
        let locks = header.locks - self.state.locks.table.len() as u64;
        let sessions = header.sessions - self.state.sessions.table.len() as u64;
        keys.saturating_add(locks).saturating_add(sessions)
    }

    /// Keys that were added, or wait for their place.
    fn keys_seen(&self) -> u64 {
        let waiting = match &self.origin {
            Origin::Checkpoint => 0,
            Origin::Peer(placing) => placing.waiting.len() as u64,
        };
        match &self.decoders {
            Some(decoders) => decoders.keys,
            None => self.keys.count + waiting,
        }
    }

    /// Adds the stretches that other threads have decoded.
    fn take_stretches(&mut self, wait: Wait) -> Result<(), RestoreError> {
        let Some(decoders) = &mut self.decoders else { return Ok(()) };
        while let Some(decoded) = decoders.next(wait) {
            let added = decoded.and_then(|stretch| {
                let number = stretch.first_key;
                self.keys.push_stretch(stretch).map_err(|_| (number, "it is out of order"))
            });
            added.map_err(|(number, problem)| RestoreError::Item {
                kind: "key",
                number,
                problem,
            })?;
        }
        Ok(())
    }

    /// Decodes whole records until none is left; the reader stays before the first that is not.
    fn decode_all(&mut self, reader: &mut Reader<'_>) -> Result<(), RestoreError> {
        while reader.remaining() > 0 {
            match self.decode_next(*reader)? {
                Step::Took(bytes) => {
                    reader.take(bytes).expect("the record was just decoded from these");
                }
                Step::Wait => break,
            }
        }
        Ok(())
    }

    fn decode_next(&mut self, reader: Reader<'_>) -> Result<Step, RestoreError> {
        let Some(header) = self.header else {
            return self.take_header(reader);
        };
        let sessions = self.state.sessions.table.len() as u64;
        let locks = self.state.locks.table.len() as u64;
        let keys = self.keys_seen();
        let (kind, number, step) = if sessions < header.sessions {
            ("session", sessions, self.take_session(reader))
        } else if locks < header.locks {
            ("lock", locks, self.take_lock(reader))
        } else if keys < header.keys {
            ("key", keys, self.take_key(reader))
        } else {
            return Err(RestoreError::Trailing);
        };
        step.map_err(|problem| RestoreError::Item { kind, number, problem })
    }

    fn take_header(&mut self, reader: Reader<'_>) -> Result<Step, RestoreError> {
        let Some(header) = decode_header(reader)? else {
            return Ok(Step::Wait);
        };
        self.state.applied_index = header.applied_index;
        self.state.time_ms = header.time_ms;
        self.state.revision = header.revision;
        self.state.locks.grants = header.grants;
        self.state.sessions.opened = header.sessions_opened;
        self.header = Some(header);
        Ok(Step::Took(HEADER_BYTES))
    }

    fn take_session(&mut self, mut reader: Reader<'_>) -> Result<Step, Problem> {
        let before = reader.remaining();
        let Some((id, session)) = decode_session(&mut reader)? else {
            return Ok(Step::Wait);
        };
        let sessions = &mut self.state.sessions;
        if sessions.table.last_key().is_some_and(|last| *last >= id) {
            return Err("it is out of order");
        }
        if id == 0 || id > sessions.opened {
            return Err("its number was never given out");
        }
        if session.nonce != 0 && sessions.has_nonce(session.nonce) {
            return Err("another session has its nonce");
        }
        sessions.restore(id, session);
        Ok(Step::Took(before - reader.remaining()))
    }

    fn take_lock(&mut self, mut reader: Reader<'_>) -> Result<Step, Problem> {
        let before = reader.remaining();
        let Some((name, lock)) = decode_lock(&mut reader)? else {
            return Ok(Step::Wait);
        };
        let State { locks, sessions, .. } = &mut self.state;
        if locks.table.last_key().is_some_and(|last| *last >= name) {
            return Err("it is out of order");
        }
        if lock.token == 0 || lock.token > locks.grants {
            return Err("its token was never granted");
        }
        check_claims(&lock, locks, sessions)?;
        locks.restore(name, lock);
        Ok(Step::Took(before - reader.remaining()))
    }

    fn take_key(&mut self, mut reader: Reader<'_>) -> Result<Step, Problem> {
        if let Some(decoders) = &mut self.decoders {
            let taken = decoders.take(reader, self.state.revision)?;
            return Ok(taken.map_or(Step::Wait, Step::Took));
        }
        let before = reader.remaining();
        let may_be_located = matches!(self.origin, Origin::Checkpoint);
        let Some((key, item, value)) = decode_key(&mut reader, may_be_located)? else {
            return Ok(Step::Wait);
        };
        let is_next = match &self.origin {
            Origin::Peer(Placing { waiting, .. }) if !waiting.is_empty() => {
                waiting.back().is_some_and(|last| last.key.as_slice() < key)
            }
            Origin::Peer(_) | Origin::Checkpoint => self.keys.takes(key),
        };
        if !is_next {
            return Err("it is out of order");
        }
        fits_store(&item, self.state.revision)?;
        match &mut self.origin {
            Origin::Checkpoint => self.keys.push(key, item),
            Origin::Peer(placing) => {
                placing.add(key, item, value);
                placing.give_items(&mut self.keys);
            }
        }
        Ok(Step::Took(before - reader.remaining()))
    }
}

/// Whether an item can be one of a store at this revision.
fn fits_store(item: &Item, revision: u64) -> Result<(), Problem> {
    let Item { create_revision, mod_revision, version, .. } = *item;
    let ordered = version <= mod_revision && create_revision <= mod_revision;
    if !ordered || mod_revision > revision {
        return Err("its revisions do not fit the store's");
    }
    Ok(())
}

impl Placing {
    /// An item; a long value of it goes into a batch.
    fn add(&mut self, key: &[u8], item: Item, value: &[u8]) {
        let checksum = item.checksum;
        let is_long = value.len() > INLINE_BYTES_MAX;
        let value = is_long.then(|| self.add_value(key, value, checksum));
        self.waiting.push_back(WaitingItem { key: Key::new(key), item, value });
    }

    /// The number of its batch, and where its key starts in that.
    fn add_value(&mut self, key: &[u8], value: &[u8], checksum: u32) -> (u64, usize) {
        let bytes = value_footprint(key.len(), value.len());
        if self.batch.len() + bytes > self.batch_bytes_max {
            self.end_batch();
        }
        (self.number, self.batch.push(key, value, checksum))
    }

    fn end_batch(&mut self) {
        if !self.batch.is_empty() {
            self.full.push_back(std::mem::take(&mut self.batch));
            self.number += 1;
        }
    }

    /// The values of the oldest batch without a place lie from here on.
    fn give_place(&mut self, place: Location) {
        for waiting in &mut self.waiting {
            if let Some((number, start)) = waiting.value
                && number == self.placed
            {
                waiting.item.value = Stored::At(place.plus(start));
                waiting.value = None;
            }
        }
        self.placed += 1;
    }

    /// Adds the items that need no place any more.
    fn give_items(&mut self, keys: &mut KeysBuilder) {
        while let Some(WaitingItem { key, item, .. }) =
            self.waiting.pop_front_if(|waiting| waiting.value.is_none())
        {
            keys.push(key.as_slice(), item);
        }
    }
}

/// `Ok(None)` here and below: the record is not there whole.
fn decode_header(mut reader: Reader<'_>) -> Result<Option<Header>, RestoreError> {
    let mut checked = reader;
    let (Some(checked), true) =
        (checked.take(HEADER_CHECKED_BYTES), reader.remaining() >= HEADER_BYTES)
    else {
        return Ok(None);
    };
    if reader.take(MAGIC.len()) != Some(&MAGIC) {
        return Err(RestoreError::Magic);
    }
    let header = read_header(&mut reader).expect("the length was checked above");
    let (version, reserved, header, checksum, end) = header;
    if version != SNAPSHOT_VERSION {
        return Err(RestoreError::Version { found: version });
    }
    if checksum != crc32fast::hash(checked) || (reserved, end) != (0, 0) {
        return Err(RestoreError::HeaderChecksum);
    }
    let Header { applied_index, time_ms, revision, grants, sessions_opened, .. } = header;
    let counters = [applied_index, time_ms, revision, grants, sessions_opened];
    if counters.into_iter().any(|counter| counter > COUNTER_MAX) {
        return Err(RestoreError::Counter);
    }
    Ok(Some(header))
}

/// What follows the magic: version, reserved, the header, its checksum, reserved.
fn read_header(reader: &mut Reader<'_>) -> Option<(u32, u32, Header, u32, u32)> {
    let version = reader.u32()?;
    let reserved = reader.u32()?;
    let header = Header {
        applied_index: reader.u64()?,
        time_ms: reader.u64()?,
        revision: reader.u64()?,
        grants: reader.u64()?,
        sessions_opened: reader.u64()?,
        sessions: reader.u64()?,
        locks: reader.u64()?,
        keys: reader.u64()?,
        located_bytes: reader.u64()?,
        hash: reader.u128()?,
    };
    Some((version, reserved, header, reader.u32()?, reader.u32()?))
}

fn decode_session(reader: &mut Reader<'_>) -> Result<Option<(u64, Session)>, Problem> {
    let Some((id, mut session, label_bytes, answers)) = read_session_header(reader) else {
        return Ok(None);
    };
    if label_bytes > KEY_BYTES_MAX || answers as u64 > SESSION_WINDOW {
        return Err("it states a length beyond its limit");
    }
    if session.lowest == 0 || session.generation == 0 || session.generation > COUNTER_MAX {
        return Err("its window or generation cannot be");
    }
    let (Some(label), Some(answers)) =
        (reader.take(label_bytes), reader.take(answers * ANSWER_BYTES))
    else {
        return Ok(None);
    };
    session.label = label.into();
    session.window = decode_window(session.lowest, answers)?;
    Ok(Some((id, session)))
}

fn read_session_header(reader: &mut Reader<'_>) -> Option<(u64, Session, usize, usize)> {
    let before = reader.remaining();
    let id = reader.u64()?;
    let session = Session {
        generation: reader.u64()?,
        ttl_ms: reader.u64()?,
        nonce: reader.u128()?,
        lowest: reader.u64()?,
        label: Box::default(),
        window: VecDeque::new(),
    };
    let label_bytes = reader.u32()? as usize;
    let answers = reader.u32()? as usize;
    assert_eq!(before - reader.remaining(), SESSION_HEADER_BYTES);
    Some((id, session, label_bytes, answers))
}

fn decode_window(lowest: u64, answers: &[u8]) -> Result<VecDeque<Option<Outcome>>, Problem> {
    let mut window = VecDeque::new();
    let mut reader = Reader::new(answers);
    while let Some((sequence, words)) = read_answer(&mut reader) {
        let place = sequence.checked_sub(lowest).filter(|place| *place < SESSION_WINDOW);
        let place = place.ok_or("an answer lies outside its window")?;
        let place = usize::try_from(place).expect("less than the window");
        if place < window.len() {
            return Err("its answers are out of order");
        }
        window.resize(place, None);
        window.push_back(Some(Outcome::from_words(words).ok_or("an answer is of no known form")?));
    }
    Ok(window)
}

fn read_answer(reader: &mut Reader<'_>) -> Option<(u64, [u64; 3])> {
    Some((reader.u64()?, [reader.u64()?, reader.u64()?, reader.u64()?]))
}

fn decode_lock(reader: &mut Reader<'_>) -> Result<Option<(Key, Lock)>, Problem> {
    let Some((mut lock, name_bytes, waiters)) = read_lock_header(reader) else {
        return Ok(None);
    };
    if name_bytes == 0 || name_bytes > KEY_BYTES_MAX {
        return Err("its name is empty or beyond the limit");
    }
    if lock.next_ticket > COUNTER_MAX {
        return Err("its tickets cannot be");
    }
    let (Some(name), Some(waiters)) = (reader.take(name_bytes), reader.take(waiters)) else {
        return Ok(None);
    };
    let mut waiters = Reader::new(waiters);
    let mut ticket_min = 0;
    while let Some(waiter) = read_waiter(&mut waiters) {
        if waiter.ticket < ticket_min || waiter.ticket >= lock.next_ticket {
            return Err("its queue is out of order");
        }
        ticket_min = waiter.ticket + 1;
        lock.waiters.push_back(waiter);
    }
    Ok(Some((Key::new(name), lock)))
}

/// The lock, and how many bytes its name and its waiters take.
fn read_lock_header(reader: &mut Reader<'_>) -> Option<(Lock, usize, usize)> {
    let before = reader.remaining();
    let name_bytes = reader.u32()? as usize;
    let waiters = reader.u32()? as usize;
    let lock = Lock {
        holder: read_claim(reader)?,
        token: reader.u64()?,
        next_ticket: reader.u64()?,
        waiters: VecDeque::new(),
    };
    assert_eq!(before - reader.remaining(), LOCK_HEADER_BYTES);
    Some((lock, name_bytes, waiters.checked_mul(WAITER_BYTES)?))
}

fn read_claim(reader: &mut Reader<'_>) -> Option<Claim> {
    Some(Claim { session: reader.u64()?, sequence: reader.u64()? })
}

fn read_waiter(reader: &mut Reader<'_>) -> Option<Waiter> {
    Some(Waiter { claim: read_claim(reader)?, ticket: reader.u64()? })
}

/// Every claim has a living session, waits in its window if it waits, and is made once.
fn check_claims(lock: &Lock, locks: &Locks, sessions: &Sessions) -> Result<(), Problem> {
    if sessions.table.get(&lock.holder.session).is_none() {
        return Err("its holder is no session");
    }
    let waiting = lock.waiters.iter().map(|waiter| waiter.claim);
    if waiting.clone().any(|claim| !sessions.is_queued(claim.session, claim.sequence)) {
        return Err("a waiter's session does not know that it waits");
    }
    let mut claims = waiting.chain([lock.holder]).collect::<Vec<_>>();
    claims.sort_unstable();
    let repeated = claims.windows(2).any(|pair| pair.first() == pair.last());
    if repeated || claims.into_iter().any(|claim| locks.knows(claim)) {
        return Err("a claim on it is made twice");
    }
    Ok(())
}

/// The key, its item, and the value where that is too long for the item.
type DecodedKey<'a> = (&'a [u8], Item, &'a [u8]);

fn decode_key<'a>(
    reader: &mut Reader<'a>,
    may_be_located: bool,
) -> Result<Option<DecodedKey<'a>>, Problem> {
    let Some(record) = read_key_header(reader) else {
        return Ok(None);
    };
    let KeyRecord { mut item, key_bytes, form } = record;
    let value_bytes = item.value_bytes as usize;
    if key_bytes == 0 || key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
        return Err("it states a length beyond its limit");
    }
    let Some(key) = reader.take(key_bytes) else {
        return Ok(None);
    };
    match form {
        VALUE_HERE => {
            let Some(value) = reader.take(value_bytes) else {
                return Ok(None);
            };
            if crc32fast::hash(value) != item.checksum {
                return Err("its value does not match its checksum");
            }
            if value_bytes > INLINE_BYTES_MAX && may_be_located {
                return Err("its value is too long to lie in a checkpoint");
            }
            if value_bytes <= INLINE_BYTES_MAX {
                item.value = Stored::Inline(value.into());
            }
            Ok(Some((key, item, value)))
        }
        VALUE_LOCATED if may_be_located && value_bytes > INLINE_BYTES_MAX => {
            let Some(location) = reader.take(LOCATION_BYTES).map(|word| Reader::new(word).u64())
            else {
                return Ok(None);
            };
            let location = location.and_then(Location::from_u64);
            let location = location.filter(|location| location.slot() < SLOTS_MAX);
            item.value = Stored::At(location.ok_or("its location cannot be")?);
            Ok(Some((key, item, &[])))
        }
        _ => Err("its value is of no known form"),
    }
}

struct KeyRecord {
    item: Item,
    key_bytes: usize,
    form: u32,
}

fn read_key_header(reader: &mut Reader<'_>) -> Option<KeyRecord> {
    let before = reader.remaining();
    let key_bytes = reader.u32()? as usize;
    let value_bytes = reader.u32()?;
    let checksum = reader.u32()?;
    let form = reader.u32()?;
    let item = Item {
        value: Stored::Inline(Box::default()),
        value_bytes,
        checksum,
        create_revision: reader.u64()?,
        mod_revision: reader.u64()?,
        version: reader.u64()?,
        session: reader.u64()?,
    };
    assert_eq!(before - reader.remaining(), KEY_HEADER_BYTES);
    Some(KeyRecord { item, key_bytes, form })
}
