//! One message of every kind, and of every shape that a kind has, each under the name of its golden
//! file.

use bytes::{Bytes, BytesMut};
use protocol::{
    Certainty, Consistency, DiskStatus, Error, ErrorCode, Expect, Hello, Item, KeyRange,
    LeaderHint, Limits, LockHolder, NodeStatus, Origin, PeerState, PeerStatus, RangeItem, Request,
    Response, Role, Wait, Welcome,
};

/// A message of any direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Request(Request),
    Response(Response),
}

/// The request id of every sample.
pub(crate) const REQUEST_ID: u64 = 0x0102_0304_0506_0708;

impl Message {
    pub(crate) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        match self {
            Message::Hello(hello) => hello.encode_into(REQUEST_ID, &mut out),
            Message::Welcome(welcome) => welcome.encode_into(REQUEST_ID, &mut out),
            Message::Request(request) => request.encode_into(REQUEST_ID, &mut out),
            Message::Response(response) => response.encode_into(REQUEST_ID, &mut out),
        }
        out
    }

    /// Reads a body as a message of the same direction as `self`.
    pub(crate) fn decode_like(
        &self,
        kind: u8,
        body: Bytes,
    ) -> Result<Message, protocol::DecodeError> {
        match self {
            Message::Hello(_) => Hello::decode(kind, body).map(Message::Hello),
            Message::Welcome(_) => Welcome::decode(kind, body).map(|welcome| match welcome {
                Ok(welcome) => Message::Welcome(welcome),
                Err(error) => Message::Response(Response::Error(error)),
            }),
            Message::Request(_) => Request::decode(kind, body).map(Message::Request),
            Message::Response(_) => Response::decode(kind, body).map(Message::Response),
        }
    }
}

const ORIGIN: Origin = Origin { session: 5, sequence: 18, lowest_unanswered: 17 };

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn item(value: &'static str) -> Item {
    Item { value: bytes(value), create_revision: 2, mod_revision: 9, version: 3, session: 0 }
}

fn leader() -> LeaderHint {
    LeaderHint { node: 2, addr: "127.0.0.1:7401".to_owned() }
}

pub(crate) fn all() -> Vec<(&'static str, Message)> {
    let mut samples = handshake();
    let requests = requests().into_iter().map(|(name, request)| (name, Message::Request(request)));
    samples.extend(requests);
    let replies = replies().into_iter().map(|(name, reply)| (name, Message::Response(reply)));
    samples.extend(replies);
    samples
}

fn handshake() -> Vec<(&'static str, Message)> {
    let cluster_id = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
    let hello = Hello { cluster_id: Some(cluster_id), ..Hello::new("golden") };
    let limits = Limits {
        key_bytes_max: 4096,
        value_bytes_max: 1_048_576,
        inflight_requests_max: 4096,
        inflight_bytes_max: 16_777_216,
    };
    let welcome = Welcome { version: 1, cluster_id, node: 1, leader: Some(leader()), limits };
    let alone = Welcome { leader: None, ..welcome.clone() };
    vec![
        ("hello_any_cluster", Message::Hello(Hello::new("golden"))),
        ("hello_one_cluster", Message::Hello(hello)),
        ("welcome", Message::Welcome(welcome)),
        ("welcome_without_leader", Message::Welcome(alone)),
    ]
}

fn requests() -> Vec<(&'static str, Request)> {
    let mut requests = writes();
    requests.extend(reads());
    requests.extend(sessions_and_locks());
    requests
}

fn writes() -> Vec<(&'static str, Request)> {
    let key = bytes("city");
    let value = bytes("Berlin");
    let compare = |expect, value| Request::CompareAndSet {
        origin: ORIGIN,
        key: bytes("city"),
        expect,
        value,
    };
    vec![
        ("put", Request::Put { origin: Origin::NONE, key: key.clone(), value: value.clone() }),
        ("put_in_session", Request::Put { origin: ORIGIN, key: key.clone(), value: value.clone() }),
        ("delete", Request::Delete { origin: ORIGIN, key }),
        ("delete_range", Request::DeleteRange { origin: ORIGIN, range: KeyRange::prefix("jobs/") }),
        (
            "delete_range_to_end",
            Request::DeleteRange { origin: ORIGIN, range: KeyRange::from("j") },
        ),
        ("compare_and_set_absent", compare(Expect::Absent, Some(value.clone()))),
        ("compare_and_set_value", compare(Expect::Value(bytes("Bonn")), Some(value))),
        ("compare_and_delete_revision", compare(Expect::Revision(9), None)),
    ]
}

