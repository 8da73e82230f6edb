//! Whole runs against nodes that are made up: what the generator does when a leader moves, breaks off or falls
//! silent, and that what it reports is what happened.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bench::error::Error;
use bench::judge::judge;
use bench::material::key;
use bench::options::{CheckOptions, Cli, Command};
use bench::report::Report;
use bench::whole::{Act, WholeReport};
use bytes::{Bytes, BytesMut};
use clap::Parser;
use parking_lot::Mutex;
use protocol::{
    Expect, HANDSHAKE_BODY_BYTES_MAX, Hello, Item, LeaderHint, Limits, RangeItem, Request,
    Response, Welcome, frame,
};
use tests::check::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a made-up node does with a request, the `number`th of all it gets, from 1.
enum Answer {
    Reply(Response),
    Silence,
    HangUp,
}

type Behaviour = Arc<dyn Fn(u64, Request) -> Answer + Send + Sync>;

/// The runtime on which made-up nodes live, until it is dropped.
struct Nodes(tokio::runtime::Runtime);

impl Nodes {
    fn new() -> Nodes {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all();
        Nodes(runtime.build().expect("the test machine can start threads"))
    }

    /// A node that says in its welcome that `leader` leads, or that it leads itself.
    fn start(&self, leader: Option<SocketAddr>, behaviour: Behaviour) -> SocketAddr {
        let listener = self.0.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let node = u64::from(addr.port());
        let leader = leader.unwrap_or(addr);
        let leader = LeaderHint { node: u64::from(leader.port()), addr: leader.to_string() };
        let numbers = Arc::new(AtomicU64::new(0));
        self.0.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let welcome = Welcome {
                    version: 1,
                    cluster_id: 7,
                    node,
                    leader: Some(leader.clone()),
                    limits: Limits::default(),
                };
                tokio::spawn(serve(stream, welcome, Arc::clone(&behaviour), Arc::clone(&numbers)));
            }
        });
        addr
    }
}

/// Serves one connection until it ends, whoever ends it.
async fn serve(
    mut stream: TcpStream,
    welcome: Welcome,
    behaviour: Behaviour,
    numbers: Arc<AtomicU64>,
) -> Option<()> {
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let hello = next_frame(&mut stream, &mut input).await?;
    Hello::decode(hello.header.kind, hello.body).ok()?;
    welcome.encode_into(hello.header.request_id, &mut out);
    loop {
        stream.write_all_buf(&mut out).await.ok()?;
        let frame = next_frame(&mut stream, &mut input).await?;
        let request = Request::decode(frame.header.kind, frame.body).ok()?;
        match behaviour(numbers.fetch_add(1, Ordering::SeqCst) + 1, request) {
            Answer::Reply(response) => response.encode_into(frame.header.request_id, &mut out),
            Answer::Silence => {}
            Answer::HangUp => return None,
        }
    }
}

