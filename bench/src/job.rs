//! What a lane does with its connection: operations, one slot each.

use client::Connection;
use protocol::Response;

use crate::error::Failure;

/// What a job wants of a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The request `id` is queued; it should have started at `start_ns`.
    Sent {
        /// The request's id on the connection.
        id: u64,
        /// When it should have started.
        start_ns: u64,
    },
    /// This slot has nothing to do now.
    Rest,
    /// No slot has anything to do now.
    AllRest,
}

/// A request that ended.
#[derive(Debug)]
pub struct Done {
    /// The slot that it had.
    pub slot: u32,
    /// When it should have started, in nanoseconds.
    pub start_ns: u64,
    /// When it was sent, in nanoseconds.
    pub sent_ns: u64,
    /// When it ended, in nanoseconds.
    pub end_ns: u64,
    /// The node that was asked.
    pub node: u64,
    /// Its answer (never [`Response::Error`]), or why there is none.
    pub result: Result<Response, Failure>,
}

/// Work for the slots of one lane.
pub trait Job {
    /// Queues the next operation of `slot`, which is free.
    fn next(&mut self, slot: u32, now: u64, connection: &mut Connection) -> Next;

    /// Takes what came of an operation. Answers how many operations that completes, for the progress line.
    fn finished(&mut self, done: Done) -> u64;

    /// Whether there is nothing left to do. Asked only while nothing is in flight, or no connection can be had.
    fn is_over(&self, now: u64) -> bool;

    /// Queues a request beside the operations, such as a keep-alive, if one is due: its slot and id.
    fn upkeep(&mut self, _now: u64, _connection: &mut Connection) -> Option<(u32, u64)> {
        None
    }

    /// Takes what came of such a request.
    fn kept_up(&mut self, _slot: u32, _result: Result<Response, Failure>) {}
}
