//! What applying costs: entries of 64 puts over 100 k keys, with and without sessions and an open
//! view, and how fast a view streams and a snapshot is restored.

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::Location;
use server::state_machine::{
    Command, EntryBuilder, Loaded, Origin, Restorer, State, ViewProgress, encode_command,
};
use std::hint::black_box;

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
const COMMANDS_PER_ENTRY: u64 = 64;
const PIECE_BYTES: usize = 256 << 10;

/// Spreads consecutive numbers over the keys.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{:020}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS))
}

fn entry(first: u64, origin: impl Fn(u64) -> Origin) -> Bytes {
    let mut builder = EntryBuilder::new();
    let mut encoded = BytesMut::new();
    builder.begin(first);
    for number in first..first + COMMANDS_PER_ENTRY {
        let byte = u8::try_from(number % 251).expect("less than 251");
        let command = Command::Put { key: key(number), value: vec![byte; VALUE_BYTES].into() };
        encoded.clear();
        encode_command(origin(number), &command, &mut encoded);
        builder.push(&encoded);
    }
    builder.finish()
}

fn apply(state: &mut State, payload: &Bytes) {
    let mut out = Vec::with_capacity(64);
    let (place, loaded) = (Location::new(0, 4096), Loaded::new());
    let index = state.applied_index() + 1;
    state.apply(index, payload, place, &loaded, &mut out).expect("a sound entry");
    black_box(&out);
}

/// All keys `0..KEYS`, set once.
fn full_state() -> State {
    let mut state = State::new();
    let mut builder = EntryBuilder::new();
    let mut encoded = BytesMut::new();
    for number in 0..KEYS {
        let key = Bytes::from(format!("key-{number:020}"));
        let command = Command::Put { key, value: vec![7; VALUE_BYTES].into() };
        encoded.clear();
        encode_command(Origin::NONE, &command, &mut encoded);
        builder.begin(1);
        builder.push(&encoded);
        apply(&mut state, &builder.finish());
    }
    state
}

fn entries(origin: impl Fn(u64) -> Origin + Copy) -> Vec<Bytes> {
    (0..2_000).map(|number| entry(number * COMMANDS_PER_ENTRY, origin)).collect()
}

fn applying(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(COMMANDS_PER_ENTRY));
    let plain = entries(|_| Origin::NONE);

    let mut state = full_state();
    let mut next = plain.iter().cycle();
    group.bench_function("overwrite", |bencher| {
        bencher.iter(|| apply(&mut state, next.next().expect("a cycle")));
    });

    state.view_begin();
    group.bench_function("overwrite_under_a_view", |bencher| {
        bencher.iter(|| apply(&mut state, next.next().expect("a cycle")));
    });
    state.view_end();

    group.bench_function("decode_only", |bencher| {
        bencher.iter(|| {
            let reader = server::state_machine::EntryReader::open(next.next().expect("a cycle"));
            reader.expect("a sound entry").commands().count()
        });
    });

    // 64 sessions, each with 32 requests unanswered; sequences go on where they ended.
    open_sessions(&mut state);
    let mut number = 0;
    group.bench_function("overwrite_in_sessions", |bencher| {
        bencher.iter_batched(
            || {
                number += COMMANDS_PER_ENTRY;
                entry(number, session_origin)
            },
            |payload| apply(&mut state, &payload),
            BatchSize::SmallInput,
        );
    });
    assert_eq!(state.hash(), state.recompute_hash());
    group.finish();
}

fn open_sessions(state: &mut State) {
    let mut builder = EntryBuilder::new();
    builder.begin(1);
    for nonce in 1..=COMMANDS_PER_ENTRY {
        let mut encoded = BytesMut::new();
        let nonce = u128::from(nonce);
        let open = Command::SessionOpen { ttl_ms: 10_000, nonce, label: Bytes::new() };
        encode_command(Origin::NONE, &open, &mut encoded);
        builder.push(&encoded);
    }
    apply(state, &builder.finish());
}

fn session_origin(number: u64) -> Origin {
    let sequence = number / COMMANDS_PER_ENTRY;
    Origin {
        session: 1 + number % COMMANDS_PER_ENTRY,
        sequence,
        lowest_unanswered: sequence.saturating_sub(31).max(1),
    }
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let command = Command::Put { key: key(1), value: vec![7; VALUE_BYTES].into() };
    let mut encoded = BytesMut::new();
    group.bench_function("put", |bencher| {
        bencher.iter(|| {
            encoded.clear();
            encode_command(Origin::NONE, &command, &mut encoded);
            black_box(&encoded);
        });
    });
    group.finish();
}

fn stream(state: &mut State, mut piece: impl FnMut(&[u8])) {
    let mut out = Vec::with_capacity(PIECE_BYTES);
    state.view_begin();
    loop {
        out.clear();
        let progress = state.view_next(PIECE_BYTES, &mut out);
        piece(&out);
        if progress == ViewProgress::Done {
            break;
        }
    }
    state.view_end();
}

fn snapshots(criterion: &mut Criterion) {
    let mut state = full_state();
    let mut snapshot = Vec::new();
    stream(&mut state, |piece| snapshot.extend_from_slice(piece));
    let mut group = criterion.benchmark_group("snapshot");
    group.throughput(Throughput::Bytes(snapshot.len() as u64));
    group.sample_size(20);
    group.bench_function("view", |bencher| {
        bencher.iter(|| stream(&mut state, |piece| assert!(black_box(piece).len() <= PIECE_BYTES)));
    });
    group.bench_function("restore", |bencher| {
        bencher.iter(|| {
            let mut restorer = Restorer::new();
            for piece in snapshot.chunks(PIECE_BYTES) {
                restorer.push(piece).expect("a sound snapshot");
            }
            restorer.finish().expect("a sound snapshot")
        });
    });
    group.finish();
}

criterion_group!(benches, applying, encoding, snapshots);
criterion_main!(benches);
