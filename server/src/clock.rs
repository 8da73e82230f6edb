//! The only reader of time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raft::Micros;

/// A monotonic clock that starts at zero, and the wall clock for what people read.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Monotonic time since the start.
    pub fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since 1970. Nothing depends on it but what entries carry for people to read.
    #[expect(clippy::disallowed_methods, reason = "this is the reader of time")]
    pub fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
