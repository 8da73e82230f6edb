//! The bytes of an entry: a header with the leader's time, and the commands one after the other.
//!
//! Every command starts at a multiple of 16 bytes and carries the lengths of its key and value and
//! the checksum of its value. One command has one encoding: reserved bytes and padding are zero,
//! and a reader insists on it. `docs/state-format.md` holds the table.
#![deny(clippy::indexing_slicing)]

use super::codec::{Reader, length_u32};
use super::command::{Command, CommandError, CommandRef, ExpectRef, Origin, Wait};
use bytes::{BufMut, Bytes, BytesMut};

/// The version that entries are written in, and the only one that is read.
pub const ENTRY_VERSION: u16 = 1;
/// The size of an entry before its first command.
pub const ENTRY_HEADER_BYTES: usize = 16;
/// Commands start at multiples of this within their entry.
pub const COMMAND_ALIGN_BYTES: usize = 16;
/// The size of a command before its key.
pub const COMMAND_HEADER_BYTES: usize = 48;

const COUNT_OFFSET: usize = 4;
const _: () = assert!(ENTRY_HEADER_BYTES.is_multiple_of(COMMAND_ALIGN_BYTES));
const _: () = assert!(COMMAND_HEADER_BYTES.is_multiple_of(COMMAND_ALIGN_BYTES));

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;
const COMPARE_AND_SET: u8 = 4;
const SESSION_OPEN: u8 = 16;
const SESSION_CLOSE: u8 = 17;
const SESSION_EXPIRE: u8 = 18;
const LOCK_ACQUIRE: u8 = 32;
const LOCK_RELEASE: u8 = 33;
const LOCK_CANCEL: u8 = 34;

const RANGE_OPEN: u8 = 0;
const RANGE_BOUNDED: u8 = 1;
const EXPECT_ABSENT: u8 = 0;
const EXPECT_VALUE: u8 = 1;
const EXPECT_REVISION: u8 = 2;
const EXPECT_MASK: u8 = 0x0F;
/// Set when a compare-and-set writes a value, clear when it deletes.
const WITH_VALUE: u8 = 0x10;
const WAIT_TRY: u8 = 0;
const WAIT_QUEUE: u8 = 1;

/// Bytes that are not an entry. Our own leader never writes such: whoever meets one must halt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Another version, or no entry at all.
    #[error("entry version {found} is not {ENTRY_VERSION}; it was written by another release")]
    Version {
        /// The version that the bytes name.
        found: u16,
    },
    /// The bytes end inside the entry's header.
    #[error("the entry ends after {bytes} bytes, inside its header")]
    Header {
        /// How many bytes there are.
        bytes: usize,
    },
    /// The entry says that it holds no command.
    #[error("the entry holds no command")]
    Empty,
    /// Bytes follow the last command.
    #[error("{bytes} bytes follow the last command of the entry")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The bytes end inside a command, or its length does not fit its parts.
    #[error("command {position} is cut short or states a wrong length")]
    Length {
        /// The number of the command within the entry.
        position: u32,
    },
    /// A command of an unknown kind or variant, or with reserved bytes or padding in use.
    #[error("command {position} is of an unknown form (kind {kind}, variant {variant})")]
    Form {
        /// The number of the command within the entry.
        position: u32,
        /// Its kind.
        kind: u8,
        /// Its variant.
        variant: u8,
    },
    /// A value that is not what its checksum was made of.
    #[error("the value of command {position} has checksum {found:#010x}, not {stated:#010x}")]
    Checksum {
        /// The number of the command within the entry.
        position: u32,
        /// The checksum in the command.
        stated: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A command beyond its limits, which the proposing server should have refused.
    #[error("command {position} breaks a limit")]
    Limit {
        /// The number of the command within the entry.
        position: u32,
        /// The limit.
        #[source]
        source: CommandError,
    },
}

