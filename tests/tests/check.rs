//! The checkers of histories: what they accept, what they refuse, and that the fast search agrees with trying
//! every order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tests::check::linearizable::{self, Options};
use tests::check::{Verdict, lock};
use tests::history::{Op, Outcome, Record, Reply};

/// One operation of client `client` on key "k", called at `call`.
fn record(client: u64, call: u64, op: Op, outcome: Outcome) -> Record {
    Record {
        client,
        seq: call,
        key: "k".to_owned(),
        op,
        call_ns: call,
        outcome,
        revision: None,
        node: None,
        error: None,
    }
}

fn ok(client: u64, call: u64, ret: u64, op: Op, reply: Reply) -> Record {
    record(client, call, op, Outcome::Ok { return_ns: ret, reply })
}

fn put(client: u64, call: u64, ret: u64, value: &str) -> Record {
    ok(client, call, ret, Op::Put { value: value.to_owned() }, Reply::Put)
}

fn get(client: u64, call: u64, ret: u64, value: Option<&str>) -> Record {
    ok(client, call, ret, Op::Get, Reply::Get { value: value.map(str::to_owned) })
}

fn del(client: u64, call: u64, ret: u64, deleted: u64) -> Record {
    ok(client, call, ret, Op::Del, Reply::Del { deleted })
}

fn cas_op(expect: Option<&str>, value: &str) -> Op {
    Op::Cas { expect: expect.map(str::to_owned), value: value.to_owned() }
}

fn cas(client: u64, span: (u64, u64), expect: Option<&str>, value: &str, swapped: bool) -> Record {
    ok(client, span.0, span.1, cas_op(expect, value), Reply::Cas { swapped })
}

fn with(mut record: Record, outcome: Outcome) -> Record {
    record.outcome = outcome;
    record
}

fn unknown(record: Record) -> Record {
    with(record, Outcome::Unknown)
}

fn at(revision: u64, mut record: Record) -> Record {
    record.revision = Some(revision);
    record
}

fn on(key: &str, mut record: Record) -> Record {
    key.clone_into(&mut record.key);
    record
}

fn lenient() -> Options {
    Options { final_reads: false, ..Options::default() }
}

fn check(history: &[Record]) -> Verdict {
    linearizable::check(history, &lenient())
}

#[track_caller]
fn expect_ok(history: &[Record]) {
    check(history).expect_ok();
}

#[track_caller]
fn expect_illegal(history: &[Record], says: &str) {
    let (key, explanation) = illegal(check(history));
    assert_eq!(key, "k", "{explanation}");
    assert!(explanation.contains(says), "{explanation}");
}

/// Key and explanation of an illegal history.
#[track_caller]
fn illegal(verdict: Verdict) -> (String, String) {
    match verdict {
        Verdict::Illegal { key, explanation } => (key, explanation),
        Verdict::Ok => panic!("an illegal history was found legal"),
        Verdict::Unknown { reason } => panic!("an illegal history was not judged: {reason}"),
    }
}

#[track_caller]
fn expect_unknown(verdict: &Verdict, says: &str) {
    let Verdict::Unknown { reason } = verdict else { panic!("expected no verdict: {verdict:?}") };
    assert!(reason.contains(says), "{reason}");
}

mod registers {
    use super::*;

    #[test]
    fn writes_and_reads_one_after_another_are_legal() {
        expect_ok(&[
            get(1, 0, 1, None),
            put(1, 2, 3, "a"),
            get(2, 4, 5, Some("a")),
            cas(2, (6, 7), Some("a"), "b", true),
            cas(2, (8, 9), Some("a"), "c", false),
            del(1, 10, 11, 1),
            del(1, 12, 13, 0),
            cas(1, (14, 15), None, "d", true),
            get(2, 16, 17, Some("d")),
        ]);
    }

    #[test]
    fn a_read_during_a_write_may_see_either_side() {
        expect_ok(&[put(1, 0, 10, "a"), get(2, 2, 3, None), get(2, 4, 5, Some("a"))]);
    }

    #[test]
    fn what_touches_at_one_instant_is_concurrent() {
        expect_ok(&[put(1, 0, 5, "a"), get(2, 5, 6, None)]);
    }

