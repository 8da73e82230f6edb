//! Which frame holds which entry: the log as positions, without a byte of it.
//!
//! Invariants: `start <= last`; the frames' ranges are ascending, as are their numbers, do not overlap and
//! together cover `start.index + 1 ..= last.index`; the runs of terms likewise. Damaged frames cover their entries like
//! any other; which of these a repair holds is told apart beside them, by [`Holes`]. The term of the last entry is known.
//!
//! The writer and recovery feed it the same records in the same order, so what recovery finds is what the writer knew.

use std::collections::VecDeque;

use crate::error::Check;
use crate::holes::Holes;
use crate::types::Position;

mod faulty;

/// What a frame is to the live entries that it covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// Its ENTRY records hold them.
    Entries,
    /// Its REPAIR records hold them; the frame that they were written in is damaged.
    Repairs,
    /// They were written in it, and it is damaged.
    Damaged,
}

/// A frame that holds at least one live entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameRef {
    /// Its first live entry.
    pub(crate) first: u64,
    /// Its last live entry.
    pub(crate) last: u64,
    pub(crate) place: FramePlace,
    pub(crate) stored: Stored,
}

/// Where a frame lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FramePlace {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
    /// Its offset in blocks.
    pub(crate) block: u32,
    /// Its length with padding.
    pub(crate) bytes: u32,
    /// The salt of its segment.
    pub(crate) salt: u64,
}

/// The live entries of a log.
#[derive(Clone, Default, Debug)]
pub(crate) struct LogIndex {
    start: Position,
    last: Position,
    /// (term, first index of the run).
    runs: VecDeque<(u64, u64)>,
    frames: VecDeque<FrameRef>,
    /// The first live entry of the frame whose records are being told.
    open_first: Option<u64>,
    /// Whether its records have replaced anything.
    open_replaces: bool,
    holes: Holes,
    /// Rises whenever entries are dropped from the end or by a reset.
    generation: u64,
}

impl LogIndex {
    /// An empty log that continues after `start`.
    pub(crate) fn starting_after(start: Position) -> LogIndex {
        LogIndex { start, last: start, ..LogIndex::default() }
    }

    /// The entry before the first live one.
    pub(crate) fn start(&self) -> Position {
        self.start
    }

    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// While it stays the same, every entry that was live at the end still is what it was.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The first live entry told since the last `end_frame`; 0 is none.
    pub(crate) fn open_first_index(&self) -> u64 {
        self.open_first.unwrap_or(0)
    }

    /// Whether what was told since the last `end_frame` replaced entries or reset the log.
    pub(crate) fn open_replaces(&self) -> bool {
        self.open_replaces
    }

    /// Tells an ENTRY record: it replaces what is at its index and above.
    /// At or below the start, where only recovery meets one, the log begins anew with it.
    pub(crate) fn entry(&mut self, at: Position) -> Result<(), Check> {
        if at.index == 0 || at.index > self.last.index + 1 {
            return Err(Check::Indices);
        }
        self.open_replaces |= at.index <= self.last.index;
        if at.index <= self.start.index {
            self.clear(Position { index: at.index - 1, term: 0 });
        } else if at.index <= self.last.index {
            self.truncate_from(at.index);
        }
        self.push_run(at.term, at.index);
        self.open_first.get_or_insert(at.index);
        self.last = at;
        Ok(())
    }

    /// Tells a RESET record: every entry is dropped and the log continues after `at`.
    pub(crate) fn reset(&mut self, at: Position) {
        self.clear(at);
        self.open_replaces = true;
    }

    /// The log goes on after `at`, where no record says so but the header of the next segment.
    pub(crate) fn restart_after(&mut self, at: Position) {
        self.clear(at);
    }

    /// The records told since the last call were this frame's.
    pub(crate) fn end_frame(&mut self, place: FramePlace) {
        self.push_frame(place, Stored::Entries);
    }

    fn push_frame(&mut self, place: FramePlace, stored: Stored) {
        self.open_replaces = false;
        if let Some(first) = self.open_first.take() {
            let last = self.last.index;
            self.frames.push_back(FrameRef { first, last, place, stored });
        }
    }

