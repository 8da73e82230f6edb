//! Checks one kept checkpoint as its bytes come in, and goes on behind a block that is damaged.
//!
//! Invariant: what is checked is what the open or the writer has verified: the header is compared with the one that is
//! in memory, so that no other checkpoint, sound by itself, passes in its place.

use crate::checkpoint::{CheckpointHeader, Verifier, block_offset};
use crate::checkpoint_writer::next_piece;
use crate::error::Check;
use crate::format::{BLOCK_BYTES, CHECKPOINT_BLOCK_BYTES, CHECKPOINT_HEADER_BYTES};
use crate::retained::Kept;
use crate::scrub::{Bytes, is_refused};
use crate::types::{CheckpointInfo, Meta};

/// Where a checkpoint is damaged, and what that place does not pass.
pub(super) type Bad = (u64, Check);

/// One checkpoint, as far as it has been read.
#[derive(Debug)]
pub(super) struct CheckpointCheck {
    log_id: u128,
    node: u64,
    info: CheckpointInfo,
    salt: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Header,
    Blocks(Verifier, HeaderIs),
    Ended,
}

/// Without the header nothing says what the footer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HeaderIs {
    Sound,
    Damaged,
}

impl CheckpointCheck {
    pub(super) fn new(meta: &Meta, kept: &Kept) -> CheckpointCheck {
        CheckpointCheck {
            log_id: meta.log_id,
            node: meta.node,
            info: kept.info(),
            salt: kept.salt(),
            state: State::Header,
        }
    }

    /// The next piece, (offset, bytes); none at the end.
    pub(super) fn next_piece(&self) -> Option<(u64, usize)> {
        match &self.state {
            State::Header => Some((0, CHECKPOINT_HEADER_BYTES)),
            State::Blocks(verifier, _) => Some(next_piece(verifier, self.info.stored_bytes())),
            State::Ended => None,
        }
    }

    /// Takes the piece that was asked for, which starts at `offset`, and adds the damage in it.
    pub(super) fn take(&mut self, offset: u64, piece: &Bytes, found: &mut Vec<Bad>) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.state = match state {
            State::Header => self.header(piece, found),
            State::Blocks(verifier, header) if verifier.is_at_footer() => {
                if header == HeaderIs::Sound
                    && let Err(check) = verifier.footer(&piece.bytes)
                {
                    found.push((offset, refused_or(check, piece, offset, BLOCK_BYTES)));
                }
                State::Ended
            }
            State::Blocks(mut verifier, header) => {
                blocks(&mut verifier, offset, piece, found);
                State::Blocks(verifier, header)
            }
            State::Ended => State::Ended,
        };
    }

    fn header(&self, piece: &Bytes, found: &mut Vec<Bad>) -> State {
        let expected = CheckpointHeader {
            log_id: self.log_id,
            node: self.node,
            info: self.info,
            salt: self.salt,
            blocks_crc: 0,
        };
        // That the file is long enough shows when its footer is read.
        let read = CheckpointHeader::decode(&piece.bytes, self.log_id, u64::MAX);
        let check = match read {
            Ok((header, crc)) if CheckpointHeader { blocks_crc: 0, ..header } == expected => {
                return State::Blocks(Verifier::new(header, crc), HeaderIs::Sound);
            }
            Ok(_) => Check::Address,
            Err(check) => check,
        };
        found.push((0, refused_or(check, piece, 0, CHECKPOINT_HEADER_BYTES)));
        State::Blocks(Verifier::new(expected, 0), HeaderIs::Damaged)
    }
}

/// Checks the blocks of a piece that starts at `offset`.
fn blocks(verifier: &mut Verifier, offset: u64, piece: &Bytes, found: &mut Vec<Bad>) {
    loop {
        let at = block_offset(verifier.next_block());
        let start = usize::try_from(at - offset).expect("a piece is small");
        let Some(rest) = piece.bytes.get(start..).filter(|rest| !rest.is_empty()) else { return };
        if verifier.is_at_footer() {
            return;
        }
        let Err(check) = verifier.blocks(rest, &mut |_| Ok(())) else { return };
        let at = block_offset(verifier.next_block());
        found.push((at, refused_or(check, piece, at, CHECKPOINT_BLOCK_BYTES)));
        verifier.skip_block();
    }
}

fn refused_or(check: Check, piece: &Bytes, offset: u64, bytes: usize) -> Check {
    if is_refused(&piece.refused, offset, bytes) { Check::Unreadable } else { check }
}
