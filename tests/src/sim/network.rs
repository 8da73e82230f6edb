//! The network between machines: connections as TCP gives them, and what goes wrong with them.
//!
//! Fault model:
//!
//! - A connection carries bytes in order, each direction on its own. Bytes are delayed, for long if a packet
//!   was lost and had to be sent again, but never lost while both ends believe in the connection; different
//!   connections overtake each other.
//! - A connection may break at any time: what was under way is lost, and each end learns of it by itself, later.
//! - One direction between two machines may be blocked, or both. What is under way then waits, and arrives some
//!   time after the block is gone; a connection is neither made nor refused meanwhile.
//! - A process that dies closes its connections after what it had sent. A machine without power says nothing: the
//!   other end learns of it only when the machine is back and does not know the connection, or by its own patience.
//! - A paused process reads nothing.
//!
//! Duplicates come from senders that repeat themselves on a new connection, while bytes of the old one may
//! still arrive.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use bytes::Bytes;

use super::random::Random;

/// A machine, by its number among the nodes or the clients, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Host {
    /// Runs a replica.
    Node(usize),
    /// Runs clients.
    Client(usize),
}

/// Names one connection for both of its ends. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Which listener a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Port {
    /// Clients.
    Clients,
    /// The other nodes.
    Peers,
}

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// Who asked for it.
    Dialler,
    /// Who was asked.
    Acceptor,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Acceptor,
            Side::Acceptor => Side::Dialler,
        }
    }
}

/// Whether a machine answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Its process runs.
    Up,
    /// Its process runs but gets no time.
    Paused,
    /// Its process is gone; the machine says so to whoever asks.
    NoProcess,
    /// Nothing answers.
    Off,
}

/// How slow and how unreliable the network is.
#[derive(Clone, Debug)]
pub struct NetFaults {
    /// How long a packet is under way, in microseconds.
    pub delay_us: RangeInclusive<u64>,
    /// How many of a million packets have to be sent again.
    pub loss_ppm: u32,
    /// How much longer those take, in microseconds.
    pub resend_us: RangeInclusive<u64>,
    /// How many of a million packets find their connection broken.
    pub reset_ppm: u32,
}

/// What the network has to do later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetEvent {
    /// The wish for a connection arrives.
    Dial(ConnId),
    /// The dialler learns that it has its connection.
    Made(ConnId),
    /// The dialler learns that nobody listens.
    Refused(ConnId),
    /// Something may have arrived that this side had sent.
    Arrival(ConnId, Side),
}

/// What the network brings to a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetOutput {
    /// Somebody has connected to `to`.
    Accepted {
        /// The connection.
        conn: ConnId,
        /// Who was asked.
        to: Host,
        /// For which listener.
        port: Port,
    },
    /// The connection is made.
    Connected {
        /// The connection.
        conn: ConnId,
        /// Who asked.
        to: Host,
    },
    /// The connection cannot be made, or has ended.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Who is told.
        to: Host,
    },
    /// Bytes, after those before.
    Data {
        /// The connection.
        conn: ConnId,
        /// Who gets them.
        to: Host,
        /// The bytes.
        bytes: Bytes,
    },
}

#[derive(Debug)]
enum Packet {
    Data(Bytes),
    /// The sender is done.
    End,
    /// There is no such connection at the sender.
    Reset,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Channel {
    queue: VecDeque<(u64, Packet)>,
    last_due_us: u64,
    /// Whether an arrival is scheduled.
    is_scheduled: bool,
}

#[derive(Debug)]
struct Conn {
    dialler: Host,
    acceptor: Host,
    port: Port,
    /// Whether the end at the dialler, at the acceptor is open.
    is_open: [bool; 2],
    /// What the dialler, what the acceptor has sent.
    channels: [Channel; 2],
    is_made: bool,
}

impl Conn {
    fn host(&self, side: Side) -> Host {
        match side {
            Side::Dialler => self.dialler,
            Side::Acceptor => self.acceptor,
        }
    }

