//! The engine of a node: frames, time and exits in; frames and events out.
//!
//! A [`Node`] owns the fabric from the start, its part in the cluster once
//! that has formed ([`cluster`]), and the measurements ([`stages`]). On the
//! leading node a [`guest::Guest`] runs beside it. The image's main loop feeds
//! it: [`Node::frame`] for each frame received, [`Node::tick`] now and then,
//! [`Node::transmit`] until it has nothing to send, [`Node::event`] for what
//! happened. Nothing here touches hardware: the simulator drives the same
//! calls.
//!
//! Neighbours: `fabric` and `coherence`, which it joins; `machine`, for which
//! it is the guest's memory ([`view`]); above it `kernel/image`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod actor;
pub mod bench;
pub mod clock;
pub mod cluster;
mod early;
mod fatal;
mod foresee;
mod glimpse;
pub mod guest;
pub mod histogram;
mod hold;
pub mod hot;
pub mod lull;
mod merging;
mod outbox;
mod patience;
pub mod report;
mod rooms;
pub mod settings;
pub mod stages;
pub mod streams;
pub mod view;

pub use clock::Clock;
pub use cluster::Cluster;
pub use fatal::{Fatal, TooSmall};
pub use guest::{End, Guest, Step};
pub use settings::Settings;

use addr::{Frame, Gfn};
use fabric::{Event, Fabric, Transmit};
use paging::HostMemory;
use stages::Stages;

/// One node.
pub struct Node {
    fabric: Fabric,
    /// This node's part in the cluster, once it has formed.
    pub cluster: Option<Cluster>,
    /// Measurements.
    pub stages: Stages,
    clock: Clock,
    /// TSC at the arrival of the frame that is being served; 0 for none.
    serving_since: u64,
    /// The eviction whose duration is being measured.
    eviction: Option<(Gfn, u64)>,
}

impl Node {
    /// A node that looks for its cluster.
    #[must_use]
    pub fn new(config: fabric::Config, clock: Clock, now_tsc: u64) -> Node {
        Node {
            fabric: Fabric::new(config, clock.ns(now_tsc)),
            cluster: None,
            stages: Stages::default(),
            clock,
            serving_since: 0,
            eviction: None,
        }
    }

    /// The fabric.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The fabric, for probes and to stop the cluster.
    pub fn fabric_mut(&mut self) -> &mut Fabric {
        &mut self.fabric
    }

    /// The node's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes a frame from the link. Bounded work, no allocation.
    pub fn frame(&mut self, tsc: u64, bytes: &[u8], memory: &mut impl HostMemory) {
        let now_ns = self.clock.ns(tsc);
        match &mut self.cluster {
            Some(cluster) => {
                // What was foreseen of it has been served.
                self.serving_since = if self.fabric.has_foreseen() { 0 } else { tsc };
                cluster.frame(&mut self.fabric, now_ns, (bytes, None), memory);
                self.keep_word(tsc);
            }
            None => self.fabric.handle_frame(now_ns, bytes, &mut Nobody),
        }
    }

    /// Takes a frame whose whole page has landed in a page frame of the
    /// link's, apart from its other `bytes`. Says which page frame the link
    /// has from now on: `page`, or another if this node keeps that one.
    pub fn landed(
        &mut self,
        tsc: u64,
        bytes: &[u8],
        page: Frame,
        memory: &mut impl HostMemory,
    ) -> Frame {
        let now_ns = self.clock.ns(tsc);
        let mut page = page;
        match &mut self.cluster {
            Some(cluster) => {
                self.serving_since = tsc;
                cluster.frame(&mut self.fabric, now_ns, (bytes, Some(&mut page)), memory);
                cluster.settled();
            }
            None => self.fabric.handle_landed(now_ns, bytes, &mut page, &mut Nobody),
        }
        page
    }

    /// Hands the next frame for the link: its first part in `header`, the rest
    /// in a page. Call until it returns nothing.
    pub fn transmit(&mut self, tsc: u64, header: &mut [u8]) -> Option<Transmit> {
        let now_ns = self.clock.ns(tsc);
        if let Some(cluster) = &mut self.cluster
            && cluster.has_output()
        {
            cluster.flush_outbox(&mut self.fabric, now_ns);
        }
        self.fabric.poll_transmit(now_ns, header)
    }

