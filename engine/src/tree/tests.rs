//! The tree against a `BTreeMap`, with its invariants checked after every change.

use super::node::Kind;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::thread;

type Model = BTreeMap<Vec<u8>, u64>;

impl<V: Clone> Tree<V> {
    fn check(&self) {
        self.root.height();
        self.root.check(Fences::NONE);
        assert_eq!(self.root.count(), self.len);
    }
}

/// A tree and what it has to hold.
#[derive(Clone, Default)]
struct Pair {
    tree: Tree<u64>,
    model: Model,
}

impl Pair {
    fn of(keys: impl IntoIterator<Item = u64>) -> Pair {
        let mut pair = Pair::default();
        for n in keys {
            pair.insert(&key(n), n);
        }
        pair
    }

    fn insert(&mut self, key: &[u8], value: u64) {
        assert_eq!(self.tree.insert(key, value), self.model.insert(key.into(), value));
    }

    fn remove(&mut self, key: &[u8]) {
        assert_eq!(self.tree.remove(key), self.model.remove(key));
    }

    fn update(&mut self, key: &[u8], value: u64) {
        let (ours, theirs) = (self.tree.get_mut(key), self.model.get_mut(key));
        assert_eq!(ours, theirs);
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            *ours = value;
            *theirs = value;
        }
    }

    /// The ends of a range, and its middle where scans from both sides meet.
    fn check_range(&self, start: &[u8], end: Option<&[u8]>) {
        let within = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        let model = self.model.iter().map(|(key, value)| (&key[..], value));
        let expected = model.filter(|(key, _)| within(key)).collect::<Vec<_>>();
        let range = || self.tree.range(start, end);
        assert!(range().eq(expected.iter().copied()));
        assert!(range().rev().eq(expected.iter().copied().rev()));
        assert_eq!(self.tree.count(start, end), expected.len() as u64);

        let (mut both, mut front, mut back) = (range(), Vec::new(), Vec::new());
        for turn in 0.. {
            let ended = if turn % 3 == 0 {
                both.next().map(|item| front.push(item))
            } else {
                both.next_back().map(|item| back.push(item))
            };
            if ended.is_none() {
                break;
            }
        }
        assert!(both.next().is_none() && both.next_back().is_none());
        front.extend(back.into_iter().rev());
        assert_eq!(front, expected);
    }

    fn check(&self) {
        self.tree.check();
        assert_eq!(self.tree.len(), self.model.len() as u64);
        assert_eq!(self.tree.is_empty(), self.model.is_empty());
        let model = self.model.iter().map(|(key, value)| (&key[..], value));
        assert!(self.tree.iter().eq(model.clone()));
        assert!(self.tree.iter().rev().eq(model.rev()));
    }
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n:020}").into_bytes()
}

/// A permutation of `0..count`, for a count that 7,919 does not divide.
fn scattered(count: u64) -> impl DoubleEndedIterator<Item = u64> {
    (0..count).map(move |n| n * 7919 % count)
}

#[test]
fn an_empty_tree_has_nothing_to_find() {
    let mut pair = Pair::default();
    pair.check();
    pair.check_range(b"", None);
    pair.remove(b"");
    pair.update(b"a", 1);
    assert!(pair.tree.get(b"").is_none());
    assert!(Builder::<u64>::new().finish().is_empty());
}

#[test]
fn the_empty_key_is_a_key() {
    let mut pair = Pair::of(scattered(200));
    pair.insert(b"", 7);
    pair.check();
    assert_eq!(pair.tree.get(b""), Some(&7));
    pair.remove(b"");
    pair.check();
}

#[test]
fn keys_inserted_in_any_order_come_out_sorted() {
    let count = 20_000;
    for mut pair in [Pair::of(0..count), Pair::of((0..count).rev()), Pair::of(scattered(count))] {
        pair.check();
        assert!(scattered(count).all(|n| pair.tree.get(&key(n)) == Some(&n)));
        pair.update(&key(77), 0);
        pair.update(&key(count), 0);
        pair.check();
    }
}

#[test]
fn ascending_keys_leave_full_leaves_behind() {
    let pair = Pair::of(0..64 * 100);
    assert_eq!(leaves(&pair.tree.root), 100);
}

#[test]
fn a_tree_shrinks_to_one_leaf_as_keys_are_removed_in_any_order() {
    let count = 20_000;
    let orders: [Vec<u64>; 3] =
        [(0..count).collect(), (0..count).rev().collect(), scattered(count).collect()];
    for order in orders {
        let mut pair = Pair::of(scattered(count).rev());
        for (turn, n) in order.into_iter().enumerate() {
            pair.remove(&key(n));
            if turn % 997 == 0 {
                pair.check();
            }
        }
        pair.check();
        assert_eq!(pair.tree.root.height(), 1);
    }
}

