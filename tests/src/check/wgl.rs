//! The search for a linearization of one register: Wing and Gong's depth-first search over the operations that
//! may come next, with Lowe's cache of the (operations done, state) pairs that lead nowhere.
//!
//! Four rules keep it near linear on histories of real runs. Each drops only orders that another order which
//! is tried makes needless:
//! - An *observer* (it never changes the state) that may come next and agrees with the state comes next.
//! - A state is not left while an operation that must see it remains and none remains that could bring it back.
//! - An operation of unknown outcome is placed only right before one that needs it. It has no return, so it may
//!   otherwise be moved behind its successor or left out.
//! - Operations that return first are tried first.

use std::collections::BTreeSet;

/// A value of the register. Values are numbered; the number says nothing about order.
pub(super) type Value = u32;

/// The register holds nothing.
pub(super) const ABSENT: Value = 0;

/// Time of return of an operation that never returned.
pub(super) const NEVER: u64 = u64::MAX;

/// What an operation saw and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Saw the value (or [`ABSENT`]), changed nothing.
    Read(Value),
    /// Saw any value but this one, changed nothing: a comparison that did not hold.
    ReadOther(Value),
    /// Set the value (or [`ABSENT`]), whatever was there.
    Write(Value),
    /// Saw `expect` and set `value`: a comparison that held.
    Swap {
        /// What it saw.
        expect: Value,
        /// What it set.
        value: Value,
    },
    /// Saw any value and removed it.
    Remove,
}

impl Action {
    /// The state after this action in `state`, or `None` where it cannot have happened.
    pub(super) fn step(self, state: Value) -> Option<Value> {
        match self {
            Action::Read(seen) => (state == seen).then_some(state),
            Action::ReadOther(other) => (state != other).then_some(state),
            Action::Write(value) => Some(value),
            Action::Swap { expect, value } => (state == expect).then_some(value),
            Action::Remove => (state != ABSENT).then_some(ABSENT),
        }
    }

    /// Whether it leaves every state as it is.
    fn is_observer(self) -> bool {
        match self {
            Action::Read(_) | Action::ReadOther(_) => true,
            Action::Swap { expect, value } => expect == value,
            Action::Write(_) | Action::Remove => false,
        }
    }

    /// Whether it can come next in `state` and leaves it as it is.
    fn leaves(self, state: Value) -> bool {
        self.is_observer() && self.step(state).is_some()
    }

    /// The one value it must see, if there is one.
    pub(super) fn needs(self) -> Option<Value> {
        match self {
            Action::Read(value) | Action::Swap { expect: value, .. } => Some(value),
            Action::ReadOther(_) | Action::Write(_) | Action::Remove => None,
        }
    }

    /// The value it leaves behind, if it changes anything.
    pub(super) fn makes(self) -> Option<Value> {
        match self {
            Action::Write(value) | Action::Swap { value, .. } => Some(value),
            Action::Remove => Some(ABSENT),
            Action::Read(_) | Action::ReadOther(_) => None,
        }
    }
}

/// One operation on the register.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    /// Time of the call.
    pub(super) call: u64,
    /// Time of the return; [`NEVER`] when the outcome is unknown, and then it may never have happened.
    pub(super) ret: u64,
    /// What it saw and did.
    pub(super) action: Action,
}

/// What the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// An order that explains every operation.
    Order,
    /// There is none.
    NoOrder,
    /// The budget of steps was spent.
    GaveUp,
}

/// Searches for an order of `operations`, on a register that is absent at first, which keeps the order of
/// real time. `values` is the number of distinct values, [`ABSENT`] included. At most `steps_max` operations
/// are placed, those that are taken back again included.
pub(super) fn search(operations: &[Operation], values: usize, steps_max: u64) -> Found {
    let spans = spans(operations, values);
    if has_conflict(operations, &spans) {
        return Found::NoOrder;
    }
    Search::new(operations, spans).run(steps_max)
}

/// A point in the list of calls and returns.
#[derive(Clone, Copy)]
struct Event {
    op: u32,
    is_call: bool,
    prev: u32,
    next: u32,
}

/// Where the search stands in one state: its open choices are `moves[next..]` of the shared stack.
struct Frame {
    /// What led here; `None` at the root.
    placed: Option<u32>,
    /// The state before that.
    state_before: Value,
    /// The obligation before that.
    prior_before: Option<Value>,
    /// Its first choice on the stack of moves.
    start: usize,
    /// Its next untried choice.
    next: usize,
}