    #[test]
    fn a_stale_read_is_illegal() {
        let history = [
            put(1, 0, 1, "a"),
            put(1, 2, 3, "b"),
            get(2, 4, 5, Some("a")),
            get(2, 6, 7, Some("b")),
        ];
        expect_illegal(
            &history,
            "first 3 of 4 answers; the last of them is\n  {\"client\":2,\"seq\":4",
        );
    }

    #[test]
    fn reads_may_not_go_back_while_a_write_is_under_way() {
        let history = [put(1, 0, 10, "a"), get(2, 2, 3, Some("a")), get(3, 4, 5, None)];
        expect_illegal(&history, "first 2 of 3 answers");
    }

    #[test]
    fn a_lost_update_is_illegal() {
        let history = [
            put(1, 0, 1, "a"),
            cas(1, (2, 6), Some("a"), "b", true),
            cas(2, (3, 7), Some("a"), "c", true),
        ];
        expect_illegal(&history, "first 3 of 3 answers");
    }

    #[test]
    fn two_writes_of_which_the_later_is_lost_are_illegal() {
        let history = [put(1, 0, 1, "a"), put(2, 2, 3, "b"), get(3, 4, 5, Some("a"))];
        expect_illegal(&history, "first 3 of 3");
    }

    #[test]
    fn of_two_concurrent_writes_readers_must_agree_on_the_last() {
        let writes = [put(1, 0, 9, "a"), put(2, 1, 8, "b")];
        let agree = [get(3, 10, 11, Some("a")), get(3, 12, 13, Some("a"))];
        expect_ok(&[writes.as_slice(), &agree].concat());
        let differ = [get(3, 10, 11, Some("a")), get(3, 12, 13, Some("b"))];
        expect_illegal(&[writes.as_slice(), &differ].concat(), "first 4 of 4");
    }

    #[test]
    fn a_read_of_a_failed_write_is_illegal() {
        let failed = with(put(1, 0, 1, "a"), Outcome::Fail { return_ns: Some(1) });
        expect_ok(&[failed.clone(), get(2, 4, 5, None)]);
        expect_illegal(&[failed, get(2, 4, 5, Some("a"))], "first 1 of 1");
    }

    #[test]
    fn an_unknown_write_may_be_seen_later_or_never() {
        let write = unknown(put(1, 0, 1, "a"));
        expect_ok(&[write.clone(), get(2, 4, 5, None), get(2, 6, 7, Some("a"))]);
        expect_ok(&[write, get(2, 4, 5, None), get(2, 6, 7, None)]);
    }

    #[test]
    fn an_unknown_write_takes_effect_only_once() {
        let history = [
            unknown(put(1, 0, 1, "a")),
            get(2, 4, 5, Some("a")),
            put(2, 6, 7, "b"),
            get(2, 8, 9, Some("a")),
        ];
        expect_illegal(&history, "first 3 of 3");
        expect_illegal(&history.map(|record| unrevisioned_to_order(&record)), "first 3 of 3");
    }

    #[test]
    fn an_unknown_write_is_not_seen_before_its_call() {
        let history = [get(2, 0, 1, Some("a")), unknown(put(1, 2, 3, "a"))];
        expect_illegal(&history, "first 1 of 1");
        expect_illegal(&history.map(|record| unrevisioned_to_order(&record)), "first 1 of 1");
    }

    #[test]
    fn unknown_writes_may_stand_on_each_other() {
        let chain = [
            unknown(put(1, 0, 1, "a")),
            unknown(record(2, 0, cas_op(Some("a"), "b"), Outcome::Unknown)),
            unknown(record(3, 0, cas_op(Some("b"), "c"), Outcome::Unknown)),
        ];
        expect_ok(&[chain.as_slice(), &[get(4, 5, 6, None), get(4, 7, 8, Some("c"))]].concat());
        expect_ok(
            &[chain.as_slice(), &[get(4, 5, 6, Some("a")), get(4, 7, 8, Some("c"))]].concat(),
        );
        let back = [get(4, 5, 6, Some("c")), get(4, 7, 8, Some("b"))];
        expect_illegal(&[chain.as_slice(), &back].concat(), "first 2 of 2");
    }

