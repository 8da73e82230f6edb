//! Snapshots to and from peers, pulled chunk by chunk by the receiver.
//!
//! A sender pins its newest checkpoint until the core ends the attempt, and puts the values in place of their locations as
//! it goes. A receiver puts the values into its own log, makes a state of the rest, and writes that as a checkpoint of its
//! own; nothing old is touched before that file is durable and verified (P18). One for which there is no room is given
//! up, with everything that it has written, and received anew after a while (P17).

mod patience;
mod receiver;
mod sender;

pub(super) use patience::Patience;
pub(super) use receiver::{Progress, Receiver, lack_of_room};
pub(super) use sender::{Means, Senders};

/// Bytes asked for and sent at a time, or one value that is larger.
const CHUNK_BYTES: usize = 1 << 20;
