//! Whole clusters of production fabrics that find each other, in virtual
//! time: every node exists. The link is 10 Gbit/s to each node and takes 10 us;
//! a node takes 500 ns for a frame and has a ring of 256.

use fabric::{Config, Fabric, Kind};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

const WIRE_NS: u64 = 10_000;
const TAKE_NS: u64 = 500;
const RING: u64 = 256;
const MS: u64 = 1_000_000;

struct Nobody;
impl fabric::Sink for Nobody {
    fn deliver(
        &mut self,
        _: addr::NodeId,
        _: wire::Channel,
        _: &[u8; wire::BODY_BYTES],
        _: Option<addr::Arrived<'_>>,
    ) {
    }
}

struct Node {
    fabric: Fabric,
    /// When it has taken in all that came.
    busy_until: u64,
    /// When its NIC has sent all that it was given.
    sent_until: u64,
    /// The timer that is in the queue.
    timer: u64,
    frames_in: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Timer(u16),
    /// From, to (all, if none), and the frame.
    Frame(u16, Option<u16>, Rc<[u8]>),
}

struct Net {
    now: u64,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64, What)>>,
    number: u64,
    lost: u64,
    formed: usize,
}

fn mac(n: u16) -> [u8; 6] {
    let [high, low] = n.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// What it takes to form a cluster, and to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Nodes.
    pub nodes: u16,
    /// From power-on (within 10 ms) to the last node that has the membership.
    pub formed_ms: u64,
    /// Frames sent by the leader until then.
    pub leader_out: u64,
    /// Frames sent by all nodes until then, a broadcast counted once.
    pub frames: u64,
    /// Most frames that came to one node until then.
    pub most_in: u64,
    /// Frames that found a ring full until then.
    pub lost: u64,
    /// Heartbeats that a node sends in a second afterwards, at most.
    pub heartbeats: u64,
}

impl Net {
    fn push(&mut self, at: u64, what: What) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number, what)));
    }

    fn frames_out(&self, n: usize) -> u64 {
        self.nodes[n].fabric.counters().frames_out.iter().sum()
    }

    /// Sends what a node has and sets its timer.
    fn settle(&mut self, n: u16) {
        let mut buf = [0; 2048];
        let mut frames = Vec::new();
        let now = self.now;
        let node = &mut self.nodes[usize::from(n)];
        while let Some(t) = node.fabric.poll_transmit(now, &mut buf) {
            let length = t.header_len.max(60) as u64;
            node.sent_until = node.sent_until.max(now) + (length + 24) * 4 / 5;
            let to = (buf[..6] != wire::BROADCAST).then(|| u16::from_be_bytes([buf[4], buf[5]]));
            frames.push((node.sent_until + WIRE_NS, to, Rc::from(&buf[..t.header_len])));
        }
        while node.fabric.poll_event().is_some() {}
        let at = node.fabric.poll_timeout().unwrap_or(u64::MAX).max(now + 1);
        let again = at != u64::MAX && (at < node.timer || node.timer <= now);
        if again {
            node.timer = at;
        }
        for (at, to, bytes) in frames {
            self.push(at, What::Frame(n, to, bytes));
        }
        if again {
            self.push(at, What::Timer(n));
        }
    }

    fn take(&mut self, n: u16, bytes: &[u8]) {
        let now = self.now;
        let node = &mut self.nodes[usize::from(n)];
        if node.busy_until > now + RING * TAKE_NS {
            self.lost += 1;
            return;
        }
        node.busy_until = node.busy_until.max(now) + TAKE_NS;
        node.frames_in += 1;
        let before = node.fabric.membership().is_some();
        node.fabric.handle_frame(now, bytes, &mut Nobody);
        self.formed += usize::from(!before && node.fabric.membership().is_some());
        self.settle(n);
    }

    fn step(&mut self) {
        let Reverse((at, _, what)) = self.queue.pop().expect("there is always a timer");
        self.now = at;
        match what {
            What::Timer(n) => {
                let node = &mut self.nodes[usize::from(n)];
                if node.timer == at {
                    node.timer = u64::MAX;
                    node.fabric.handle_timeout(at);
                    self.settle(n);
                }
            }
            What::Frame(_, Some(to), bytes) => self.take(to, &bytes),
            What::Frame(from, None, bytes) => {
                (0..self.nodes.len() as u16)
                    .filter(|&n| n != from)
                    .for_each(|n| self.take(n, &bytes));
            }
        }
    }
}