async fn next_frame(stream: &mut TcpStream, input: &mut BytesMut) -> Option<protocol::Frame> {
    loop {
        if let Some(frame) = frame::decode(input, HANDSHAKE_BODY_BYTES_MAX).ok()? {
            return Some(frame);
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

/// A store of one node, which several made-up nodes may share.
#[derive(Default)]
struct Store(Mutex<(u64, BTreeMap<Bytes, Bytes>)>);

impl Store {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a request that no run should make fails")]
    fn answer(&self, request: Request) -> Response {
        let (revision, keys) = &mut *self.0.lock();
        match request {
            Request::Put { key, value, .. } => {
                keys.insert(key, value);
                *revision += 1;
                Response::Put { revision: *revision }
            }
            Request::Get { key, .. } => {
                let item = keys.get(&key).map(|value| Item {
                    value: value.clone(),
                    create_revision: 1,
                    mod_revision: 1,
                    version: 1,
                    session: 0,
                });
                Response::Get { revision: *revision, item }
            }
            Request::Delete { key, .. } => {
                let deleted = u64::from(keys.remove(&key).is_some());
                *revision += deleted;
                Response::Deleted { revision: *revision, deleted }
            }
            Request::CompareAndSet { key, expect, value: Some(value), .. } => {
                let swapped = match (expect, keys.get(&key)) {
                    (Expect::Absent, None) => true,
                    (Expect::Value(expected), Some(held)) => expected == *held,
                    _ => false,
                };
                if swapped {
                    keys.insert(key, value);
                    *revision += 1;
                }
                Response::CompareAndSet { revision: *revision, swapped, mod_revision: *revision }
            }
            Request::Range { range, .. } => {
                let end = range.end.expect("no run reads without an end");
                let mut found = keys.range(range.start..end);
                // Small pages, so that a stretch takes several.
                let items = found.by_ref().take(7).map(|(key, value)| RangeItem {
                    key: key.clone(),
                    item: Item {
                        value: value.clone(),
                        create_revision: 1,
                        mod_revision: 1,
                        version: 1,
                        session: 0,
                    },
                });
                let items = items.collect();
                Response::Range { revision: *revision, items, more: found.next().is_some() }
            }
            other => panic!("no run of these tests asks for {other:?}"),
        }
    }
}

/// A node that answers everything.
fn obliging(store: &Arc<Store>) -> Behaviour {
    let store = Arc::clone(store);
    Arc::new(move |_, request| Answer::Reply(store.answer(request)))
}

fn run(endpoint: SocketAddr, options: &[&str]) -> Result<Report, Error> {
    let endpoint = endpoint.to_string();
    let words = ["holdfast-bench", "run", "--endpoints", &endpoint, "--warmup", "0"];
    match Cli::try_parse_from(words.iter().chain(options)).expect("the options are good").command {
        Command::Run(options) => bench::run::run(options.plan()?),
        Command::Check(_) | Command::Fill(_) | Command::Verify(_) => {
            unreachable!("the word was run")
        }
    }
}

/// Fills or verifies a thousand keys with values of ten bytes.
fn go_over(endpoint: SocketAddr, act: Act) -> Result<WholeReport, Error> {
    let endpoint = endpoint.to_string();
    let word = if act == Act::Fill { "fill" } else { "verify" };
    let words = ["holdfast-bench", word, "--endpoints", &endpoint, "--keys", "1000"];
    let words = words.into_iter().chain(["--value-bytes", "10"]);
    match Cli::try_parse_from(words).expect("the options are good").command {
        Command::Fill(options) | Command::Verify(options) => bench::whole::run(&options.plan(act)?),
        Command::Run(_) | Command::Check(_) => unreachable!("the word was another"),
    }
}

fn verdict(history: &Path) -> (usize, Verdict) {
    let options = CheckOptions { file: history.to_owned(), ops_min: 1, no_final_reads: false };
    let judgement = judge(&options).expect("the history is well formed");
    (judgement.unknown, judgement.verdict)
}

#[test]
fn the_leader_that_an_endpoint_names_is_the_one_that_is_driven() {
    let nodes = Nodes::new();
    let leader = nodes.start(None, obliging(&Arc::default()));
    let refuse: Behaviour = Arc::new(|_, request| panic!("a follower was asked for {request:?}"));
    let follower = nodes.start(Some(leader), refuse);
    let report = run(follower, &["--op", "put", "--seconds", "0.2", "--inflight", "3"]).unwrap();
    assert!(report.ops > 0);
    assert_eq!((report.errors, report.reconnects), (0, 0));
}

#[test]
fn what_was_filled_is_verified_and_a_key_that_is_missing_or_differs_is_named() {
    let nodes = Nodes::new();
    let store: Arc<Store> = Arc::default();
    let node = nodes.start(None, obliging(&store));
    assert_eq!(go_over(node, Act::Fill).unwrap().keys, 1_000);
    let all = go_over(node, Act::Verify).unwrap();
    assert_eq!((all.keys, all.wrong, all.tenths.len()), (1_000, 0, 10));
    let key = |index| Bytes::copy_from_slice(&key(index));
    let damage = |keys: &mut BTreeMap<Bytes, Bytes>| {
        keys.remove(&key(999));
        keys.remove(&key(20));
        keys.insert(key(500), Bytes::from_static(b"0123456789"));
        keys.insert(Bytes::from_static(b"bench/000000000000000300x"), Bytes::new());
    };
    damage(&mut store.0.lock().1);
    let some = go_over(node, Act::Verify).unwrap();
    assert_eq!((some.keys, some.wrong, some.first_wrong), (997, 3, Some(20)));
}

#[test]
fn a_deposed_leader_is_counted_and_left_for_the_one_it_names() {
    let nodes = Nodes::new();
    let store: Arc<Store> = Arc::default();
    let heir = nodes.start(None, obliging(&store));
    let deposed: Behaviour = Arc::new(move |number, request| {
        let hint = LeaderHint { node: u64::from(heir.port()), addr: heir.to_string() };
        Answer::Reply(match number {
            0..10 => store.answer(request),
            _ => Response::Error(protocol::Error::not_leader(Some(hint))),
        })
    });
    let deposed = nodes.start(None, deposed);
    let report = run(deposed, &["--op", "put", "--seconds", "1", "--inflight", "4"]).unwrap();
    assert!(report.ops > 9, "{report:?}");
    assert_eq!(report.errors_by_code.keys().collect::<Vec<_>>(), ["not_leader"]);
    assert_eq!((report.unknown, report.reconnects), (0, 1));
}

#[test]
fn what_was_in_flight_on_a_broken_connection_is_unknown_and_the_history_stays_legal() {
    let nodes = Nodes::new();
    let store: Arc<Store> = Arc::default();
    let breaking: Behaviour = Arc::new(move |number, request| {
        let reply = store.answer(request);
        // Five deletes come first; the forty-fifth request is done and never answered.
        if number == 45 { Answer::HangUp } else { Answer::Reply(reply) }
    });
    let node = nodes.start(None, breaking);
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("run.jsonl");
    let path = history.to_str().unwrap();
    let options = ["--op", "mixed", "--seconds", "0.3", "--inflight", "4", "--history", path];
    let report = run(node, &options).unwrap();
    assert_eq!(report.errors_by_code.keys().collect::<Vec<_>>(), ["disconnected"]);
    assert!((1..=4).contains(&report.unknown), "{report:?}");
    let (unknown, verdict) = verdict(&history);
    verdict.expect_ok();
    assert_eq!(unknown as u64, report.unknown);
}

#[test]
fn a_lie_of_the_cluster_is_found_in_the_history() {
    let nodes = Nodes::new();
    let store: Arc<Store> = Arc::default();
    let lying: Behaviour = Arc::new(move |number, request| {
        let before = store.0.lock().1.clone();
        let reply = store.answer(request);
        if number > 5 {
            store.0.lock().1 = before; // Acknowledged, and lost.
        }
        Answer::Reply(reply)
    });
    let node = nodes.start(None, lying);
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("run.jsonl");
    let path = history.to_str().unwrap();
    run(
        node,
        &["--op", "put", "--keys", "1", "--rate", "200", "--seconds", "0.3", "--history", path],
    )
    .unwrap();
    let (_, verdict) = verdict(&history);
    assert!(matches!(verdict, Verdict::Illegal { .. }), "{verdict:?}");
}

#[test]
fn a_silent_node_is_given_up_after_the_timeout() {
    let nodes = Nodes::new();
    let store: Arc<Store> = Arc::default();
    let silent: Behaviour = Arc::new(move |number, request| match number {
        6..=8 => Answer::Silence,
        _ => Answer::Reply(store.answer(request)),
    });
    let node = nodes.start(None, silent);
    let options = ["--op", "put", "--seconds", "1", "--inflight", "3", "--timeout", "0.1"];
    let report = run(node, &options).unwrap();
    assert!(report.ops > 5, "{report:?}");
    assert_eq!(report.errors_by_code.keys().collect::<Vec<_>>(), ["no_answer"]);
    // On a busy machine other answers may come too late as well.
    assert!(report.unknown >= 3 && report.unknown == report.errors, "{report:?}");
    assert!(report.reconnects >= 1, "{report:?}");
}

#[test]
fn a_run_in_which_nothing_was_done_fails_and_names_the_errors() {
    let nodes = Nodes::new();
    let node = nodes.start(None, Arc::new(|_, _| Answer::Silence));
    let options = ["--op", "put", "--seconds", "0.3", "--timeout", "0.1", "--rate", "100"];
    let error = run(node, &options).unwrap_err();
    assert!(matches!(error, Error::NothingDone { .. }));
    let text = error.to_string();
    assert!(text.contains("no_answer") && text.contains("never_started"), "{text}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn keys_are_written_before_they_are_read() {
    let nodes = Nodes::new();
    let store: Arc<Store> = Arc::default();
    let node = nodes.start(None, obliging(&store));
    let options = ["--op", "get", "--keys", "300", "--value-bytes", "10", "--seconds", "0.1"];
    let report = run(node, &options).unwrap();
    assert!(report.ops > 0);
    let store = store.0.lock();
    assert_eq!(store.1.len(), 300);
    assert!(store.1.values().all(|value| value.len() == 10));
}
