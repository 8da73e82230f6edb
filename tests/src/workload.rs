//! Load with a memory: virtual clients of the real client library, and the history of what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, Error};
use parking_lot::Mutex;
use protocol::{Certainty, Expect};
use tokio::task::JoinSet;

use crate::history::{Op, Outcome, Record, Reply};

/// What the virtual clients do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How many clients, each with one request at a time.
    pub clients: u64,
    /// How many keys they share.
    pub keys: u64,
    /// A client gives a request up after this long and counts its outcome as unknown.
    pub timeout: Duration,
    /// Two runs with the same seed ask the same things.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload { clients: 16, keys: 8, timeout: Duration::from_secs(5), seed: 1 }
    }
}

/// A workload that runs until it is stopped.
pub struct Running {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    client: Client,
    workload: Workload,
    start: Instant,
    stop: AtomicBool,
    acknowledged_writes: AtomicU64,
    history: Mutex<Vec<Record>>,
}

impl Workload {
    /// Starts the clients on `client`, which finds the leader by itself. The store must be empty, for the checkers.
    #[expect(clippy::disallowed_methods, reason = "a history of real processes is in real time")]
    pub fn start(self, client: &Client) -> Running {
        let shared = Arc::new(Shared {
            client: client.with_timeout(self.timeout),
            workload: self,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged_writes: AtomicU64::new(0),
            history: Mutex::new(Vec::new()),
        });
        let mut tasks = JoinSet::new();
        for id in 0..shared.workload.clients {
            tasks.spawn(run_client(Arc::clone(&shared), id));
        }
        Running { shared, tasks }
    }
}

impl Running {
    /// How many writes were acknowledged so far.
    pub fn acknowledged_writes(&self) -> u64 {
        self.shared.acknowledged_writes.load(Ordering::SeqCst)
    }

    /// Waits until `count` more writes are acknowledged; fails after `patience`.
    pub async fn progress(&self, count: u64, patience: Duration) {
        let target = self.acknowledged_writes() + count;
        let progress = async {
            while self.acknowledged_writes() < target {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let done = tokio::time::timeout(patience, progress).await;
        assert!(done.is_ok(), "fewer than {count} writes were acknowledged in {patience:?}");
    }

    /// Lets every client finish its request, reads every key once more, and returns the history.
    pub async fn finish(mut self) -> Vec<Record> {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("a virtual client does not panic");
        }
        let reader = Clients { shared: Arc::clone(&self.shared), id: u64::MAX, seq: 0 };
        reader.read_all().await;
        std::mem::take(&mut *self.shared.history.lock())
    }
}

async fn run_client(shared: Arc<Shared>, id: u64) {
    let mut random =
        Random(shared.workload.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (id << 32 | 1));
    let mut client = Clients { shared, id, seq: 0 };
    let mut seen: Option<String> = None;
    while !client.shared.stop.load(Ordering::SeqCst) {
        let key = format!("key-{}", random.below(client.shared.workload.keys));
        let value = format!("value-{id}-{}", client.seq);
        let op = match random.below(10) {
            0..=3 => Op::Put { value },
            4..=6 => Op::Get,
            7 => Op::Del,
            _ => Op::Cas { expect: seen.take(), value },
        };
        if let Some(Reply::Get { value }) = client.call(key, op).await {
            seen = value;
        }
    }
}

struct Clients {
    shared: Arc<Shared>,
    id: u64,
    seq: u64,
}

impl Clients {
    async fn read_all(mut self) {
        for key in 0..self.shared.workload.keys {
            let read = self.call(format!("key-{key}"), Op::Get).await;
            assert!(read.is_some(), "the final read of key-{key} was not answered");
        }
    }

    /// One request, recorded.
    async fn call(&mut self, key: String, op: Op) -> Option<Reply> {
        let call_ns = self.now_ns();
        let answer = send(&self.shared.client, &key, &op).await;
        let return_ns = self.now_ns();
        let mut record = Record {
            client: self.id,
            seq: self.seq,
            key,
            op,
            call_ns,
            outcome: Outcome::Unknown,
            revision: None,
            node: None,
            error: None,
        };
        self.seq += 1;
        let reply = match answer {
            Ok((reply, revision)) => {
                record.revision = Some(revision);
                record.outcome = Outcome::Ok { return_ns, reply: reply.clone() };
                Some(reply)
            }
            Err(error) => {
                if error.certainty() == Certainty::NotDone {
                    record.outcome = Outcome::Fail { return_ns: Some(return_ns) };
                }
                record.error = Some(error.to_string());
                None
            }
        };
        if matches!(reply, Some(Reply::Put | Reply::Cas { swapped: true })) {
            self.shared.acknowledged_writes.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.history.lock().push(record);
        reply
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

async fn send(client: &Client, key: &str, op: &Op) -> Result<(Reply, u64), Error> {
    let key = key.to_owned();
    match op {
        Op::Put { value } => Ok((Reply::Put, client.put(key, value.clone()).await?)),
        Op::Get => {
            let got = client.get(key).await?;
            let value = got.item.map(|item| String::from_utf8_lossy(&item.value).into_owned());
            Ok((Reply::Get { value }, got.revision))
        }
        Op::Del => {
            let deleted = client.delete(key).await?;
            Ok((Reply::Del { deleted: deleted.deleted }, deleted.revision))
        }
        Op::Cas { expect, value } => {
            let expect = match expect {
                Some(expect) => Expect::Value(Bytes::from(expect.clone())),
                None => Expect::Absent,
            };
            let compared = client.compare_and_set(key, expect, Some(value.clone().into())).await?;
            Ok((Reply::Cas { swapped: compared.swapped }, compared.revision))
        }
        Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => unreachable!("not in this workload"),
    }
}

/// A small generator, so that a seed means the same for ever (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
