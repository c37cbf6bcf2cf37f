//! A seeded cluster in virtual time: nodes, and a link that loses, doubles,
//! delays and overtakes.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod lab;

use addr::{Arrived, Frame, NodeId, PAGE_SIZE, PageBytes};
use fabric::{Channel, Config, Event, Fabric, Outgoing, SendError, Sink};
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use wire::{Body, Packet};

pub const MS: u64 = 1_000_000;
pub const CLUSTER: u64 = 0x5EED;

/// SplitMix64, apart from the fabric's own.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// How bad the link is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u64,
    pub double: u64,
    pub delay_ns: u64,
    pub jitter_ns: u64,
}

pub const FAIR: Weather = Weather { loss: 0, double: 0, delay_ns: 20_000, jitter_ns: 0 };
pub const STORM: Weather = Weather { loss: 100, double: 50, delay_ns: 20_000, jitter_ns: 200_000 };

/// Checks what arrives.
#[derive(Default)]
pub struct Inbox {
    /// Takes no messages now.
    pub closed: bool,
    /// Ids of messages that came.
    pub seen: HashSet<u64>,
    pub order: Vec<u64>,
    /// The page that has landed apart from the frame being handled.
    pub landed: Vec<u8>,
}

/// The page frame in which pages land.
const LANDED: Frame = Frame(0x1A4D);

/// A body that names the message and its page's content.
pub fn body(id: u64, channel: Channel, paged: bool) -> [u8; 32] {
    let mut b = [id as u8; 32];
    b[..8].copy_from_slice(&id.to_le_bytes());
    b[8] = channel as u8;
    b[9] = u8::from(paged);
    b
}

/// The page content that belongs to a message.
pub fn fill(id: u64) -> Box<PageBytes> {
    let mut page = Box::new([0; PAGE_SIZE]);
    let mut rng = Rng(id);
    for chunk in page.as_chunks_mut::<8>().0 {
        *chunk = rng.next().to_le_bytes();
    }
    page
}

impl Sink for Inbox {
    fn is_ready(&self) -> bool {
        !self.closed
    }

    fn deliver(&mut self, _: NodeId, channel: Channel, b: &[u8; 32], page: Option<Arrived<'_>>) {
        let id = u64::from_le_bytes(b[..8].try_into().unwrap());
        assert_eq!(*b, body(id, channel, page.is_some()), "body of {id:#x} is damaged");
        let good = match page {
            None => true,
            Some(Arrived::Bytes(page)) => *page == *fill(id),
            Some(Arrived::Landed(frame)) => {
                assert_eq!(*frame, LANDED);
                self.landed == fill(id)[..]
            }
        };
        assert!(good, "page of {id:#x} is damaged");
        assert!(self.seen.insert(id), "{id:#x} was delivered twice");
        self.order.push(id);
    }
}

pub struct Node {
    pub fabric: Fabric,
    pub config: Config,
    pub inbox: Inbox,
    pub events: Vec<Event>,
    /// Off: hears nothing, sends nothing, its clock stands.
    pub on: bool,
    /// Frames that lent their content to a message, by message.
    pub lent: HashMap<Frame, u64>,
    pub released: Vec<u64>,
    next_frame: u64,
}

#[derive(PartialEq, Eq)]
struct Flying {
    at: u64,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Sees each frame with its sender before the link takes it.
pub type Censor = Box<dyn FnMut(usize, &mut Vec<u8>) -> bool>;

pub struct Sim {
    pub now: u64,
    pub rng: Rng,
    pub weather: Weather,
    pub nodes: Vec<Node>,
    flying: BinaryHeap<Flying>,
    number: u64,
    /// Frames sent, by kind.
    pub sent: BTreeMap<&'static str, u64>,
    /// Numbers beyond the highest grant ever seen, must stay empty.
    grants: HashMap<([u8; 6], [u8; 6], usize), u32>,
    pub highest: HashMap<([u8; 6], [u8; 6], usize), u32>,
    /// Checks against grants; only sound while the grants arrive in order.
    pub watch: bool,
    /// Rewrites or (`false`) drops a frame.
    pub censor: Option<Censor>,
}

pub fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, (n >> 8) as u8, n as u8]
}

pub fn config(n: usize, nodes: u16) -> Config {
    let mut c = Config::new(mac(n), CLUSTER, 7, 0x1000 + n as u64, nodes);
    c.cpus = n as u16 + 1;
    c.pages = 512 * (n as u64 + 1);
    c
}

