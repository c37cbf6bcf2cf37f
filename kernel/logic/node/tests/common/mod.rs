//! Production nodes on a perfect link, and a guest on the first of them, whose
//! processor plays exits back.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use addr::{Access, Frame, Gfn, GuestPhys, NodeId};
use coherence::Progress;
use fabric::{Config, Desk, Event};
use machine::{CpuPlace, GuestMemory, Machine};
use node::view::View;
use node::{Clock, Cluster, Guest, Node, Step};
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::cell::Cell;
use std::collections::VecDeque;
use vcpu::fake::FakeVcpu;
use vcpu::{Exit, RAX, RBX, RCX, RDX};

pub const MS: u64 = 1_000_000;
/// Ticks a second: a tick is a nanosecond.
pub const HZ: u64 = 1_000_000_000;
/// Frames of each node, enough to add 512 pages to the guest's memory.
pub const FRAMES: u64 = 1024;
/// The first page whose home is the second node.
pub const FAR: Gfn = Gfn(512);

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1) };
}

/// The time, which passes with every look at it.
pub fn tsc() -> u64 {
    NOW.with(|now| {
        now.set(now.get() + 10);
        now.get()
    })
}

pub fn sleep(ns: u64) {
    NOW.with(|now| now.set(now.get() + ns));
}

pub struct Host {
    pub node: Node,
    pub memory: VecMemory,
    pool: Option<FramePool>,
    pub events: Vec<Event>,
}

pub struct World {
    pub hosts: Vec<Host>,
    pub guest: Option<Guest>,
    pub vcpu: FakeVcpu,
    /// Frames that wait, with the node that they go to.
    pub flying: VecDeque<(usize, Vec<u8>)>,
    /// Whether frames arrive.
    pub connected: bool,
    /// Frames that left before the steps that sent them.
    pub foreseen: u64,
}

fn mac(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, n as u8]
}

impl World {
    /// A formed cluster of `nodes` nodes.
    pub fn new(nodes: usize) -> World {
        let make = |n: usize| {
            let config = Config {
                pages: FRAMES,
                has_payload: n == 0,
                ..Config::new(mac(n), 1, 1, n as u64 + 1, nodes as u16)
            };
            let mut pool = FramePool::new();
            pool.add(Frame(1), Frame(FRAMES + 1));
            pool.know(Frame(FRAMES + 1), Frame(FRAMES + 2));
            Host {
                node: Node::new(config, Clock::new(HZ), tsc()),
                memory: VecMemory::new(FRAMES as usize + 2),
                pool: Some(pool),
                events: Vec::new(),
            }
        };
        let mut world = World {
            hosts: (0..nodes).map(make).collect(),
            guest: None,
            vcpu: FakeVcpu::default(),
            flying: VecDeque::new(),
            connected: true,
            foreseen: 0,
        };
        for _ in 0..1000 {
            world.pass(MS);
            if world.hosts.iter().all(|h| h.node.cluster.is_some()) {
                world.pass(200 * MS);
                return world;
            }
        }
        panic!("they never form");
    }

    /// The same with a guest on the first node that runs in real mode from
    /// [`CODE`] on.
    pub fn with_guest(nodes: usize) -> World {
        let mut world = World::new(nodes);
        let layout = world.cluster(0).coherence().layout().clone();
        let cpus = vec![CpuPlace { apic_id: 0, node: NodeId(0) }];
        let config =
            machine::Config { layout, cpus, tsc_hz: HZ, rtc_unix_seconds: 0, start_tsc: tsc() };
        world.guest = Some(Guest::new(Machine::new(config).expect("a machine")));
        assert_eq!(world.exit(Exit::HostInterrupt), Step::Interrupted);
        world.vcpu.system.cs.base = 0;
        world.vcpu.registers.rip = CODE.0;
        world.put(CODE, &[0x0F, 0x01, 0xD9]); // VMMCALL
        world
    }

    pub fn cluster(&mut self, n: usize) -> &mut Cluster {
        self.hosts[n].node.cluster.as_mut().expect("it has formed")
    }

