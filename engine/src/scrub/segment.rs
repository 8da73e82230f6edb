//! Checks one sealed segment as its bytes come in, piece after piece, and goes on behind what is damaged.
//!
//! A bad frame means what it means to an open, see [`crate::recovery::decide`]: below an end that is known it is damage;
//! where no end is known it is damage if a later frame of the segment promises it, and else the end, or a write that
//! was never acknowledged.
//!
//! Invariants: what is not judged starts at the frame or block that is looked at next; a frame is held whole, and no more
//! than one frame and one piece; each place is reported once.

#![deny(clippy::indexing_slicing)]

use crate::error::{Check, Damage, Proof};
use crate::format::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use crate::frame::{FrameHeader, LogTag, Record};
use crate::mutant::{self, Mutant};
use crate::recovery::{Segment, Verdict, decide};
use crate::scan::{Chain, block_of, check_frame};
use crate::scrub::{Bytes, PIECE_BYTES, is_refused};
use crate::segment::{Head, SegmentHeader};
use crate::types::Meta;
use crate::window::Window;

/// The segment of one slot, as far as it has been read.
#[derive(Debug)]
pub(super) struct SegmentCheck {
    tag: LogTag,
    log_id: u128,
    slot: u32,
    slot_bytes: u64,
    /// What this process knows of the segment.
    known: Option<Segment>,
    state: State,
    /// What was read and is not judged yet.
    window: Window,
    /// Where the last good frame starts, or one of which the header is good.
    last_start: u64,
    /// Blocks that the device refused, from the last frame in question on.
    refused: Vec<u64>,
    /// Frames that are bad and not reported: the last one's successor may tell what it held, and where no end is known
    /// a later frame must prove that it is damage.
    bad: Vec<Damage>,
    /// Of the frame that is looked at; kept for its memory.
    records: Vec<Record>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The segment's header is next.
    Header,
    /// It is damaged: the first frame tells the salt, or nothing does.
    FirstFrame,
    /// A frame is next.
    Frame(Chain),
    /// Every block may start the next good frame.
    Lost(Chain),
    Ended,
}

/// What became of a look at the bytes at hand.
enum Step {
    /// Something was judged.
    On,
    /// More bytes are needed first.
    Wait,
}

impl SegmentCheck {
    pub(super) fn new(meta: &Meta, slot: u32, known: Option<Segment>) -> SegmentCheck {
        let known = known.filter(|_| !mutant::is(Mutant::ScrubTakesBadFrameForEnd));
        SegmentCheck {
            tag: LogTag::of(meta.log_id),
            log_id: meta.log_id,
            slot,
            slot_bytes: meta.slot_bytes,
            known,
            state: State::Header,
            window: Window::default(),
            last_start: 0,
            refused: Vec::new(),
            bad: Vec::new(),
            records: Vec::new(),
        }
    }

    /// The first byte after what is to be read.
    fn limit(&self) -> u64 {
        self.known.map_or(self.slot_bytes, |segment| segment.end)
    }

    /// How far it has been read.
    pub(super) fn offset(&self) -> u64 {
        self.window.end()
    }

    /// What is not judged yet.
    fn rest(&self) -> &[u8] {
        self.window.rest()
    }

    /// The next piece, (offset, bytes); none at the end.
    pub(super) fn next_piece(&self) -> Option<(u64, usize)> {
        let left = self.limit().saturating_sub(self.offset());
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let is_needed = bytes > 0 && !matches!(self.state, State::Ended);
        is_needed.then(|| (self.offset(), bytes))
    }

    /// Takes the piece that was asked for and adds the damage that is certain by now.
    pub(super) fn take(&mut self, piece: &Bytes, found: &mut Vec<Damage>) {
        self.window.push(&piece.bytes);
        self.refused.extend_from_slice(&piece.refused);
        while !matches!(self.state, State::Ended) && !self.rest().is_empty() {
            match self.step(found) {
                Step::On => {}
                Step::Wait => break,
            }
        }
        if self.next_piece().is_none() {
            self.end(found);
        }
    }