/// Appends one command in the form that entries hold it, its value's checksum included.
///
/// What is appended is a multiple of [`COMMAND_ALIGN_BYTES`] long.
///
/// Requires: [`Command::check`] accepts the command.
pub fn encode_command(origin: Origin, command: &Command, out: &mut BytesMut) {
    encode_command_ref(origin, &command.to_ref(), out);
}

/// [`encode_command`] of a borrowed command.
pub fn encode_command_ref(origin: Origin, command: &CommandRef<'_>, out: &mut BytesMut) {
    assert_eq!(command.check(origin), Ok(()), "commands are checked before they are encoded");
    let mut number = [0; 16];
    let parts = Parts::of(command, &mut number);
    let bytes = parts.encoded_bytes();
    let start = out.len();
    out.reserve(bytes);
    out.put_u32_le(length_u32(bytes));
    out.put_u8(parts.kind);
    out.put_u8(parts.variant);
    out.put_u16_le(u16::try_from(parts.key.len()).expect("checked: a key is at most 4 KiB"));
    out.put_u32_le(length_u32(parts.value.len()));
    out.put_u32_le(crc32fast::hash(parts.value));
    out.put_u64_le(origin.session);
    out.put_u64_le(origin.sequence);
    out.put_u64_le(origin.lowest_unanswered);
    out.put_u64_le(parts.argument);
    out.put_slice(parts.key);
    out.put_slice(parts.value);
    out.put_slice(parts.expected);
    out.put_bytes(0, start + bytes - out.len());
}

/// Collects encoded commands into one entry. One builder serves any number of entries.
#[derive(Debug, Default)]
pub struct EntryBuilder {
    bytes: BytesMut,
    count: u32,
}

impl EntryBuilder {
    /// A builder; call [`begin`](EntryBuilder::begin) before the first push.
    pub fn new() -> EntryBuilder {
        EntryBuilder::default()
    }

    /// Starts an entry at the leader's time, in milliseconds since any fixed point; what an
    /// unfinished one held is dropped.
    pub fn begin(&mut self, now_ms: u64) {
        self.bytes.clear();
        self.count = 0;
        self.bytes.put_u16_le(ENTRY_VERSION);
        self.bytes.put_u16_le(0);
        self.bytes.put_u32_le(0);
        self.bytes.put_u64_le(now_ms);
    }

    /// Adds one command as [`encode_command`] wrote it.
    pub fn push(&mut self, encoded_command: &[u8]) {
        assert!(self.bytes.len() >= ENTRY_HEADER_BYTES, "begin comes before push");
        let stated = Reader::new(encoded_command).u32().map(|bytes| bytes as usize);
        assert_eq!(stated, Some(encoded_command.len()), "one whole command at a time");
        self.bytes.put_slice(encoded_command);
        self.count += 1;
    }

    /// The size of the entry so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many commands the entry holds so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Ends the entry. The next one starts with [`begin`](EntryBuilder::begin).
    ///
    /// Requires: it holds at least one command.
    pub fn finish(&mut self) -> Bytes {
        assert!(self.count > 0, "an entry holds at least one command");
        let (_, after) = self.bytes.split_at_mut(COUNT_OFFSET);
        let (field, _) = after.split_first_chunk_mut().expect("begin wrote the header");
        *field = self.count.to_le_bytes();
        self.count = 0;
        self.bytes.split().freeze()
    }
}

/// An entry whose bytes have been found sound from end to end.
#[derive(Clone, Copy, Debug)]
pub struct EntryReader<'a> {
    time_ms: u64,
    count: u32,
    commands: &'a [u8],
}

/// One command of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded<'a> {
    /// Who sent it.
    pub origin: Origin,
    /// What it asks.
    pub command: CommandRef<'a>,
    /// The CRC-32 of the value in it.
    pub value_checksum: u32,
    /// Where its key starts in the entry's payload; a multiple of [`COMMAND_ALIGN_BYTES`]. The value follows the key.
    pub key_offset: usize,
}