impl Sim {
    pub fn new(seed: u64, weather: Weather, configs: Vec<Config>) -> Sim {
        println!("seed {seed:#x}, {weather:?}");
        let mut sim = Sim {
            now: 1_000 * MS,
            rng: Rng(seed),
            weather,
            nodes: Vec::new(),
            flying: BinaryHeap::new(),
            number: 0,
            sent: BTreeMap::new(),
            grants: HashMap::new(),
            highest: HashMap::new(),
            watch: true,
            censor: None,
        };
        configs.into_iter().for_each(|c| sim.boot(c));
        sim
    }

    pub fn cluster(seed: u64, weather: Weather, nodes: u16, mtu: u16) -> Sim {
        let make = |n| Config { mtu, seed: seed ^ n as u64, ..config(n, nodes) };
        let mut sim = Sim::new(seed, weather, (0..usize::from(nodes)).map(make).collect());
        sim.until(20_000 * MS, |s| s.nodes.iter().all(|n| n.fabric.membership().is_some()));
        sim
    }

    pub fn boot(&mut self, config: Config) {
        let fabric = Fabric::new(config, self.now);
        self.nodes.push(Node {
            fabric,
            config,
            inbox: Inbox::default(),
            events: Vec::new(),
            on: true,
            lent: HashMap::new(),
            released: Vec::new(),
            next_frame: 1,
        });
    }

    /// The node that holds this membership id.
    pub fn by_id(&self, id: u16) -> usize {
        let is = |n: &Node| n.fabric.membership().is_some_and(|m| m.me == NodeId(id));
        self.nodes.iter().position(is).unwrap()
    }

    /// Sends a message `id` with a page of its own, if wanted.
    pub fn send(
        &mut self,
        from: usize,
        to: NodeId,
        channel: Channel,
        id: u64,
        paged: bool,
    ) -> Result<(), SendError> {
        let node = &mut self.nodes[from];
        let page = paged.then_some(Frame(node.next_frame));
        let body = body(id, channel, paged);
        node.fabric
            .send(self.now, &Outgoing { to, channel, body, page, patient: id.is_multiple_of(4) })?;
        if let Some(frame) = page {
            node.next_frame += 1;
            node.lent.insert(frame, id);
        }
        self.drain(from);
        Ok(())
    }

    /// Takes everything a node has to give.
    pub fn drain(&mut self, n: usize) {
        let mut header = [0; 600];
        loop {
            let may = self.nodes[n].fabric.has_output();
            let Some(t) = self.nodes[n].fabric.poll_transmit(self.now, &mut header) else { break };
            assert!(may, "a frame that the cheap look does not see");
            let mut bytes = header[..t.header_len].to_vec();
            if let Some(slice) = t.page {
                assert_ne!(slice.len, 0, "a part of a page without bytes");
                let id = self.nodes[n].lent.get(&slice.frame).copied().unwrap_or(0);
                let from = usize::from(slice.offset);
                bytes.extend_from_slice(&fill(id)[from..from + usize::from(slice.len)]);
            }
            assert!(bytes.len() <= 14 + usize::from(self.nodes[n].config.mtu));
            self.launch(n, bytes);
        }
        let node = &mut self.nodes[n];
        assert!(!node.fabric.has_output(), "nothing is left to send");
        while let Some(event) = node.fabric.poll_event() {
            node.events.push(event);
        }
        while let Some(frame) = node.fabric.poll_released() {
            let id = node.lent.remove(&frame).expect("released a frame it does not hold");
            node.released.push(id);
        }
    }

    /// Notes what a frame grants and checks what it uses.
    fn inspect(&mut self, n: usize, bytes: &[u8]) {
        let packet = Packet::parse(bytes).expect("own frames are well-formed");
        let h = packet.header;
        *self.sent.entry(kind_name(&packet.body)).or_default() += 1;
        let link = match packet.body {
            Body::Data(d) => {
                for m in d.messages().filter(|_| self.watch) {
                    let key = (h.src, h.dst, m.channel.index());
                    let grant = self.grants.get(&key).copied();
                    let window = u32::from(fabric_window(&self.nodes[n].config));
                    assert!(m.sequence < grant.unwrap_or(window), "credit exceeded");
                    let top = self.highest.entry(key).or_default();
                    *top = (*top).max(m.sequence + 1);
                }
                d.link
            }
            Body::Ack(l) | Body::Heartbeat(l) => l,
            _ => return,
        };
        for c in 0..3 {
            let grant = self.grants.entry((h.dst, h.src, c)).or_default();
            *grant = (*grant).max(link.awaited[c] + u32::from(link.window[c]));
        }
    }