    fn step(&mut self, found: &mut Vec<Damage>) -> Step {
        match self.state {
            State::Header => self.header(found),
            State::FirstFrame => self.first_frame(),
            State::Frame(chain) => self.frame(chain, found),
            State::Lost(chain) => self.look_for_frame(chain, found),
            State::Ended => Step::Wait,
        }
    }

    fn header(&mut self, found: &mut Vec<Damage>) -> Step {
        let head = SegmentHeader::classify(self.rest(), self.log_id, self.slot, self.slot_bytes);
        let check = match head {
            Head::Segment(header) if self.is_known_as(header.number, header.first_seq) => {
                self.state = State::Frame(Chain::of(&header));
                None
            }
            // A life of the slot before the one that is looked for: the write that opened this one is lost.
            Head::Segment(_) => Some(Check::Salt),
            Head::Blank => Some(Check::Magic),
            Head::Bad(check) => Some(check),
        };
        if let Some(check) = check {
            let seq = self.known.map_or(0, |segment| segment.first_seq);
            found.push(self.damage(seq, self.checked(check, SEGMENT_HEADER_BYTES), None));
            self.state = if stops_at_damage() { State::Ended } else { State::FirstFrame };
        }
        self.consume(SEGMENT_HEADER_BYTES);
        Step::On
    }

    fn is_known_as(&self, number: u64, first_seq: u64) -> bool {
        let is_it = |segment: &Segment| (segment.number, segment.first_seq) == (number, first_seq);
        self.known.as_ref().is_none_or(is_it)
    }

    /// The first frame is of one write with the lost header, so it is of the same life.
    fn first_frame(&mut self) -> Step {
        let is_it = |header: &FrameHeader| {
            header.seq > 0
                && header.slot == self.slot
                && header.block == block_of(self.window.start())
                && self.known.is_none_or(|segment| segment.first_seq == header.seq)
        };
        self.state = match FrameHeader::decode(self.tag, self.rest()) {
            Ok((header, _)) if is_it(&header) => State::Frame(Chain::before(&header)),
            _ => State::Ended,
        };
        Step::On
    }

    fn frame(&mut self, chain: Chain, found: &mut Vec<Damage>) -> Step {
        let own = self.own_header(chain);
        if let Some((header, _)) = own
            && header.frame_bytes() > self.rest().len()
            && self.has_more_bytes()
            && header.frame_bytes() as u64 <= self.limit() - self.window.start()
        {
            return Step::Wait;
        }
        self.records.clear();
        let rest = self.window.rest();
        let expected = chain.expected(self.slot, self.window.start(), rest);
        let result = check_frame(self.tag, &expected, rest, &mut self.records);
        if let Some((header, _)) = own {
            self.witness(&header, found);
        }
        let (header, crc) = match result {
            Ok(passed) => passed,
            Err((check, indices)) => {
                let bytes = own.map_or(BLOCK_BYTES, |(header, _)| header.frame_bytes());
                let damage = self.damage(chain.last_seq + 1, self.checked(check, bytes), indices);
                self.bad.push(damage);
                return self.behind(chain, own);
            }
        };
        self.pass(chain, &header, crc);
        Step::On
    }

    /// Goes on behind the frame of this header.
    fn pass(&mut self, chain: Chain, header: &FrameHeader, crc: u32) {
        self.state = State::Frame(chain.after(header, crc));
        self.last_start = self.window.start();
        self.consume(header.frame_bytes());
    }

    /// Goes on behind a frame that is bad: after it where its own header tells its length, else with the next block.
    fn behind(&mut self, chain: Chain, own: Option<(FrameHeader, u32)>) -> Step {
        if stops_at_damage() {
            self.state = State::Ended;
            return Step::On;
        }
        match own {
            Some((header, crc)) if header.frame_bytes() <= self.rest().len() => {
                self.pass(chain, &header, crc);
            }
            _ => {
                self.state = State::Lost(chain);
                self.consume(BLOCK_BYTES);
            }
        }
        Step::On
    }