    fn push_run(&mut self, term: u64, first: u64) {
        if self.runs.back().is_none_or(|run| run.0 != term) {
            self.runs.push_back((term, first));
        }
    }

    /// The log starts after `start` from now on; entries up to there are no longer live.
    ///
    /// Requires: `start` is not before the current start and not after the last entry.
    pub(crate) fn purge_upto(&mut self, start: Position) {
        assert!(self.start.index <= start.index);
        assert!(start.index <= self.last.index);
        self.start = start;
        while self.frames.front().is_some_and(|frame| frame.last <= start.index) {
            self.frames.pop_front();
        }
        if let Some(frame) = self.frames.front_mut() {
            frame.first = frame.first.max(start.index + 1);
        }
        while self.runs.get(1).is_some_and(|next| next.1 <= start.index + 1) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if start.index == self.last.index => self.runs.clear(),
            Some(run) => run.1 = run.1.max(start.index + 1),
            None => {}
        }
        self.holes.purge_upto(start.index);
        self.keep_live_holes();
    }

    /// The term of an entry at or after the start; [`TERM_UNKNOWN`] of a faulty one whose term nothing states.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last.index {
            return None;
        }
        let after = self.runs.partition_point(|run| run.1 <= index);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).map(|run| run.0)
    }

    /// The last live entry in a frame up to number `seq`; the start where there is none.
    pub(crate) fn last_upto_frame(&self, seq: u64) -> Position {
        let after = self.frames.partition_point(|frame| frame.place.seq <= seq);
        let Some(frame) = after.checked_sub(1).and_then(|at| self.frames.get(at)) else {
            return self.start;
        };
        let term = self.term_at(frame.last).expect("a frame in the index holds live entries");
        Position { index: frame.last, term }
    }

    /// (term, first index) of each run of live entries.
    pub(crate) fn runs(&self) -> Vec<(u64, u64)> {
        self.runs.iter().copied().collect()
    }

    /// The frames from the one that holds `index` on.
    pub(crate) fn frames_from(&self, index: u64) -> impl Iterator<Item = &FrameRef> {
        let at = self.frames.partition_point(|frame| frame.last < index);
        self.frames.range(at..)
    }

    /// The frame of the first live entry.
    pub(crate) fn first_frame(&self) -> Option<&FrameRef> {
        self.frames.front()
    }

    fn clear(&mut self, start: Position) {
        let (open_replaces, generation) = (self.open_replaces, self.generation + 1);
        *self = LogIndex { open_replaces, generation, ..LogIndex::starting_after(start) };
    }

    fn truncate_from(&mut self, index: u64) {
        self.generation += 1;
        while self.frames.back().is_some_and(|frame| frame.first >= index) {
            self.frames.pop_back();
        }
        if let Some(frame) = self.frames.back_mut() {
            frame.last = frame.last.min(index - 1);
        }
        while self.runs.back().is_some_and(|run| run.1 >= index) {
            self.runs.pop_back();
        }
        self.open_first = self.open_first.filter(|first| *first < index);
        self.holes.truncate_from(index);
        self.keep_live_holes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Damage;
    use crate::format::TERM_UNKNOWN;
    use crate::holes::Hole;

    fn place(seq: u64) -> FramePlace {
        FramePlace { seq, slot: 0, block: 1, bytes: 4096, salt: 1 }
    }

    fn at(index: u64, term: u64) -> Position {
        Position { index, term }
    }

    /// Frames of entries as (index, term), told in order.
    fn index_of(frames: &[&[(u64, u64)]]) -> LogIndex {
        let mut index = LogIndex::default();
        for (seq, entries) in frames.iter().enumerate() {
            for (i, term) in *entries {
                index.entry(at(*i, *term)).unwrap();
            }
            index.end_frame(place(seq as u64));
        }
        index
    }

    fn hole(seq: u64) -> Hole {
        let (check, indices, proof) = (Check::Magic, None, None);
        let damage = Damage { slot: 0, offset: 4096, seq, indices, check, proof };
        Hole { damage, end: 8192, last_seq: seq }
    }

    /// 1 and 2 in a frame, 3 to 7 in a hole of which the last one's term is known, 8 in a frame.
    fn with_hole() -> LogIndex {
        let mut index = index_of(&[&[(1, 1), (2, 1)]]);
        index.lose_upto(at(7, 4), place(1), hole(1));
        index.entry(at(8, 5)).unwrap();
        index.end_frame(place(2));
        index
    }

    /// (first, last, before, after) of what is faulty.
    fn faulty(index: &LogIndex) -> Vec<(u64, u64, Position, Position)> {
        let ranges = index.faulty().into_iter();
        ranges.map(|range| (range.first, range.last, range.before, range.after)).collect()
    }

    #[test]
    fn a_hole_covers_its_entries_and_knows_the_term_of_its_last_one() {
        let index = with_hole();
        assert_eq!(ranges(&index), [(1, 2, 0), (3, 7, 1), (8, 8, 2)]);
        assert_eq!(index.runs(), [(1, 1), (TERM_UNKNOWN, 3), (4, 7), (5, 8)]);
        assert_eq!(faulty(&index), [(3, 7, at(2, 1), at(7, 4))]);
        assert_eq!(index.faulty()[0].terms, [(TERM_UNKNOWN, 3), (4, 7)]);
        assert_eq!(
            (index.is_faulty(2), index.is_faulty(3), index.is_faulty(8)),
            (false, true, false)
        );
        assert_eq!(index.frame_of(4).stored, Stored::Damaged);
        assert_eq!(index.last_upto_frame(1), at(7, 4));
    }

    #[test]
    fn repairs_split_a_hole_and_make_terms_known() {
        let mut index = with_hole();
        for (repaired, seq) in [(5, 3), (6, 3), (3, 4)] {
            assert_eq!(index.repair(at(repaired, 2), place(seq)), Ok(true));
        }
        assert_eq!(index.runs(), [(1, 1), (2, 3), (TERM_UNKNOWN, 4), (2, 5), (4, 7), (5, 8)]);
        assert_eq!(faulty(&index), [(4, 4, at(3, 2), at(5, 2)), (7, 7, at(6, 2), at(7, 4))]);
        let frame = index.frame_of(5);
        assert_eq!((frame.first, frame.last, frame.place.seq), (5, 6, 3));
        assert_eq!((frame.stored, index.frame_of(4).stored), (Stored::Repairs, Stored::Damaged));
        assert_eq!((index.unrepaired(2), index.unrepaired(3), index.unrepaired(4)), (5, 3, 2));
        assert_eq!(index.repair(at(4, 2), place(5)), Ok(true));
        assert_eq!(index.runs(), [(1, 1), (2, 3), (4, 7), (5, 8)]);
        assert_eq!(index.is_live_hole(1), Some(true));
        assert_eq!(index.repair(at(7, 4), place(5)), Ok(true));
        assert_eq!(index.is_live_hole(1), Some(false));
        assert_eq!(faulty(&index), []);
    }

    #[test]
    fn a_repair_fills_only_what_is_faulty_and_only_in_its_term() {
        let mut index = with_hole();
        assert_eq!(index.repair(at(7, 3), place(3)), Err(Check::Indices));
        assert_eq!(index.repair(at(9, 5), place(3)), Err(Check::Indices));
        assert_eq!(index.repair(at(8, 4), place(3)), Err(Check::Indices));
        assert_eq!(index.repair(at(8, 5), place(3)), Ok(false));
        assert_eq!(index.repair(at(0, 0), place(3)), Ok(false));
        assert_eq!(index.repair(at(7, 4), place(3)), Ok(true));
        assert_eq!(index.repair(at(7, 4), place(4)), Ok(false));
        assert_eq!(index.frame_of(7).place.seq, 3);
    }

    #[test]
    fn a_truncation_and_a_purge_take_faulty_and_repaired_entries_like_any() {
        let mut index = with_hole();
        index.repair(at(4, 2), place(3)).unwrap();
        index.repair(at(6, 2), place(3)).unwrap();
        let mut purged = index.clone();
        index.entry(at(5, 9)).unwrap();
        assert!(index.open_replaces());
        index.end_frame(place(4));
        assert_eq!(faulty(&index), [(3, 3, at(2, 1), at(4, 2))]);
        assert_eq!(index.unrepaired(0), 2);
        index.entry(at(3, 10)).unwrap();
        index.end_frame(place(5));
        assert_eq!((faulty(&index), index.is_live_hole(1)), (vec![], None));
        purged.purge_upto(at(5, 2));
        assert_eq!(faulty(&purged), [(7, 7, at(6, 2), at(7, 4))]);
        purged.purge_upto(at(7, 4));
        assert_eq!((faulty(&purged), purged.is_live_hole(1)), (vec![], None));
        assert_eq!(purged.unrepaired(0), 0);
    }

    fn ranges(index: &LogIndex) -> Vec<(u64, u64, u64)> {
        index.frames.iter().map(|f| (f.first, f.last, f.place.seq)).collect()
    }

    #[test]
    fn a_lower_entry_replaces_everything_from_it_on() {
        let index = index_of(&[&[(1, 1), (2, 1)], &[(3, 1), (4, 2)], &[(2, 3), (3, 3)]]);
        assert_eq!(ranges(&index), [(1, 1, 0), (2, 3, 2)]);
        assert_eq!(index.runs(), [(1, 1), (3, 2)]);
        assert_eq!(index.last(), at(3, 3));
    }

    #[test]
    fn a_frame_that_replaces_its_own_entries_holds_the_last_of_each() {
        let index = index_of(&[&[(1, 1), (2, 1), (3, 1), (2, 2)], &[(3, 2)]]);
        assert_eq!(ranges(&index), [(1, 2, 0), (3, 3, 1)]);
        let index = index_of(&[&[(1, 1)], &[(2, 1), (3, 1), (1, 2), (2, 2)]]);
        assert_eq!(ranges(&index), [(1, 2, 1)]);
    }

    #[test]
    fn an_entry_beyond_the_next_index_is_refused() {
        let mut index = index_of(&[&[(1, 1)]]);
        assert_eq!(index.entry(at(3, 1)), Err(Check::Indices));
        assert_eq!(index.entry(at(0, 1)), Err(Check::Indices));
    }

    #[test]
    fn a_reset_empties_the_log_and_it_goes_on_after_it() {
        let mut index = index_of(&[&[(1, 1), (2, 1)]]);
        index.reset(at(10, 4));
        index.entry(at(11, 5)).unwrap();
        index.end_frame(place(9));
        assert_eq!(index.start(), at(10, 4));
        assert_eq!(ranges(&index), [(11, 11, 9)]);
        assert_eq!(index.runs(), [(5, 11)]);
    }

    #[test]
    fn a_purge_keeps_the_frame_that_holds_the_next_entry() {
        let mut index = index_of(&[&[(1, 1), (2, 1)], &[(3, 2), (4, 2)], &[(5, 2)]]);
        index.purge_upto(at(3, 2));
        assert_eq!(ranges(&index), [(4, 4, 1), (5, 5, 2)]);
        assert_eq!(index.runs(), [(2, 4)]);
        assert_eq!(index.term_at(3), Some(2));
        assert_eq!(index.term_at(2), None);
        index.purge_upto(at(5, 2));
        assert_eq!(ranges(&index), []);
        assert_eq!(index.runs(), []);
        assert_eq!(index.term_at(5), Some(2));
    }

    #[test]
    fn the_last_entry_up_to_a_frame_is_one_that_nothing_has_replaced() {
        let index = index_of(&[&[(1, 1), (2, 1)], &[(3, 1), (4, 1)], &[(4, 2)]]);
        let lasts: Vec<_> = (0..3).map(|seq| index.last_upto_frame(seq)).collect();
        assert_eq!(lasts, [at(2, 1), at(3, 1), at(4, 2)]);
        let mut index = index_of(&[&[(1, 1), (2, 1)], &[(1, 2)]]);
        assert_eq!(index.last_upto_frame(0), at(0, 0));
        index.reset(at(9, 3));
        assert_eq!(index.last_upto_frame(1), at(9, 3));
    }

    #[test]
    fn terms_are_known_for_every_live_entry() {
        let index = index_of(&[&[(1, 1), (2, 1), (3, 4)], &[(4, 4), (5, 9)]]);
        let terms: Vec<_> = (0..=6).map(|i| index.term_at(i)).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(4), Some(4), Some(9), None]);
    }
}
