//! The load generator's only reader of time.

use std::time::Instant;

/// Nanoseconds since the program began: one monotonic clock for all connections.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "a load generator measures real time; this is the only place"
    )]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("it runs for less than 500 years")
    }
}
