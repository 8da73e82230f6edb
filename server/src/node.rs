//! A whole node: listeners, founding, the replica's thread, and how it all ends.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use engine::io::Disk;
use engine::io::open::{AnyDisk, OpenDiskError, open_disk};
use engine::{DirLock, Engine, Identity, OpenError, Recovered};
use parking_lot::{Mutex, RwLock};
use protocol::Limits;
use raft::{Micros, NodeId};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use crate::bytes_reader::{Malformed, Reader, length_u32};
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::connection::Shared;
use crate::descriptors;
use crate::edge::{Clients, Edge, PeerQueue};
use crate::founding::{Founder, Refusal};
use crate::identity::{Founding, Member};
use crate::inbox::Inbox;
use crate::listener::{self, Phase};
use crate::peer::{Links, PeerEvent};
use crate::replica::{Input, Loader, Outbox, Replica, ReplicaError, ReplicaOptions};
use crate::shutdown::Stop;

/// How long a stopping node lets its connections write their last answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node did not start, or stopped by itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A port is in use, or the address is not this machine's.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Listen {
        /// The address.
        address: String,
        /// Where it was configured.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The log, on opening.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The chosen way to the disk.
    #[error(transparent)]
    Disk(#[from] OpenDiskError),
    /// The founding membership in META.
    #[error("the founding membership in META of {path} cannot be read: {source}")]
    Founding {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: Malformed,
    },
    /// The data directory is another node's.
    #[error(
        "data directory {path} belongs to a cluster in which node {id} has another data directory; check --id and --data"
    )]
    ForeignDirectory {
        /// The data directory.
        path: PathBuf,
        /// The label of this node.
        id: u64,
    },
    /// The configuration names other members than the cluster has.
    #[error(
        "--peers names {configured}, but this node's cluster was founded by {founded}; give every member and nobody else"
    )]
    OtherPeers {
        /// The ids of the configuration.
        configured: Ids,
        /// The ids of the founding membership.
        founded: Ids,
    },
    /// The cluster does not let this node in.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The replica ended.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// An entry with the largest value must fit a quarter of a slot.
    #[error(
        "values of up to {value_bytes_max} bytes do not fit slots of {slot_bytes} bytes: make --slot-bytes at least four times --value-bytes-max and some, or --value-bytes-max smaller"
    )]
    SlotTooSmall {
        /// The configured slots.
        slot_bytes: u64,
        /// The configured values.
        value_bytes_max: usize,
    },
    /// The operating system refused a thread, a runtime or randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Labels of nodes, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ids(pub Vec<u64>);

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ids.join(", "))
    }
}

/// Runs a node until it is asked to stop or cannot go on.
pub fn run(config: &NodeConfig, stop: Stop) -> Result<(), NodeError> {
    let listeners = Listeners::bind(config)?;
    let connections_max = descriptors::connections_max(config.connections_max);
    let runtime = clients_runtime(config)?;
    let phase = Arc::new(RwLock::new(Phase::Opening));
    let clients = Arc::new(Clients::default());
    let accepts = {
        let _guard = runtime.enter();
        let listener = TcpListener::from_std(listeners.clients)?;
        listener::accept(listener, Arc::clone(&phase), connections_max)
    };
    let acceptor = runtime.spawn(accepts);

    let (events, heard) = mpsc::unbounded_channel();
    let (started, opened) = oneshot::channel();
    let replica = Starter {
        config: config.clone(),
        phase: Arc::clone(&phase),
        clients: Arc::clone(&clients),
        events: events.clone(),
        heard,
        started,
        entry_bytes_max: 0,
    };
    let (alive, ended) = oneshot::channel::<()>();
    let replica = spawn("holdfast-replica", move || {
        let _alive = alive; // dropped, and so seen by the main thread, however the replica ends
        replica.run()
    })?;

    let peers = runtime.block_on(async {
        let mut stopping = Box::pin(stop.asked());
        let mut opened = Box::pin(opened);
        let (opened, is_asked) = tokio::select! {
            opened = &mut opened => (opened, false),
            asked = &mut stopping => {
                asked?;
                // The opening of a log is not broken off: it can be told to stop once it is open.
                (opened.await, true)
            }
        };
        let Ok(Started { inbox, links }) = opened else { return Ok(None) };
        let mut peers = None;
        if !is_asked {
            peers = Some(Peers::spawn(config, links, listeners.peers)?);
            tokio::select! {
                asked = &mut stopping => asked?,
                _ = ended => {}
            }
        }
        inbox.push(Input::Stop);
        // Still founding: nobody empties the inbox yet.
        events.send(PeerEvent::Stop).ok();
        Ok::<_, NodeError>(peers)
    })?;
    let result = join(replica);
    acceptor.abort();
    runtime.block_on(clients.close(CLOSE_TIMEOUT));
    runtime.shutdown_background();
    if let Some(peers) = peers {
        peers.stop()?;
    }
    result
}