impl<'a> EntryReader<'a> {
    /// Reads and checks a whole entry: lengths, forms, limits and value checksums.
    pub fn open(payload: &'a [u8]) -> Result<EntryReader<'a>, EntryError> {
        let entry = EntryReader::open_header(payload)?;
        let mut reader = Reader::new(entry.commands);
        for position in 0..entry.count {
            check_command(&mut reader, position)?;
        }
        match reader.remaining() {
            0 => Ok(entry),
            bytes => Err(EntryError::Trailing { bytes }),
        }
    }

    fn open_header(payload: &'a [u8]) -> Result<EntryReader<'a>, EntryError> {
        let mut reader = Reader::new(payload);
        let cut = || EntryError::Header { bytes: payload.len() };
        let version = reader.u16().ok_or_else(cut)?;
        if version != ENTRY_VERSION {
            return Err(EntryError::Version { found: version });
        }
        let reserved = reader.u16().ok_or_else(cut)?;
        let count = reader.u32().ok_or_else(cut)?;
        let time_ms = reader.u64().ok_or_else(cut)?;
        let commands = reader.take(reader.remaining()).unwrap_or_default();
        match (reserved, count) {
            (0, 0) => Err(EntryError::Empty),
            (0, _) => Ok(EntryReader { time_ms, count, commands }),
            _ => Err(EntryError::Form { position: 0, kind: 0, variant: 0 }),
        }
    }

    /// The leader's time when it made the entry, in milliseconds.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// How many commands there are, at least one.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = Decoded<'a>> + use<'a> {
        let mut reader = Reader::new(self.commands);
        let bytes = ENTRY_HEADER_BYTES + self.commands.len();
        let next = move |_| {
            let key_offset = bytes - reader.remaining() + COMMAND_HEADER_BYTES;
            decode_command(&mut reader, key_offset).expect("open has checked every command")
        };
        (0..self.count).map(next)
    }

    /// The compares with a value in an entry that may hold anything: (key, expected value). What is not sound is passed
    /// over, because applying it will say so.
    pub fn compares(payload: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let commands = EntryReader::open_header(payload).map_or(&[][..], |entry| entry.commands);
        let mut rest = commands;
        std::iter::from_fn(move || {
            loop {
                let (is_compare, bytes) = peek_command(rest)?;
                let (command, after) = rest.split_at_checked(bytes)?;
                rest = after;
                if !is_compare {
                    continue;
                }
                let decoded = decode_command(&mut Reader::new(command), 0)?;
                if let CommandRef::CompareAndSet { key, expect: ExpectRef::Value(value), .. } =
                    decoded.command
                {
                    return Some((key, value));
                }
            }
        })
    }
}

/// A command as its fields lie in the bytes; encoding and decoding both pass through it.
struct Parts<'a> {
    kind: u8,
    variant: u8,
    argument: u64,
    key: &'a [u8],
    value: &'a [u8],
    /// What a compare-and-set compares with; its length is the argument.
    expected: &'a [u8],
}

const NO_PARTS: Parts<'static> =
    Parts { kind: 0, variant: 0, argument: 0, key: &[], value: &[], expected: &[] };

