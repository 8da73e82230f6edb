//! What the index costs beside a plain `BTreeMap`: 24-byte keys with 56-byte values, looked for in random order.
//!
//! "warmed" takes sixteen keys at a time down the tree before it changes them, as one that applies a group does.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use engine::tree::{Builder, Tree};

type Key = [u8; 24];
type Value = [u64; 7];

const SIZES: [(u64, &str); 3] = [(100_000, "100k"), (2_000_000, "2M"), (10_000_000, "10M")];
const GROUP: usize = 16;
const STEP_NODES: usize = 100;

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn key(n: u64) -> Key {
    let mut key = *b"key-00000000000000000000";
    let mut rest = n;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    key
}

/// A million keys below `end` without order, the same in every run.
fn keys(end: u64) -> Vec<Key> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let numbers = (0..1_000_000).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % end
    });
    numbers.map(key).collect()
}

fn tree(size: u64) -> Tree<Value> {
    let mut builder = Builder::new();
    (0..size).for_each(|n| builder.push(&key(n), [n; 7]));
    builder.finish()
}

/// Times one operation a key, round and round.
fn each(b: &mut Bencher<'_>, keys: &[Key], mut operation: impl FnMut(&Key)) {
    let mut keys = keys.iter().cycle();
    b.iter(|| operation(keys.next().expect("a cycle has no end")));
}

fn change(tree: &mut Tree<Value>, key: &Key) {
    tree.get_mut(key).expect("the key is present")[0] += 1;
}

fn update(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    for (size, name) in SIZES {
        let keys = keys(size);
        let mut map = (0..size).map(|n| (key(n), [n; 7])).collect::<BTreeMap<Key, Value>>();
        group.bench_function(format!("btreemap {name}"), |b| {
            each(b, &keys, |key| map.get_mut(key).expect("the key is present")[0] += 1);
        });
        drop(map);
        let mut tree = tree(size);
        group.bench_function(format!("tree {name}"), |b| {
            each(b, &keys, |key| change(&mut tree, key));
        });
        group.throughput(Throughput::Elements(GROUP as u64));
        group.bench_function(format!("tree warmed, {GROUP} updates, {name}"), |b| {
            let mut groups = keys.chunks(GROUP).cycle();
            b.iter(|| {
                let keys = groups.next().expect("a cycle has no end");
                tree.warm(&keys.iter().map(Key::as_slice).collect::<Vec<_>>());
                for key in keys {
                    change(&mut tree, key);
                }
            });
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("tree beside a view {name}"), |b| {
            let view = tree.clone();
            each(b, &keys, |key| change(&mut tree, key));
            drop(view);
        });
        group.bench_function(format!("tree, first after a view {name}"), |b| {
            each(b, &keys, |key| {
                let view = tree.clone();
                change(&mut tree, key);
                drop(view);
            });
        });
    }
}

fn others(c: &mut Criterion) {
    let (size, name) = SIZES[1];
    let keys = keys(size);
    let mut tree = tree(size);
    let mut group = c.benchmark_group(name);
    group.bench_function("get", |b| {
        each(b, &keys, |key| {
            black_box(tree.get(key));
        });
    });
    group.bench_function("count of a range", |b| {
        let mut ends = keys.iter().rev().cycle();
        each(b, &keys, |key| {
            black_box(tree.count(key, ends.next().map(Key::as_slice)));
        });
    });
    group.bench_function("first ten of a range", |b| {
        each(b, &keys, |key| {
            for item in tree.range(key, None).take(10) {
                black_box(item);
            }
        });
    });
    group.throughput(Throughput::Elements(size));
    group.bench_function("scan", |b| {
        b.iter(|| tree.iter().map(|(key, value)| u64::from(key[23]) ^ value[0]).max());
    });
    group.bench_function("scan backwards", |b| {
        b.iter(|| tree.iter().rev().map(|(key, value)| u64::from(key[23]) ^ value[0]).max());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("insert and remove in random order", |b| {
        each(b, &keys, |key| {
            let mut key = *key;
            key[0] = b'l';
            if tree.insert(&key, [0; 7]).is_some() {
                tree.remove(&key);
            }
        });
    });
    group.bench_function(format!("dismantle {STEP_NODES} nodes"), |b| {
        b.iter_custom(|steps| dismantled(size, steps));
    });
}

/// How long so many steps take, each of nodes that nobody else holds.
fn dismantled(size: u64, steps: u64) -> Duration {
    let mut spent = Duration::ZERO;
    let mut remains = tree(size).dismantle();
    for _ in 0..steps {
        let started = now();
        let done = remains.work(STEP_NODES);
        spent += started.elapsed();
        if done {
            remains = tree(size).dismantle();
        }
    }
    spent
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = quick();
    targets = update, others
}
criterion_main!(benches);
