//! What strangers may send: none of it panics a node, loses anything, or disturbs other clients.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol::{ErrorCode, Hello, Origin, Request, Response, frame};
use tests::cluster::{Cluster, PATIENCE};

use super::{judge, loaded, run, three_nodes};

/// Sends bytes and returns everything that comes back until the node closes the connection.
fn send_and_read(cluster: &Cluster, node: u64, bytes: &[u8]) -> Vec<u8> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(cluster.endpoint(node))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    exchange().expect("the node answers and closes")
}

/// What came back: the ids of the requests, each with the code if it was refused.
fn answers(bytes: &[u8]) -> Vec<(u64, Option<ErrorCode>)> {
    let mut wire = BytesMut::from(bytes);
    let mut answers = Vec::new();
    while let Some(frame) = frame::decode(&mut wire, u32::MAX).expect("a node sends frames") {
        let code = match Response::decode(frame.header.kind, frame.body) {
            Ok(Response::Error(error)) => Some(error.code),
            _ => None,
        };
        answers.push((frame.header.request_id, code));
    }
    assert!(wire.is_empty(), "{wire:?}");
    answers
}

fn hello() -> BytesMut {
    let mut bytes = BytesMut::new();
    Hello::new("stranger").encode_into(1, &mut bytes);
    bytes
}

#[test]
fn garbage_on_both_ports_closes_that_connection_and_nothing_else() {
    run(async {
        let mut cluster = three_nodes();
        let load = loaded(&cluster).await;
        let garbage: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0xff; 100_000],
            vec![0; 64],
            [&hello()[..], &[0xff; 64]].concat(),
        ];
        for id in cluster.ids() {
            for bytes in &garbage {
                let answers = answers(&send_and_read(&cluster, id, bytes));
                assert_eq!(answers.last(), Some(&(0, Some(ErrorCode::BadFrame))));
                let mut peer = TcpStream::connect(cluster.peer_endpoint(id)).unwrap();
                // The node may close while we still write.
                peer.write_all(bytes).ok();
            }
        }
        load.progress(300, PATIENCE).await;
        judge(&load.finish().await);
        for id in cluster.ids() {
            assert!(cluster.stop(id).success(), "{}", cluster.log(id));
        }
    });
}

#[test]
fn half_a_frame_delays_nobody() {
    run(async {
        let cluster = three_nodes();
        let load = loaded(&cluster).await;
        let half = hello();
        let _open: Vec<TcpStream> = (0..50)
            .map(|at| {
                let mut stream = TcpStream::connect(cluster.endpoint(at % 3 + 1)).unwrap();
                stream.write_all(&half[..half.len() / 2]).unwrap();
                stream
            })
            .collect();
        load.progress(300, PATIENCE).await;
        judge(&load.finish().await);
    });
}

#[test]
fn oversized_keys_and_values_are_refused_and_the_connection_goes_on() {
    run(async {
        let cluster = three_nodes();
        cluster.leader().await;
        let client = cluster.client();
        let code = |error: client::Error| error.code();
        let long_key = client.put(vec![b'k'; 4097], "v").await.map_err(code);
        assert_eq!(long_key, Err(ErrorCode::TooLarge));
        let long_value = client.put("k", vec![b'v'; (1 << 20) + 1]).await.map_err(code);
        assert_eq!(long_value, Err(ErrorCode::TooLarge));
        client.put(vec![b'k'; 4096], vec![b'v'; 1 << 20]).await.expect("within the limits");
    });
}

/// The server holds the limits itself, also against clients that do not.
#[test]
fn server_refuses_what_a_careless_client_sends() {
    run(async {
        let cluster = three_nodes();
        let leader = cluster.leader().await;
        let put = |key: usize, value: usize| Request::Put {
            origin: Origin::NONE,
            key: Bytes::from(vec![b'k'; key]),
            value: Bytes::from(vec![b'v'; value]),
        };
        let mut careless = hello();
        put(5000, 1).encode_into(2, &mut careless);
        put(0, 1).encode_into(3, &mut careless);
        let mut large = BytesMut::new();
        put(1, 9 << 20).encode_into(4, &mut large);
        // It is refused by its length alone, before its body is there.
        large.truncate(frame::HEADER_BYTES);
        let mut unnamed = BytesMut::new();
        put(1, 1).encode_into(0, &mut unnamed);
        let garbage = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]);
        for last in [large, unnamed, garbage] {
            let answer = send_and_read(&cluster, leader, &[&careless[..], &last].concat());
            let codes = [ErrorCode::TooLarge, ErrorCode::BadRequest, ErrorCode::BadFrame];
            let [too_large, bad_request, bad_frame] = codes.map(Some);
            let expected = [(1, None), (2, too_large), (3, bad_request), (0, bad_frame)];
            assert_eq!(answers(&answer), expected);
        }
        let client = cluster.client();
        assert_eq!(client.put("k", "v").await, Ok(2), "nothing of it was done; others go on");
    });
}