    /// Whether [`Node::transmit`] may have something: a cheap look.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.fabric.has_output() || self.cluster.as_ref().is_some_and(Cluster::has_output)
    }

    /// Notes that a frame has been given to the NIC.
    pub fn sent(&mut self, tsc: u64, with_page: bool, guest: Option<&mut Guest>) {
        if with_page && self.serving_since != 0 {
            self.stages.serve.record(tsc.saturating_sub(self.serving_since));
            self.serving_since = 0;
        }
        if let Some(guest) = guest {
            guest.stamp_sent(tsc);
        }
        self.fabric.sent();
    }

    /// Does what a fault of the guest leaves to be done while it waits, when the
    /// request has left: counts the last one, and fetches ahead of this one.
    pub fn meanwhile(&mut self, guest: &mut Guest, memory: &mut impl HostMemory) {
        self.count_fault(guest);
        if let Some(cluster) = &mut self.cluster {
            guest.look_ahead(cluster, memory, &mut self.stages);
        }
    }

    /// Counts the guest's last fault, if that has not been done: to be called
    /// before measurements are read.
    pub fn count_fault(&mut self, guest: &mut Guest) {
        guest.count_fault(&mut self.stages);
    }

    /// Does what time demands and what nobody waits for: retransmissions,
    /// heartbeats, acknowledgements, ends of transactions, accesses of this
    /// node itself. Bounded work; to be called when what came has been handled
    /// and what that led to has been sent.
    pub fn tick(&mut self, tsc: u64, memory: &mut impl HostMemory) {
        let now_ns = self.clock.ns(tsc);
        if self.fabric.poll_timeout().is_some_and(|at| at <= now_ns) {
            self.fabric.handle_timeout(now_ns);
        }
        let Some(cluster) = &mut self.cluster else { return };
        if !cluster.rooms_known {
            cluster.learn_rooms(&self.fabric);
        }
        cluster.catch_up(&mut self.fabric, now_ns, memory);
        if cluster.acting() {
            cluster.act(memory);
        }
        cluster.end_hold(memory, now_ns);
        cluster.balance(memory);
        cluster.merge_runs(memory, now_ns);
        self.measure_eviction(tsc);
        self.fabric.write_ahead();
    }

    /// Lets go what waits to travel with the next request: ends of transactions and
    /// acknowledgements. For a node whose guest has asked for nothing for a while, so
    /// that it is not to exit for each of them.
    pub fn hurry(&mut self, tsc: u64) {
        if let Some(cluster) = &mut self.cluster {
            cluster.hurry(&mut self.fabric, self.clock.ns(tsc));
        }
        self.fabric.hurry();
    }

    /// Whether the page that the guest waits for is here.
    #[must_use]
    pub fn has_come(&self, guest: &Guest, memory: &impl HostMemory) -> bool {
        let wanted = guest.wants().zip(self.cluster.as_ref());
        wanted.is_some_and(|((gfn, access), cluster)| {
            cluster.coherence().is_ready(memory, gfn, access)
        })
    }

    /// Sees to it that [`Node::timeout_ns`] is not earlier than need be.
    pub fn refresh(&mut self, tsc: u64) {
        self.fabric.refresh(self.clock.ns(tsc));
    }

    /// Times one eviction at a time, from its start to the home's last word.
    fn measure_eviction(&mut self, tsc: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        match self.eviction {
            Some((gfn, since)) if !cluster.coherence().is_open(gfn) => {
                self.stages.evict.record(tsc.saturating_sub(since));
                self.eviction = None;
                cluster.coherence_mut().take_started_put();
            }
            Some(_) => {}
            None => {
                self.eviction = cluster.coherence_mut().take_started_put().map(|gfn| (gfn, tsc));
            }
        }
    }

    /// When to call [`Node::tick`] at the latest, in nanoseconds; `None` for
    /// whenever something else happens.
    #[must_use]
    pub fn timeout_ns(&self) -> Option<u64> {
        if self.cluster.as_ref().is_some_and(|c| c.acting() || c.is_behind()) {
            return Some(0);
        }
        let cluster = self.cluster.as_ref().and_then(Cluster::timeout_ns);
        self.fabric.poll_timeout().into_iter().chain(cluster).min()
    }

    /// What happened on the fabric. Answers to probes go to `guest`.
    pub fn event(&mut self, tsc: u64, guest: Option<&mut Guest>) -> Option<Event> {
        let event = self.fabric.poll_event()?;
        if let (Event::ProbeReply { token, .. }, Some(guest)) = (event, guest) {
            guest.probe_answered(token, tsc);
        }
        Some(event)
    }

    /// The name under which this node is to print its measurements now; the
    /// caller prints them and then says [`Node::marked`].
    #[must_use]
    pub fn mark(&self) -> Option<u64> {
        self.cluster.as_ref().and_then(Cluster::mark)
    }

    /// Clears the measurements that were printed, and says so to whom asked.
    pub fn marked(&mut self) {
        self.stages.clear();
        if let Some(cluster) = &mut self.cluster {
            cluster.marked();
        }
    }

    /// Runs the guest to its next exit; see [`Guest::step`].
    ///
    /// # Panics
    /// If the cluster has not formed.
    pub fn run_guest<V: vcpu::Vcpu, M: HostMemory>(
        &mut self,
        guest: &mut Guest,
        vcpu: &mut V,
        memory: &mut M,
        tsc: fn() -> u64,
    ) -> Step {
        let cluster = self.cluster.as_mut().expect("a guest runs in a formed cluster");
        let now_ns = self.clock.ns(tsc());
        let mut at = guest::Context {
            vcpu,
            memory,
            cluster,
            fabric: &mut self.fabric,
            stages: &mut self.stages,
            tsc,
            now_ns,
            tsc_hz: self.clock.hz(),
        };
        guest.step(&mut at)
    }
}

/// Until the caller has set [`Node::cluster`] nobody takes messages. Peers
/// that formed earlier may send some by then: they must come again, for one
/// that was acknowledged and not handled is a transaction that never ends.
struct Nobody;

impl fabric::Sink for Nobody {
    fn is_ready(&self) -> bool {
        false
    }

    fn deliver(
        &mut self,
        _: addr::NodeId,
        _: wire::Channel,
        _: &[u8; wire::BODY_BYTES],
        _: Option<addr::Arrived<'_>>,
    ) {
    }
}