/// The search's whole state.
struct Search<'a> {
    operations: &'a [Operation],
    /// Calls and returns of the known operations not yet placed, in order of time, linked; 0 is the head.
    events: Vec<Event>,
    /// The two events of each known operation.
    places: Vec<(u32, u32)>,
    /// Operations of unknown outcome in order of their calls, and whether each is placed.
    unknown: Vec<u32>,
    unknown_placed: Vec<bool>,
    /// Per value: operations not yet placed that must see it, and that could make it.
    needers: Vec<u32>,
    makers: Vec<u32>,
    /// Per value: what bounds the time at which it is set.
    spans: Vec<Span>,
    /// Known operations not yet placed.
    remaining: usize,
    /// Identity of the set of placed operations: the exclusive or of their marks. Two sets share one by chance
    /// of 2^-128.
    placed_set: u128,
    state: Value,
    /// Set after an operation of unknown outcome: the state before it, in which the next must be impossible.
    prior: Option<Value>,
    frames: Vec<Frame>,
    moves: Vec<u32>,
    /// Where the search has been with more than one choice.
    seen: BTreeSet<(u128, Value, Option<Value>)>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation], spans: Vec<Span>) -> Search<'a> {
        let known = |&op: &u32| operations[op as usize].ret != NEVER;
        let count = u32::try_from(operations.len()).expect("a history fits in memory");
        let (known, mut unknown): (Vec<u32>, Vec<u32>) = (0..count).partition(known);
        unknown.sort_by_key(|&op| operations[op as usize].call);
        let (events, places) = link(operations, &known);
        let mut search = Search {
            operations,
            events,
            places,
            unknown_placed: vec![false; unknown.len()],
            unknown,
            needers: vec![0; spans.len()],
            makers: vec![0; spans.len()],
            spans,
            remaining: known.len(),
            placed_set: 0,
            state: ABSENT,
            prior: None,
            frames: Vec::new(),
            moves: Vec::new(),
            seen: BTreeSet::new(),
        };
        for op in 0..count {
            search.count(op, 1);
        }
        search
    }

    fn run(mut self, steps_max: u64) -> Found {
        self.enter(None);
        for _ in 0..steps_max {
            if self.remaining == 0 {
                return Found::Order;
            }
            while !self.descend() {
                if !self.retreat() {
                    return Found::NoOrder;
                }
            }
        }
        if self.remaining == 0 { Found::Order } else { Found::GaveUp }
    }

    /// Takes the next choice of the current frame, if there is one.
    fn descend(&mut self) -> bool {
        let frame = self.frames.last_mut().expect("the root stays until the search ends");
        let Some(&op) = self.moves.get(frame.next) else {
            return false;
        };
        frame.next += 1;
        self.enter(Some(op));
        true
    }

    /// Takes back what led to the current frame; false at the root.
    fn retreat(&mut self) -> bool {
        let frame = self.frames.pop().expect("the root stays until the search ends");
        self.moves.truncate(frame.start);
        let Some(op) = frame.placed else { return false };
        self.unplace(op);
        self.state = frame.state_before;
        self.prior = frame.prior_before;
        true
    }

    /// Places `op` and lists the choices that follow.
    fn enter(&mut self, op: Option<u32>) {
        let frame = Frame {
            placed: op,
            state_before: self.state,
            prior_before: self.prior,
            start: self.moves.len(),
            next: self.moves.len(),
        };
        if let Some(op) = op {
            self.place(op);
        }
        self.frames.push(frame);
        self.list_moves();
    }

    fn operation(&self, op: u32) -> Operation {
        self.operations[op as usize]
    }

    fn place(&mut self, op: u32) {
        let Operation { action, ret, .. } = self.operation(op);
        let after = action.step(self.state).expect("only possible operations are listed");
        self.prior = (ret == NEVER).then_some(self.state);
        self.state = after;
        self.placed_set ^= mark(op);
        self.count(op, -1);
        if ret == NEVER {
            self.set_unknown(op, true);
        } else {
            let (call, ret) = self.places[op as usize];
            self.unlink(call);
            self.unlink(ret);
            self.remaining -= 1;
        }
    }

    fn unplace(&mut self, op: u32) {
        self.placed_set ^= mark(op);
        self.count(op, 1);
        if self.operation(op).ret == NEVER {
            self.set_unknown(op, false);
        } else {
            let (call, ret) = self.places[op as usize];
            self.relink(ret);
            self.relink(call);
            self.remaining += 1;
        }
    }

    /// Counts `op` among those that remain, or out.
    fn count(&mut self, op: u32, by: i32) {
        let Operation { action, ret, .. } = self.operation(op);
        if let Some(value) = action.makes() {
            let makers = &mut self.makers[value as usize];
            *makers = makers.strict_add_signed(by);
        }
        if let Some(value) = action.needs().filter(|_| ret != NEVER) {
            let needers = &mut self.needers[value as usize];
            *needers = needers.strict_add_signed(by);
        }
    }

    fn set_unknown(&mut self, op: u32, placed: bool) {
        let call = self.operation(op).call;
        let first = self.unknown.partition_point(|&other| self.operation(other).call < call);
        let offset = self.unknown[first..].iter().position(|&other| other == op);
        self.unknown_placed[first + offset.expect("the list holds every such operation")] = placed;
    }

    fn unlink(&mut self, event: u32) {
        let Event { prev, next, .. } = self.events[event as usize];
        self.events[prev as usize].next = next;
        self.events[next as usize].prev = prev;
    }

    fn relink(&mut self, event: u32) {
        let Event { prev, next, .. } = self.events[event as usize];
        self.events[prev as usize].next = event;
        self.events[next as usize].prev = event;
    }

    /// Lists the choices of the state just entered, in the order in which they are tried.
    fn list_moves(&mut self) {
        let start = self.moves.len();
        let mut wanted = Wanted::default();
        let mut at = self.events[0].next;
        let mut deadline = NEVER;
        while at != 0 {
            let Event { op, is_call, next, .. } = self.events[at as usize];
            if !is_call {
                deadline = self.operation(op).ret;
                break;
            }
            let operation = self.operation(op);
            let action = operation.action;
            if action.step(self.state).is_none() {
                wanted.note(action);
            } else if self.is_owed(action) && self.may_leave(operation) && self.fits(op) {
                if action.is_observer() {
                    self.moves.truncate(start);
                    self.moves.push(op);
                    return;
                }
                self.moves.push(op);
            }
            at = next;
        }
        let (operations, spans) = (self.operations, &self.spans);
        self.moves[start..].sort_by_key(|&op| due(operations[op as usize], spans));
        if !wanted.is_empty() {
            self.list_unknown(&mut wanted, deadline);
        }
        self.drop_if_seen(start);
    }

    /// Lists the operations of unknown outcome, called by `deadline`, that bring a state which is wanted, or
    /// which another of them could take further.
    fn list_unknown(&mut self, wanted: &mut Wanted, deadline: u64) {
        let called = self.unknown.partition_point(|&op| self.operation(op).call <= deadline);
        let open: Vec<u32> =
            (0..called).filter(|&at| !self.unknown_placed[at]).map(|at| self.unknown[at]).collect();
        for &op in &open {
            wanted.values.extend(self.operation(op).action.needs());
        }
        for &op in &open {
            let operation = self.operation(op);
            let action = operation.action;
            let Some(after) = action.step(self.state).filter(|&after| after != self.state) else {
                continue;
            };
            if wanted.has(after)
                && self.is_owed(action)
                && self.may_leave(operation)
                && self.fits(op)
            {
                self.moves.push(op);
            }
        }
    }

    /// Whether the last operation of unknown outcome, if one was just placed, is needed by `action`.
    fn is_owed(&self, action: Action) -> bool {
        self.prior.is_none_or(|prior| action.step(prior).is_none())
    }

    /// Whether `operation` may come next in view of the state it leaves: nobody else must see that still, or it
    /// can come back.
    fn may_leave(&self, Operation { action, ret, .. }: Operation) -> bool {
        if action.step(self.state) == Some(self.state) {
            return true;
        }
        let itself = u32::from(action.needs() == Some(self.state) && ret != NEVER);
        let state = self.state as usize;
        self.needers[state] <= itself || self.makers[state] > 0
    }

    /// Whether the value that `op` sets can stay until the last operation that must see it is called: everything
    /// due before must leave it as it is.
    fn fits(&self, op: u32) -> bool {
        let Some(value) = self.operation(op).action.makes() else {
            return true;
        };
        let Some(until) = self.spans[value as usize].until() else {
            return true;
        };
        let mut at = self.events[0].next;
        while at != 0 {
            let Event { op: other, is_call, next, .. } = self.events[at as usize];
            let Operation { action, call, ret } = self.operation(other);
            if (if is_call { call } else { ret }) >= until {
                break;
            }
            if !is_call && other != op && !action.leaves(value) {
                return false;
            }
            at = next;
        }
        true
    }

    /// Drops the choices listed from `start` where the search has been in this very state before.
    fn drop_if_seen(&mut self, start: usize) {
        let choices = self.moves.len() - start;
        if choices > 1 && !self.seen.insert((self.placed_set, self.state, self.prior)) {
            self.moves.truncate(start);
        }
    }
}