impl<'a> Parts<'a> {
    /// `number` lends its bytes to a number that does not fit the argument.
    fn of(command: &CommandRef<'a>, number: &'a mut [u8; 16]) -> Parts<'a> {
        match *command {
            CommandRef::Put { key, value } => Parts { kind: PUT, key, value, ..NO_PARTS },
            CommandRef::Delete { key } => Parts { kind: DELETE, key, ..NO_PARTS },
            CommandRef::DeleteRange { start, end } => Parts {
                kind: DELETE_RANGE,
                variant: if end.is_some() { RANGE_BOUNDED } else { RANGE_OPEN },
                key: start,
                value: end.unwrap_or_default(),
                ..NO_PARTS
            },
            CommandRef::CompareAndSet { key, expect, value } => {
                Parts::of_compare_and_set(key, expect, value)
            }
            CommandRef::SessionOpen { ttl_ms, nonce, label } => {
                *number = nonce.to_le_bytes();
                let value = number.as_slice();
                Parts { kind: SESSION_OPEN, argument: ttl_ms, key: label, value, ..NO_PARTS }
            }
            CommandRef::SessionClose { session } => {
                Parts { kind: SESSION_CLOSE, argument: session, ..NO_PARTS }
            }
            CommandRef::SessionExpire { session, generation } => {
                let value = eight_bytes(number, generation);
                Parts { kind: SESSION_EXPIRE, argument: session, value, ..NO_PARTS }
            }
            CommandRef::LockAcquire { name, wait } => {
                let variant = match wait {
                    Wait::Try => WAIT_TRY,
                    Wait::Queue => WAIT_QUEUE,
                };
                Parts { kind: LOCK_ACQUIRE, variant, key: name, ..NO_PARTS }
            }
            CommandRef::LockRelease { name, token } => {
                Parts { kind: LOCK_RELEASE, argument: token, key: name, ..NO_PARTS }
            }
            CommandRef::LockCancel { name, session, sequence } => {
                let value = eight_bytes(number, sequence);
                Parts { kind: LOCK_CANCEL, argument: session, key: name, value, ..NO_PARTS }
            }
        }
    }

    fn of_compare_and_set(
        key: &'a [u8],
        expect: ExpectRef<'a>,
        value: Option<&'a [u8]>,
    ) -> Parts<'a> {
        let (variant, argument, expected): (u8, u64, &[u8]) = match expect {
            ExpectRef::Absent => (EXPECT_ABSENT, 0, &[]),
            ExpectRef::Value(expected) => (EXPECT_VALUE, expected.len() as u64, expected),
            ExpectRef::Revision(revision) => (EXPECT_REVISION, revision, &[]),
        };
        let with_value = if value.is_some() { WITH_VALUE } else { 0 };
        Parts {
            kind: COMPARE_AND_SET,
            variant: variant | with_value,
            argument,
            key,
            value: value.unwrap_or_default(),
            expected,
        }
    }

    fn encoded_bytes(&self) -> usize {
        let parts = self.key.len() + self.value.len() + self.expected.len();
        (COMMAND_HEADER_BYTES + parts).next_multiple_of(COMMAND_ALIGN_BYTES)
    }

    /// `None` for an unknown kind or variant.
    fn to_command(&self) -> Option<CommandRef<'a>> {
        let Parts { argument, key, value, expected, .. } = *self;
        let command = match (self.kind, self.variant) {
            (PUT, 0) => CommandRef::Put { key, value },
            (DELETE, 0) => CommandRef::Delete { key },
            (DELETE_RANGE, RANGE_OPEN) => CommandRef::DeleteRange { start: key, end: None },
            (DELETE_RANGE, RANGE_BOUNDED) => {
                CommandRef::DeleteRange { start: key, end: Some(value) }
            }
            (COMPARE_AND_SET, variant) => {
                let expect = match variant & !WITH_VALUE {
                    EXPECT_ABSENT => ExpectRef::Absent,
                    EXPECT_VALUE => ExpectRef::Value(expected),
                    EXPECT_REVISION => ExpectRef::Revision(argument),
                    _ => return None,
                };
                let value = (variant & WITH_VALUE != 0).then_some(value);
                CommandRef::CompareAndSet { key, expect, value }
            }
            (SESSION_OPEN, 0) => {
                let nonce = u128::from_le_bytes(value.try_into().ok()?);
                CommandRef::SessionOpen { ttl_ms: argument, nonce, label: key }
            }
            (SESSION_CLOSE, 0) => CommandRef::SessionClose { session: argument },
            (SESSION_EXPIRE, 0) => {
                let generation = u64::from_le_bytes(value.try_into().ok()?);
                CommandRef::SessionExpire { session: argument, generation }
            }
            (LOCK_ACQUIRE, WAIT_TRY) => CommandRef::LockAcquire { name: key, wait: Wait::Try },
            (LOCK_ACQUIRE, WAIT_QUEUE) => CommandRef::LockAcquire { name: key, wait: Wait::Queue },
            (LOCK_RELEASE, 0) => CommandRef::LockRelease { name: key, token: argument },
            (LOCK_CANCEL, 0) => {
                let sequence = u64::from_le_bytes(value.try_into().ok()?);
                CommandRef::LockCancel { name: key, session: argument, sequence }
            }
            _ => return None,
        };
        Some(command)
    }

    /// Whether encoding `command` would give these very parts, so that no field holds what its
    /// kind has no use for.
    fn is_canonical(&self, command: &CommandRef<'a>) -> bool {
        let mut number = [0; 16];
        let again = Parts::of(command, &mut number);
        self.argument == again.argument
            && self.key.len() == again.key.len()
            && self.value.len() == again.value.len()
            && self.expected.len() == again.expected.len()
    }
}