    fn is_gone(&self) -> bool {
        self.is_open == [false, false]
    }
}

/// How often something was injected or happened by itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "counters named after what they count")]
pub struct NetCounters {
    pub conns: u64,
    pub packets: u64,
    pub bytes: u64,
    pub resends: u64,
    pub resets: u64,
}

/// All machines' network.
#[derive(Debug)]
pub struct Network {
    faults: NetFaults,
    random: Random,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    power: BTreeMap<Host, Power>,
    /// How many blocks lie on a direction.
    blocked: BTreeMap<(Host, Host), u32>,
    /// Until when a direction is slow, and by how much.
    clogged: BTreeMap<(Host, Host), (u64, u64)>,
    counters: NetCounters,
    now_us: u64,
    scheduled: Vec<(u64, NetEvent)>,
}

impl Network {
    /// Every machine is up and reaches every other.
    pub fn new(faults: NetFaults, random: Random) -> Network {
        Network {
            faults,
            random,
            conns: BTreeMap::new(),
            next_conn: 1,
            power: BTreeMap::new(),
            blocked: BTreeMap::new(),
            clogged: BTreeMap::new(),
            counters: NetCounters::default(),
            now_us: 0,
            scheduled: Vec::new(),
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> NetCounters {
        self.counters
    }

    /// Moves the network's time. It never goes back.
    pub fn advance(&mut self, now_us: u64) {
        assert!(now_us >= self.now_us);
        self.now_us = now_us;
    }

    /// What [`Network::handle`] wants to be called for, and when. Empties the list.
    pub fn scheduled(&mut self) -> impl Iterator<Item = (u64, NetEvent)> + '_ {
        self.scheduled.drain(..)
    }

    /// Replaces how slow and unreliable it is from here on.
    pub fn set_faults(&mut self, faults: NetFaults) {
        self.faults = faults;
    }

    /// Asks for a connection.
    pub fn dial(&mut self, dialler: Host, acceptor: Host, port: Port) -> ConnId {
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        self.counters.conns += 1;
        let conn = Conn {
            dialler,
            acceptor,
            port,
            is_open: [true, false],
            channels: [Channel::default(), Channel::default()],
            is_made: false,
        };
        self.conns.insert(id, conn);
        let due_us = self.now_us + self.delay_us(dialler, acceptor);
        self.scheduled.push((due_us, NetEvent::Dial(id)));
        id
    }

    /// Sends bytes after those sent before. Ignored if that end is closed.
    pub fn send(&mut self, id: ConnId, from: Host, bytes: Bytes) {
        let Some(side) = self.side_of(id, from) else { return };
        if bytes.is_empty() || !self.is_open(id, side) {
            return;
        }
        self.counters.packets += 1;
        self.counters.bytes += bytes.len() as u64;
        if self.random.chance(self.faults.reset_ppm) {
            return self.reset(id);
        }
        self.push(id, side, Packet::Data(bytes));
    }

    /// Closes one end: the other one reads what was sent, and then the end.
    pub fn close(&mut self, id: ConnId, from: Host) {
        let Some(side) = self.side_of(id, from) else { return };
        if self.is_open(id, side) {
            self.push(id, side, Packet::End);
            self.shut(id, side);
        }
    }

    /// Breaks a connection: what is under way is lost.
    pub fn reset(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.counters.resets += 1;
        for channel in &mut conn.channels {
            channel.queue.clear();
        }
        self.push(id, Side::Dialler, Packet::Reset);
        self.push(id, Side::Acceptor, Packet::Reset);
    }

    /// Changes whether a machine answers. Its connections end with its process or its power.
    pub fn set_power(&mut self, host: Host, power: Power) {
        self.power.insert(host, power);
        match power {
            Power::Up => self.release(),
            Power::Paused => {}
            Power::NoProcess => self.end_all(host, true),
            Power::Off => self.end_all(host, false),
        }
    }

    /// Blocks these directions, each once more than before.
    pub fn block(&mut self, cut: &[(Host, Host)]) {
        for direction in cut {
            *self.blocked.entry(*direction).or_default() += 1;
        }
    }

    /// Takes back what [`Network::block`] did, unless everything was healed meanwhile.
    pub fn unblock(&mut self, cut: &[(Host, Host)]) {
        for direction in cut {
            if let Some(blocks) = self.blocked.get_mut(direction) {
                *blocks -= 1;
            }
            if self.blocked.get(direction) == Some(&0) {
                self.blocked.remove(direction);
            }
        }
        self.release();
    }

    /// Makes one direction slower by `extra_us` for `for_us`.
    pub fn clog(&mut self, from: Host, to: Host, extra_us: u64, for_us: u64) {
        self.clogged.insert((from, to), (self.now_us + for_us, extra_us));
    }

    /// Removes every block and every clog.
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.clogged.clear();
        self.release();
    }