    #[test]
    fn an_unknown_delete_explains_an_absent_key_once() {
        let start = [put(1, 0, 1, "a"), unknown(del(2, 2, 3, 1)), get(1, 4, 5, None)];
        expect_ok(&start);
        let again = [put(1, 6, 7, "b"), get(1, 8, 9, None)];
        expect_illegal(&[start.as_slice(), &again].concat(), "first 4 of 4");
    }

    #[test]
    fn a_wrong_comparison_is_illegal() {
        let held = [put(1, 0, 1, "a"), cas(1, (2, 3), Some("b"), "c", true)];
        expect_illegal(&held, "first 2 of 2");
        let not_held = [put(1, 0, 1, "a"), cas(1, (2, 3), Some("a"), "c", false)];
        expect_illegal(&not_held, "first 2 of 2");
        let absent = [cas(1, (2, 3), None, "c", false)];
        expect_illegal(&absent, "first 1 of 1");
    }

    #[test]
    fn a_delete_of_an_absent_key_cannot_have_deleted() {
        expect_illegal(&[del(1, 0, 1, 1)], "first 1 of 1");
        expect_illegal(&[put(1, 0, 1, "a"), del(1, 2, 3, 0)], "first 2 of 2");
    }

    #[test]
    fn the_explanation_shows_who_wrote_the_value_that_was_seen() {
        let mut history = vec![put(9, 0, 1, "old")];
        for i in 1..200 {
            history.push(put(1, 10 * i, 10 * i + 1, &format!("v{i}")));
        }
        history.push(get(2, 5000, 5001, Some("old")));
        expect_illegal(&history, "answers and then what has none:\n  {\"client\":9,");
    }

    /// The same record, its answer's revision being the time of its call: histories without overlap only.
    fn unrevisioned_to_order(record: &Record) -> Record {
        match record.outcome {
            Outcome::Ok { .. } => at(record.call_ns, record.clone()),
            Outcome::Fail { .. } | Outcome::Unknown => record.clone(),
        }
    }
}

mod revisions {
    use super::*;

    #[test]
    fn the_order_of_the_revisions_is_the_order_that_is_checked() {
        let writes = [at(3, put(1, 0, 9, "a")), at(2, put(2, 0, 9, "b"))];
        expect_ok(&[writes.as_slice(), &[at(3, get(3, 10, 11, Some("a")))]].concat());
        expect_illegal(
            &[writes.as_slice(), &[at(4, get(3, 10, 11, Some("b")))]].concat(),
            "3 of 3",
        );
    }

    #[test]
    fn two_writes_with_one_revision_are_illegal() {
        let history = [on("j", at(2, put(1, 0, 9, "a"))), at(2, put(2, 1, 8, "b"))];
        expect_illegal(&history, "two writes have one revision");
    }

    #[test]
    fn a_revision_that_goes_back_in_time_is_illegal_across_keys() {
        let history = [on("j", at(3, put(1, 0, 1, "a"))), at(2, put(2, 2, 3, "b"))];
        expect_illegal(&history, "has the lower revision");
        let concurrent = [on("j", at(3, put(1, 0, 2, "a"))), at(2, put(2, 1, 3, "b"))];
        expect_ok(&concurrent);
    }

    #[test]
    fn a_read_at_an_older_revision_than_one_already_seen_is_illegal() {
        let write = on("j", at(2, put(1, 0, 1, "a")));
        expect_illegal(&[write.clone(), at(1, get(2, 2, 3, None))], "has the lower revision");
        expect_ok(&[write, at(2, get(2, 2, 3, None))]);
    }

    #[test]
    fn a_read_stands_behind_the_write_whose_revision_it_saw() {
        let write = at(2, put(1, 0, 9, "a"));
        expect_illegal(&[write.clone(), at(2, get(2, 1, 2, None))], "of one revision disagree");
        expect_ok(&[write, at(1, get(2, 1, 2, None))]);
    }