fn eight_bytes(number: &mut [u8; 16], value: u64) -> &[u8] {
    let (low, _) = number.split_first_chunk_mut::<8>().expect("8 is less than 16");
    *low = value.to_le_bytes();
    low.as_slice()
}

/// Decodes and checks the next command.
fn check_command(reader: &mut Reader<'_>, position: u32) -> Result<(), EntryError> {
    let wrong_length = EntryError::Length { position };
    let (parts, origin, value_checksum) = decode_parts(reader).ok_or(wrong_length)?;
    let form = EntryError::Form { position, kind: parts.kind, variant: parts.variant };
    let command = parts.to_command().filter(|command| parts.is_canonical(command)).ok_or(form)?;
    command.check(origin).map_err(|source| EntryError::Limit { position, source })?;
    verify_value(position, parts.value, value_checksum)
}

/// Whether the next command compares with a value, and its length.
fn peek_command(bytes: &[u8]) -> Option<(bool, usize)> {
    let mut reader = Reader::new(bytes);
    let (bytes, kind, variant) = (reader.u32()? as usize, reader.u8()?, reader.u8()?);
    let compares = kind == COMPARE_AND_SET && variant & EXPECT_MASK == EXPECT_VALUE;
    (bytes > 0).then_some((compares, bytes))
}

/// Decodes a command that was checked before.
fn decode_command<'a>(reader: &mut Reader<'a>, key_offset: usize) -> Option<Decoded<'a>> {
    let (parts, origin, value_checksum) = decode_parts(reader)?;
    Some(Decoded { origin, command: parts.to_command()?, value_checksum, key_offset })
}

/// `None` when the lengths contradict each other or the padding is not zero.
fn decode_parts<'a>(reader: &mut Reader<'a>) -> Option<(Parts<'a>, Origin, u32)> {
    let mut command = *reader;
    let bytes = command.u32()? as usize;
    let kind = command.u8()?;
    let variant = command.u8()?;
    let key_bytes = usize::from(command.u16()?);
    let value_bytes = command.u32()? as usize;
    let value_checksum = command.u32()?;
    let origin = Origin {
        session: command.u64()?,
        sequence: command.u64()?,
        lowest_unanswered: command.u64()?,
    };
    let argument = command.u64()?;
    let compares = kind == COMPARE_AND_SET && variant & EXPECT_MASK == EXPECT_VALUE;
    let expected_bytes = if compares { usize::try_from(argument).ok()? } else { 0 };
    let key = command.take(key_bytes)?;
    let value = command.take(value_bytes)?;
    let expected = command.take(expected_bytes)?;
    let parts = Parts { kind, variant, argument, key, value, expected };
    let padding = parts.encoded_bytes() - COMMAND_HEADER_BYTES - key_bytes - value_bytes;
    let padding = command.take(padding - expected_bytes)?;
    let sound = parts.encoded_bytes() == bytes && padding.iter().all(|&byte| byte == 0);
    *reader = command;
    sound.then_some((parts, origin, value_checksum))
}

fn verify_value(position: u32, value: &[u8], stated: u32) -> Result<(), EntryError> {
    match crc32fast::hash(value) {
        found if found == stated => Ok(()),
        found => Err(EntryError::Checksum { position, stated, found }),
    }
}