/// A fabric that has formed with peers of which none exists: what they would
/// send is made up here.
///
/// # Panics
/// If it does not form.
#[must_use]
pub fn formed_alone(config: Config) -> Fabric {
    let mut fabric = Fabric::new(config, 0);
    let entry = |n: u16| wire::Entry {
        mac: mac(n),
        window: 4,
        has_payload: false,
        lead: false,
        incarnation: u64::from(n) + 1,
        pages: config.pages,
        cpus: 1,
        mtu: config.mtu,
    };
    let header = |n: u16, epoch, kind| wire::Header {
        dst: config.mac,
        src: mac(n),
        kind,
        from: wire::NO_NODE,
        payload: 0,
        cluster: config.cluster,
        epoch,
        free_frames: 0,
        masters: 0,
    };
    let mut buf = [0; 2048];
    for n in 1..config.nodes {
        let known = config.nodes;
        let (build, nodes, entry) = (config.build, config.nodes, entry(n));
        let hello = wire::Hello { build, nodes, known, entry };
        let len = hello.emit(&header(n, 0, Kind::Hello), &mut buf);
        fabric.handle_frame(1, &buf[..len], &mut Nobody);
    }
    let mut epoch = 0;
    let mut sent = [0; 2048];
    while let Some(t) = fabric.poll_transmit(2, &mut sent) {
        let packet = wire::Packet::parse(&sent[..t.header_len]).expect("its own frame");
        if packet.header.kind == Kind::Propose {
            epoch = packet.header.epoch;
        }
    }
    for n in 1..config.nodes {
        let accept = wire::Accept { incarnation: u64::from(n) + 1 };
        let len = accept.emit(&header(n, epoch, Kind::Accept), &mut buf);
        fabric.handle_frame(3, &buf[..len], &mut Nobody);
    }
    assert!(fabric.membership().is_some(), "{} nodes do not form", config.nodes);
    fabric
}

/// Forms a cluster and watches it for a second.
///
/// # Panics
/// If it has not formed after a minute.
#[must_use]
pub fn measure(nodes: u16) -> Join {
    let node = |n: u16| {
        let config = Config::new(mac(n), 1, 1, u64::from(n) + 1, nodes);
        let timer = u64::MAX;
        Node { fabric: Fabric::new(config, 0), busy_until: 0, sent_until: 0, timer, frames_in: 0 }
    };
    let nodes_all = (0..nodes).map(node).collect();
    let queue = BinaryHeap::new();
    let mut net = Net { now: 0, nodes: nodes_all, queue, number: 0, lost: 0, formed: 0 };
    for n in 0..nodes {
        // Switched on one after the other, within 10 ms.
        let at = u64::from(n) * 10 * MS / u64::from(nodes) + 1;
        net.nodes[usize::from(n)].timer = at;
        net.push(at, What::Timer(n));
    }
    while net.formed < usize::from(nodes) {
        net.step();
        assert!(net.now < 60_000 * MS, "{} of {nodes} nodes have formed", net.formed);
    }
    let mut join = Join {
        nodes,
        formed_ms: net.now / MS,
        leader_out: net.frames_out(0),
        frames: (0..usize::from(nodes)).map(|n| net.frames_out(n)).sum(),
        most_in: net.nodes.iter().map(|n| n.frames_in).max().unwrap_or(0),
        lost: net.lost,
        heartbeats: 0,
    };
    let beats = |net: &Net| -> Vec<u64> {
        let of = |n: &Node| n.fabric.counters().frames_out[Kind::Heartbeat.index()];
        net.nodes.iter().map(of).collect()
    };
    let until = |net: &mut Net, at: u64| {
        while net.now < at {
            net.step();
        }
    };
    let settled = net.now + 500 * MS;
    until(&mut net, settled);
    let before = beats(&net);
    until(&mut net, settled + 1_000 * MS);
    join.heartbeats = beats(&net).iter().zip(&before).map(|(a, b)| a - b).max().unwrap_or(0);
    join
}
