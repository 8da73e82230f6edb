use super::*;

const A: Host = Host::Node(0);
const B: Host = Host::Node(1);

struct Net {
    network: Network,
    pending: Vec<(u64, NetEvent)>,
}

impl Net {
    fn new() -> Net {
        let faults = NetFaults {
            delay_us: 50..=500,
            loss_ppm: 100_000,
            resend_us: 1_000..=50_000,
            reset_ppm: 0,
        };
        Net { network: Network::new(faults, Random::new(3)), pending: Vec::new() }
    }

    /// Lets `for_us` pass and returns what was brought.
    fn run(&mut self, for_us: u64) -> Vec<NetOutput> {
        let end_us = self.network.now_us + for_us;
        let mut out = Vec::new();
        loop {
            self.pending.extend(self.network.scheduled());
            let earliest = self.pending.iter().enumerate().min_by_key(|(_, (at_us, _))| *at_us);
            let Some((at, (at_us, event))) = earliest.map(|(at, item)| (at, *item)) else { break };
            if at_us > end_us {
                break;
            }
            self.pending.remove(at);
            self.network.advance(at_us);
            self.network.handle(event, &mut out);
        }
        self.network.advance(end_us);
        out
    }

    fn connect(&mut self) -> ConnId {
        let conn = self.network.dial(A, B, Port::Peers);
        assert_eq!(self.run(1_000_000).len(), 2);
        conn
    }
}

fn bytes_to(out: &[NetOutput], host: Host) -> Vec<u8> {
    let mut all = Vec::new();
    for output in out {
        if let NetOutput::Data { to, bytes, .. } = output
            && *to == host
        {
            all.extend_from_slice(bytes);
        }
    }
    all
}

fn is_closed(out: &[NetOutput], host: Host) -> bool {
    out.iter().any(|output| matches!(output, NetOutput::Closed { to, .. } if *to == host))
}

#[test]
fn bytes_arrive_in_order_however_long_each_takes() {
    let mut net = Net::new();
    let conn = net.connect();
    for byte in 0..200 {
        net.network.send(conn, A, Bytes::copy_from_slice(&[byte]));
    }
    let out = net.run(1_000_000);
    assert_eq!(bytes_to(&out, B), (0..200).collect::<Vec<u8>>());
    assert!(net.network.counters().resends > 0);
}

#[test]
fn blocked_direction_holds_bytes_back_until_it_is_healed() {
    let mut net = Net::new();
    let conn = net.connect();
    net.network.block(&[(A, B)]);
    net.network.send(conn, A, Bytes::from_static(b"late"));
    net.network.send(conn, B, Bytes::from_static(b"other way"));
    let out = net.run(1_000_000);
    assert_eq!(
        (bytes_to(&out, B).as_slice(), bytes_to(&out, A).as_slice()),
        (&[][..], &b"other way"[..])
    );
    net.network.heal();
    assert_eq!(bytes_to(&net.run(1_000_000), B), b"late");
}

#[test]
fn reset_loses_what_is_under_way_and_tells_both_ends() {
    let mut net = Net::new();
    let conn = net.connect();
    net.network.send(conn, A, Bytes::from_static(b"lost"));
    net.network.reset(conn);
    let out = net.run(1_000_000);
    assert!(bytes_to(&out, B).is_empty());
    assert!(is_closed(&out, A) && is_closed(&out, B));
}

#[test]
fn dead_process_ends_its_connections_after_what_it_sent() {
    let mut net = Net::new();
    let conn = net.connect();
    net.network.send(conn, A, Bytes::from_static(b"last words"));
    net.network.set_power(A, Power::NoProcess);
    let out = net.run(1_000_000);
    assert_eq!(bytes_to(&out, B), b"last words");
    assert!(is_closed(&out, B));
}

#[test]
fn machine_without_power_is_silent_until_it_is_back() {
    let mut net = Net::new();
    let conn = net.connect();
    net.network.set_power(A, Power::Off);
    net.network.send(conn, B, Bytes::from_static(b"anybody?"));
    assert!(!is_closed(&net.run(10_000_000), B));
    net.network.set_power(A, Power::Up);
    net.network.send(conn, B, Bytes::from_static(b"anybody?"));
    assert!(is_closed(&net.run(1_000_000), B));
}

#[test]
fn dialler_is_refused_without_a_process_and_waits_for_a_paused_one() {
    let mut net = Net::new();
    net.network.set_power(B, Power::NoProcess);
    net.network.dial(A, B, Port::Clients);
    assert!(is_closed(&net.run(1_000_000), A));
    net.network.set_power(B, Power::Paused);
    net.network.dial(A, B, Port::Clients);
    assert!(net.run(5_000_000).is_empty());
    net.network.set_power(B, Power::Up);
    assert_eq!(net.run(2_000_000).len(), 2);
}
