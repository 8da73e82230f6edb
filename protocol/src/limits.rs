//! Every limit of the protocol, with its unit.

/// Longest key or lock name, in bytes. The shortest is one byte.
pub const KEY_BYTES_MAX: usize = 4 * 1024;

/// Longest value that any server can be configured to take, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest value that a server takes unless configured otherwise, in bytes.
pub const VALUE_BYTES_MAX_DEFAULT: usize = 1024 * 1024;

/// Longest label of a client or a session, in bytes.
pub const LABEL_BYTES_MAX: usize = 255;

/// Longest body of a frame before the handshake is done, in either direction, in bytes.
pub const HANDSHAKE_BODY_BYTES_MAX: u32 = 4 * 1024;

/// What a frame's body may hold besides its key and value, in bytes.
pub const FRAME_SLACK_BYTES: usize = 4 * 1024;

/// A page of a range reply ends before its keys and values exceed this many bytes, unless it has
/// one item only.
pub const RANGE_PAGE_BYTES_MAX: usize = 1024 * 1024;

/// How many requests of one session may be unanswered: a sequence is below the lowest unanswered
/// one plus this.
pub const SESSION_WINDOW: u64 = 1024;

/// The shortest time to live of a session, in milliseconds.
pub const SESSION_TTL_MS_MIN: u64 = 1_000;

/// The usual time to live of a session, in milliseconds.
pub const SESSION_TTL_MS_DEFAULT: u64 = 10_000;

/// The longest time to live of a session, in milliseconds (24 hours).
pub const SESSION_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// What a server takes from one connection; told in its [`Welcome`](crate::Welcome).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Longest key, in bytes; at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: u32,
    /// Longest value, in bytes; at most [`VALUE_BYTES_MAX`].
    pub value_bytes_max: u32,
    /// How many requests may wait for their reply.
    pub inflight_requests_max: u32,
    /// How many bytes of requests may wait for their reply.
    pub inflight_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::with_value_bytes_max(VALUE_BYTES_MAX_DEFAULT)
    }
}

impl Limits {
    /// The usual limits with another longest value, in bytes.
    ///
    /// Requires: `value_bytes_max <= VALUE_BYTES_MAX`.
    #[must_use]
    pub fn with_value_bytes_max(value_bytes_max: usize) -> Limits {
        assert!(value_bytes_max <= VALUE_BYTES_MAX);
        Limits {
            key_bytes_max: to_u32(KEY_BYTES_MAX),
            value_bytes_max: to_u32(value_bytes_max),
            inflight_requests_max: 4_096,
            inflight_bytes_max: to_u32(2 * VALUE_BYTES_MAX),
        }
    }

    /// Longest body of a request's frame after the handshake, in bytes.
    pub fn request_body_bytes_max(&self) -> u32 {
        // A range has two keys.
        self.value_bytes_max
            .saturating_add(self.key_bytes_max.saturating_mul(2))
            .saturating_add(to_u32(FRAME_SLACK_BYTES))
    }

    /// Longest body of a reply's frame after the handshake, in bytes.
    pub fn reply_body_bytes_max(&self) -> u32 {
        // Per item of a page its counters come on top of what the page counts; see `RangeReply`.
        self.request_body_bytes_max().max(to_u32(RANGE_PAGE_BYTES_MAX + FRAME_SLACK_BYTES))
    }
}

/// For the constants above, all of which fit.
fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the limits of this file fit 32 bits")
}

const _: () = assert!(VALUE_BYTES_MAX_DEFAULT <= VALUE_BYTES_MAX);
const _: () = assert!(2 * VALUE_BYTES_MAX <= u32::MAX as usize);
