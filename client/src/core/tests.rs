//! Scenarios: a core, a hand-moved clock, and nodes that answer what the scenario says.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use protocol::{
    Certainty, Error as Refusal, ErrorCode, Expect, Hello, LeaderHint, Limits, Origin, Request,
    Response, SESSION_WINDOW, Wait, Welcome, frame,
};

use super::{Call, ConnId, Core, Micros, Output, SessionKey, Target, Ticket};
use crate::Error;

const CLUSTER: u128 = 77;
const MS: u64 = 1_000;

/// A request as a node received it.
#[derive(Clone, Debug)]
struct Arrived {
    id: u64,
    request: Request,
}

struct World {
    core: Core,
    now: Micros,
    /// Open or opening connections, by address.
    links: BTreeMap<String, ConnId>,
    arrived: BTreeMap<ConnId, Vec<Arrived>>,
    done: BTreeMap<Ticket, Result<Response, Error>>,
    lost: Vec<SessionKey>,
    connects: Vec<String>,
}

impl World {
    fn new(endpoints: &[&str]) -> World {
        let endpoints: Vec<String> = endpoints.iter().map(|addr| (*addr).to_owned()).collect();
        let mut core = Core::new(Hello::new("test"), &endpoints, 1).unwrap();
        core.endpoints.set_leader(0);
        World {
            core,
            now: Micros(1_000_000),
            links: BTreeMap::new(),
            arrived: BTreeMap::new(),
            done: BTreeMap::new(),
            lost: Vec::new(),
            connects: Vec::new(),
        }
    }

    /// One node that leads, connected.
    fn with_leader() -> World {
        let mut world = World::new(&["a:1"]);
        let ping = world.call(Request::Ping, 5_000 * MS);
        world.welcome("a:1", 1, None);
        world.answer("a:1", Response::Pong);
        assert_eq!(world.result(ping), Ok(Response::Pong));
        world
    }

    /// The same with an open session of ten seconds.
    fn with_session() -> (World, SessionKey) {
        let mut world = World::with_leader();
        let deadline = world.now.plus(5_000 * MS);
        let (key, ticket) = world.core.open_session(world.now, 10_000, Bytes::new(), deadline);
        world.settle();
        let opened = Response::SessionOpened { session: 9, generation: 1, ttl_ms: 10_000 };
        world.answer("a:1", opened.clone());
        assert_eq!(world.result(ticket), Ok(opened));
        (world, key)
    }

    fn call(&mut self, request: Request, timeout_us: u64) -> Ticket {
        let call = Call::to_leader(request, self.now.plus(timeout_us));
        self.submit(call)
    }

    fn call_in(&mut self, session: SessionKey, request: Request, timeout_us: u64) -> Ticket {
        let deadline = self.now.plus(timeout_us);
        self.submit(Call { session: Some(session), ..Call::to_leader(request, deadline) })
    }

    fn submit(&mut self, call: Call) -> Ticket {
        let ticket = self.core.submit(self.now, call);
        self.settle();
        ticket
    }