/// What is known of the time at which a value is set.
#[derive(Clone, Copy)]
struct Span {
    /// Operations that may set it.
    makers: u32,
    /// The earliest return of one that sets it or must see it.
    first_return: u64,
    /// The last call of one that must see it.
    last_call: Option<u64>,
}

impl Span {
    /// Until when the value must stay once it is set, if it can be set only once.
    fn until(self) -> Option<u64> {
        self.last_call.filter(|_| self.makers == 1)
    }
}

fn spans(operations: &[Operation], values: usize) -> Vec<Span> {
    let never_set = Span { makers: 0, first_return: NEVER, last_call: None };
    let mut spans = vec![never_set; values];
    // The beginning sets it.
    spans[ABSENT as usize] = Span { makers: 1, first_return: 0, ..never_set };
    for Operation { call, ret, action } in operations {
        if let Some(value) = action.makes() {
            let span = &mut spans[value as usize];
            span.makers += 1;
            span.first_return = span.first_return.min(*ret);
        }
        if let Some(value) = action.needs().filter(|_| *ret != NEVER) {
            let span = &mut spans[value as usize];
            span.first_return = span.first_return.min(*ret);
            span.last_call = span.last_call.max(Some(*call));
        }
    }
    spans
}

/// Whether a value that must be seen is never set, or must outlast an operation that ends it: it is set once, one
/// of those that set or see it had returned before the other operation was called, and one that sees it was
/// called after that had returned.
///
/// The search would find out too, after trying every order of what stands before.
fn has_conflict(operations: &[Operation], spans: &[Span]) -> bool {
    let mut known: Vec<&Operation> = operations.iter().filter(|op| op.ret != NEVER).collect();
    known.sort_by_key(|operation| operation.call);
    spans.iter().zip(0..).any(|(span, value)| match span.until() {
        None => span.makers == 0 && span.last_call.is_some(),
        Some(until) => {
            let after = known.partition_point(|operation| operation.call <= span.first_return);
            let within = known[after..].iter().take_while(|operation| operation.call < until);
            within.into_iter().any(|other| other.ret < until && !other.action.leaves(value))
        }
    })
}