    pub fn view(&mut self, n: usize) -> View<'_, VecMemory> {
        let Host { node, memory, .. } = &mut self.hosts[n];
        View { cluster: node.cluster.as_mut().expect("it has formed"), memory }
    }

    /// Timers run and everything that is on its way arrives.
    pub fn pass(&mut self, ns: u64) {
        sleep(ns);
        for n in 0..self.hosts.len() {
            let Host { node, memory, .. } = &mut self.hosts[n];
            node.tick(tsc(), memory);
            self.happened(n);
        }
        self.exchange();
    }

    fn happened(&mut self, n: usize) {
        loop {
            let guest = self.guest.as_mut().filter(|_| n == 0);
            let Host { node, memory, pool, events } = &mut self.hosts[n];
            let Some(event) = node.event(tsc(), guest) else { return };
            if event == Event::Formed {
                let membership = node.fabric().membership().expect("it has formed").clone();
                let pool = pool.take().expect("it forms once");
                let cluster = Cluster::new(&membership, pool, Format::NPT, memory);
                node.cluster = Some(cluster.expect("large enough"));
            }
            events.push(event);
        }
    }

    /// Puts a frame of a node on its way.
    fn fly(&mut self, n: usize, header: &[u8], t: fabric::Transmit) {
        let mut bytes = header[..t.header_len].to_vec();
        if let Some(slice) = t.page {
            let start = bytes.len();
            bytes.resize(start + usize::from(slice.len), 0);
            let memory = &self.hosts[n].memory;
            memory.read(slice.frame, usize::from(slice.offset), &mut bytes[start..]);
        }
        for to in (0..self.hosts.len()).filter(|&to| to != n && self.connected) {
            if bytes[..6] == wire::BROADCAST || bytes[..6] == mac(to) {
                self.flying.push_back((to, bytes.clone()));
            }
        }
    }

    /// Takes what a node has to send.
    pub fn collect(&mut self, n: usize) {
        let mut header = [0; 600];
        loop {
            let may = self.hosts[n].node.has_output();
            let Some(t) = self.hosts[n].node.transmit(tsc(), &mut header) else { break };
            assert!(may, "a frame that the cheap look does not see");
            self.fly(n, &header, t);
            let guest = self.guest.as_mut().filter(|_| n == 0);
            self.hosts[n].node.sent(tsc(), t.page.is_some(), guest);
        }
        assert!(!self.hosts[n].node.has_output(), "nothing is left to send");
    }

    /// Everything that is on its way arrives.
    pub fn exchange(&mut self) {
        (0..self.hosts.len()).for_each(|n| self.collect(n));
        while let Some((to, bytes)) = self.flying.pop_front() {
            sleep(1000);
            if let Some(guest) = self.guest.as_mut().filter(|_| to == 0) {
                guest.received(tsc());
            }
            let Host { node, memory, .. } = &mut self.hosts[to];
            let mut header = [0; 600];
            let mut desk = Desk { header: &mut header, laid: None };
            if let Some(t) = node.foresee(tsc(), &bytes, memory, &mut desk) {
                node.foresaw(tsc(), t.page.is_some());
                self.foreseen += 1;
                self.fly(to, &header, t);
            }
            let Host { node, memory, .. } = &mut self.hosts[to];
            node.frame(tsc(), &bytes, memory);
            assert!(!node.fabric().has_foreseen(), "what has left was sent");
            self.collect(to);
            self.happened(to);
        }
    }

    /// An access of a node itself, until it is done.
    pub fn touch(&mut self, n: usize, gfn: Gfn, access: Access) {
        for _ in 0..100 {
            let Host { node, memory, .. } = &mut self.hosts[n];
            let cluster = node.cluster.as_mut().expect("it has formed");
            if cluster.access(memory, gfn, access, 0) == Progress::Ready {
                cluster.release_held(memory);
                self.exchange();
                return;
            }
            self.pass(MS);
        }
        panic!("{gfn:?} never comes to node {n}");
    }

    /// Puts bytes in the guest's memory by way of the first node.
    pub fn put(&mut self, gpa: GuestPhys, bytes: &[u8]) {
        self.touch(0, gpa.gfn(), Access::Write);
        self.view(0).write(gpa, bytes).expect("it is here");
    }

    pub fn step(&mut self) -> Step {
        let guest = self.guest.as_mut().expect("a guest");
        let Host { node, memory, .. } = &mut self.hosts[0];
        let step = node.run_guest(guest, &mut self.vcpu, memory, tsc);
        let mut header = [0; 600];
        let mut desk = Desk { header: &mut header, laid: None };
        let foreseen = node.foresee_guest(tsc(), guest, &mut desk);
        if let Some(t) = foreseen {
            node.sent(tsc(), false, Some(guest));
            self.foreseen += 1;
            self.fly(0, &header, t);
        }
        let guest = self.guest.as_mut().expect("a guest");
        let Host { node, memory, .. } = &mut self.hosts[0];
        node.ask(tsc(), guest, memory);
        node.meanwhile(guest, memory);
        step
    }

    /// Runs the guest to this exit.
    pub fn exit(&mut self, exit: Exit) -> Step {
        self.vcpu.exits = [None; 16];
        // What comes behind it shows that the guest has been entered again.
        self.vcpu.exits[..2].copy_from_slice(&[Some(exit), Some(Exit::HostInterrupt)]);
        self.vcpu.next = 0;
        self.step()
    }

    /// Goes on until the guest has been entered again after an exit.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.exchange();
            if self.step() == Step::Interrupted {
                return;
            }
            self.pass(MS / 10);
        }
        panic!("the guest never goes on");
    }

    /// A hypercall and its result.
    pub fn call(&mut self, number: u64, [rbx, rcx, rdx]: [u64; 3]) -> u64 {
        let registers = &mut self.vcpu.registers;
        registers.rip = CODE.0;
        for (register, value) in [(RAX, number), (RBX, rbx), (RCX, rcx), (RDX, rdx)] {
            registers.gpr[register] = value;
        }
        self.exit(Exit::Hypercall);
        self.settle();
        assert_eq!(self.vcpu.registers.rip, CODE.0 + 3);
        self.vcpu.registers.gpr[RAX]
    }
}

/// Where the guest's instruction is.
pub const CODE: GuestPhys = GuestPhys(0x1000);
