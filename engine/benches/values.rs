//! What it costs to read values of 1 KiB by location: from recent frames in memory, and from the disk one at a time, 32 at
//! once, 1,000 neighbours at once as a scan reads them, and 1,000 scattered ones.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::{Append, Engine, Entry, Event, Identity, Options, Reading, Wanted, open};

const KEY_BYTES: usize = 32;
const VALUE_BYTES: usize = 1024;
/// Values of one entry, which makes one frame.
const VALUES_PER_ENTRY: usize = 64;
/// More than is kept in memory.
const ENTRIES: u64 = 2_000;

struct Store {
    engine: Engine<AnyDisk>,
    values: Vec<Wanted>,
    events: Vec<Event>,
    started: Instant,
    _dir: tempfile::TempDir,
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

impl Store {
    fn filled() -> Store {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it is writable");
        let (disk, _) = open_disk(dir.path(), Backend::Auto).expect("some backend works");
        let options = Options { seed: [1, 2], ..Options::default() };
        let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
        let opened = open(disk, Path::new("bench"), options, identity).expect("a new directory");
        let (values, events) = (Vec::new(), Vec::new());
        let mut store = Store { engine: opened.engine, values, events, started: now(), _dir: dir };
        (1..=ENTRIES).for_each(|index| store.append(index));
        store
    }

    fn append(&mut self, index: u64) {
        let mut payload = Vec::with_capacity(VALUES_PER_ENTRY * (KEY_BYTES + VALUE_BYTES));
        for number in 0..VALUES_PER_ENTRY {
            payload.extend_from_slice(format!("key {index:012} {number:015}").as_bytes());
            payload.resize(payload.len() + VALUE_BYTES, u8::try_from(number).expect("below 64"));
        }
        let payload = Bytes::from(payload);
        let entries = vec![Entry { index, term: 1, kind: 0, payload: payload.clone() }];
        self.engine.append(Append { write: index, entries, ..Append::default() });
        while !self.events.drain(..).any(|event| matches!(event, Event::Durable { .. })) {
            self.turn();
        }
        let place = self.engine.place(index).expect("it is durable");
        for number in 0..VALUES_PER_ENTRY {
            let start = number * (KEY_BYTES + VALUE_BYTES);
            let value = &payload[start + KEY_BYTES..][..VALUE_BYTES];
            self.values.push(Wanted {
                location: place.plus(start),
                key: payload.slice(start..start + KEY_BYTES),
                value_bytes: u32::try_from(VALUE_BYTES).expect("1,024"),
                checksum: crc32fast::hash(value),
            });
        }
    }

    fn turn(&mut self) {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).expect("a short bench");
        self.engine.turn(now_us, &mut self.events).expect("a sound disk");
        if self.events.is_empty() {
            self.engine.wait(Some(Duration::from_millis(10)));
        }
    }

    fn read(&mut self, wanted: Vec<Wanted>) {
        self.engine.read_values(1, wanted, Reading::Once);
        loop {
            self.turn();
            let results = self.events.drain(..).find_map(|event| {
                let Event::Values { results, .. } = event else { return None };
                Some(results)
            });
            if let Some(results) = results {
                assert!(black_box(results).iter().all(Result::is_ok));
                return;
            }
        }
    }
}

/// So many values of the older half, spread over all of it.
fn scattered(values: &[Wanted], from: usize, count: usize) -> Vec<Wanted> {
    let half = values.len() / 2;
    (0..count).map(|n| values[(from + n * 7_919) % half].clone()).collect()
}

fn bench_values(criterion: &mut Criterion) {
    let mut store = Store::filled();
    let mut next = 0;
    let reader = store.engine.reader();
    let mut group = criterion.benchmark_group("value-read");
    group.throughput(Throughput::Elements(1));
    let recent = store.values[store.values.len() - 10_000..].to_vec();
    group.bench_function("memory", |bencher| {
        bencher.iter(|| {
            next = (next + 7_919) % recent.len();
            black_box(reader.recent(&recent[next])).expect("in memory")
        });
    });
    for count in [1, 32, 1_000] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("disk-scattered-{count}"), |bencher| {
            bencher.iter(|| {
                next += 104_729;
                let wanted = scattered(&store.values, next, count);
                store.read(wanted);
            });
        });
    }
    group.bench_function("disk-neighbours-1000", |bencher| {
        bencher.iter(|| {
            next = (next + 104_729) % (store.values.len() / 2);
            let wanted = store.values[next..next + 1_000].to_vec();
            store.read(wanted);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = bench_values
}
criterion_main!(benches);