    /// Does what the core orders.
    fn settle(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect { conn, addr } => {
                    self.connects.push(addr.clone());
                    assert!(self.links.insert(addr, conn).is_none(), "one connection per address");
                }
                Output::Close { conn } => self.links.retain(|_, open| *open != conn),
                Output::Send { conn, bytes } => self.receive(conn, bytes),
                Output::Done { ticket, result } => {
                    assert!(self.done.insert(ticket, result).is_none(), "one outcome per call");
                }
                Output::SessionOpened { .. } => {}
                Output::SessionLost { session, .. } => self.lost.push(session),
            }
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: Bytes) {
        let mut bytes = BytesMut::from(bytes);
        while let Some(frame) = frame::decode(&mut bytes, u32::MAX).unwrap() {
            let kind = frame.header.kind;
            if Hello::decode(kind, frame.body.clone()).is_err() {
                let request = Request::decode(kind, frame.body).unwrap();
                let arrived = Arrived { id: frame.header.request_id, request };
                self.arrived.entry(conn).or_default().push(arrived);
            }
        }
        assert!(bytes.is_empty(), "only whole frames are sent");
    }

    fn link(&self, addr: &str) -> ConnId {
        *self.links.get(addr).unwrap_or_else(|| panic!("no connection to {addr}"))
    }

    fn accept(&mut self, addr: &str) {
        self.core.connected(self.now, self.link(addr));
        self.settle();
    }

    fn welcome(&mut self, addr: &str, node: u64, leader: Option<(u64, &str)>) {
        self.accept(addr);
        let leader = leader.map(|(node, addr)| LeaderHint { node, addr: addr.to_owned() });
        let limits = Limits::default();
        let welcome = Welcome { version: 1, cluster_id: CLUSTER, node, leader, limits };
        let mut wire = BytesMut::new();
        welcome.encode_into(1, &mut wire);
        self.deliver(addr, wire);
    }

    /// Where the core connects to next.
    fn next_link(&mut self) -> String {
        while self.links.is_empty() {
            self.advance(MS);
        }
        self.links.keys().next().cloned().expect("there is one")
    }

    /// Answers the hello with an error.
    fn refuse(&mut self, addr: &str, code: ErrorCode) {
        self.accept(addr);
        let mut wire = BytesMut::new();
        Refusal::not_done(code, "no").encode_into(1, &mut wire);
        self.deliver(addr, wire);
    }

    fn deliver(&mut self, addr: &str, mut wire: BytesMut) {
        let conn = self.link(addr);
        let frame = frame::decode(&mut wire, self.core.body_bytes_max(conn)).unwrap().unwrap();
        self.core.received(self.now, conn, frame);
        self.settle();
    }

    /// The oldest request that `addr` has not answered.
    fn take(&mut self, addr: &str) -> Arrived {
        let conn = self.link(addr);
        let arrived = self.arrived.get_mut(&conn).filter(|arrived| !arrived.is_empty());
        arrived.unwrap_or_else(|| panic!("{addr} has no request to answer")).remove(0)
    }

    /// The requests that `addr` has not answered.
    fn arrived_at(&self, addr: &str) -> Vec<Arrived> {
        self.arrived.get(&self.link(addr)).cloned().unwrap_or_default()
    }

    fn has_request(&self, addr: &str) -> bool {
        let conn = self.links.get(addr);
        conn.and_then(|conn| self.arrived.get(conn)).is_some_and(|arrived| !arrived.is_empty())
    }

    fn answer(&mut self, addr: &str, response: impl Borrow<Response>) -> Request {
        let Arrived { id, request } = self.take(addr);
        self.answer_to(addr, id, response.borrow());
        request
    }

    fn answer_to(&mut self, addr: &str, id: u64, response: &Response) {
        let mut wire = BytesMut::new();
        response.encode_into(id, &mut wire);
        self.deliver(addr, wire);
    }

    fn break_link(&mut self, addr: &str) {
        let conn = self.links.remove(addr).unwrap_or_else(|| panic!("no connection to {addr}"));
        self.core.disconnected(self.now, conn, "connection reset");
        self.settle();
    }

    /// Moves the clock on, never past a moment at which the core wants to be woken.
    fn advance(&mut self, micros: u64) {
        let until = self.now.plus(micros);
        let mut turns = 0;
        while self.core.wake_at() <= until {
            assert!(self.core.wake_at() > self.now || turns < 1_000, "the core spins");
            turns += 1;
            self.now = self.now.max(self.core.wake_at());
            self.core.tick(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn result(&mut self, ticket: Ticket) -> Result<Response, Error> {
        self.done.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} has no outcome yet"))
    }

    fn certainty(&mut self, ticket: Ticket) -> Certainty {
        self.result(ticket).expect_err("the call failed").certainty()
    }
}

fn put() -> Request {
    Request::Put {
        origin: Origin::NONE,
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
    }
}

fn get() -> Request {
    Request::Get { consistency: protocol::Consistency::Linearizable, key: Bytes::from_static(b"k") }
}

fn acquire(wait: Wait) -> Request {
    Request::LockAcquire { origin: Origin::NONE, name: Bytes::from_static(b"l"), wait }
}

fn refusal(code: ErrorCode, certainty: Certainty) -> Response {
    Response::Error(Refusal::new(code, certainty, "no"))
}

fn not_leader(leader: Option<(u64, &str)>) -> Response {
    let hint = leader.map(|(node, addr)| LeaderHint { node, addr: addr.to_owned() });
    Response::Error(Refusal::not_leader(hint))
}

const PUT_DONE: Response = Response::Put { revision: 2 };

#[test]
fn bad_endpoints_are_the_callers_mistake() {
    let new = |endpoints: &[&str]| {
        let endpoints: Vec<String> = endpoints.iter().map(|addr| (*addr).to_owned()).collect();
        Core::new(Hello::new("test"), &endpoints, 1).map(|_| ())
    };
    assert_eq!(new(&[]), Err(Error::NoEndpoints));
    for bad in ["", "host", "host:", ":7400", "host:0", "host:65536", "host:port"] {
        assert_eq!(new(&[bad]), Err(Error::BadEndpoint { endpoint: bad.to_owned() }), "{bad}");
    }
    assert_eq!(new(&["host:1", "127.0.0.1:7400", "[::1]:7400"]), Ok(()));
}

#[test]
fn nothing_is_connected_before_the_first_call() {
    let mut world = World::new(&["a:1", "b:1"]);
    world.advance(60_000 * MS);
    assert!(world.connects.is_empty());
    assert_eq!(world.core.wake_at(), Micros::NEVER);
}

#[test]
fn calls_are_pipelined_on_one_connection_and_matched_by_id() {
    let mut world = World::with_leader();
    let first = world.call(put(), 5_000 * MS);
    let second = world.call(get(), 5_000 * MS);
    let (put, get) = (world.take("a:1"), world.take("a:1"));
    let got = Response::Get { revision: 2, item: None };
    world.answer_to("a:1", get.id, &got);
    world.answer_to("a:1", put.id, &PUT_DONE);
    assert_eq!(world.result(second), Ok(got));
    assert_eq!(world.result(first), Ok(PUT_DONE));
}

#[test]
fn hint_of_the_welcome_is_followed_to_an_address_that_was_not_given() {
    let mut world = World::new(&["a:1"]);
    let ticket = world.call(put(), 5_000 * MS);
    world.welcome("a:1", 1, Some((2, "elsewhere:2")));
    world.welcome("elsewhere:2", 2, Some((2, "elsewhere:2")));
    world.answer("elsewhere:2", PUT_DONE);
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
    assert!(!world.has_request("a:1"));
}

#[test]
fn hint_of_a_refusal_is_followed_and_the_write_is_sent_once_more() {
    let mut world = World::with_leader();
    let ticket = world.call(put(), 5_000 * MS);
    world.answer("a:1", not_leader(Some((2, "b:1"))));
    world.welcome("b:1", 2, None);
    world.answer("b:1", PUT_DONE);
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
}

#[test]
fn many_refusals_at_once_move_the_leader_once() {
    let mut world = World::new(&["a:1", "b:1", "c:1"]);
    let tickets: Vec<Ticket> = (0..10).map(|_| world.call(put(), 5_000 * MS)).collect();
    world.welcome("a:1", 1, None);
    for _ in 0..10 {
        world.answer("a:1", not_leader(Some((3, "c:1"))));
    }
    world.welcome("c:1", 3, None);
    for ticket in tickets {
        world.answer("c:1", PUT_DONE);
        assert_eq!(world.result(ticket), Ok(PUT_DONE));
    }
    assert_eq!(world.connects, ["a:1", "c:1"]);
}

#[test]
fn many_refusals_at_once_lengthen_the_pause_once() {
    let mut world = World::with_leader();
    for _ in 0..50 {
        world.call(put(), 5_000 * MS);
    }
    for _ in 0..50 {
        world.answer("a:1", refusal(ErrorCode::Unavailable, Certainty::NotDone));
    }
    assert!(!world.has_request("a:1"), "time has to pass first");
    world.advance(10 * MS);
    assert!(world.has_request("a:1"), "the first pause is short");
}

#[test]
fn nodes_that_point_at_each_other_are_not_asked_without_pause() {
    let mut world = World::new(&["a:1", "b:1"]);
    let ticket = world.call(put(), 1_000 * MS);
    world.welcome("a:1", 1, None);
    let mut answers = 0;
    for _ in 0..200 {
        for (addr, other) in [("a:1", (2, "b:1")), ("b:1", (1, "a:1"))] {
            if world.links.contains_key(addr) && world.core.conn(world.link(addr)).node == 0 {
                world.welcome(addr, if addr == "a:1" { 1 } else { 2 }, None);
            }
            if world.has_request(addr) {
                answers += 1;
                world.answer(addr, not_leader(Some(other)));
            }
        }
        world.advance(5 * MS);
    }
    assert_eq!(world.certainty(ticket), Certainty::NotDone);
    assert!((5..80).contains(&answers), "{answers} answers in a second");
}

#[test]
fn without_a_leader_every_node_is_asked_until_there_is_one() {
    let mut world = World::new(&["a:1", "b:1"]);
    let ticket = world.call(put(), 5_000 * MS);
    world.welcome("a:1", 1, None);
    world.answer("a:1", refusal(ErrorCode::Unavailable, Certainty::NotDone));
    world.advance(100 * MS);
    world.welcome("b:1", 2, None);
    world.answer("b:1", refusal(ErrorCode::Unavailable, Certainty::NotDone));
    world.advance(100 * MS);
    world.answer("a:1", PUT_DONE);
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
}

#[test]
fn time_to_wait_that_the_server_asks_for_is_kept() {
    let mut world = World::with_leader();
    let ticket = world.call(put(), 5_000 * MS);
    let busy = Refusal::not_done(ErrorCode::TooManyRequests, "busy").with_retry_after_ms(700);
    world.answer("a:1", Response::Error(busy));
    world.advance(699 * MS);
    assert!(!world.has_request("a:1"));
    world.advance(MS);
    world.answer("a:1", PUT_DONE);
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
}

#[test]
fn unreachable_cluster_ends_in_a_timeout_that_says_why() {
    let mut world = World::new(&["a:1"]);
    let ticket = world.call(put(), 1_000 * MS);
    while !world.done.contains_key(&ticket) {
        if world.links.contains_key("a:1") {
            world.break_link("a:1");
        }
        world.advance(10 * MS);
    }
    let error = world.result(ticket).expect_err("nobody answered");
    assert_eq!(error.certainty(), Certainty::NotDone);
    assert!(error.to_string().contains("a:1: connection reset"), "{error}");
    assert!((4..60).contains(&world.connects.len()), "{} attempts", world.connects.len());
}

#[test]
fn write_without_a_session_is_never_repeated_when_its_connection_breaks() {
    let mut world = World::with_leader();
    let ticket = world.call(put(), 5_000 * MS);
    world.break_link("a:1");
    assert_eq!(world.certainty(ticket), Certainty::Unknown);
    world.advance(1_000 * MS);
    assert_eq!(world.core.pending_calls(), 0);
    assert!(world.links.is_empty(), "nothing is left to send");
}

#[test]
fn write_without_a_session_is_never_repeated_after_an_unknown_answer() {
    for code in [ErrorCode::LeadershipLost, ErrorCode::Timeout, ErrorCode::Unavailable] {
        let mut world = World::with_leader();
        let ticket = world.call(put(), 5_000 * MS);
        world.answer("a:1", refusal(code, Certainty::Unknown));
        assert_eq!(world.certainty(ticket), Certainty::Unknown);
        world.advance(1_000 * MS);
        assert!(!world.has_request("a:1"), "{code}");
    }
}

#[test]
fn write_that_was_certainly_not_done_is_repeated_without_a_session() {
    for code in [ErrorCode::NotLeader, ErrorCode::Unavailable, ErrorCode::ShuttingDown] {
        let mut world = World::with_leader();
        let ticket = world.call(put(), 5_000 * MS);
        world.answer("a:1", refusal(code, Certainty::NotDone));
        world.advance(1_000 * MS);
        world.answer("a:1", PUT_DONE);
        assert_eq!(world.result(ticket), Ok(PUT_DONE), "{code}");
    }
}

#[test]
fn read_is_repeated_whatever_became_of_it() {
    let mut world = World::with_leader();
    let ticket = world.call(get(), 5_000 * MS);
    world.break_link("a:1");
    world.advance(50 * MS);
    world.welcome("a:1", 1, None);
    world.answer("a:1", refusal(ErrorCode::LeadershipLost, Certainty::Unknown));
    world.advance(200 * MS);
    let got = Response::Get { revision: 5, item: None };
    world.answer("a:1", got.clone());
    assert_eq!(world.result(ticket), Ok(got));
}

#[test]
fn read_that_timed_out_is_not_unknown() {
    let mut world = World::with_leader();
    let ticket = world.call(get(), 300 * MS);
    world.advance(300 * MS);
    assert_eq!(world.certainty(ticket), Certainty::NotDone);
}

#[test]
fn write_that_timed_out_on_its_way_is_unknown_and_its_late_answer_is_ignored() {
    let mut world = World::with_leader();
    let ticket = world.call(put(), 300 * MS);
    world.advance(300 * MS);
    assert_eq!(world.certainty(ticket), Certainty::Unknown);
    world.answer("a:1", PUT_DONE);
    assert!(world.done.is_empty());
}

#[test]
fn final_refusal_is_told_at_once() {
    let mut world = World::with_leader();
    let ticket = world.call(put(), 5_000 * MS);
    world.answer("a:1", refusal(ErrorCode::ResourceExhausted, Certainty::NotDone));
    let error = world.result(ticket).expect_err("it was refused");
    assert_eq!(error.code(), ErrorCode::ResourceExhausted);
    assert_eq!(error.certainty(), Certainty::NotDone);
}

#[test]
fn oversized_value_is_refused_before_it_is_sent() {
    let mut world = World::with_leader();
    let value = Bytes::from(vec![0; protocol::VALUE_BYTES_MAX_DEFAULT + 1]);
    let key = Bytes::from_static(b"k");
    let ticket = world.call(Request::Put { origin: Origin::NONE, key, value }, 5_000 * MS);
    let error = world.result(ticket).expect_err("it is too large");
    assert_eq!(error.code(), ErrorCode::TooLarge);
    assert!(!world.has_request("a:1"));
}

#[test]
fn silent_node_is_pinged_then_given_up_and_the_read_goes_elsewhere() {
    let mut world = World::new(&["a:1", "b:1"]);
    let ticket = world.call(get(), 5_000 * MS);
    world.welcome("a:1", 1, None);
    world.take("a:1");
    world.advance(500 * MS);
    assert_eq!(world.take("a:1").request, Request::Ping);
    world.advance(600 * MS);
    assert!(!world.links.contains_key("a:1"));
    world.welcome("b:1", 2, None);
    let got = Response::Get { revision: 5, item: None };
    world.answer("b:1", got.clone());
    assert_eq!(world.result(ticket), Ok(got));
}

#[test]
fn slow_answer_does_not_end_a_connection_that_answers_pings() {
    let mut world = World::with_leader();
    let ticket = world.call(put(), 60_000 * MS);
    let slow = world.take("a:1");
    for _ in 0..20 {
        world.advance(450 * MS);
        while world.has_request("a:1") {
            assert_eq!(world.answer("a:1", Response::Pong), Request::Ping);
        }
    }
    world.answer_to("a:1", slow.id, &PUT_DONE);
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
}

#[test]
fn node_of_another_cluster_is_not_believed() {
    let mut world = World::new(&["a:1", "b:1"]);
    let ticket = world.call(put(), 5_000 * MS);
    world.core.cluster_id = Some(CLUSTER + 1);
    world.welcome("a:1", 1, None);
    assert!(!world.has_request("a:1"));
    assert!(world.connects.contains(&"b:1".to_owned()));
    world.advance(5_000 * MS);
    let error = world.result(ticket).expect_err("no node of the cluster answered");
    assert_eq!(error.certainty(), Certainty::NotDone);
}

/// A refusal that no retry cures was retried until the deadline, and told as a timeout.
#[test]
fn call_ends_with_the_refusal_when_every_node_refuses_the_client_for_good() {
    let mut world = World::new(&["a:1", "b:1"]);
    let call = world.call(put(), 5_000 * MS);
    world.refuse("a:1", ErrorCode::UnsupportedVersion);
    assert!(!world.done.contains_key(&call), "the other node may be another release");
    world.refuse("b:1", ErrorCode::UnsupportedVersion);
    let error = world.result(call).expect_err("nobody took the client");
    assert_eq!(error.code(), ErrorCode::UnsupportedVersion);
    assert_eq!(error.certainty(), Certainty::NotDone);
    assert!(error.to_string().starts_with("b:1: no "), "{error}");

    let later = world.call(put(), 5_000 * MS);
    let first = world.next_link();
    world.refuse(&first, ErrorCode::UnsupportedVersion);
    let second = world.next_link();
    assert_ne!(first, second);
    world.welcome(&second, 2, None);
    world.answer(&second, PUT_DONE);
    assert_eq!(world.result(later), Ok(PUT_DONE), "the node may have been replaced");
}

#[test]
fn node_that_is_not_ready_or_cannot_be_reached_does_not_refuse_for_good() {
    let mut world = World::new(&["a:1", "b:1"]);
    let call = world.call(put(), 5_000 * MS);
    world.refuse("a:1", ErrorCode::Unavailable);
    world.refuse("b:1", ErrorCode::WrongCluster);
    for _ in 0..10 {
        match world.next_link().as_str() {
            "a:1" => world.break_link("a:1"),
            other => world.refuse(other, ErrorCode::WrongCluster),
        }
    }
    assert!(!world.done.contains_key(&call));
}

#[test]
fn refusal_for_good_leaves_unknown_what_an_earlier_node_may_have_done() {
    let (mut world, session) = World::with_session();
    let call = world.call_in(session, put(), 5_000 * MS);
    world.break_link("a:1");
    world.advance(1_000 * MS);
    world.refuse("a:1", ErrorCode::WrongCluster);
    assert_eq!(world.certainty(call), Certainty::Unknown);
}

#[test]
fn call_to_one_endpoint_ends_with_its_refusal() {
    let mut world = World::with_leader();
    let target = Target::Endpoint("z:9".to_owned());
    let call = Call { target, ..Call::to_leader(Request::Status, world.now.plus(5_000 * MS)) };
    let ticket = world.submit(call);
    world.refuse("z:9", ErrorCode::WrongCluster);
    let error = world.result(ticket).expect_err("it was refused");
    assert_eq!(error.code(), ErrorCode::WrongCluster);
}

#[test]
fn answer_to_no_request_ends_the_connection() {
    let mut world = World::with_leader();
    world.answer_to("a:1", 999_999, &Response::Pong);
    assert!(world.links.is_empty());
}

#[test]
fn call_to_one_endpoint_is_tried_once() {
    let mut world = World::with_leader();
    let target = Target::Endpoint("z:9".to_owned());
    let call = Call { target, ..Call::to_leader(Request::Status, world.now.plus(5_000 * MS)) };
    let ticket = world.submit(call);
    world.break_link("z:9");
    let error = world.result(ticket).expect_err("it cannot be reached");
    assert_eq!(error.certainty(), Certainty::NotDone);
    assert!(error.to_string().contains("z:9"), "{error}");
    assert_eq!(world.core.endpoints.leader(), 0, "the leader is still the leader");
}

#[test]
fn in_flight_limit_of_the_server_is_kept() {
    let mut world = World::with_leader();
    let limit = Limits::default().inflight_requests_max;
    let tickets: Vec<Ticket> = (0..limit + 10).map(|_| world.call(get(), 5_000 * MS)).collect();
    let sent = limit as usize - 8;
    assert_eq!(world.arrived_at("a:1").len(), sent, "some places are for pings and keep-alives");
    world.answer("a:1", Response::Get { revision: 1, item: None });
    assert_eq!(world.arrived_at("a:1").len(), sent, "one answered, one sent");
    assert!(world.result(tickets[0]).is_ok());
}

/// Acquires that wait for their locks filled all places of a connection. The server read no further:
/// the ping had no answer, the connection was given up, and the sessions were not kept alive.
#[test]
fn acquires_that_wait_leave_places_for_pings_and_keep_alives() {
    let (mut world, first) = World::with_session();
    let mut sessions = vec![first];
    while sessions.len() < 5 {
        let deadline = world.now.plus(5_000 * MS);
        sessions.push(world.core.open_session(world.now, 10_000, Bytes::new(), deadline).0);
        world.settle();
        let opened = Response::SessionOpened { session: 10, generation: 1, ttl_ms: 10_000 };
        world.answer("a:1", opened);
    }
    for session in &sessions {
        for _ in 0..1000 {
            world.call_in(*session, acquire(Wait::Forever), 60_000 * MS);
        }
    }
    let mut kept_alive = 0;
    for _ in 0..300 {
        world.advance(100 * MS);
        let arrived = world.arrived_at("a:1");
        assert!(arrived.len() <= Limits::default().inflight_requests_max as usize);
        let is_acquire = |arrived: &Arrived| matches!(arrived.request, Request::LockAcquire { .. });
        for Arrived { id, request } in arrived.into_iter().filter(|one| !is_acquire(one)) {
            let alive = matches!(request, Request::SessionKeepAlive { .. });
            kept_alive += u32::from(alive);
            let response =
                if alive { Response::SessionAlive { ttl_ms: 10_000 } } else { Response::Pong };
            let conn = world.link("a:1");
            world.arrived.get_mut(&conn).unwrap().retain(|arrived| arrived.id != id);
            world.answer_to("a:1", id, &response);
        }
    }
    assert!(world.lost.is_empty());
    assert!(kept_alive >= 5 * 8, "{kept_alive}");
    assert_eq!(world.connects, ["a:1"]);
}

#[test]
fn session_write_is_repeated_under_its_sequence_after_a_broken_connection() {
    let (mut world, session) = World::with_session();
    let ticket = world.call_in(session, put(), 5_000 * MS);
    let first = world.take("a:1").request;
    world.break_link("a:1");
    world.advance(50 * MS);
    world.welcome("a:1", 1, None);
    let second = world.answer("a:1", PUT_DONE);
    assert_eq!(first.origin().map(|origin| (origin.session, origin.sequence)), Some((9, 1)));
    assert_eq!(first, second);
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
}

#[test]
fn refusal_of_a_repetition_does_not_undo_what_the_first_attempt_may_have_done() {
    for code in [ErrorCode::SessionUnknown, ErrorCode::ResourceExhausted, ErrorCode::TooLarge] {
        let (mut world, session) = World::with_session();
        let ticket = world.call_in(session, put(), 5_000 * MS);
        world.break_link("a:1");
        world.advance(50 * MS);
        world.welcome("a:1", 1, None);
        world.answer("a:1", refusal(code, Certainty::NotDone));
        assert_eq!(world.certainty(ticket), Certainty::Unknown, "{code}");
    }
}

#[test]
fn refusal_out_of_the_log_is_certain_even_for_a_repetition() {
    let (mut world, session) = World::with_session();
    let name = Bytes::from_static(b"l");
    let release = Request::LockRelease { origin: Origin::NONE, name, token: 3 };
    let ticket = world.call_in(session, release, 5_000 * MS);
    world.break_link("a:1");
    world.advance(50 * MS);
    world.welcome("a:1", 1, None);
    world.answer("a:1", refusal(ErrorCode::NotHolder, Certainty::NotDone));
    assert_eq!(world.certainty(ticket), Certainty::NotDone);
}

#[test]
fn session_write_that_times_out_after_being_sent_is_unknown() {
    let (mut world, session) = World::with_session();
    let ticket = world.call_in(session, put(), 1_000 * MS);
    world.break_link("a:1");
    world.advance(1_000 * MS);
    assert_eq!(world.certainty(ticket), Certainty::Unknown);
}

#[test]
fn lowest_unanswered_moves_on_with_the_answers() {
    let (mut world, session) = World::with_session();
    for _ in 0..3 {
        world.call_in(session, put(), 5_000 * MS);
    }
    let sent: Vec<Arrived> = (0..3).map(|_| world.take("a:1")).collect();
    world.answer_to("a:1", sent[1].id, &PUT_DONE);
    world.call_in(session, put(), 5_000 * MS);
    let fourth = world.take("a:1");
    world.answer_to("a:1", sent[0].id, &PUT_DONE);
    world.call_in(session, put(), 5_000 * MS);
    let fifth = world.take("a:1");
    let origin = |arrived: &Arrived| arrived.request.origin().unwrap();
    assert_eq!(origin(&fourth), Origin { session: 9, sequence: 4, lowest_unanswered: 1 });
    assert_eq!(origin(&fifth), Origin { session: 9, sequence: 5, lowest_unanswered: 3 });
}

#[test]
fn full_window_holds_calls_back_until_the_oldest_is_answered() {
    let (mut world, session) = World::with_session();
    let window = usize::try_from(SESSION_WINDOW).unwrap();
    let tickets: Vec<Ticket> =
        (0..window + 2).map(|_| world.call_in(session, put(), 5_000 * MS)).collect();
    let sent: Vec<Arrived> = (0..window).map(|_| world.take("a:1")).collect();
    assert!(!world.has_request("a:1"));
    world.answer_to("a:1", sent[1].id, &PUT_DONE);
    assert!(!world.has_request("a:1"));
    world.answer_to("a:1", sent[0].id, &PUT_DONE);
    world.answer("a:1", PUT_DONE);
    world.answer("a:1", PUT_DONE);
    assert_eq!(world.result(tickets[window + 1]), Ok(PUT_DONE));
}

#[test]
fn window_that_is_full_behind_a_waiting_acquire_refuses_instead_of_stalling() {
    let (mut world, session) = World::with_session();
    world.call_in(session, acquire(Wait::Forever), 60_000 * MS);
    for _ in 1..SESSION_WINDOW {
        world.call_in(session, put(), 5_000 * MS);
    }
    let ticket = world.call_in(session, put(), 5_000 * MS);
    let error = world.result(ticket).expect_err("the window is full");
    assert_eq!(error.code(), ErrorCode::SequenceTooFar);
    assert_eq!(error.certainty(), Certainty::NotDone);
}

#[test]
fn calls_made_while_a_session_opens_are_sent_when_it_is_open() {
    let mut world = World::with_leader();
    let deadline = world.now.plus(5_000 * MS);
    let (key, _) = world.core.open_session(world.now, 10_000, Bytes::new(), deadline);
    let ticket = world.call_in(key, put(), 5_000 * MS);
    let opened = Response::SessionOpened { session: 4, generation: 1, ttl_ms: 10_000 };
    assert!(matches!(world.answer("a:1", opened), Request::SessionOpen { .. }));
    assert_eq!(world.answer("a:1", PUT_DONE).origin().map(|origin| origin.session), Some(4));
    assert_eq!(world.result(ticket), Ok(PUT_DONE));
}

#[test]
fn open_is_repeated_with_the_same_nonce() {
    let mut world = World::with_leader();
    let deadline = world.now.plus(5_000 * MS);
    world.core.open_session(world.now, 10_000, Bytes::new(), deadline);
    world.settle();
    let first = world.take("a:1").request;
    world.break_link("a:1");
    world.advance(50 * MS);
    world.welcome("a:1", 1, None);
    assert_eq!(world.take("a:1").request, first);
}

#[test]
fn session_is_kept_alive_three_times_within_its_ttl() {
    let (mut world, _) = World::with_session();
    let mut keep_alives = 0;
    for _ in 0..600 {
        world.advance(100 * MS);
        while world.has_request("a:1") {
            let alive = Response::SessionAlive { ttl_ms: 10_000 };
            assert_eq!(world.answer("a:1", alive), Request::SessionKeepAlive { session: 9 });
            keep_alives += 1;
        }
    }
    assert!((17..=19).contains(&keep_alives), "{keep_alives} in a minute");
    assert!(world.lost.is_empty());
}

#[test]
fn session_is_lost_a_ttl_after_the_sending_of_the_last_answered_keep_alive() {
    let (mut world, session) = World::with_session();
    world.advance(4_000 * MS);
    let sent_at = Micros(world.now.0 - 4_000 * MS + 10_000 * MS / 3);
    // The answer takes three seconds: they count against the life that it grants.
    let keep_alive = world.take("a:1");
    world.advance(300 * MS);
    while world.has_request("a:1") {
        world.answer("a:1", Response::Pong);
    }
    world.answer_to("a:1", keep_alive.id, &Response::SessionAlive { ttl_ms: 10_000 });
    let until = sent_at.plus(10_000 * MS);
    world.advance(until.0 - world.now.0 - 1);
    assert!(world.lost.is_empty());
    world.advance(1);
    assert_eq!(world.lost, [session]);
}

#[test]
fn calls_of_a_lost_session_end_with_what_is_certain_of_them() {
    let (mut world, session) = World::with_session();
    let sent = world.call_in(session, put(), 60_000 * MS);
    world.break_link("a:1");
    let unsent = world.call_in(session, put(), 60_000 * MS);
    world.advance(10_000 * MS);
    assert_eq!(world.lost, [session]);
    assert_eq!(world.certainty(sent), Certainty::Unknown);
    assert_eq!(world.certainty(unsent), Certainty::NotDone);
    let late = world.call_in(session, put(), 1_000 * MS);
    world.advance(1_000 * MS);
    assert_eq!(world.certainty(late), Certainty::NotDone);
}

#[test]
fn session_that_the_server_does_not_know_is_lost_at_once() {
    let (mut world, session) = World::with_session();
    let waiting = world.call_in(session, acquire(Wait::Forever), 60_000 * MS);
    world.take("a:1");
    let ticket = world.call_in(session, put(), 5_000 * MS);
    world.answer("a:1", refusal(ErrorCode::SessionUnknown, Certainty::NotDone));
    assert_eq!(world.lost, [session]);
    assert_eq!(world.certainty(ticket), Certainty::NotDone);
    assert_eq!(world.certainty(waiting), Certainty::Unknown);
    assert_eq!(world.core.pending_calls(), 0);
}

#[test]
fn close_ends_the_session_once() {
    let (mut world, session) = World::with_session();
    let deadline = world.now.plus(5_000 * MS);
    let ticket = world.core.close_session(world.now, session, deadline);
    world.settle();
    let closed = Response::SessionClosed { existed: true };
    assert_eq!(world.answer("a:1", closed.clone()), Request::SessionClose { session: 9 });
    assert_eq!(world.result(ticket), Ok(closed));
    assert_eq!(world.lost, [session]);
    world.advance(60_000 * MS);
    assert!(!world.has_request("a:1"), "nothing is kept alive");
}

#[test]
fn session_that_opens_after_it_was_given_up_is_closed() {
    let mut world = World::with_leader();
    let deadline = world.now.plus(5_000 * MS);
    let (session, ticket) = world.core.open_session(world.now, 10_000, Bytes::new(), deadline);
    world.settle();
    world.core.abandon(world.now, ticket);
    world.settle();
    assert_eq!(world.lost, [session]);
    world.answer("a:1", Response::SessionOpened { session: 4, generation: 1, ttl_ms: 10_000 });
    assert_eq!(world.take("a:1").request, Request::SessionClose { session: 4 });
}

#[test]
fn acquire_is_repeated_under_its_sequence_and_so_attached_again() {
    let (mut world, session) = World::with_session();
    let ticket = world.call_in(session, acquire(Wait::Forever), 60_000 * MS);
    let first = world.take("a:1").request;
    world.break_link("a:1");
    world.advance(50 * MS);
    world.welcome("a:1", 1, None);
    let granted = Response::LockGranted { token: 12 };
    assert_eq!(world.answer("a:1", granted.clone()), first);
    assert_eq!(world.result(ticket), Ok(granted));
}

#[test]
fn lock_that_nobody_waits_for_any_more_is_given_back_when_it_is_granted() {
    let (mut world, session) = World::with_session();
    let ticket = world.call_in(session, acquire(Wait::Forever), 60_000 * MS);
    world.core.abandon(world.now, ticket);
    world.answer("a:1", Response::LockGranted { token: 12 });
    let release = world.answer("a:1", Response::LockReleased);
    assert!(matches!(release, Request::LockRelease { token: 12, .. }), "{release:?}");
    assert!(world.done.is_empty());
    assert_eq!(world.core.pending_calls(), 0);
}

#[test]
fn acquire_that_timed_out_is_reported_unknown_and_still_given_back() {
    let (mut world, session) = World::with_session();
    let ticket = world.call_in(session, acquire(Wait::Millis(200)), 300 * MS);
    world.advance(300 * MS);
    assert_eq!(world.certainty(ticket), Certainty::Unknown);
    world.answer("a:1", Response::LockGranted { token: 12 });
    let release = world.take("a:1").request;
    assert!(matches!(release, Request::LockRelease { token: 12, .. }), "{release:?}");
}

#[test]
fn abandoned_call_has_no_outcome_and_frees_its_sequence() {
    let (mut world, session) = World::with_session();
    let ticket = world.call_in(session, put(), 5_000 * MS);
    let abandoned = world.take("a:1");
    world.core.abandon(world.now, ticket);
    world.call_in(session, put(), 5_000 * MS);
    let origin = world.take("a:1").request.origin().unwrap();
    assert_eq!((origin.sequence, origin.lowest_unanswered), (2, 2));
    world.answer_to("a:1", abandoned.id, &PUT_DONE);
    assert!(world.done.is_empty());
}

#[test]
fn idle_connection_to_a_node_that_does_not_lead_is_closed() {
    let mut world = World::with_leader();
    let target = Target::Endpoint("b:1".to_owned());
    let call = Call { target, ..Call::to_leader(Request::Ping, world.now.plus(5_000 * MS)) };
    world.submit(call);
    world.welcome("b:1", 2, Some((1, "a:1")));
    world.answer("b:1", Response::Pong);
    world.advance(60_000 * MS);
    assert_eq!(world.links.keys().collect::<Vec<_>>(), ["a:1"]);
}

/// A write's history as seen from the nodes, for any schedule: without a session it arrives at most
/// once after an outcome that was not "not done"; with a session every arrival has the same
/// sequence; and every call gets exactly one outcome.
mod any_schedule {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Answer,
        Refuse(ErrorCode, Certainty),
        Break,
        Advance(u64),
        Submit,
    }

    fn step() -> impl Strategy<Value = Step> {
        let code = prop_oneof![
            Just(ErrorCode::NotLeader),
            Just(ErrorCode::Unavailable),
            Just(ErrorCode::LeadershipLost),
            Just(ErrorCode::TooManyRequests),
            Just(ErrorCode::Internal),
        ];
        let certainty = prop_oneof![Just(Certainty::NotDone), Just(Certainty::Unknown)];
        prop_oneof![
            3 => Just(Step::Answer),
            3 => (code, certainty).prop_map(|(code, certainty)| Step::Refuse(code, certainty)),
            1 => Just(Step::Break),
            3 => (1..400_u64).prop_map(|ms| Step::Advance(ms * MS)),
            2 => Just(Step::Submit),
        ]
    }

    /// Whether the node may have executed what it answered so.
    fn may_have_executed(step: Option<Step>) -> bool {
        matches!(step, None | Some(Step::Answer | Step::Refuse(_, Certainty::Unknown)))
    }

    fn unique_put(number: usize) -> Request {
        let key = Bytes::from(number.to_string());
        Request::CompareAndSet {
            origin: Origin::NONE,
            key: key.clone(),
            expect: Expect::Absent,
            value: Some(key),
        }
    }

    fn run(steps: &[Step], in_session: bool) {
        let (mut world, session) = World::with_session();
        let mut tickets = Vec::new();
        let mut executed: BTreeMap<Bytes, Vec<Origin>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Submit => {
                    let request = unique_put(tickets.len());
                    tickets.push(if in_session {
                        world.call_in(session, request, 3_000 * MS)
                    } else {
                        world.call(request, 3_000 * MS)
                    });
                }
                Step::Answer | Step::Refuse(..) => serve(&mut world, *step, &mut executed),
                Step::Break if world.links.contains_key("a:1") => {
                    let conn = world.link("a:1");
                    for arrived in world.arrived.remove(&conn).unwrap_or_default() {
                        note(&arrived.request, None, &mut executed);
                    }
                    world.break_link("a:1");
                }
                Step::Break => {}
                Step::Advance(micros) => world.advance(*micros),
            }
        }
        world.advance(60_000 * MS);
        for ticket in &tickets {
            assert!(world.done.contains_key(ticket), "every call has an outcome");
        }
        for origins in executed.values() {
            if in_session {
                let first = (origins[0].session, origins[0].sequence);
                assert!(origins.iter().all(|origin| (origin.session, origin.sequence) == first));
            } else {
                assert_eq!(origins.len(), 1, "executed at most once");
            }
        }
    }

    fn serve(world: &mut World, step: Step, executed: &mut BTreeMap<Bytes, Vec<Origin>>) {
        if let Some(conn) = world.links.get("a:1")
            && world.core.conn(*conn).node == 0
        {
            world.welcome("a:1", 1, None);
        }
        if !world.has_request("a:1") {
            return;
        }
        let Arrived { id, request } = world.take("a:1");
        note(&request, Some(step), executed);
        let response = match (step, &request) {
            (Step::Refuse(code, certainty), _) => refusal(code, certainty),
            (_, Request::SessionKeepAlive { .. }) => Response::SessionAlive { ttl_ms: 10_000 },
            (_, Request::Ping) => Response::Pong,
            _ => Response::CompareAndSet { revision: 2, swapped: true, mod_revision: 2 },
        };
        world.answer_to("a:1", id, &response);
    }

    fn note(request: &Request, step: Option<Step>, executed: &mut BTreeMap<Bytes, Vec<Origin>>) {
        if let Request::CompareAndSet { origin, key, .. } = request
            && may_have_executed(step)
        {
            executed.entry(key.clone()).or_default().push(*origin);
        }
    }

    proptest! {
        #[test]
        fn write_without_a_session_is_executed_at_most_once(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            run(&steps, false);
        }

        #[test]
        fn write_in_a_session_keeps_its_sequence(steps in prop::collection::vec(step(), 1..60)) {
            run(&steps, true);
        }
    }
}
