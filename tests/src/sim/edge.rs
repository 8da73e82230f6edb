//! The client connections of one process: frames in, frames out, through the functions that real connections use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use engine::Reader;
use parking_lot::RwLock;
use protocol::{
    Consistency, Error, ErrorCode, Frame, HANDSHAKE_BODY_BYTES_MAX, Hello, LeaderHint, Limits,
    Request, Response, Welcome, frame,
};
use server::replica::{Answer, ClientId, Input, Proposal, ReplyTo};
use server::requests::{Fetch, Plan, Query, View, answer_query, plan, reply_of};
use server::state_machine::State;

use super::network::{ConnId, Host, Network};

/// What connections of a serving process look at.
pub struct Serving {
    /// What reads look at.
    pub state: Arc<RwLock<State>>,
    /// Values in memory.
    pub reader: Reader,
    /// The cluster.
    pub cluster_id: u128,
    /// Who leads, as far as this node knows.
    pub leader: Option<LeaderHint>,
}

/// What an answer of the replica belongs to.
#[derive(Debug)]
enum Slot {
    One { request_id: u64 },
    Reads { reads: Vec<(u64, Query)> },
    Fetch { fetch: Box<Fetch> },
}

#[derive(Debug)]
struct Conn {
    client: ClientId,
    is_ready: bool,
    input: BytesMut,
    slots: BTreeMap<u64, Slot>,
    next_slot: u64,
    answers: Vec<(u64, Answer)>,
}

/// All client connections of one process.
pub struct Edge {
    host: Host,
    node: u64,
    limits: Limits,
    conns: BTreeMap<ConnId, Conn>,
    by_client: BTreeMap<ClientId, ConnId>,
    next_client: u64,
    /// For the process's inbox.
    pub inputs: Vec<Input>,
}

impl Edge {
    /// No connections yet.
    pub fn new(host: Host, node: u64) -> Edge {
        Edge {
            host,
            node,
            limits: Limits::default(),
            conns: BTreeMap::new(),
            by_client: BTreeMap::new(),
            next_client: 1,
            inputs: Vec::new(),
        }
    }

    /// A client has connected.
    pub fn accepted(&mut self, id: ConnId) {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let conn = Conn {
            client,
            is_ready: false,
            input: BytesMut::new(),
            slots: BTreeMap::new(),
            next_slot: 0,
            answers: Vec::new(),
        };
        self.conns.insert(id, conn);
        self.by_client.insert(client, id);
    }

    /// The client is gone.
    pub fn closed(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(&id) {
            self.by_client.remove(&conn.client);
        }
    }

    /// How many requests have no answer yet.
    pub fn requests(&self) -> usize {
        let slots = self.conns.values().flat_map(|conn| conn.slots.values());
        slots.map(|slot| if let Slot::Reads { reads } = slot { reads.len() } else { 1 }).sum()
    }

    /// Bytes have come. Without `serving` the node cannot serve yet and says so.
    pub fn data(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        serving: Option<&Serving>,
        network: &mut Network,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.input.extend_from_slice(bytes);
        let mut work = Work { reads: Vec::new(), output: BytesMut::new(), inputs: Vec::new() };
        let mut goes_on = true;
        while goes_on {
            let cap = if conn.is_ready {
                self.limits.request_body_bytes_max()
            } else {
                HANDSHAKE_BODY_BYTES_MAX
            };
            match frame::decode_request(&mut conn.input, cap) {
                Ok(Some(frame)) if conn.is_ready => {
                    conn.request(frame, serving, &self.limits, &mut work);
                }
                Ok(Some(frame)) => {
                    goes_on =
                        conn.greet(&frame, serving, (self.node, self.limits), &mut work.output);
                }
                Ok(None) => break,
                Err(error) => unreachable!("the simulated wire changes no byte: {error}"),
            }
        }
        conn.ask_reads(&mut work);
        self.inputs.append(&mut work.inputs);
        network.send(id, self.host, work.output.freeze());
        if !goes_on {
            network.close(id, self.host);
            self.closed(id);
        }
    }

    /// The replica has answered. Returns the connection if it has to be woken for that.
    pub fn answer(&mut self, to: ReplyTo, answer: Answer) -> Option<ConnId> {
        let id = *self.by_client.get(&to.client)?;
        let conn = self.conns.get_mut(&id)?;
        conn.answers.push((to.request, answer));
        (conn.answers.len() == 1).then_some(id)
    }

    /// The connection sends the answers that it has been given, and serves the reads among them from the state as it is now.
    pub fn wake(&mut self, id: ConnId, serving: &Serving, network: &mut Network) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut work = Work { reads: Vec::new(), output: BytesMut::new(), inputs: Vec::new() };
        for (slot, answer) in std::mem::take(&mut conn.answers) {
            if let Some(slot) = conn.slots.remove(&slot) {
                conn.take_answer(slot, answer, serving, &mut work);
            }
        }
        self.inputs.append(&mut work.inputs);
        network.send(id, self.host, work.output.freeze());
    }
}

/// What one arrival of bytes leads to.
struct Work {
    reads: Vec<(u64, Query)>,
    output: BytesMut,
    inputs: Vec<Input>,
}