fn spawn<T: Send + 'static>(
    name: &str,
    main: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(main)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Listeners {
    clients: StdListener,
    peers: StdListener,
}

impl Listeners {
    /// Binds before anything is written, so that a port in use leaves no trace.
    fn bind(config: &NodeConfig) -> Result<Listeners, NodeError> {
        Ok(Listeners {
            clients: bind(&config.listen, "--listen")?,
            peers: bind(&config.peer_listen, "--peer-listen")?,
        })
    }
}

fn bind(address: &str, flag: &'static str) -> Result<StdListener, NodeError> {
    let bound = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| NodeError::Listen { address: address.to_owned(), flag, source })
}

fn clients_runtime(config: &NodeConfig) -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if config.client_threads == 0 { cores.min(8) } else { config.client_threads };
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("holdfast-client")
        .enable_all()
        .build()
}

/// The thread of the peer links: its own, so that client work cannot delay a heartbeat.
struct Peers {
    thread: JoinHandle<io::Result<()>>,
    /// Dropped to end it.
    running: oneshot::Sender<()>,
}

impl Peers {
    fn spawn(config: &NodeConfig, links: Arc<Links>, listener: StdListener) -> io::Result<Peers> {
        let me = NodeId(config.id);
        let all = config.peers.iter().map(|(id, address)| (NodeId(*id), address.clone()));
        let others: BTreeMap<_, _> = all.filter(|(id, _)| *id != me).collect();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (running, ended) = oneshot::channel();
        let thread = spawn("holdfast-peers", move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                tokio::select! {
                    () = links.run(listener, others) => {}
                    _ = ended => {}
                }
                Ok(())
            })
        })?;
        Ok(Peers { thread, running })
    }

    fn stop(self) -> io::Result<()> {
        drop(self.running);
        join(self.thread)
    }
}

/// What the replica's thread tells once its log is open.
struct Started {
    inbox: Arc<Inbox>,
    links: Arc<Links>,
}

/// What the replica's thread starts with.
struct Starter {
    config: NodeConfig,
    phase: Arc<RwLock<Phase>>,
    clients: Arc<Clients>,
    events: mpsc::UnboundedSender<PeerEvent>,
    heard: mpsc::UnboundedReceiver<PeerEvent>,
    started: oneshot::Sender<Started>,
    /// Known once the log's options are.
    entry_bytes_max: u32,
}

impl Starter {
    /// Opens, founds, recovers, serves. Returns when asked to stop, or with the reason why it cannot go on.
    fn run(mut self) -> Result<(), NodeError> {
        let path = self.config.data.clone();
        let _lock = DirLock::acquire(&path)?;
        let (disk, fallback) = open_disk(&path, self.config.io.backend())?;
        if let Some(reason) = fallback {
            tracing::warn!(reason, "io_uring is not available; using system calls");
        }
        let identity = identity(self.config.id)?;
        let options = engine_options(&self.config)?;
        self.entry_bytes_max = entry_bytes_max(&self.config, &options)?;
        let mut loader = Loader::on_threads(recovery_threads(&self.config));
        let opened = engine::open_with(disk, &path, options, identity, &mut loader)?;
        tracing::info!(report = %opened.recovered.report, "log open");
        self.serve(opened.engine, (&opened.recovered, loader))
    }