    #[test]
    fn two_reads_of_one_revision_see_the_same() {
        let write = unknown(put(1, 0, 1, "a"));
        let reads =
            |first, second| [at(first, get(2, 2, 3, None)), at(second, get(3, 4, 5, Some("a")))];
        expect_ok(&[std::slice::from_ref(&write), &reads(1, 2)].concat());
        expect_illegal(
            &[std::slice::from_ref(&write), &reads(2, 2)].concat(),
            "of one revision disagree",
        );
    }

    #[test]
    fn an_unknown_write_fills_a_gap_between_revisions() {
        let history = [
            at(2, put(1, 0, 1, "a")),
            unknown(put(2, 0, 1, "b")),
            at(3, get(3, 4, 5, Some("b"))),
            at(4, put(1, 6, 7, "c")),
            at(4, get(3, 8, 9, Some("c"))),
        ];
        expect_ok(&history);
    }
}

mod refusals {
    use super::*;

    #[test]
    fn an_empty_history_shows_nothing() {
        expect_unknown(&check(&[]), "0 operations were done, at least 1");
        let none = Options { ops_min: 0, ..lenient() };
        expect_unknown(&linearizable::check(&[], &none), "at least 1");
        expect_unknown(&check(&[unknown(put(1, 0, 1, "a"))]), "0 operations were done");
    }

    #[test]
    fn fewer_operations_than_asked_for_show_nothing() {
        let many = Options { ops_min: 3, ..lenient() };
        let history = [put(1, 0, 1, "a"), get(1, 2, 3, Some("a"))];
        expect_unknown(&linearizable::check(&history, &many), "2 operations were done, at least 3");
    }

    #[test]
    fn a_written_key_without_a_final_read_shows_nothing() {
        let strict = Options::default();
        let mut history = vec![put(1, 0, 1, "a"), get(2, 0, 3, Some("a"))];
        expect_unknown(&linearizable::check(&history, &strict), "not read after its last write");
        history.push(get(2, 4, 5, Some("a")));
        linearizable::check(&history, &strict).expect_ok();
    }

    #[test]
    fn a_search_that_was_given_up_is_not_a_pass() {
        let history = [put(1, 0, 1, "a"), put(1, 2, 3, "b")];
        let hasty = Options { steps_max: 1, ..lenient() };
        expect_unknown(&linearizable::check(&history, &hasty), "no verdict within 1 steps");
    }

    #[test]
    fn an_illegal_key_outweighs_one_without_a_verdict() {
        let history = [on("a", put(1, 0, 1, "a")), get(1, 2, 3, Some("b"))];
        let strict = Options::default();
        assert!(matches!(linearizable::check(&history, &strict), Verdict::Illegal { .. }));
    }

    #[test]
    fn operations_on_several_keys_are_not_judged() {
        let op = Op::Txn { reads: Vec::new(), writes: BTreeMap::new() };
        let txn = ok(1, 4, 5, op, Reply::Txn { reads: BTreeMap::new() });
        expect_unknown(&check(&[put(1, 0, 1, "a"), txn]), "several keys");
    }
}

mod locks {
    use super::*;

    fn granted(client: u64, call: u64, ret: u64, token: u64) -> Record {
        ok(client, call, ret, Op::Lock, Reply::Lock { token })
    }

    fn released(client: u64, call: u64, ret: u64, token: u64) -> Record {
        ok(client, call, ret, Op::Unlock { token: Some(token) }, Reply::Unlock { token })
    }

    #[track_caller]
    fn expect_illegal_lock(history: &[Record], says: &str) {
        let (_, explanation) = illegal(lock::check(history, 1));
        assert!(explanation.contains(says), "{explanation}");
    }

    #[test]
    fn a_lock_that_passes_from_hand_to_hand_is_legal() {
        let history = [
            granted(1, 0, 1, 1),
            released(1, 5, 8, 1),
            granted(2, 2, 6, 2),
            released(2, 7, 9, 2),
            on("other", granted(3, 2, 8, 3)),
        ];
        lock::check(&history, 3).expect_ok();
        expect_unknown(&lock::check(&history, 4), "3 locks were granted, at least 4");
        expect_unknown(&lock::check(&[], 0), "0 locks were granted, at least 1");
    }

