//! Clusters of production fabrics that find each other, in virtual time: every
//! node exists. The link is 10 Gbit/s to each node and takes 10 us; a node
//! takes 500 ns for a frame and has a ring of 256.
//!
//! What a whole cluster costs to simulate grows with the square of its nodes:
//! each hears the Hello of each, and each keeps something for each. So of the
//! largest ones only some nodes, the leader among them, are *witnesses*, about
//! which everything is as it would be. The others run the same fabric, but
//!
//! - Hellos of other than witnesses come to them (they are counted, and take
//!   their place in the ring) and are not read: such a node would only count
//!   the senders, since it is not the one that proposes;
//! - once such a node has the membership it is let alone for
//!   60 ms, in which it sends its greetings, and is then given up.

use fabric::{Config, Fabric, Kind};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

const WIRE_NS: u64 = 10_000;
const TAKE_NS: u64 = 500;
const RING: u64 = 256;
const MS: u64 = 1_000_000;
/// Longer than a node takes until it has greeted the leader, and less than
/// until its first heartbeat.
const ALONE_NS: u64 = 60 * MS;
/// Witnesses of a cluster of which not all nodes are.
const WITNESSES: u16 = 64;

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
    /// `None` once it has been given up.
    fabric: Option<Fabric>,
    /// When its NIC has sent all that it was given.
    sent_until: u64,
    /// The timer that is in the queue.
    timer: u64,
}

/// What came to a node, apart from it: broadcasts go through all of these.
#[derive(Clone, Copy, Default)]
struct Ring {
    /// When the node has taken in all that came.
    busy_until: u64,
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
    rings: Vec<Ring>,
    /// Every so many nodes one is a witness.
    witness_every: u16,
    /// When frames were sent by nodes that have been given up.
    sent: Vec<u64>,
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
    /// Nodes that are simulated in all they do.
    pub witnesses: u16,
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

impl Join {
    /// Frames that a node sent until the cluster had formed, on average.
    #[must_use]
    pub fn each(&self) -> f64 {
        self.frames as f64 / f64::from(self.nodes)
    }
}

impl Net {
    fn push(&mut self, at: u64, what: What) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number, what)));
    }

    fn is_witness(&self, n: u16) -> bool {
        n.is_multiple_of(self.witness_every)
    }

    fn frames_out(&self, n: usize) -> u64 {
        self.nodes[n].fabric.as_ref().map_or(0, |f| f.counters().frames_out.iter().sum())
    }

    /// Sends what a node has; when its next timer runs out.
    fn send(&mut self, n: u16, now: u64) -> u64 {
        let mut buf = [0; 2048];
        let node = &mut self.nodes[usize::from(n)];
        let fabric = node.fabric.as_mut().expect("it has not been given up");
        let mut frames = Vec::new();
        while let Some(t) = fabric.poll_transmit(now, &mut buf) {
            let length = t.header_len.max(60) as u64;
            node.sent_until = node.sent_until.max(now) + (length + 24) * 4 / 5;
            let to = (buf[..6] != wire::BROADCAST).then(|| u16::from_be_bytes([buf[4], buf[5]]));
            frames.push((node.sent_until + WIRE_NS, to, Rc::from(&buf[..t.header_len])));
        }
        while fabric.poll_event().is_some() {}
        let next = fabric.poll_timeout().unwrap_or(u64::MAX).max(now + 1);
        for (at, to, bytes) in frames {
            self.push(at, What::Frame(n, to, bytes));
        }
        next
    }

    /// Sends what a node has and sets its timer.
    fn settle(&mut self, n: u16) {
        let at = self.send(n, self.now);
        let node = &mut self.nodes[usize::from(n)];
        if at != u64::MAX && (at < node.timer || node.timer <= self.now) {
            node.timer = at;
            self.push(at, What::Timer(n));
        }
    }

    /// Lets a node that has the membership send its greetings, alone, and
    /// gives it up.
    fn give_up(&mut self, n: u16) {
        let mut now = self.now;
        let sent = |net: &Net| net.frames_out(usize::from(n));
        self.sent.extend((0..sent(self)).map(|_| now));
        while now < self.now + ALONE_NS {
            let before = sent(self);
            let next = self.send(n, now);
            self.sent.extend((before..sent(self)).map(|_| now));
            now = next;
            let fabric = self.nodes[usize::from(n)].fabric.as_mut();
            fabric.expect("it is there").handle_timeout(now);
        }
        let node = &mut self.nodes[usize::from(n)];
        (node.fabric, node.timer) = (None, u64::MAX);
    }

    fn take(&mut self, n: u16, from: u16, bytes: &[u8]) {
        let now = self.now;
        let ring = &mut self.rings[usize::from(n)];
        if ring.busy_until > now + RING * TAKE_NS {
            self.lost += 1;
            return;
        }
        ring.busy_until = ring.busy_until.max(now) + TAKE_NS;
        ring.frames_in += 1;
        let read = self.is_witness(n) || self.is_witness(from) || bytes[..6] != wire::BROADCAST;
        let Some(fabric) = self.nodes[usize::from(n)].fabric.as_mut().filter(|_| read) else {
            return;
        };
        let before = fabric.membership().is_some();
        fabric.handle_frame(now, bytes, &mut Nobody);
        let formed = !before && fabric.membership().is_some();
        self.formed += usize::from(formed);
        if formed && !self.is_witness(n) {
            self.give_up(n);
        } else {
            self.settle(n);
        }
    }

    fn step(&mut self) {
        let Reverse((at, _, what)) = self.queue.pop().expect("there is always a timer");
        self.now = at;
        match what {
            What::Timer(n) => {
                let node = &mut self.nodes[usize::from(n)];
                if node.timer == at
                    && let Some(fabric) = node.fabric.as_mut()
                {
                    node.timer = u64::MAX;
                    fabric.handle_timeout(at);
                    self.settle(n);
                }
            }
            What::Frame(from, Some(to), bytes) => self.take(to, from, &bytes),
            What::Frame(from, None, bytes) => {
                (0..self.nodes.len() as u16)
                    .filter(|&n| n != from)
                    .for_each(|n| self.take(n, from, &bytes));
            }
        }
    }
}

