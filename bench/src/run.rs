//! One run: connect, prepare the keys, load, read the keys back if a history is kept, report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::error::Error;
use crate::lane::{Lane, Shared};
use crate::load::Load;
use crate::locks::Locks;
use crate::material::Values;
use crate::options::{OpKind, Plan};
use crate::pace::{Pace, Window};
use crate::pacer::Pacer;
use crate::progress;
use crate::random::Random;
use crate::report::Report;
use crate::scribe::{HistoryFile, Scribe};
use crate::sweep::{Act, Sweep};
use crate::tally::Tally;

/// Connections that prepare the keys, and requests in flight on each.
const FILL_LANES: u32 = 4;
const FILL_INFLIGHT: u32 = 64;

/// Makes the run that `plan` describes, on a runtime of its own.
pub fn run(plan: Plan) -> Result<Report, Error> {
    let mut runtime = match plan.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(plan.threads as usize).enable_all().build();
    runtime.map_err(Error::Runtime)?.block_on(Run::new(plan)?.make())
}

/// A lane between two phases, with what it keeps.
struct Worker {
    number: u32,
    lane: Lane,
    scribe: Option<Scribe>,
}

struct Run {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    values: Arc<Values>,
    wakes: Vec<Arc<Notify>>,
    history: Option<Arc<HistoryFile>>,
}

impl Run {
    fn new(plan: Plan) -> Result<Run, Error> {
        let history = plan.history.as_deref().map(HistoryFile::create).transpose()?.map(Arc::new);
        let shared = Shared {
            clock: Clock::start(),
            directory: Directory::new(plan.endpoints.clone()),
            timeout_ns: plan.timeout_ns,
            ops: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
        };
        Ok(Run {
            shared: Arc::new(shared),
            values: Arc::new(Values::new(plan.value_bytes, plan.seed)),
            wakes: (0..plan.lanes).map(|_| Arc::new(Notify::new())).collect(),
            history,
            plan: Arc::new(plan),
        })
    }

    async fn make(&self) -> Result<Report, Error> {
        self.prepare().await?;
        let workers = self.connected_workers().await?;
        let begin = self.shared.clock.now_ns();
        let from = begin + self.plan.warmup_ns;
        let until = from + self.plan.measured_ns;
        let window = Window { from, until, deadline: until + self.plan.timeout_ns };
        let pacer = self
            .plan
            .rate
            .map(|rate| Pacer::start(self.shared.clock, begin, rate, self.wakes.clone()));
        let pacer = pacer.transpose()?;
        let watch = tokio::spawn(progress::watch(Arc::clone(&self.shared), window));
        let (workers, tally) = self.load(workers, begin, window).await?;
        drop(pacer);
        let gap_ns = watch.await.expect("watching does not panic");
        let reconnects = self.shared.reconnects.load(Ordering::Relaxed);
        self.read_back(workers).await?;
        if let Some(history) = &self.history {
            history.finish()?;
        }
        if tally.ops() == 0 {
            return Err(Error::NothingDone { errors: format!("{:?}", tally.errors) });
        }
        Ok(Report::new(&self.plan, &tally, reconnects, gap_ns))
    }

    async fn connected_workers(&self) -> Result<Vec<Worker>, Error> {
        let inflight = self.plan.inflight;
        let mut tasks = JoinSet::new();
        for (number, wake) in (0..).zip(&self.wakes) {
            let mut lane = Lane::new(Arc::clone(&self.shared), Arc::clone(wake), inflight);
            let file = self.history.clone();
            tasks.spawn(async move {
                lane.open().await?;
                let scribe = file.map(|file| Scribe::new(file, number, inflight));
                Ok(Worker { number, lane, scribe })
            });
        }
        join(tasks).await
    }

    /// Writes the keys that will be read. A history begins with no keys at all.
    async fn prepare(&self) -> Result<(), Error> {
        let (values, seed) = (&self.values, !self.plan.seed);
        match self.plan.op {
            OpKind::Lock => Ok(()),
            _ if self.history.is_some() => self.fill("deleting", |_| Act::Delete).await,
            OpKind::Put => Ok(()),
            OpKind::Get | OpKind::Range | OpKind::Mixed => {
                let act =
                    |lane: u32| Act::Put(Arc::clone(values), Random::new(seed, u64::from(lane)));
                self.fill("writing", act).await
            }
        }
    }