    #[test]
    fn a_second_holder_before_the_release_is_illegal() {
        let history = [granted(1, 0, 1, 1), granted(2, 0, 4, 2), released(1, 5, 6, 1)];
        expect_illegal_lock(&history, "while the first held it");
        let elsewhere =
            [granted(1, 0, 1, 1), on("other", granted(2, 0, 4, 2)), released(1, 5, 6, 1)];
        lock::check(&elsewhere, 2).expect_ok();
    }

    #[test]
    fn a_holder_that_may_have_lost_its_lock_does_not_exclude() {
        let grants = [granted(1, 0, 1, 1), granted(2, 0, 4, 2)];
        lock::check(&grants, 2).expect_ok();
        let lost = with(released(1, 5, 6, 1), Outcome::Fail { return_ns: Some(6) });
        lock::check(&[grants.as_slice(), &[lost]].concat(), 2).expect_ok();
        lock::check(&[grants.as_slice(), &[unknown(released(1, 5, 6, 1))]].concat(), 2).expect_ok();
    }

    #[test]
    fn tokens_that_fall_in_real_time_are_illegal_across_locks() {
        let history = [on("other", granted(1, 0, 1, 5)), granted(2, 2, 3, 4)];
        expect_illegal_lock(&history, "has the lower token");
        let concurrent = [on("other", granted(1, 0, 2, 5)), granted(2, 1, 3, 4)];
        lock::check(&concurrent, 2).expect_ok();
    }

    #[test]
    fn a_token_has_one_holder() {
        let history = [granted(1, 0, 1, 5), granted(2, 2, 3, 5)];
        expect_illegal_lock(&history, "to two holders");
        let same_client = [granted(1, 0, 1, 5), on("other", granted(1, 2, 3, 5))];
        expect_illegal_lock(&same_client, "to two holders");
        let asked_again = [granted(1, 0, 1, 5), granted(1, 2, 3, 5), released(1, 4, 5, 5)];
        lock::check(&asked_again, 1).expect_ok();
    }

    #[test]
    fn a_token_does_not_come_back_after_its_release() {
        let history = [granted(1, 0, 1, 5), released(1, 2, 3, 5), granted(1, 4, 5, 5)];
        expect_illegal_lock(&history, "granted again after its release");
        let twice = [granted(1, 0, 1, 5), released(1, 2, 3, 5), released(1, 4, 5, 5)];
        expect_illegal_lock(&twice, "released twice");
    }

    #[test]
    fn only_the_holder_can_release() {
        let history = [granted(1, 0, 1, 5), released(2, 2, 3, 5)];
        expect_illegal_lock(&history, "without its grant");
        let unheard = [unknown(granted(2, 0, 1, 5)), released(2, 2, 3, 5), granted(1, 4, 5, 6)];
        lock::check(&unheard, 1).expect_ok();
    }
}

/// Trying every order, on the records themselves: slow, short, and nothing shared with the search.
mod naive {
    use super::*;