#[test]
fn leaves_stay_at_least_half_full_on_average_when_most_keys_are_removed() {
    let mut pair = Pair::of(0..50_000);
    for n in scattered(50_000).filter(|n| n % 10 != 0) {
        pair.remove(&key(n));
    }
    pair.check();
    assert!(leaves(&pair.tree.root) <= 5_000 / 24);
}

#[test]
fn a_view_does_not_change_with_the_tree() {
    let mut pair = Pair::of(scattered(10_000));
    let view = pair.clone();
    for n in scattered(10_000) {
        match n % 3 {
            0 => pair.remove(&key(n)),
            1 => pair.update(&key(n), n + 1),
            _ => pair.insert(&key(n + 20_000), n),
        }
    }
    view.check();
    pair.check();
}

#[test]
fn keys_of_any_form_may_be_warmed() {
    for count in [0, 1, 60, 5_000] {
        let pair = Pair::of(scattered(count));
        let numbers = scattered(count).map(key);
        let others = [vec![], vec![0; 100], vec![255; 100], b"key".to_vec(), b"key-".to_vec()];
        let keys = numbers.chain(others).collect::<Vec<_>>();
        pair.tree.warm(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>());
        pair.tree.warm(&[]);
    }
}

#[test]
fn a_look_for_an_absent_key_copies_nothing() {
    let mut pair = Pair::of(scattered(10_000));
    let view = pair.clone();
    pair.update(b"absent", 1);
    pair.remove(b"absent");
    assert!(std::ptr::eq(pair.tree.root.kind(), view.tree.root.kind()));
}

#[test]
fn counts_agree_with_scans_over_many_ranges() {
    let pair = Pair::of(scattered(3_000));
    for n in scattered(3_000).take(100) {
        pair.check_range(&key(n), Some(&key(n + 150)));
        pair.check_range(&key(n), None);
        pair.check_range(&key(n), Some(&key(n)));
        pair.check_range(&key(n), Some(&key(n / 2)));
        pair.check_range(b"", Some(&key(n)));
    }
}

#[test]
fn remains_free_at_most_so_many_nodes_a_step_and_spare_what_others_share() {
    let pair = Pair::of(scattered(20_000));
    let nodes = leaves(&pair.tree.root) + 10;
    let mut other = pair.clone();
    for n in 0..5_000 {
        other.update(&key(n), 0);
    }
    let mut shared = pair.tree.clone().dismantle();
    assert!(shared.work(1), "the root is shared, and nothing below it is touched");
    pair.check();

    let Pair { tree, .. } = pair;
    let mut remains = tree.dismantle();
    let steps = (1..=nodes).find(|_| remains.work(10)).unwrap();
    assert!(steps > 5_000 / 64 / 10 && steps <= nodes / 10 + 1);
    other.check();
}

#[test]
fn dismantling_the_last_owner_drops_every_value() {
    let counted = std::sync::Arc::new(());
    let mut tree = Tree::new();
    for n in scattered(10_000) {
        tree.insert(&key(n), std::sync::Arc::clone(&counted));
    }
    let mut remains = tree.dismantle();
    assert!(!remains.work(50));
    assert!(std::sync::Arc::strong_count(&counted) > 1);
    while !remains.work(50) {}
    assert_eq!(std::sync::Arc::strong_count(&counted), 1);
}

#[test]
fn a_built_tree_has_full_leaves_and_takes_changes() {
    for count in [0, 1, 63, 64, 65, 4_096, 4_097, 30_000] {
        let mut builder = Builder::new();
        let mut model = Model::new();
        for n in 0..count {
            builder.push(&key(n), n);
            model.insert(key(n), n);
        }
        let mut pair = Pair { tree: builder.finish(), model };
        pair.check();
        assert_eq!(leaves(&pair.tree.root), usize::try_from(count).unwrap().div_ceil(64).max(1));
        for n in scattered(count).take(3_000) {
            pair.remove(&key(n));
            pair.insert(&[&key(n)[..], b"+"].concat(), n);
        }
        pair.check();
    }
}