impl Net {
    fn run_until(&mut self, at: u64) {
        while self.now < at {
            self.step();
        }
    }

    /// Most heartbeats that a witness sends in a second, half a second from
    /// now.
    fn heartbeats(&mut self) -> u64 {
        let beats = |net: &Net| -> Vec<u64> {
            let of = |f: &Fabric| f.counters().frames_out[Kind::Heartbeat.index()];
            net.nodes.iter().filter_map(|n| n.fabric.as_ref()).map(of).collect()
        };
        let settled = self.now + 500 * MS;
        self.run_until(settled);
        let before = beats(self);
        self.run_until(settled + 1_000 * MS);
        beats(self).iter().zip(&before).map(|(a, b)| a - b).max().unwrap_or(0)
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

/// Forms a cluster of which every node is a witness, and watches it for a
/// second.
///
/// # Panics
/// If it has not formed after a minute.
#[must_use]
pub fn measure(nodes: u16) -> Join {
    form(nodes, 1)
}

/// The same of a large cluster with 64 witnesses.
///
/// # Panics
/// As [`measure`].
#[must_use]
pub fn measure_sampled(nodes: u16) -> Join {
    form(nodes, nodes.div_ceil(WITNESSES))
}

fn form(nodes: u16, witness_every: u16) -> Join {
    let node = |n: u16| {
        let config = Config::new(mac(n), 1, 1, u64::from(n) + 1, nodes);
        Node { fabric: Some(Fabric::new(config, 0)), sent_until: 0, timer: u64::MAX }
    };
    let mut net = Net {
        now: 0,
        nodes: (0..nodes).map(node).collect(),
        rings: vec![Ring::default(); usize::from(nodes)],
        witness_every,
        sent: Vec::new(),
        queue: BinaryHeap::new(),
        number: 0,
        lost: 0,
        formed: 0,
    };
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
    let given_up = net.sent.iter().filter(|&&at| at <= net.now).count() as u64;
    let mut join = Join {
        nodes,
        witnesses: nodes.div_ceil(witness_every),
        formed_ms: net.now / MS,
        leader_out: net.frames_out(0),
        frames: given_up + (0..usize::from(nodes)).map(|n| net.frames_out(n)).sum::<u64>(),
        most_in: net.rings.iter().map(|ring| ring.frames_in).max().unwrap_or(0),
        lost: net.lost,
        heartbeats: 0,
    };
    join.heartbeats = net.heartbeats();
    join
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster of which some nodes are witnesses forms as if all were.
    #[test]
    fn a_sample_shows_what_the_whole_would() {
        let (whole, sampled) = (measure(256), form(256, 8));
        assert_eq!((whole.witnesses, sampled.witnesses), (256, 32));
        let near = |a: u64, b: u64| a.abs_diff(b) * 20 <= a.max(b);
        let pairs = |j: &Join| [j.formed_ms, j.leader_out, j.frames, j.most_in, j.heartbeats];
        let mut both = pairs(&whole).into_iter().zip(pairs(&sampled));
        assert!(both.all(|(a, b)| near(a, b)), "{whole:?} is not {sampled:?}");
        assert_eq!(whole.lost, sampled.lost);
    }

    /// What all nodes together send grows with their number, not its square.
    #[test]
    fn frames_of_a_node_do_not_grow_with_the_cluster() {
        let (small, large) = (measure(64), measure(256));
        let each = |j: &Join| j.frames / u64::from(j.nodes);
        assert!(each(&large) <= each(&small) + 1, "{small:?} {large:?}");
    }
}