    /// What operations of unknown outcome may do between two answers of one revision. The search allows some of
    /// it, where all answers are comparisons that did not hold.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) enum WithinRevision {
        NoChange,
        MayChange,
    }

    struct Naive<'a> {
        records: Vec<&'a Record>,
        done: Vec<bool>,
        state: Option<String>,
        /// Revision of the last answer placed.
        last_revision: Option<u64>,
        within: WithinRevision,
        /// Whether something of unknown outcome has changed the state since.
        is_changed: bool,
    }

    /// Whether some order explains the whole of `history` (one key, at most a handful of operations).
    pub(super) fn is_legal(history: &[Record], within: WithinRevision) -> bool {
        let records: Vec<&Record> = history
            .iter()
            .filter(|record| !matches!(record.outcome, Outcome::Fail { .. }))
            .collect();
        let done = vec![false; records.len()];
        Naive { records, done, state: None, last_revision: None, within, is_changed: false }
            .explore()
    }

    impl Naive<'_> {
        fn explore(&mut self) -> bool {
            let open: Vec<usize> = (0..self.done.len()).filter(|&at| !self.done[at]).collect();
            if open.iter().all(|&at| self.records[at].reply().is_none()) {
                return true;
            }
            open.iter()
                .any(|&at| open.iter().all(|&other| self.may_precede(at, other)) && self.take(at))
        }

        /// Real time, and the revisions where both have one.
        fn may_precede(&self, first: usize, second: usize) -> bool {
            let (first, second) = (self.records[first], self.records[second]);
            let returned_before = second.return_ns().is_some_and(|ret| ret < first.call_ns);
            match (place(first), place(second)) {
                _ if std::ptr::eq(first, second) => true,
                (Some(a), Some(b)) if a == b && !a.1 => false,
                (Some(a), Some(b)) if a > b => false,
                _ => !returned_before,
            }
        }

        fn take(&mut self, at: usize) -> bool {
            let before = (self.state.clone(), self.last_revision, self.is_changed);
            let record = self.records[at];
            self.done[at] = true;
            let found = self.apply(record)
                && self.keeps_revision(record, before.0.as_ref())
                && self.explore();
            self.done[at] = false;
            (self.state, self.last_revision, self.is_changed) = before;
            found
        }

        /// Every change has a revision, so between two answers of one revision there is none.
        fn keeps_revision(&mut self, record: &Record, before: Option<&String>) -> bool {
            if record.reply().is_none() {
                self.is_changed |= self.state.as_ref() != before;
                return true;
            }
            let is_kept = !self.is_changed || record.revision != self.last_revision;
            self.last_revision = record.revision;
            self.is_changed = false;
            is_kept || record.revision.is_none() || self.within == WithinRevision::MayChange
        }

        /// Applies `record`; false when its answer is impossible now.
        fn apply(&mut self, record: &Record) -> bool {
            let reply = record.reply();
            match &record.op {
                Op::Put { value } => {
                    self.state = Some(value.clone());
                    true
                }
                Op::Get => {
                    reply.is_none_or(|reply| *reply == Reply::Get { value: self.state.clone() })
                }
                Op::Del => {
                    let deleted = u64::from(self.state.take().is_some());
                    reply.is_none_or(|reply| *reply == Reply::Del { deleted })
                }
                Op::Cas { expect, value } => {
                    let swapped = self.state == *expect;
                    if swapped {
                        self.state = Some(value.clone());
                    }
                    reply.is_none_or(|reply| *reply == Reply::Cas { swapped })
                }
                Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => unreachable!("registers only"),
            }
        }
    }

    /// Revision, and whether the operation changed nothing.
    fn place(record: &Record) -> Option<(u64, bool)> {
        let changed_nothing = match record.reply()? {
            Reply::Get { .. } | Reply::Del { deleted: 0 } | Reply::Cas { swapped: false } => true,
            Reply::Put | Reply::Del { .. } | Reply::Cas { swapped: true } => false,
            Reply::Lock { .. } | Reply::Unlock { .. } | Reply::Txn { .. } => unreachable!(),
        };
        Some((record.revision?, changed_nothing))
    }
}

/// Histories that a real register could have given, and slips in them.
mod generated {
    use super::*;

    /// What one operation of a generated history is: its kind, value, comparison, span round the instant at
    /// which it takes effect, and fate.
    #[derive(Debug, Clone)]
    pub(super) struct Plan {
        kind: u8,
        value: u8,
        expect: Option<u8>,
        before: u64,
        after: u64,
        fate: u8,
    }

    pub(super) fn plan() -> impl Strategy<Value = Plan> {
        let expect = proptest::option::of(0..4u8);
        (0..4u8, 0..4u8, expect, 0..30u64, 0..30u64, 0..8u8).prop_map(
            |(kind, value, expect, before, after, fate)| Plan {
                kind,
                value,
                expect,
                before,
                after,
                fate,
            },
        )
    }