    /// The connections that exist between two machines, for faults that pick one.
    pub fn conns_on(&self, port: Port) -> Vec<ConnId> {
        let on_port = self.conns.iter().filter(|(_, conn)| conn.port == port && conn.is_made);
        on_port.map(|(id, _)| *id).collect()
    }

    /// Does what was scheduled for now.
    pub fn handle(&mut self, event: NetEvent, out: &mut Vec<NetOutput>) {
        match event {
            NetEvent::Dial(id) => self.handle_dial(id, out),
            NetEvent::Made(id) => self.handle_made(id, out),
            NetEvent::Refused(id) => self.handle_refused(id, out),
            NetEvent::Arrival(id, side) => self.handle_arrival(id, side, out),
        }
    }

    fn handle_dial(&mut self, id: ConnId, out: &mut Vec<NetOutput>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (dialler, to, port) = (conn.dialler, conn.acceptor, conn.port);
        let power = self.power.get(&to).copied().unwrap_or(Power::Up);
        let is_cut =
            self.blocked.contains_key(&(dialler, to)) || self.blocked.contains_key(&(to, dialler));
        match power {
            Power::Up if !is_cut => {
                conn.is_open = [true, true];
                let due_us = self.now_us + self.delay_us(to, dialler);
                self.scheduled.push((due_us, NetEvent::Made(id)));
                out.push(NetOutput::Accepted { conn: id, to, port });
            }
            Power::NoProcess if !is_cut => {
                let due_us = self.now_us + self.delay_us(to, dialler);
                self.scheduled.push((due_us, NetEvent::Refused(id)));
            }
            Power::Up | Power::Paused | Power::NoProcess | Power::Off => {
                let due_us = self.now_us + self.random.within(&(200_000..=1_000_000));
                self.scheduled.push((due_us, NetEvent::Dial(id)));
            }
        }
    }