impl Conn {
    /// Answers the hello. Returns whether the connection goes on.
    fn greet(
        &mut self,
        frame: &Frame,
        serving: Option<&Serving>,
        (node, limits): (u64, Limits),
        output: &mut BytesMut,
    ) -> bool {
        let hello = Hello::decode(frame.header.kind, frame.body.clone()).map_err(Error::from);
        let verdict = hello.and_then(|hello| {
            let Some(serving) = serving else {
                return Err(Error::not_done(ErrorCode::Unavailable, "this node is starting"));
            };
            let version = hello.accept(serving.cluster_id)?;
            let (cluster_id, leader) = (serving.cluster_id, serving.leader.clone());
            Ok(Welcome { version, cluster_id, node, leader, limits })
        });
        match &verdict {
            Ok(welcome) => welcome.encode_into(frame.header.request_id, output),
            Err(error) => error.encode_into(frame.header.request_id, output),
        }
        self.is_ready = verdict.is_ok();
        self.is_ready
    }

    fn request(
        &mut self,
        frame: Frame,
        serving: Option<&Serving>,
        limits: &Limits,
        work: &mut Work,
    ) {
        let request_id = frame.header.request_id;
        let request = Request::decode(frame.header.kind, frame.body).map_err(Error::from);
        let checked = request.and_then(|request| request.validate(limits).map(|()| request));
        match (checked, serving) {
            (Ok(request), Some(serving)) => self.carry_out(request_id, request, serving, work),
            (Err(error), _) => error.encode_into(request_id, &mut work.output),
            (Ok(_), None) => unreachable!("only a serving process welcomes clients"),
        }
    }

    fn carry_out(&mut self, request_id: u64, request: Request, serving: &Serving, work: &mut Work) {
        let mut command = BytesMut::new();
        let plan = match plan(request, &mut command) {
            Ok(plan) => plan,
            Err(error) => return error.encode_into(request_id, &mut work.output),
        };
        match plan {
            Plan::Write { room, wait } => {
                let reply_to = self.enter(Slot::One { request_id });
                let command = command.freeze();
                work.inputs.push(Input::Propose(Proposal { reply_to, command, room, wait }));
            }
            Plan::Read(query, Consistency::Linearizable) => work.reads.push((request_id, query)),
            Plan::Read(query, Consistency::Stale) => {
                self.read(request_id, &query, serving, work);
            }
            Plan::KeepAlive { session } => {
                let reply_to = self.enter(Slot::One { request_id });
                work.inputs.push(Input::KeepAlive { reply_to, session });
            }
            Plan::Status => {
                let reply_to = self.enter(Slot::One { request_id });
                work.inputs.push(Input::Status(reply_to));
            }
            Plan::Ping => Response::Pong.encode_into(request_id, &mut work.output),
        }
    }

    /// All reads of one arrival share one round.
    fn ask_reads(&mut self, work: &mut Work) {
        if !work.reads.is_empty() {
            let reads = std::mem::take(&mut work.reads);
            let reply_to = self.enter(Slot::Reads { reads });
            work.inputs.push(Input::Read(reply_to));
        }
    }

    /// Answers a read from the state as it is now, or asks for the values that it lacks.
    fn read(&mut self, request_id: u64, query: &Query, serving: &Serving, work: &mut Work) {
        let state = serving.state.read();
        let view = View { state: &state, reader: &serving.reader };
        if let Some(mut fetch) = answer_query(view, request_id, query, &mut work.output) {
            let (wanted, pin) = fetch.take_wanted();
            let reply_to = self.enter(Slot::Fetch { fetch: Box::new(fetch) });
            work.inputs.push(Input::Fetch { reply_to, wanted, pin });
        }
    }

    fn take_answer(&mut self, slot: Slot, answer: Answer, serving: &Serving, work: &mut Work) {
        match (slot, answer) {
            (Slot::Reads { reads }, Answer::ReadNow) => {
                for (request_id, query) in &reads {
                    self.read(*request_id, query, serving, work);
                }
            }
            (Slot::Reads { reads }, Answer::Error(error)) => {
                for (request_id, _) in &reads {
                    error.encode_into(*request_id, &mut work.output);
                }
            }
            (Slot::Fetch { fetch }, Answer::Values(values)) => {
                fetch.answer(values, &mut work.output);
            }
            (Slot::One { request_id }, answer) => {
                encode_answer(request_id, answer, &mut work.output);
            }
            (slot, answer) => unreachable!("{slot:?} is not answered with {answer:?}"),
        }
    }

    fn enter(&mut self, slot: Slot) -> ReplyTo {
        let request = self.next_slot;
        self.next_slot += 1;
        self.slots.insert(request, slot);
        ReplyTo { client: self.client, request }
    }
}

fn encode_answer(request_id: u64, answer: Answer, output: &mut BytesMut) {
    match answer {
        Answer::ReadNow | Answer::Values(_) => unreachable!("only reads are answered so"),
        Answer::Error(error) => error.encode_into(request_id, output),
        Answer::Outcome(outcome) => reply_of(outcome).encode_into(request_id, output),
        Answer::Alive { ttl_ms } => {
            Response::SessionAlive { ttl_ms }.encode_into(request_id, output);
        }
        Answer::Status(status) => Response::Status(status).encode_into(request_id, output),
    }
}