    /// Runs the plans one after another on a register, ten time units apart, and reports them with the spans that
    /// the plans say. Of operations of fate 0 the outcome is unknown, though it was done; of fate 1, it was not
    /// done and is unknown; of fate 2, it was not done and failed.
    pub(super) fn run(plans: &[Plan], is_revisioned: bool) -> Vec<Record> {
        let mut state: Option<String> = None;
        let mut revision = 1;
        let mut history = Vec::new();
        for (plan, number) in plans.iter().zip(1u64..) {
            let instant = 100 + 10 * number;
            let (call, ret) = (instant - plan.before, instant + plan.after);
            let is_done = !matches!(plan.fate, 1 | 2);
            let op = op(plan);
            let (reply, after, is_changed) = effect(&op, state.clone());
            if is_done {
                revision += u64::from(is_changed);
                state = after;
            }
            let outcome = match plan.fate {
                0 | 1 => Outcome::Unknown,
                2 => Outcome::Fail { return_ns: Some(ret) },
                _ => Outcome::Ok { return_ns: ret, reply },
            };
            let mut record = record(number, call, op, outcome);
            record.revision = (is_revisioned && record.reply().is_some()).then_some(revision);
            history.push(record);
        }
        history
    }

    fn op(plan: &Plan) -> Op {
        let text = |value: u8| format!("v{value}");
        match plan.kind {
            0 => Op::Put { value: text(plan.value) },
            1 => Op::Get,
            2 => Op::Del,
            _ => Op::Cas { expect: plan.expect.map(text), value: text(plan.value) },
        }
    }

    /// The answer, the state after, and whether it changed.
    fn effect(op: &Op, state: Option<String>) -> (Reply, Option<String>, bool) {
        match op {
            Op::Put { value } => (Reply::Put, Some(value.clone()), true),
            Op::Get => (Reply::Get { value: state.clone() }, state, false),
            Op::Del => {
                let deleted = u64::from(state.is_some());
                (Reply::Del { deleted }, None, deleted > 0)
            }
            Op::Cas { expect, value } if *expect == state => {
                (Reply::Cas { swapped: true }, Some(value.clone()), true)
            }
            Op::Cas { .. } => (Reply::Cas { swapped: false }, state, false),
            Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => unreachable!("registers only"),
        }
    }

    /// Changes one answer into another that the operation could have had.
    pub(super) fn slip(history: &mut [Record], at: usize, value: u8) {
        let at = at % history.len();
        if let Outcome::Ok { reply, .. } = &mut history[at].outcome {
            match reply {
                Reply::Get { value: seen } => *seen = (value > 0).then(|| format!("v{value}")),
                Reply::Del { deleted } => *deleted = 1 - *deleted,
                Reply::Cas { swapped } => *swapped = !*swapped,
                Reply::Put | Reply::Lock { .. } | Reply::Unlock { .. } | Reply::Txn { .. } => {}
            }
        }
    }
}

use naive::WithinRevision;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_trying_every_order(
        plans in proptest::collection::vec(generated::plan(), 1..=6),
        is_revisioned: bool,
        slips in proptest::collection::vec((0..6usize, 0..4u8), 0..=2),
    ) {
        let mut history = generated::run(&plans, is_revisioned);
        for (at, value) in slips {
            generated::slip(&mut history, at, value);
        }
        let verdict = check(&history);
        let has_answer = history.iter().any(|record| record.reply().is_some());
        prop_assert_eq!(matches!(verdict, Verdict::Unknown { .. }), !has_answer, "{:?}", verdict);
        if verdict.is_ok() {
            prop_assert!(naive::is_legal(&history, WithinRevision::MayChange));
        } else if has_answer {
            prop_assert!(!naive::is_legal(&history, WithinRevision::NoChange), "{:?}", verdict);
        }
    }

    #[test]
    fn what_a_register_did_is_legal(
        plans in proptest::collection::vec(generated::plan(), 1..=400),
        is_revisioned: bool,
    ) {
        let history = generated::run(&plans, is_revisioned);
        let has_answer = history.iter().any(|record| record.reply().is_some());
        prop_assert_eq!(check(&history).is_ok(), has_answer);
    }
}

mod large {
    use super::*;

    /// A small generator of our own, so that the history is the same for ever.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    /// What a long history is like. Values are unique, and of 500 outcomes one is unknown.
    struct Shape {
        operations: u32,
        clients: u64,
        keys: u64,
        is_revisioned: bool,
        has_deletes: bool,
    }