    fn look_for_frame(&mut self, chain: Chain, found: &mut Vec<Damage>) -> Step {
        match self.own_header(chain) {
            Some((header, _)) => {
                self.witness(&header, found);
                self.state = State::Frame(Chain::before(&header));
            }
            None => self.consume(BLOCK_BYTES),
        }
        Step::On
    }

    /// The header that the window starts with, if it is of this life and belongs there.
    fn own_header(&self, chain: Chain) -> Option<(FrameHeader, u32)> {
        let (header, crc) = FrameHeader::decode(self.tag, self.rest()).ok()?;
        let place = (header.salt, header.slot, header.block);
        let is_own = place == (chain.salt, self.slot, block_of(self.window.start()));
        (is_own && header.seq > chain.last_seq).then_some((header, crc))
    }

    /// A later header of this life: what it tells of the frames that are bad.
    fn witness(&mut self, header: &FrameHeader, found: &mut Vec<Damage>) {
        if let Some(last) = self.bad.last_mut()
            && header.seq == last.seq + 1
        {
            last.indices = last.indices.or(Some(header.prev.indices()));
        }
        let proof = Proof::LaterFrame { durable_seq: header.durable_seq };
        let is_known = self.known.is_some();
        let is_certain =
            |damage: &Damage| is_known || decide(damage.seq, &[proof]) != Verdict::Torn;
        let certain = self.bad.iter().take_while(|damage| is_certain(damage)).count();
        found.extend(
            self.bad
                .drain(..certain)
                .map(|damage| Damage { proof: (!is_known).then_some(proof), ..damage }),
        );
    }

    /// Everything has been read.
    fn end(&mut self, found: &mut Vec<Damage>) {
        match self.known {
            Some(segment) => {
                found.append(&mut self.bad);
                found.extend(self.wrong_end(segment));
            }
            // Nobody proves that they had been durable; where the device refuses a block, nobody can.
            None => found.extend(self.refused_end()),
        }
        self.bad.clear();
        self.state = State::Ended;
    }

    /// The last frame is not the one that was written last.
    fn wrong_end(&self, segment: Segment) -> Option<Damage> {
        let State::Frame(chain) = self.state else { return None };
        let is_right = (chain.last_seq, chain.last.crc) == (segment.last_seq, segment.last_crc);
        (!is_right).then(|| Damage {
            offset: self.last_start,
            ..self.damage(segment.last_seq, Check::Chain, None)
        })
    }

    fn refused_end(&self) -> Option<Damage> {
        let first = self.bad.first()?;
        let offset = *self.refused.iter().find(|offset| **offset >= first.offset)?;
        Some(Damage { offset, check: Check::Unreadable, ..first.clone() })
    }

    fn has_more_bytes(&self) -> bool {
        self.offset() < self.limit()
    }

    /// Damage at the start of the window.
    fn damage(&self, seq: u64, check: Check, indices: Option<(u64, u64)>) -> Damage {
        Damage { slot: self.slot, offset: self.window.start(), seq, indices, check, proof: None }
    }

    /// What the next `bytes` fail: bytes that the device refused fail that they can be read.
    fn checked(&self, check: Check, bytes: usize) -> Check {
        let is_refused = is_refused(&self.refused, self.window.start(), bytes);
        if is_refused { Check::Unreadable } else { check }
    }

    fn consume(&mut self, bytes: usize) {
        self.window.skip(bytes);
        let from = self.bad.first().map_or(self.window.start(), |damage| damage.offset);
        self.refused.retain(|offset| *offset >= from);
    }
}

fn stops_at_damage() -> bool {
    mutant::is(Mutant::ScrubStopsAtDamage)
}