    fn serve(
        mut self,
        mut engine: Engine<AnyDisk>,
        recovered: (&Recovered, Loader),
    ) -> Result<(), NodeError> {
        let inbox = Arc::new(Inbox::new(engine.waker()));
        let founder = Arc::new(Mutex::new(self.founder(&engine)?));
        let queues = self.queues();
        let links = Links::new(
            Arc::clone(&founder),
            self.config.advertise.clone(),
            Arc::clone(&inbox),
            queues.clone(),
            self.events.clone(),
        );
        // If the main thread is gone, the process is ending.
        self.started.send(Started { inbox: Arc::clone(&inbox), links }).ok();
        *self.phase.write() = Phase::Founding(Arc::clone(&founder));
        let Some(founding) = found(&mut engine, &founder, &mut self.heard)? else { return Ok(()) };
        // A membership that was adopted from a peer may differ, too.
        check_peers(&self.config, &founding)?;

        let outbox = Edge::new(Arc::clone(&self.clients), queues);
        let options = replica_options(&self.config, &founding, self.entry_bytes_max)?;
        let membership = founding.membership();
        let mut replica = Replica::new(options, engine, recovered, membership, outbox)?;
        *self.phase.write() = Phase::Serving(Arc::new(Shared {
            inbox: Arc::clone(&inbox),
            clients: self.clients,
            state: replica.state(),
            reader: replica.reader(),
            limits: Limits::with_value_bytes_max(self.config.value_bytes_max),
            cluster_id: founding.cluster_id(),
            node: self.config.id,
            ingress_bytes: AtomicU64::new(0),
        }));
        drive(&mut replica, &inbox)?;
        Ok(())
    }

    fn founder(&self, engine: &Engine<AnyDisk>) -> Result<Founder, NodeError> {
        let meta = engine.meta();
        let path = || self.config.data.clone();
        let mut reader = Reader::new(&meta.application);
        let founding = if meta.application.is_empty() {
            None
        } else {
            let founding = Founding::decode(&mut reader);
            Some(founding.map_err(|source| NodeError::Founding { path: path(), source })?)
        };
        let me = Member { id: NodeId(self.config.id), incarnation: meta.incarnation };
        let ours = |founding: &Founding| founding.incarnation_of(me.id) == Some(me.incarnation);
        if founding.as_ref().is_some_and(|founding| !ours(founding)) {
            return Err(NodeError::ForeignDirectory { path: path(), id: me.id.0 });
        }
        founding.iter().try_for_each(|founding| check_peers(&self.config, founding))?;
        let listed = self.config.peers.keys().map(|id| NodeId(*id));
        Ok(Founder::new(me, listed, founding))
    }

    fn queues(&self) -> BTreeMap<NodeId, Arc<PeerQueue>> {
        let others = self.config.peers.keys().filter(|id| **id != self.config.id);
        others.map(|id| (NodeId(*id), Arc::default())).collect()
    }
}

/// A member without an address would never be linked, and nothing would be sent to it.
fn check_peers(config: &NodeConfig, founding: &Founding) -> Result<(), NodeError> {
    let mut configured: Vec<u64> = config.peers.keys().copied().collect();
    if configured.is_empty() {
        configured.push(config.id);
    }
    let founded: Vec<u64> = founding.members().iter().map(|member| member.id.0).collect();
    if configured == founded {
        return Ok(());
    }
    Err(NodeError::OtherPeers { configured: Ids(configured), founded: Ids(founded) })
}

/// The durable founding membership, waiting for the peers if need be; `None` when asked to stop.
fn found(
    engine: &mut Engine<AnyDisk>,
    founder: &Mutex<Founder>,
    heard: &mut mpsc::UnboundedReceiver<PeerEvent>,
) -> Result<Option<Founding>, NodeError> {
    if let Some(founding) = founder.lock().founding() {
        return Ok(Some(founding.clone()));
    }
    let alone = founder.lock().alone();
    let founding = match alone {
        Some(founding) => founding,
        None => match heard.blocking_recv() {
            Some(PeerEvent::Found(founding)) => founding,
            Some(PeerEvent::Fatal(refusal)) => return Err(refusal.into()),
            Some(PeerEvent::Stop) | None => return Ok(None),
        },
    };
    let mut encoded = Vec::new();
    founding.encode_into(&mut encoded);
    engine.set_application_meta(encoded).map_err(ReplicaError::from)?;
    founder.lock().founded(founding.clone());
    tracing::info!(cluster = %founding.cluster_id(), "cluster founded");
    Ok(Some(founding))
}

/// The replica's loop: everything that has arrived, one turn, and a wait when nothing is left.
fn drive<D: Disk, O: Outbox>(
    replica: &mut Replica<D, O>,
    inbox: &Inbox,
) -> Result<(), ReplicaError> {
    let clock = Clock::start();
    let mut inputs = Vec::new();
    while !replica.is_stopped() {
        inbox.take(&mut inputs);
        replica.turn(clock.now(), clock.wall_ms(), &mut inputs)?;
        if inbox.is_empty() {
            replica.wait(clock.now());
        }
    }
    Ok(())
}

