//! The frame types: one byte in the header says what the body is. Replies have the top bit set.

/// The client's first frame.
pub const HELLO: u8 = 0x01;
/// Asks for a sign of life.
pub const PING: u8 = 0x02;
/// Asks how the node is.
pub const STATUS: u8 = 0x03;
/// Writes a key.
pub const PUT: u8 = 0x10;
/// Deletes a key.
pub const DELETE: u8 = 0x11;
/// Deletes the keys of a range.
pub const DELETE_RANGE: u8 = 0x12;
/// Writes or deletes a key if it is as expected.
pub const COMPARE_AND_SET: u8 = 0x13;
/// Reads a key.
pub const GET: u8 = 0x20;
/// Reads the keys of a range.
pub const RANGE: u8 = 0x21;
/// Opens a session.
pub const SESSION_OPEN: u8 = 0x30;
/// Keeps a session alive.
pub const SESSION_KEEP_ALIVE: u8 = 0x31;
/// Ends a session.
pub const SESSION_CLOSE: u8 = 0x32;
/// Acquires a lock.
pub const LOCK_ACQUIRE: u8 = 0x40;
/// Releases a lock.
pub const LOCK_RELEASE: u8 = 0x41;
/// Looks at a lock.
pub const LOCK_QUERY: u8 = 0x42;

/// The server's first frame.
pub const WELCOME: u8 = 0x81;
/// Answers [`PING`].
pub const PONG: u8 = 0x82;
/// Answers [`STATUS`].
pub const NODE_STATUS: u8 = 0x83;
/// Answers [`PUT`].
pub const PUT_DONE: u8 = 0x90;
/// Answers [`DELETE`] and [`DELETE_RANGE`].
pub const DELETED: u8 = 0x91;
/// Answers [`COMPARE_AND_SET`].
pub const COMPARED: u8 = 0x93;
/// Answers [`GET`].
pub const GOT: u8 = 0xa0;
/// Answers [`RANGE`].
pub const RANGE_PAGE: u8 = 0xa1;
/// Answers [`SESSION_OPEN`].
pub const SESSION_OPENED: u8 = 0xb0;
/// Answers [`SESSION_KEEP_ALIVE`].
pub const SESSION_ALIVE: u8 = 0xb1;
/// Answers [`SESSION_CLOSE`].
pub const SESSION_CLOSED: u8 = 0xb2;
/// Answers [`LOCK_ACQUIRE`]: the lock is held.
pub const LOCK_GRANTED: u8 = 0xc0;
/// Answers [`LOCK_ACQUIRE`]: somebody else kept it.
pub const LOCK_NOT_ACQUIRED: u8 = 0xc1;
/// Answers [`LOCK_RELEASE`].
pub const LOCK_RELEASED: u8 = 0xc2;
/// Answers [`LOCK_QUERY`].
pub const LOCK_STATE: u8 = 0xc3;
/// Answers any request, or with request id 0 the connection as a whole.
pub const ERROR: u8 = 0xff;