    fn handle_made(&mut self, id: ConnId, out: &mut Vec<NetOutput>) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.is_open[0]) else { return };
        let (to, from) = (conn.dialler, conn.acceptor);
        if self.is_held(from, to) {
            let due_us = self.now_us + self.random.within(&(200_000..=1_000_000));
            return self.scheduled.push((due_us, NetEvent::Made(id)));
        }
        self.conns.get_mut(&id).expect("it was just found").is_made = true;
        out.push(NetOutput::Connected { conn: id, to });
        // What the acceptor sent at once has waited for this.
        self.arrange(id, Side::Acceptor);
    }

    fn handle_refused(&mut self, id: ConnId, out: &mut Vec<NetOutput>) {
        let Some(conn) = self.conns.remove(&id) else { return };
        out.push(NetOutput::Closed { conn: id, to: conn.dialler });
    }

    fn handle_arrival(&mut self, id: ConnId, side: Side, out: &mut Vec<NetOutput>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.channels[side as usize].is_scheduled = false;
        let (from, to) = (conn.host(side), conn.host(side.other()));
        while let Some(packet) = self.take_due(id, side) {
            self.arrive(id, side.other(), (from, to), packet, out);
        }
        self.arrange(id, side);
    }

    /// The next packet that `side` has sent and that can arrive now.
    fn take_due(&mut self, id: ConnId, side: Side) -> Option<Packet> {
        let conn = self.conns.get(&id)?;
        let waits_for_made = side == Side::Acceptor && !conn.is_made;
        if waits_for_made || self.is_held(conn.host(side), conn.host(side.other())) {
            return None;
        }
        let now_us = self.now_us;
        let queue = &mut self.conns.get_mut(&id)?.channels[side as usize].queue;
        queue.pop_front_if(|(due_us, _)| *due_us <= now_us).map(|(_, packet)| packet)
    }

    fn arrive(
        &mut self,
        id: ConnId,
        side: Side,
        (_, to): (Host, Host),
        packet: Packet,
        out: &mut Vec<NetOutput>,
    ) {
        match (packet, self.is_open(id, side)) {
            (Packet::Data(bytes), true) => out.push(NetOutput::Data { conn: id, to, bytes }),
            (Packet::End | Packet::Reset, true) => {
                out.push(NetOutput::Closed { conn: id, to });
                self.shut(id, side);
            }
            (Packet::Data(_), false) if self.power.get(&to) != Some(&Power::Off) => {
                self.push(id, side, Packet::Reset);
            }
            (Packet::Data(_) | Packet::End | Packet::Reset, false) => {}
        }
    }

    fn end_all(&mut self, host: Host, tell: bool) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            let Some(side) = self.side_of(id, host) else { continue };
            if self.is_open(id, side) {
                if tell {
                    self.push(id, side, Packet::End);
                }
                self.shut(id, side);
            }
        }
    }

    fn shut(&mut self, id: ConnId, side: Side) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.is_open[side as usize] = false;
        if conn.is_gone() {
            self.conns.remove(&id);
        }
    }

    fn push(&mut self, id: ConnId, side: Side, packet: Packet) {
        let Some(conn) = self.conns.get(&id) else { return };
        let due_us = self.now_us + self.delay_us(conn.host(side), conn.host(side.other()));
        let conn = self.conns.get_mut(&id).expect("it was just found");
        let channel = &mut conn.channels[side as usize];
        channel.last_due_us = channel.last_due_us.max(due_us);
        channel.queue.push_back((channel.last_due_us, packet));
        self.arrange(id, side);
    }

    /// Schedules the arrival of what `side` has sent, if there is any and it can arrive.
    fn arrange(&mut self, id: ConnId, side: Side) {
        let Some(conn) = self.conns.get(&id) else { return };
        let held = self.is_held(conn.host(side), conn.host(side.other()));
        let waits_for_made = side == Side::Acceptor && !conn.is_made;
        let channel = &self.conns.get_mut(&id).expect("it was just found").channels[side as usize];
        let Some((due_us, _)) = channel.queue.front() else { return };
        if held || waits_for_made || channel.is_scheduled {
            return;
        }
        let due_us = (*due_us).max(self.now_us);
        self.schedule_arrival(id, side, due_us);
    }

    fn schedule_arrival(&mut self, id: ConnId, side: Side, due_us: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.channels[side as usize].is_scheduled = true;
        self.scheduled.push((due_us, NetEvent::Arrival(id, side)));
    }

    /// A block or a pause is over: what waited arrives when its sender tries again.
    fn release(&mut self) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            for side in [Side::Dialler, Side::Acceptor] {
                let Some(conn) = self.conns.get(&id) else { break };
                let held = self.is_held(conn.host(side), conn.host(side.other()));
                let channel = &conn.channels[side as usize];
                if !held && !channel.is_scheduled && !channel.queue.is_empty() {
                    let again_us = self.now_us + self.random.within(&(100..=200_000));
                    self.schedule_arrival(id, side, again_us);
                }
            }
        }
    }

    fn is_held(&self, from: Host, to: Host) -> bool {
        self.blocked.contains_key(&(from, to)) || self.power.get(&to) == Some(&Power::Paused)
    }

    fn is_open(&self, id: ConnId, side: Side) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.is_open[side as usize])
    }

    fn side_of(&self, id: ConnId, host: Host) -> Option<Side> {
        let conn = self.conns.get(&id)?;
        if conn.dialler == host {
            Some(Side::Dialler)
        } else if conn.acceptor == host {
            Some(Side::Acceptor)
        } else {
            None
        }
    }

    fn delay_us(&mut self, from: Host, to: Host) -> u64 {
        let mut delay_us = self.random.within(&self.faults.delay_us);
        if self.random.chance(self.faults.loss_ppm) {
            self.counters.resends += 1;
            delay_us += self.random.within(&self.faults.resend_us);
        }
        match self.clogged.get(&(from, to)) {
            Some((until_us, extra_us)) if self.now_us < *until_us => delay_us + extra_us,
            Some(_) | None => delay_us,
        }
    }
}

#[cfg(test)]
mod tests;
