//! One client connection: frames in, frames out, reads served here.
//!
//! A task reads whatever has arrived, parses all of it, and hands the writes to the replica in one go; answers are
//! encoded and written in one go as well, so that system calls are paid per wake-up and not per request.
//! It stops reading while too much is in flight or the peer does not read its answers.
//!
//! What a connection may hold is bounded: requests in flight by the limits of the handshake, a frame
//! that has not arrived whole by the largest body of a request, answers by `UNWRITTEN_BYTES_MAX` and
//! one more. The requests in flight of all connections together hold at most `INGRESS_BYTES_MAX`;
//! frames that have not arrived whole, and answers, do not count there.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use engine::Reader;
use parking_lot::RwLock;
use protocol::{
    Consistency, Error, ErrorCode, Frame, HANDSHAKE_BODY_BYTES_MAX, Hello, Limits, Request,
    Response, Welcome, frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::edge::{ClientQueue, Clients};
use crate::identity::ClusterId;
use crate::inbox::Inbox;
use crate::replica::{Answer, ClientId, Input, Proposal, ReplyTo};
use crate::requests::{Fetch, Plan, Query, View, answer_query, plan, reply_of};
use crate::socket;
use crate::state_machine::State;

/// A client that has not said hello by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for one read.
const READ_BYTES: usize = 64 << 10;
/// While more than this waits to be written, nothing is read and no read is answered.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;
/// About so many bytes of answers are encoded before applying gets a chance to change the state.
const PORTION_BYTES: usize = 64 << 10;
/// Requests of all clients that are in flight may hold this much.
const INGRESS_BYTES_MAX: u64 = 512 << 20;

/// What all connections of a node share.
pub struct Shared {
    /// Into the replica.
    pub inbox: Arc<Inbox>,
    /// The table of connections.
    pub clients: Arc<Clients>,
    /// What reads look at.
    pub state: Arc<RwLock<State>>,
    /// Values that are in memory.
    pub reader: Reader,
    /// Told to clients, and held against them.
    pub limits: Limits,
    /// This cluster.
    pub cluster_id: ClusterId,
    /// This node.
    pub node: u64,
    /// Bytes of requests in flight on all connections.
    pub ingress_bytes: AtomicU64,
}

/// What an answer of the replica belongs to.
#[derive(Debug)]
enum Slot {
    Free {
        next: usize,
    },
    One {
        request_id: u64,
        bytes: u64,
    },
    Reads(Vec<Read>),
    /// A read whose values come from the disk, and what its request holds.
    Fetch {
        fetch: Box<Fetch>,
        bytes: u64,
    },
}

/// A read that waits for its answer.
#[derive(Debug)]
struct Read {
    request_id: u64,
    bytes: u64,
    query: Query,
}

/// Requests in flight, by the number under which the replica knows them.
#[derive(Debug, Default)]
struct Inflight {
    slots: Vec<Slot>,
    free: usize,
    requests: usize,
    bytes: u64,
}

impl Inflight {
    fn enter(&mut self, slot: Slot) -> u64 {
        let (requests, bytes) = slot.cost();
        self.requests += requests;
        self.bytes += bytes;
        let at = self.free;
        if let Some(free) = self.slots.get_mut(at) {
            let Slot::Free { next } = *free else { unreachable!("the free list is sound") };
            self.free = next;
            *free = slot;
        } else {
            self.slots.push(slot);
            self.free = self.slots.len();
        }
        at as u64
    }

    /// The numbers of the fetches among them.
    fn fetches(&self) -> Vec<u64> {
        let numbered = (0..).zip(&self.slots);
        let fetches = numbered.filter(|(_, slot)| matches!(slot, Slot::Fetch { .. }));
        fetches.map(|(number, _)| number).collect()
    }

    fn leave(&mut self, number: u64) -> Option<Slot> {
        let at = usize::try_from(number).ok()?;
        let slot = self.slots.get_mut(at).filter(|slot| !matches!(slot, Slot::Free { .. }))?;
        let slot = std::mem::replace(slot, Slot::Free { next: self.free });
        self.free = at;
        let (requests, bytes) = slot.cost();
        self.requests -= requests;
        self.bytes -= bytes;
        Some(slot)
    }
}

impl Slot {
    fn cost(&self) -> (usize, u64) {
        match self {
            Slot::Free { .. } => (0, 0),
            Slot::One { bytes, .. } | Slot::Fetch { bytes, .. } => (1, *bytes),
            Slot::Reads(reads) => (reads.len(), reads.iter().map(|read| read.bytes).sum()),
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    id: ClientId,
    queue: Arc<ClientQueue>,
    inflight: Inflight,
    input: BytesMut,
    output: BytesMut,
    commands: BytesMut,
    inputs: Vec<Input>,
    answers: Vec<(u64, Answer)>,
    /// Linearizable reads of this wake-up: they share one ticket.
    reads: Vec<Read>,
    /// Reads that may be answered, from the state as it is then, once there is room for it.
    confirmed: VecDeque<Read>,
    /// Bytes of values that are on their way from the disk.
    fetching_bytes: usize,
}

/// Serves a connection until either side ends it. An error is for the log only.
pub async fn serve(mut stream: TcpStream, id: ClientId, shared: Arc<Shared>) -> io::Result<()> {
    socket::prepare(&stream)?;
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let welcome = |hello: &Hello| {
        let version = hello.accept(shared.cluster_id.0)?;
        Ok(Welcome {
            version,
            cluster_id: shared.cluster_id.0,
            node: shared.node,
            leader: shared.clients.leader(),
            limits: shared.limits,
        })
    };
    if !handshake(&mut stream, &mut input, welcome).await? {
        return Ok(());
    }
    let queue = shared.clients.enter(id);
    let mut connection = Connection::new(Arc::clone(&shared), id, queue, input);
    let ended = connection.run(&mut stream).await;
    shared.clients.leave(id);
    connection.refund(connection.inflight.bytes);
    connection.refund(connection.confirmed.iter().map(|read| read.bytes).sum());
    ended
}

/// Answers one hello. Returns whether the connection may go on.
pub async fn handshake(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    welcome: impl Fn(&Hello) -> Result<Welcome, Error>,
) -> io::Result<bool> {
    let Ok(frame) = timeout(HANDSHAKE_TIMEOUT, read_hello(stream, input)).await else {
        return Ok(false);
    };
    let (request_id, verdict) = match frame? {
        Ok(None) => return Ok(false),
        Ok(Some(frame)) => {
            let hello = Hello::decode(frame.header.kind, frame.body).map_err(Error::from);
            (frame.header.request_id, hello.and_then(|hello| welcome(&hello)))
        }
        Err(error) => (0, Err(error.into())),
    };
    let mut output = BytesMut::new();
    match &verdict {
        Ok(welcome) => welcome.encode_into(request_id, &mut output),
        Err(error) => error.encode_into(request_id, &mut output),
    }
    stream.write_all(&output).await?;
    if verdict.is_err() {
        stream.shutdown().await?;
    }
    Ok(verdict.is_ok())
}

type MaybeFrame = Result<Option<Frame>, protocol::FrameError>;

async fn read_hello(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<MaybeFrame> {
    loop {
        match frame::decode_request(input, HANDSHAKE_BODY_BYTES_MAX) {
            Ok(None) => {}
            decided => return Ok(decided),
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(Ok(None));
        }
    }
}

impl Connection {
    fn new(
        shared: Arc<Shared>,
        id: ClientId,
        queue: Arc<ClientQueue>,
        input: BytesMut,
    ) -> Connection {
        Connection {
            shared,
            id,
            queue,
            inflight: Inflight::default(),
            input,
            output: BytesMut::new(),
            commands: BytesMut::new(),
            inputs: Vec::new(),
            answers: Vec::new(),
            reads: Vec::new(),
            confirmed: VecDeque::new(),
            fetching_bytes: 0,
        }
    }

    async fn run(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let (mut read, mut write) = stream.split();
        let queue = Arc::clone(&self.queue);
        let mut closing = self.shared.clients.closing();
        loop {
            // First: then reads that still wait for room mean a full output, and nothing is read.
            self.answer_reads();
            // What came with the hello is parsed before anything is waited for.
            if self.may_read()
                && let Err(error) = self.parse()
            {
                Error::from(error).encode_into(0, &mut self.output);
                write.write_all_buf(&mut self.output).await?;
                return write.shutdown().await;
            }
            tokio::select! {
                read = read.read_buf(&mut self.input), if self.may_read() => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                () = queue.ready() => self.take_answers(),
                written = write.write_buf(&mut self.output), if self.output.has_remaining() => {
                    written?;
                }
                () = closed(&mut closing) => {
                    self.take_answers();
                    return self.write_last_answers(&mut write).await;
                }
            }
        }
    }

    /// Everything that can be answered, and the end.
    async fn write_last_answers(&mut self, write: &mut WriteHalf<'_>) -> io::Result<()> {
        self.refuse_fetches();
        while self.output.has_remaining() || !self.confirmed.is_empty() {
            self.answer_reads();
            self.refuse_fetches();
            write.write_all_buf(&mut self.output).await?;
        }
        write.shutdown().await
    }

    /// The replica is gone: nobody reads values from the disk any more.
    fn refuse_fetches(&mut self) {
        self.inputs.clear();
        for number in self.inflight.fetches() {
            if let Some(Slot::Fetch { fetch, bytes }) = self.inflight.leave(number) {
                self.fetching_bytes -= fetch.bytes();
                self.refund(bytes);
                let message = "this node is shutting down";
                let error = Error::not_done(ErrorCode::ShuttingDown, message);
                error.encode_into(fetch.request_id(), &mut self.output);
            }
        }
    }

    fn may_read(&self) -> bool {
        let limits = &self.shared.limits;
        self.inflight.requests < limits.inflight_requests_max as usize
            && self.inflight.bytes < u64::from(limits.inflight_bytes_max)
            && self.unwritten_bytes() < UNWRITTEN_BYTES_MAX
    }

    /// Parses all whole frames and hands them on.
    fn parse(&mut self) -> Result<(), protocol::FrameError> {
        let cap = self.shared.limits.request_body_bytes_max();
        let mut result = Ok(());
        while self.may_read() {
            match frame::decode_request(&mut self.input, cap) {
                Ok(Some(frame)) => self.handle_frame(frame),
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.input.reserve(READ_BYTES);
        self.ask_reads();
        self.shared.inbox.push_all(&mut self.inputs);
        result
    }

    fn handle_frame(&mut self, frame: Frame) {
        let request_id = frame.header.request_id;
        let bytes = u64::from(frame.header.body_bytes);
        let request = Request::decode(frame.header.kind, frame.body).map_err(Error::from);
        let checked = request.and_then(|request| {
            request.validate(&self.shared.limits)?;
            self.charge(bytes)?;
            Ok(request)
        });
        match checked {
            Ok(request) => self.handle_request(request_id, bytes, request),
            Err(error) => error.encode_into(request_id, &mut self.output),
        }
    }

    /// Takes `bytes` of the process's budget.
    fn charge(&self, bytes: u64) -> Result<(), Error> {
        let taken = self.shared.ingress_bytes.fetch_add(bytes, Ordering::Relaxed);
        if taken + bytes <= INGRESS_BYTES_MAX {
            return Ok(());
        }
        self.shared.ingress_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let message = "this node has too many requests in flight; retry later";
        Err(Error::not_done(ErrorCode::TooManyRequests, message).with_retry_after_ms(100))
    }

    fn refund(&self, bytes: u64) {
        self.shared.ingress_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn handle_request(&mut self, request_id: u64, bytes: u64, request: Request) {
        let plan = match plan(request, &mut self.commands) {
            Ok(plan) => plan,
            Err(error) => {
                self.refund(bytes);
                return error.encode_into(request_id, &mut self.output);
            }
        };
        match plan {
            Plan::Write { room, wait } => {
                let command = self.commands.split().freeze();
                let reply_to = self.enter(Slot::One { request_id, bytes });
                let proposal = Proposal { reply_to, command, room, wait };
                self.inputs.push(Input::Propose(proposal));
            }
            Plan::Read(query, Consistency::Linearizable) => {
                self.reads.push(Read { request_id, bytes, query });
            }
            Plan::Read(query, Consistency::Stale) => {
                self.answer_read(&Read { request_id, bytes, query });
            }
            Plan::KeepAlive { session } => {
                let reply_to = self.enter(Slot::One { request_id, bytes });
                self.inputs.push(Input::KeepAlive { reply_to, session });
            }
            Plan::Status => {
                let reply_to = self.enter(Slot::One { request_id, bytes });
                self.inputs.push(Input::Status(reply_to));
            }
            Plan::Ping => {
                Response::Pong.encode_into(request_id, &mut self.output);
                self.refund(bytes);
            }
        }
    }

    fn enter(&mut self, slot: Slot) -> ReplyTo {
        ReplyTo { client: self.id, request: self.inflight.enter(slot) }
    }

    /// All reads of a wake-up share one round.
    fn ask_reads(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let reads = std::mem::take(&mut self.reads);
        let reply_to = self.enter(Slot::Reads(reads));
        self.inputs.push(Input::Read(reply_to));
    }

    fn take_answers(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        self.queue.take(&mut answers);
        for (number, answer) in answers.drain(..) {
            match self.inflight.leave(number) {
                None | Some(Slot::Free { .. }) => {}
                Some(Slot::One { request_id, bytes }) => {
                    self.refund(bytes);
                    self.encode_answer(request_id, answer);
                }
                Some(Slot::Reads(reads)) => self.take_reads(reads, &answer),
                Some(Slot::Fetch { fetch, bytes }) => {
                    self.refund(bytes);
                    self.take_values(*fetch, answer);
                }
            }
        }
        self.answers = answers;
    }

    /// The answer to a ticket is an error for every read of it, or lets them be answered.
    fn take_reads(&mut self, reads: Vec<Read>, answer: &Answer) {
        let Answer::Error(error) = answer else { return self.confirmed.extend(reads) };
        for read in reads {
            self.refund(read.bytes);
            error.encode_into(read.request_id, &mut self.output);
        }
    }

    fn take_values(&mut self, fetch: Fetch, answer: Answer) {
        self.fetching_bytes -= fetch.bytes();
        let Answer::Values(values) = answer else {
            unreachable!("a fetch is answered with values")
        };
        fetch.answer(values, &mut self.output);
    }

    /// Answers the reads that may be, as far as there is room. A later state is as good for them as
    /// the confirmed one, so it is locked for one portion at a time: applying never waits for more.
    fn answer_reads(&mut self) {
        while !self.confirmed.is_empty() && self.unwritten_bytes() < UNWRITTEN_BYTES_MAX {
            self.answer_portion();
        }
        self.shared.inbox.push_all(&mut self.inputs);
    }

    /// Answers that wait to be written, and what will become of fetches.
    fn unwritten_bytes(&self) -> usize {
        self.output.len() + self.fetching_bytes
    }

    fn answer_portion(&mut self) {
        let end = UNWRITTEN_BYTES_MAX.min(self.unwritten_bytes() + PORTION_BYTES);
        let shared = Arc::clone(&self.shared);
        let state = shared.state.read();
        while self.unwritten_bytes() < end
            && let Some(read) = self.confirmed.pop_front()
        {
            self.answer_from(&state, &read);
        }
    }

    fn answer_read(&mut self, read: &Read) {
        let shared = Arc::clone(&self.shared);
        self.answer_from(&shared.state.read(), read);
    }

    /// Answers a read, or asks for the values that it lacks.
    fn answer_from(&mut self, state: &State, read: &Read) {
        let shared = Arc::clone(&self.shared);
        let view = View { state, reader: &shared.reader };
        let Some(mut fetch) = answer_query(view, read.request_id, &read.query, &mut self.output)
        else {
            return self.refund(read.bytes);
        };
        self.fetching_bytes += fetch.bytes();
        let (wanted, pin) = fetch.take_wanted();
        let slot = Slot::Fetch { fetch: Box::new(fetch), bytes: read.bytes };
        let reply_to = self.enter(slot);
        self.inputs.push(Input::Fetch { reply_to, wanted, pin });
    }

    fn encode_answer(&mut self, request_id: u64, answer: Answer) {
        let response = match answer {
            Answer::ReadNow | Answer::Values(_) => unreachable!("only reads are answered so"),
            Answer::Error(error) => Response::Error(error),
            Answer::Outcome(outcome) => reply_of(outcome),
            Answer::Alive { ttl_ms } => Response::SessionAlive { ttl_ms },
            Answer::Status(status) => Response::Status(status),
        };
        response.encode_into(request_id, &mut self.output);
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // A dropped sender means the same.
    closing.wait_for(|closing| *closing).await.map(drop).ok();
}

/// Answers the hello with an error and ends.
pub async fn refuse(mut stream: TcpStream, error: Error) -> io::Result<()> {
    let mut input = BytesMut::new();
    handshake(&mut stream, &mut input, |_| Err(error.clone())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use engine::io::Wake;
    use engine::io::simulated::{SimDisk, SimFaults};
    use engine::{Append, Engine, Event, Identity, Options};

    use super::*;
    use crate::replica::Outbox;
    use crate::state_machine::{CommandRef, EntryBuilder, Loaded, Origin, encode_command_ref};

    type Log = Engine<engine::io::simulated::SimHandle>;

    /// A log whose first entry is in memory.
    fn log_of(payload: &Bytes) -> Log {
        let disk = SimDisk::new(1, SimFaults::none());
        let options = Options { slot_bytes: 32 << 20, seed: [1, 1], ..Options::default() };
        let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
        let opened = engine::open(disk.handle(), Path::new("simulated"), options, identity);
        let mut engine = opened.unwrap().engine;
        let entry = engine::Entry { index: 1, term: 1, kind: 0, payload: payload.clone() };
        engine.append(Append { write: 1, entries: vec![entry], ..Append::default() });
        engine.turn(0, &mut Vec::<Event>::new()).unwrap();
        engine
    }

    struct NoThread;

    impl Wake for NoThread {
        fn wake(&self) {}
    }

    /// A connection to a node whose key `k` has a value of so many bytes.
    fn connection(value_bytes: usize) -> Connection {
        let mut command = BytesMut::new();
        let value = vec![b'v'; value_bytes];
        let put = CommandRef::Put { key: b"k", value: &value };
        encode_command_ref(Origin::NONE, &put, &mut command);
        let mut entry = EntryBuilder::new();
        entry.begin(0);
        entry.push(&command);
        let (mut state, entry) = (State::new(), entry.finish());
        let log = log_of(&entry);
        let place = log.place(1).unwrap();
        state.apply(1, &entry, place, &Loaded::new(), &mut Vec::new()).unwrap();
        let clients = Arc::new(Clients::default());
        let id = ClientId(1);
        let queue = clients.enter(id);
        let shared = Shared {
            inbox: Arc::new(Inbox::new(Arc::new(NoThread))),
            clients,
            state: Arc::new(RwLock::new(state)),
            reader: log.reader(),
            limits: Limits::default(),
            cluster_id: ClusterId(1),
            node: 1,
            ingress_bytes: AtomicU64::new(0),
        };
        Connection::new(Arc::new(shared), id, queue, BytesMut::new())
    }

    fn get(key: &'static [u8]) -> Request {
        Request::Get { consistency: Consistency::Linearizable, key: Bytes::from_static(key) }
    }

    /// The replica's part: every read is confirmed.
    fn confirm(connection: &mut Connection) {
        let mut inputs = Vec::new();
        connection.shared.inbox.take(&mut inputs);
        let clients = Arc::clone(&connection.shared.clients);
        let mut edge = crate::edge::Edge::new(clients, std::collections::BTreeMap::new());
        for input in inputs {
            let Input::Read(reply_to) = input else { panic!("{input:?}") };
            edge.answer(reply_to, Answer::ReadNow);
        }
        connection.take_answers();
    }

    /// All answers of one ticket used to be encoded at once, under one lock of the state: a client
    /// that pipelined 4,096 reads of large values took gigabytes of the node's memory, and the
    /// replica's thread stood behind that lock meanwhile, without a heartbeat.
    #[test]
    fn pipelined_reads_of_large_values_are_answered_as_fast_as_they_are_written() {
        const READS: u64 = 64;
        let value_bytes = 1 << 20;
        let mut connection = connection(value_bytes);
        for request_id in 1..=READS {
            get(b"k").encode_into(request_id, &mut connection.input);
        }
        connection.parse().unwrap();
        let charged = connection.shared.ingress_bytes.load(Ordering::Relaxed);
        confirm(&mut connection);
        let mut answered = Vec::new();
        while !connection.confirmed.is_empty() {
            connection.answer_reads();
            assert!(connection.output.len() < UNWRITTEN_BYTES_MAX + value_bytes + 1024);
            assert!(connection.confirmed.is_empty() || !connection.may_read());
            while let Some(frame) = frame::decode(&mut connection.output, u32::MAX).unwrap() {
                assert!(frame.body.len() > value_bytes);
                answered.push(frame.header.request_id);
            }
        }
        assert_eq!(answered, (1..=READS).collect::<Vec<_>>());
        let left = connection.shared.ingress_bytes.load(Ordering::Relaxed);
        assert!(charged > 0 && left == 0, "charged {charged}, left {left}");
    }

    #[test]
    fn state_is_locked_for_a_portion_of_the_reads_at_a_time() {
        const READS: u64 = 4000;
        let value_bytes = 100;
        let mut connection = connection(value_bytes);
        for request_id in 1..=READS {
            get(b"k").encode_into(request_id, &mut connection.input);
        }
        connection.parse().unwrap();
        confirm(&mut connection);
        let mut portions = 0;
        while !connection.confirmed.is_empty() {
            let before = connection.output.len();
            connection.answer_portion();
            portions += 1;
            assert!(connection.output.len() - before < PORTION_BYTES + value_bytes + 1024);
        }
        assert!(portions > 5, "{portions}");
    }

    #[test]
    fn slots_are_reused_and_their_cost_is_returned() {
        let mut inflight = Inflight::default();
        let first = inflight.enter(Slot::One { request_id: 7, bytes: 10 });
        let query = Query::Get { key: Bytes::from_static(b"k") };
        let read = |request_id, bytes| Read { request_id, bytes, query: query.clone() };
        let second = inflight.enter(Slot::Reads(vec![read(8, 2), read(9, 3)]));
        assert_eq!((inflight.requests, inflight.bytes), (3, 15));
        assert!(inflight.leave(first).is_some());
        assert!(inflight.leave(first).is_none());
        assert_eq!(inflight.enter(Slot::One { request_id: 1, bytes: 1 }), first);
        assert!(inflight.leave(second).is_some());
        assert_eq!((inflight.requests, inflight.bytes), (1, 1));
        assert!(inflight.leave(99).is_none());
    }
}