    fn launch(&mut self, n: usize, mut bytes: Vec<u8>) {
        self.inspect(n, &bytes);
        let dst: [u8; 6] = bytes[..6].try_into().unwrap();
        if let Some(censor) = self.censor.as_mut()
            && !censor(n, &mut bytes)
        {
            return;
        }
        for to in (0..self.nodes.len()).filter(|&to| to != n) {
            if dst != wire::BROADCAST && dst != self.nodes[to].config.mac {
                continue;
            }
            if self.rng.chance(self.weather.loss) {
                continue;
            }
            let copies = 1 + u64::from(self.rng.chance(self.weather.double));
            for _ in 0..copies {
                let jitter = self.rng.below(self.weather.jitter_ns + 1);
                let at = self.now + self.weather.delay_ns + jitter;
                self.number += 1;
                self.flying.push(Flying { at, number: self.number, to, bytes: bytes.clone() });
            }
        }
    }

    /// When the next thing happens.
    fn next(&self) -> Option<u64> {
        let on = self.nodes.iter().filter(|n| n.on);
        let timers = on.filter_map(|n| n.fabric.poll_timeout());
        timers.chain(self.flying.peek().map(|f| f.at)).min()
    }

    /// Makes the next thing happen.
    pub fn step(&mut self) {
        let Some(at) = self.next() else {
            self.now += MS;
            return;
        };
        let frame = self.flying.peek().map(|f| f.at);
        self.now = self.now.max(at);
        if frame.is_some_and(|f| f <= self.now) {
            let Flying { to, bytes, .. } = self.flying.pop().unwrap();
            let node = &mut self.nodes[to];
            if node.on {
                let before = node.lent.len();
                if bytes.len() == wire::PAGE_OFFSET + PAGE_SIZE && self.rng.chance(500) {
                    let (head, page) = bytes.split_at(wire::PAGE_OFFSET);
                    node.inbox.landed = page.to_vec();
                    let mut landed = LANDED;
                    node.fabric.handle_landed(self.now, head, &mut landed, &mut node.inbox);
                } else {
                    node.fabric.handle_frame(self.now, &bytes, &mut node.inbox);
                }
                assert!(before >= node.lent.len());
                self.drain(to);
            }
            return;
        }
        for n in 0..self.nodes.len() {
            let due = self.nodes[n].fabric.poll_timeout().is_some_and(|t| t <= self.now);
            if self.nodes[n].on && due {
                self.nodes[n].fabric.handle_timeout(self.now);
                let again = self.nodes[n].fabric.poll_timeout();
                assert!(again.is_none_or(|t| t > self.now), "a timer that stays due");
                self.drain(n);
            }
        }
    }

    pub fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.next().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = self.now.max(end);
    }

    /// Runs until `done`, at most for `ns`.
    pub fn until(&mut self, ns: u64, done: impl Fn(&Sim) -> bool) {
        let end = self.now + ns;
        while !done(self) {
            assert!(self.now < end, "not done in {ns} ns of virtual time");
            self.step();
        }
    }

    pub fn has(&self, n: usize, event: &Event) -> bool {
        self.nodes[n].events.contains(event)
    }
}

fn fabric_window(c: &Config) -> u8 {
    let peers = u32::from(c.nodes.max(2) - 1);
    (u32::from(c.ring) / (peers * 3)).clamp(4, 60) as u8
}

fn kind_name(body: &Body<'_>) -> &'static str {
    match body {
        Body::Hello(_) => "hello",
        Body::Propose(_) => "propose",
        Body::Commit(_) => "commit",
        Body::Accept(_) => "accept",
        Body::Refuse(_) => "refuse",
        Body::Data(_) => "data",
        Body::Ack(_) => "ack",
        Body::Heartbeat(_) => "heartbeat",
        Body::Stop(_) => "stop",
        Body::StopAck => "stop-ack",
        Body::Probe(_) => "probe",
        Body::ProbeReply(_) => "probe-reply",
    }
}