fn reads() -> Vec<(&'static str, Request)> {
    let range = |consistency, range, limit, keys_only| Request::Range {
        consistency,
        range,
        limit,
        keys_only,
    };
    let between = KeyRange::between("a", "c");
    vec![
        ("ping", Request::Ping),
        ("status", Request::Status),
        ("get", Request::Get { consistency: Consistency::Linearizable, key: bytes("city") }),
        ("get_stale", Request::Get { consistency: Consistency::Stale, key: bytes("city") }),
        ("range", range(Consistency::Linearizable, between, 10, false)),
        ("range_keys", range(Consistency::Stale, KeyRange::all(), 0, true)),
    ]
}

fn sessions_and_locks() -> Vec<(&'static str, Request)> {
    let acquire = |wait| Request::LockAcquire { origin: ORIGIN, name: bytes("job"), wait };
    let open = Request::SessionOpen { nonce: 77, ttl_ms: 10_000, label: bytes("worker 3") };
    vec![
        ("session_open", open),
        ("session_keep_alive", Request::SessionKeepAlive { session: 5 }),
        ("session_close", Request::SessionClose { session: 5 }),
        ("lock_try", acquire(Wait::Try)),
        ("lock_wait", acquire(Wait::Millis(2_000))),
        ("lock_wait_for_ever", acquire(Wait::Forever)),
        ("lock_release", Request::LockRelease { origin: ORIGIN, name: bytes("job"), token: 41 }),
        (
            "lock_query",
            Request::LockQuery { consistency: Consistency::Linearizable, name: bytes("job") },
        ),
    ]
}

fn replies() -> Vec<(&'static str, Response)> {
    let swapped =
        |swapped, mod_revision| Response::CompareAndSet { revision: 12, swapped, mod_revision };
    let lock = |holder, waiters| Response::LockState { revision: 12, holder, waiters };
    let items = vec![
        RangeItem { key: bytes("a"), item: item("1") },
        RangeItem { key: bytes("b"), item: item("") },
    ];
    let opened = Response::SessionOpened { session: 5, generation: 6, ttl_ms: 10_000 };
    let refused = Error::not_done(ErrorCode::TooManyRequests, "slow down").with_retry_after_ms(100);
    let unknown = Error::new(ErrorCode::LeadershipLost, Certainty::Unknown, "a new leader came");
    vec![
        ("pong", Response::Pong),
        ("node_status", Response::Status(Box::new(node_status()))),
        ("put_done", Response::Put { revision: 12 }),
        ("deleted", Response::Deleted { revision: 12, deleted: 3 }),
        ("compared_swapped", swapped(true, 12)),
        ("compared_not_swapped", swapped(false, 9)),
        ("got", Response::Get { revision: 12, item: Some(item("Berlin")) }),
        ("got_nothing", Response::Get { revision: 12, item: None }),
        ("range_page", Response::Range { revision: 12, items, more: true }),
        ("range_page_empty", Response::Range { revision: 12, items: Vec::new(), more: false }),
        ("session_opened", opened),
        ("session_alive", Response::SessionAlive { ttl_ms: 10_000 }),
        ("session_closed", Response::SessionClosed { existed: true }),
        ("lock_granted", Response::LockGranted { token: 41 }),
        ("lock_not_acquired", Response::LockNotAcquired),
        ("lock_released", Response::LockReleased),
        ("lock_state_held", lock(Some(LockHolder { session: 5, token: 41 }), 2)),
        ("lock_state_free", lock(None, 0)),
        ("error_not_leader", Response::Error(Error::not_leader(Some(leader())))),
        ("error_retry_after", Response::Error(refused)),
        ("error_unknown", Response::Error(unknown)),
    ]
}

fn node_status() -> NodeStatus {
    let peer = |node, state, connected| PeerStatus {
        node,
        addr: format!("127.0.0.1:741{node}"),
        match_index: 100,
        lag_entries: 3,
        state,
        connected,
    };
    NodeStatus {
        node: 1,
        cluster_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        version: "0.1.0".to_owned(),
        role: Role::Leader,
        term: 4,
        leader: Some(leader()),
        commit_index: 103,
        applied_index: 102,
        last_index: 104,
        durable_index: 101,
        revision: 90,
        keys: 80,
        sessions: 2,
        locks: 1,
        connections: 7,
        disk: DiskStatus { backend: "uring".to_owned(), direct: true, damaged: 3 },
        peers: vec![
            peer(2, PeerState::Replicate, true),
            peer(3, PeerState::Probe, false),
            peer(4, PeerState::Snapshot, true),
            peer(5, PeerState::Unknown, false),
        ],
    }
}
