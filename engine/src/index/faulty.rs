//! The part of the index that is about damage: which live entries lie in holes, which of these are repaired, where.

use super::{FramePlace, FrameRef, LogIndex, Stored};
use crate::error::Check;
use crate::format::TERM_UNKNOWN;
use crate::holes::{FaultyRange, Hole};
use crate::types::Position;

impl LogIndex {
    /// Tells a REPAIR record in the frame at `place`: it holds an entry once more, if that is faulty. Whether it is.
    pub(crate) fn repair(&mut self, at: Position, place: FramePlace) -> Result<bool, Check> {
        if at.index <= self.start.index {
            return Ok(false);
        }
        let is_its_term = |term: u64| term == at.term || term == TERM_UNKNOWN;
        if !self.term_at(at.index).is_some_and(is_its_term) {
            return Err(Check::Indices);
        }
        let is_faulty = self.is_faulty(at.index);
        if is_faulty {
            self.learn_term(at);
            self.holes.repair(at.index, place);
        }
        Ok(is_faulty)
    }

    /// They were those of a frame of which header and table are sound, and payloads are not.
    pub(crate) fn end_damaged_frame(&mut self, place: FramePlace, hole: Hole) {
        self.push_frame(place, Stored::Damaged);
        self.keep_hole(place.seq, hole);
    }

    /// Tells of frames that added the entries up to `last`, of which nothing more is known.
    ///
    /// Requires: no frame is open; `last` is not before the last entry.
    pub(crate) fn lose_upto(&mut self, last: Position, place: FramePlace, hole: Hole) {
        assert!(self.open_first.is_none());
        let first = self.last.index + 1;
        if last.index < first {
            return;
        }
        if first < last.index {
            self.push_run(TERM_UNKNOWN, first);
        }
        self.push_run(last.term, last.index);
        self.last = last;
        let (last, stored) = (last.index, Stored::Damaged);
        self.frames.push_back(FrameRef { first, last, place, stored });
        self.keep_hole(place.seq, hole);
    }

    fn keep_hole(&mut self, seq: u64, hole: Hole) {
        if self.frames.back().is_some_and(|frame| frame.place.seq == seq) {
            self.holes.insert(hole);
        }
    }

    /// The term of an entry in a run of unknown ones.
    fn learn_term(&mut self, at: Position) {
        let holds = self.runs.partition_point(|run| run.1 <= at.index) - 1;
        let (term, first) = self.runs[holds];
        if term != TERM_UNKNOWN {
            return;
        }
        let end = self.runs.get(holds + 1).map_or(self.last.index + 1, |next| next.1);
        let after = self.runs.split_off(holds + 1);
        self.runs.pop_back();
        if first < at.index {
            self.runs.push_back((TERM_UNKNOWN, first));
        }
        self.push_run(at.term, at.index);
        if at.index + 1 < end {
            self.push_run(TERM_UNKNOWN, at.index + 1);
        }
        for (term, first) in after {
            self.push_run(term, first);
        }
    }

    /// The frame in which a live entry is to be read, and the entries from this one on that are read there; or the
    /// damaged one, and the entries from this one on that are faulty in it.
    ///
    /// Requires: `index` is that of a live entry.
    pub(crate) fn frame_of(&self, index: u64) -> FrameRef {
        let frame = *self.frames_from(index).next().expect("every live entry lies in a frame");
        if frame.stored != Stored::Damaged {
            return frame;
        }
        if let Some(place) = self.holes.repair_of(index) {
            let last = self.holes.repaired_together(index, frame.last);
            return FrameRef { first: index, last, place, stored: Stored::Repairs };
        }
        let faulty = self.holes.faulty_within(index, frame.last);
        let last = faulty.first().map_or(index, |range| range.1);
        FrameRef { first: index, last, ..frame }
    }

    /// Whether an entry is live and can be read nowhere.
    pub(crate) fn is_faulty(&self, index: u64) -> bool {
        let frame = self.frames_from(index).next();
        let is_damaged = |frame: &FrameRef| {
            frame.stored == Stored::Damaged && (frame.first..=frame.last).contains(&index)
        };
        frame.is_some_and(is_damaged) && self.holes.repair_of(index).is_none()
    }

    /// Everything that is live and can be read nowhere.
    pub(crate) fn faulty(&self) -> Vec<FaultyRange> {
        let mut ranges = Vec::new();
        for frame in self.damaged_frames() {
            let hole = self.holes.find(frame.place.seq).expect("it holds live entries");
            for (first, last) in self.holes.faulty_within(frame.first, frame.last) {
                ranges.push(self.faulty_range(first, last, hole.clone()));
            }
        }
        ranges
    }

    /// The faulty entries from this one on that lie in the same hole.
    ///
    /// Requires: `frame` is what [`LogIndex::frame_of`] gave, and is damaged.
    pub(crate) fn faulty_in(&self, frame: &FrameRef) -> FaultyRange {
        let hole = self.holes.find(frame.place.seq).expect("it holds live entries");
        self.faulty_range(frame.first, frame.last, hole.clone())
    }

    /// How many live entries can be read nowhere, or only in frames after this one.
    pub(crate) fn unrepaired(&self, durable_seq: u64) -> u64 {
        let faulty = self
            .damaged_frames()
            .flat_map(|frame| self.holes.faulty_within(frame.first, frame.last).into_iter());
        let count: u64 = faulty.map(|(first, last)| last - first + 1).sum();
        count + self.holes.repairs_after(durable_seq)
    }

    fn faulty_range(&self, first: u64, last: u64, hole: Hole) -> FaultyRange {
        let mut terms = Vec::new();
        let (mut before, mut after) = (self.start, self.last);
        for (at, (term, run_first)) in self.runs.iter().copied().enumerate() {
            let run_last = self.runs.get(at + 1).map_or(self.last.index, |next| next.1 - 1);
            if run_first <= last && run_last >= first {
                terms.push((term, run_first.max(first)));
            }
            if term == TERM_UNKNOWN {
                continue;
            }
            if run_first < first {
                before = Position { index: run_last.min(first - 1), term };
            }
            if run_last >= last {
                after = Position { index: run_first.max(last), term };
                break;
            }
        }
        FaultyRange { first, last, terms, before, after, hole }
    }

    fn damaged_frames(&self) -> impl Iterator<Item = &FrameRef> {
        self.holes.seqs().filter_map(|seq| self.frame_numbered(seq))
    }

    fn frame_numbered(&self, seq: u64) -> Option<&FrameRef> {
        let at = self.frames.binary_search_by_key(&seq, |frame| frame.place.seq).ok()?;
        self.frames.get(at)
    }

    /// Whether live entries lie in the hole whose last frame has this number, and whether some of them are faulty.
    pub(crate) fn is_live_hole(&self, seq: u64) -> Option<bool> {
        let frame = self.frame_numbered(seq).filter(|frame| frame.stored == Stored::Damaged)?;
        Some(!self.holes.faulty_within(frame.first, frame.last).is_empty())
    }

    pub(super) fn keep_live_holes(&mut self) {
        if self.holes.is_empty() {
            return;
        }
        let frames = &self.frames;
        let is_there = |seq: u64| frames.binary_search_by_key(&seq, |f| f.place.seq).is_ok();
        self.holes.keep(is_there);
    }
}