    /// Whatever the cluster answers with: 64 clients on two keys, deletes too.
    const REVISIONED: Shape =
        Shape { operations: 200_000, clients: 64, keys: 2, is_revisioned: true, has_deletes: true };
    /// Nothing but real time and unique values to go by.
    const BARE: Shape = Shape { is_revisioned: false, has_deletes: false, ..REVISIONED };

    /// Spans of operations in the order in which they take effect, each at an instant of its own at a random place
    /// in its span: (instant, client, call, return).
    fn spans(shape: &Shape, draw: &mut Draw) -> Vec<(u64, u64, u64, u64)> {
        let mut clients: BTreeSet<(u64, u64)> =
            (0..shape.clients).map(|client| (0, client)).collect();
        let mut spans = Vec::new();
        for _ in 0..shape.operations {
            let (free_at, client) = clients.pop_first().expect("there are clients");
            let call = free_at + 1 + draw.below(50);
            let ret = call + 200 + draw.below(2000);
            spans.push((call + draw.below(ret - call + 1), client, call, ret));
            clients.insert((ret, client));
        }
        spans.sort_unstable();
        spans
    }

    fn history(shape: &Shape) -> Vec<Record> {
        let mut draw = Draw(7);
        let mut store: BTreeMap<u64, String> = BTreeMap::new();
        let mut revision = 1;
        let mut records = Vec::new();
        for (number, (_, client, call, ret)) in spans(shape, &mut draw).into_iter().enumerate() {
            let key = draw.below(shape.keys);
            let value = format!("v{number}");
            let now = store.get(&key).cloned();
            let (op, reply) = match draw.below(10) {
                0..4 => (Op::Put { value }, Reply::Put),
                4..6 => (Op::Cas { expect: now, value }, Reply::Cas { swapped: true }),
                6 if shape.has_deletes => {
                    (Op::Del, Reply::Del { deleted: u64::from(now.is_some()) })
                }
                _ => (Op::Get, Reply::Get { value: now }),
            };
            let is_unknown = draw.below(500) == 0;
            let is_done = !is_unknown || draw.below(2) == 0;
            if is_done {
                let before = store.get(&key).cloned();
                match &op {
                    Op::Put { value } | Op::Cas { value, .. } => {
                        store.insert(key, value.clone());
                    }
                    Op::Del => drop(store.remove(&key)),
                    Op::Get | Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => {}
                }
                revision += u64::from(store.get(&key) != before.as_ref());
            }
            let mut record = on(&format!("k{key}"), ok(client, call, ret, op, reply));
            record.revision = shape.is_revisioned.then_some(revision);
            records.push(if is_unknown { unknown(record) } else { record });
        }
        records
    }

    /// The last read of the first half, made to see the first value of all. Returns its client.
    fn make_one_read_stale(history: &mut [Record]) -> u64 {
        let half = history.len() / 2;
        let is_read = |record: &&mut Record| record.op == Op::Get && record.reply().is_some();
        let stale = history[half..].iter_mut().find(is_read).expect("there are reads");
        let return_ns = stale.return_ns().expect("it has an answer");
        let reply = Reply::Get { value: Some("v0".to_owned()) };
        stale.outcome = Outcome::Ok { return_ns, reply };
        stale.client
    }

    #[test]
    fn a_long_history_with_revisions_and_unknown_outcomes_is_judged() {
        assert_eq!(check(&history(&REVISIONED)), Verdict::Ok);
    }

    #[test]
    fn a_long_history_without_revisions_is_judged() {
        assert_eq!(check(&history(&BARE)), Verdict::Ok);
    }

    #[test]
    fn deletes_of_a_few_clients_are_judged_without_revisions() {
        let shape = Shape { operations: 20_000, clients: 6, has_deletes: true, ..BARE };
        assert_eq!(check(&history(&shape)), Verdict::Ok);
    }

    #[test]
    fn one_stale_read_in_a_long_history_is_found() {
        for shape in [REVISIONED, BARE] {
            let mut history = history(&shape);
            let client = make_one_read_stale(&mut history);
            let (_, explanation) = illegal(check(&history));
            let culprit = format!("\n  {{\"client\":{client},");
            assert!(explanation.contains(&culprit), "{explanation}");
        }
    }
}