    /// Goes over all keys with lanes of its own, enough of them to take little time whatever the load is like.
    async fn fill(&self, what: &'static str, act: impl Fn(u32) -> Act) -> Result<(), Error> {
        let sweeps = (0..FILL_LANES).map(|number| {
            let wake = Arc::new(Notify::new());
            let lane = Lane::new(Arc::clone(&self.shared), wake, FILL_INFLIGHT);
            let worker = Worker { number, lane, scribe: None };
            (worker, self.new_sweep(act(number), number, FILL_LANES, FILL_INFLIGHT))
        });
        self.sweep(what, sweeps.collect()).await
    }

    /// Reads every key once more, so that the history shows what the last writes left.
    async fn read_back(&self, workers: Vec<Worker>) -> Result<(), Error> {
        if self.history.is_none() || self.plan.op == OpKind::Lock {
            return Ok(());
        }
        let Plan { lanes, inflight, .. } = *self.plan;
        let sweeps = workers.into_iter().map(|mut worker| {
            let scribe = worker.scribe.take().expect("with a history every worker has a scribe");
            let sweep = self.new_sweep(Act::Get(scribe), worker.number, lanes, inflight);
            (worker, sweep)
        });
        self.sweep("reading back", sweeps.collect()).await
    }

    fn new_sweep(&self, act: Act, lane: u32, lanes: u32, inflight: u32) -> Sweep {
        Sweep::new(act, self.plan.keys, lane, lanes, inflight, self.shared.clock.now_ns())
    }

    async fn sweep(&self, what: &'static str, sweeps: Vec<(Worker, Sweep)>) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let progress = tokio::spawn(progress::show_keys(shared, what, self.plan.keys));
        let mut tasks = JoinSet::new();
        for (mut worker, mut sweep) in sweeps {
            tasks.spawn(async move {
                worker.lane.run(&mut sweep).await?;
                sweep.finish()
            });
        }
        let result = join(tasks).await;
        progress.abort();
        result.map(drop)
    }

    async fn load(
        &self,
        workers: Vec<Worker>,
        begin: u64,
        window: Window,
    ) -> Result<(Vec<Worker>, Tally), Error> {
        let mut tasks = JoinSet::new();
        for worker in workers {
            let lanes = u64::from(self.plan.lanes);
            let pace = match self.plan.rate {
                None => Pace::closed(begin, window),
                Some(rate) => Pace::open(begin, window, rate, u64::from(worker.number), lanes),
            };
            let (plan, values) = (Arc::clone(&self.plan), Arc::clone(&self.values));
            tasks.spawn(async move {
                match plan.op {
                    OpKind::Lock => load_locks(worker, &plan, pace, window.deadline).await,
                    OpKind::Put | OpKind::Get | OpKind::Range | OpKind::Mixed => {
                        load_keys(worker, &plan, pace, values).await
                    }
                }
            });
        }
        let mut all = Tally::default();
        let mut workers = Vec::new();
        for (worker, tally) in join(tasks).await? {
            all.merge(&tally);
            workers.push(worker);
        }
        Ok((workers, all))
    }
}

async fn load_keys(
    mut worker: Worker,
    plan: &Plan,
    pace: Pace,
    values: Arc<Values>,
) -> Result<(Worker, Tally), Error> {
    let mut load = Load::new(plan, worker.number, pace, values);
    if let Some(scribe) = worker.scribe.take() {
        load = load.recorded(plan, scribe);
    }
    worker.lane.run(&mut load).await?;
    let (tally, scribe) = load.finish();
    worker.scribe = scribe;
    Ok((worker, tally))
}

async fn load_locks(
    mut worker: Worker,
    plan: &Plan,
    pace: Pace,
    deadline_ns: u64,
) -> Result<(Worker, Tally), Error> {
    let mut locks = Locks::new(plan, worker.number, pace, deadline_ns, worker.scribe.take());
    worker.lane.run(&mut locks).await?;
    Ok((worker, locks.finish()))
}

/// What all tasks answer, or the first error, which ends the others.
async fn join<T: 'static>(mut tasks: JoinSet<Result<T, Error>>) -> Result<Vec<T>, Error> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result.expect("no task panics or is cancelled")?);
    }
    Ok(results)
}