/// When `operation` should be placed at the latest, for all one can tell at once.
fn due(operation: Operation, spans: &[Span]) -> u64 {
    let span = operation.action.makes().map(|value| spans[value as usize]);
    let sees = span.filter(|span| span.makers == 1).map_or(NEVER, |span| span.first_return);
    operation.ret.min(sees)
}

/// The states in which an operation that cannot come next could. Where there is none, an operation of unknown
/// outcome serves nothing yet: what may come next leads to the same state without it.
#[derive(Default)]
struct Wanted {
    values: Vec<Value>,
    any_other: bool,
}

impl Wanted {
    /// Notes what `action`, impossible now, waits for.
    fn note(&mut self, action: Action) {
        match action.needs() {
            Some(value) => self.values.push(value),
            None => self.any_other = true,
        }
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.any_other
    }

    fn has(&self, value: Value) -> bool {
        self.any_other || self.values.contains(&value)
    }
}

/// The linked list of calls and returns of the operations `known`. At one instant calls stand before returns:
/// such operations are taken for concurrent.
fn link(operations: &[Operation], known: &[u32]) -> (Vec<Event>, Vec<(u32, u32)>) {
    let mut order: Vec<(u64, bool, u32)> = Vec::with_capacity(known.len() * 2);
    for &op in known {
        let Operation { call, ret, .. } = operations[op as usize];
        assert!(call <= ret);
        order.push((call, false, op));
        order.push((ret, true, op));
    }
    order.sort_unstable();
    let count = u32::try_from(order.len() + 1).expect("a history fits in memory");
    let mut places = vec![(0, 0); operations.len()];
    let mut events = vec![Event { op: 0, is_call: false, prev: count - 1, next: 1 % count }];
    for ((_, is_return, op), at) in order.into_iter().zip(1..) {
        events.push(Event { op, is_call: !is_return, prev: at - 1, next: (at + 1) % count });
        let place = &mut places[op as usize];
        *(if is_return { &mut place.1 } else { &mut place.0 }) = at;
    }
    (events, places)
}

/// A number of 128 well mixed bits for operation `op`.
fn mark(op: u32) -> u128 {
    let low = mix(u64::from(op) * 2 + 1);
    let high = mix(u64::from(op) * 2 + 2);
    u128::from(high) << 64 | u128::from(low)
}

/// A finalizer that spreads every bit of `seed` over the result.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
