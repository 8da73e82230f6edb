//! The commit-order witness: revisions say in which order the cluster claims to have done things, and that
//! claim is checked over all keys at once, in the time of a sort.
//!
//! Every write has a revision of its own; whatever changes nothing stands right behind the write whose revision
//! it saw. Strict serializability asks that this order extends the order of real time across keys.

use super::wgl::Action;
use crate::history::Record;

/// Where an operation stands in the order of revisions: writes at their own, observers right behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) revision: u64,
    is_observer: bool,
}

impl Position {
    /// The position of an operation that was done as `action` at `revision`.
    pub(super) fn new(revision: u64, action: Action) -> Position {
        Position { revision, is_observer: matches!(action, Action::Read(_) | Action::ReadOther(_)) }
    }
}

/// An operation that was done, with its place in the claimed order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) record: &'a Record,
    pub(super) position: Position,
    pub(super) call: u64,
    pub(super) ret: u64,
}

/// Two operations that contradict the claimed order, and why.
#[derive(Debug)]
pub(super) struct Contradiction<'a> {
    pub(super) reason: &'static str,
    pub(super) first: &'a Record,
    pub(super) second: &'a Record,
}

/// Finds two operations that contradict the claimed order, if there are any.
pub(super) fn check<'a>(claims: &[Claim<'a>]) -> Option<Contradiction<'a>> {
    two_writes_at_one_revision(claims).or_else(|| order_against_real_time(claims))
}

fn two_writes_at_one_revision<'a>(claims: &[Claim<'a>]) -> Option<Contradiction<'a>> {
    let mut writes: Vec<&Claim<'a>> =
        claims.iter().filter(|claim| !claim.position.is_observer).collect();
    writes.sort_by_key(|claim| (claim.position, claim.call));
    let pair = writes.array_windows().find(|[a, b]| a.position == b.position);
    pair.map(|[a, b]| Contradiction {
        reason: "two writes have one revision",
        first: a.record,
        second: b.record,
    })
}

/// Goes through the calls in order of time and keeps the highest position among what had returned before.
fn order_against_real_time<'a>(claims: &[Claim<'a>]) -> Option<Contradiction<'a>> {
    let mut by_call: Vec<&Claim<'a>> = claims.iter().collect();
    let mut by_return = by_call.clone();
    by_call.sort_by_key(|claim| claim.call);
    by_return.sort_by_key(|claim| claim.ret);
    let mut returned = by_return.into_iter().peekable();
    let mut highest: Option<&Claim<'a>> = None;
    for claim in by_call {
        while let Some(earlier) = returned.next_if(|earlier| earlier.ret < claim.call) {
            if highest.is_none_or(|highest| highest.position < earlier.position) {
                highest = Some(earlier);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.position > claim.position) {
            return Some(Contradiction {
                reason: "the second was called after the first had returned, and has the lower revision",
                first: earlier.record,
                second: claim.record,
            });
        }
    }
    None
}