#[test]
fn runs_made_on_other_threads_join_into_one_tree() {
    let lengths = [0, 1, 5_000, 64, 0, 65, 1, 1, 128, 3_000];
    let starts = (0..).step_by(10_000);
    let threads = starts.zip(lengths).map(|(start, length)| {
        thread::spawn(move || {
            let mut run = Run::new();
            (start..start + length).for_each(|n| run.push(&key(n), n));
            run
        })
    });
    let mut builder = Builder::new();
    for thread in threads.collect::<Vec<_>>() {
        builder.push_run(thread.join().unwrap());
    }
    builder.push(b"last", 1);
    let mut pair = Pair { tree: builder.finish(), model: Model::new() };
    for (start, length) in (0..).step_by(10_000).zip(lengths) {
        pair.model.extend((start..start + length).map(|n| (key(n), n)));
    }
    pair.model.insert(b"last".into(), 1);
    pair.check();
    for n in 0..95_000 {
        pair.remove(&key(n));
    }
    pair.check();
}

#[test]
#[should_panic = "keys must ascend"]
fn a_builder_refuses_keys_out_of_order() {
    let mut builder = Builder::new();
    builder.push(b"b", 1);
    builder.push(b"a", 2);
}

#[test]
#[should_panic = "runs must ascend"]
fn a_builder_refuses_runs_out_of_order() {
    let mut builder = Builder::new();
    builder.push(b"b", 1);
    let mut run = Run::new();
    run.push(b"b", 1);
    builder.push_run(run);
}

fn leaves<V>(node: &Node<V>) -> usize {
    match node.kind() {
        Kind::Inner(inner) => inner.children().iter().map(leaves).sum(),
        Kind::Leaf(_) => 1,
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<u8>),
    Update(Vec<u8>),
    Remove(Vec<u8>),
    RemoveRange(Vec<u8>, usize),
    InsertRun(Vec<u8>, u8),
    View,
    Dismantle(usize),
    Range(Vec<u8>, Option<Vec<u8>>),
    Rebuild(usize),
}

/// Keys that share much: few letters, few lengths, prefixes shorter and longer than a word and than an inline key.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![0, 0, 3, 8, 20, 29, 40, 4_000]);
    let letters = prop::sample::select(vec![0, 1, 255]);
    (prefix, prop::collection::vec(letters, 0..9))
        .prop_map(|(prefix, end)| [vec![b'p'; prefix], end].concat())
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => keys().prop_map(Op::Insert),
        4 => keys().prop_map(Op::Update),
        4 => keys().prop_map(Op::Remove),
        1 => (keys(), 0_usize..300).prop_map(|(key, count)| Op::RemoveRange(key, count)),
        4 => (keys(), any::<u8>()).prop_map(|(key, count)| Op::InsertRun(key, count)),
        1 => Just(Op::View),
        1 => (0_usize..20).prop_map(Op::Dismantle),
        2 => (keys(), prop::option::of(keys())).prop_map(|(start, end)| Op::Range(start, end)),
        1 => (1_usize..200).prop_map(Op::Rebuild),
    ]
}

fn run(ops: Vec<Op>) {
    let mut pair = Pair::default();
    let mut views = Vec::new();
    for (turn, op) in ops.into_iter().enumerate() {
        let value = turn as u64;
        match op {
            Op::Insert(key) => pair.insert(&key, value),
            Op::Update(key) => pair.update(&key, value),
            Op::Remove(key) => pair.remove(&key),
            Op::RemoveRange(key, count) => {
                let range = pair.tree.range(&key, None).take(count);
                let keys = range.map(|(key, _)| key.to_vec()).collect::<Vec<_>>();
                for key in keys {
                    pair.remove(&key);
                }
            }
            Op::InsertRun(key, count) => {
                (0..count).for_each(|n| pair.insert(&[&key[..], &[n]].concat(), value));
            }
            Op::View => views.push(pair.clone()),
            Op::Dismantle(nodes_max) => {
                if let Some(view) = views.pop() {
                    view.check();
                    let mut remains = view.tree.dismantle();
                    remains.work(nodes_max);
                }
            }
            Op::Range(start, end) => pair.check_range(&start, end.as_deref()),
            Op::Rebuild(run_length) => {
                let mut builder = Builder::new();
                let items = pair.model.iter().collect::<Vec<_>>();
                for items in items.chunks(run_length) {
                    let mut run = Run::new();
                    for (key, value) in items {
                        run.push(key, **value);
                    }
                    builder.push_run(run);
                }
                pair.tree = builder.finish();
            }
        }
        pair.check();
    }
    views.iter().for_each(Pair::check);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_sequence_of_changes_leaves_what_a_btree_map_would_hold(
        ops in prop::collection::vec(ops(), 0..120),
    ) {
        run(ops);
    }
}