fn identity(node: u64) -> io::Result<Identity> {
    let incarnation = u128::from_le_bytes(random()?);
    Ok(Identity { node, incarnation, log_id: u128::from_le_bytes(random()?) })
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn engine_options(config: &NodeConfig) -> io::Result<engine::Options> {
    Ok(engine::Options {
        slot_bytes: config.slot_bytes,
        inflight_frames_max: config.inflight_frames_max,
        cache_bytes_max: config.cache_bytes_max,
        clean_below_percent: config.clean_below_percent,
        clean_bytes_per_second: config.clean_bytes_per_second,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        space_bytes_max: config.space_bytes_max,
        seed: [u64::from_le_bytes(random()?), u64::from_le_bytes(random()?)],
        ..engine::Options::default()
    })
}

/// Threads that decode a checkpoint beside the one that reads it.
fn recovery_threads(config: &NodeConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if config.recovery_threads == 0 { cores.min(8) } else { config.recovery_threads }
}

/// The largest entry that the log takes and that the largest value fits.
fn entry_bytes_max(config: &NodeConfig, options: &engine::Options) -> Result<u32, NodeError> {
    /// The largest key, and the headers of a command and an entry.
    const AROUND_VALUE_BYTES: usize = 8 << 10;
    let default_max = raft::Config::new(NodeId(config.id)).entry_bytes_max;
    let (slot_bytes, value_bytes_max) = (config.slot_bytes, config.value_bytes_max);
    let bytes_max = options.entry_bytes_max().min(default_max as usize);
    if value_bytes_max + AROUND_VALUE_BYTES > bytes_max {
        return Err(NodeError::SlotTooSmall { slot_bytes, value_bytes_max });
    }
    Ok(length_u32(bytes_max))
}

fn replica_options(
    config: &NodeConfig,
    founding: &Founding,
    entry_bytes_max: u32,
) -> io::Result<ReplicaOptions> {
    let ticks = |ms: u64| u32::try_from((ms / config.tick_ms).max(1)).unwrap_or(u32::MAX);
    let raft = raft::Config {
        tick: Micros(config.tick_ms * 1000),
        heartbeat_ticks: ticks(config.heartbeat_ms),
        election_ticks: ticks(config.election_timeout_ms),
        entry_bytes_max,
        ..raft::Config::new(NodeId(config.id))
    };
    Ok(ReplicaOptions {
        raft,
        checkpoint_interval_bytes: config.checkpoint_interval_bytes,
        advertise: config.advertise.clone(),
        cluster_id: founding.cluster_id(),
        seed: u64::from_le_bytes(random()?),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A config of a cluster of one on ports that the system chooses.
    fn config(data: &Path) -> NodeConfig {
        let flags = [
            ("data", data.display().to_string()),
            ("slot-bytes", "8MiB".to_owned()),
            ("io", "syscall".to_owned()),
        ];
        let config = NodeConfig::load(None, |_| None, &flags).unwrap();
        let any = "127.0.0.1:0".to_owned();
        NodeConfig { listen: any.clone(), peer_listen: any, ..config }
    }

    /// The request came while nobody could take it yet: it was lost, the replica started, and the
    /// main thread waited for its end for ever.
    #[test]
    fn node_that_is_asked_to_stop_while_its_log_opens_stops() {
        let data = tempfile::tempdir().unwrap();
        let config = config(data.path());
        let (handle, stop) = Stop::manual();
        handle.stop();
        let (done, ended) = std::sync::mpsc::channel();
        let node = spawn("node", move || done.send(run(&config, stop))).unwrap();
        ended.recv_timeout(Duration::from_mins(1)).expect("the node stops").unwrap();
        join(node).unwrap();
    }

    /// Without an address for a member a founded node started as usual and never sent it a word.
    #[test]
    fn founded_node_whose_peers_are_not_the_members_does_not_start() {
        let data = tempfile::tempdir().unwrap();
        let config = config(data.path());
        let stopped = || Stop::manual().1;
        run(&config, stopped()).unwrap();
        let peers = [(1, "127.0.0.1:1".to_owned()), (2, "127.0.0.1:2".to_owned())];
        let other = NodeConfig { peers: peers.clone().into(), ..config.clone() };
        let refused = run(&other, stopped()).unwrap_err().to_string();
        assert!(refused.contains("--peers names 1, 2") && refused.contains("founded by 1;"));
        let [own, _] = peers;
        run(&NodeConfig { peers: [own].into(), ..config.clone() }, stopped()).unwrap();
        run(&config, stopped()).unwrap();
    }
}
