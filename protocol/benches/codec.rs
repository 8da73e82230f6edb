//! What a message costs to write and to read, one kind at a time.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::{
    Consistency, ItemRef, Limits, Origin, RangeReply, Request, Response, encode_get_reply,
    encode_get_request, encode_put_request, frame,
};

const KEY: [u8; 24] = [b'k'; 24];
const VALUE: [u8; 256] = [b'v'; 256];
/// How many messages travel together: what a busy connection reads at once.
const BATCH: u64 = 64;
const ITEM: ItemRef<'static> =
    ItemRef { value: &VALUE, create_revision: 2, mod_revision: 9, version: 3, session: 0 };

fn bench_batch(
    criterion: &mut Criterion,
    name: &str,
    encode: impl Fn(u64, &mut BytesMut),
    decode: impl Fn(u8, Bytes),
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH));
    let mut out = BytesMut::with_capacity(1 << 20);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            (1..=BATCH).for_each(|id| encode(id, &mut out));
            black_box(out.len())
        });
    });
    out.clear();
    (1..=BATCH).for_each(|id| encode(id, &mut out));
    let wire = out.clone();
    let cap = Limits::default().reply_body_bytes_max();
    group.bench_function("decode", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(&wire[..]),
            |mut arrived| {
                while let Some(frame) =
                    frame::decode(&mut arrived, cap).expect("the frames are sound")
                {
                    decode(frame.header.kind, frame.body);
                }
                arrived
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn request(kind: u8, body: Bytes) {
    black_box(Request::decode(kind, body).expect("the request is sound"));
}

fn response(kind: u8, body: Bytes) {
    black_box(Response::decode(kind, body).expect("the reply is sound"));
}

fn codec(criterion: &mut Criterion) {
    let put = |id, out: &mut BytesMut| encode_put_request(id, Origin::NONE, &KEY, &VALUE, out);
    bench_batch(criterion, "put 256 B", put, request);
    let get = |id, out: &mut BytesMut| encode_get_request(id, Consistency::Linearizable, &KEY, out);
    bench_batch(criterion, "get", get, request);
    let put_done = |id, out: &mut BytesMut| Response::Put { revision: id }.encode_into(id, out);
    bench_batch(criterion, "put reply", put_done, response);
    let got = |id, out: &mut BytesMut| encode_get_reply(id, 9, Some(ITEM), out);
    bench_batch(criterion, "get reply 256 B", got, response);
    let page = |id, out: &mut BytesMut| {
        let mut page = RangeReply::begin(id, 9, out);
        (0..10).for_each(|_| assert!(page.push(&KEY, ITEM)));
        page.finish(false);
    };
    bench_batch(criterion, "range reply 10 x 256 B", page, response);
}

criterion_group!(benches, codec);
criterion_main!(benches);
