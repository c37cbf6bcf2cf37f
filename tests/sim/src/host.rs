//! One simulated node: the production engine, memory, a NIC with rings, and a
//! processor that runs a program.
//!
//! What the image's main loop does with the hardware, [`Host::step`] does
//! with the simulated one, in the same order: frames that came, timers,
//! events, the processor, frames to send.

use crate::failure::{Class, Failure};
use crate::history::{self, History};
use crate::landing::{self, Landing};
use crate::litmus::Place;
use crate::mmu::Mmu;
use crate::oracle::Oracle;
use crate::processor::Processor;
use crate::program::{self, Program};
use crate::scenario::Scenario;
use crate::trace::{self, Trace};
use addr::{Access, Gfn, NodeId};
use fabric::{Desk, Event, PageSlice, RefuseReason, StopReason, Transmit};
use node::{Clock, Cluster, Node};
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::collections::VecDeque;

/// Frames taken in one go, as in the image.
const BATCH: usize = 64;
/// The code with which a node stops the others when it misses one.
const LOST: u64 = 1;
/// Transmit descriptors.
const TX_RING: usize = 32;

/// A frame that the NIC has been told of and has not yet read.
#[derive(Debug)]
pub struct Descriptor {
    /// Header bytes, copied when it was handed over.
    pub header: Vec<u8>,
    /// What is read from memory when the NIC comes to it.
    pub page: Option<PageSlice>,
}

/// A simulated node.
pub struct Host {
    /// Its place in the world.
    pub index: usize,
    /// The production engine.
    pub node: Node,
    /// Its page frames.
    pub memory: VecMemory,
    pool: Option<FramePool>,
    /// Frames that it lent.
    pub total_frames: u64,
    pub(crate) mmu: Mmu,
    pub(crate) program: Option<Program>,
    pub(crate) cpu: Processor,
    /// The page frames in the NIC's ring, if it splits what comes.
    landing: Option<Landing>,
    /// Frames that wait in the NIC.
    pub rx: VecDeque<Vec<u8>>,
    /// Frames that the NIC still has to send.
    pub tx: VecDeque<Descriptor>,
    tx_blocked: bool,
    /// The frame that the NIC has ready.
    laid: Option<Vec<u8>>,
    /// Until when it is busy or paused.
    pub free_at: u64,
    /// It has not died.
    pub alive: bool,
    /// Peers it reported as lost, and when.
    pub lost: Vec<(NodeId, u64)>,
    /// It has reported that the cluster is over.
    pub over: bool,
    /// It was told why it cannot be in a cluster.
    pub refused: Vec<RefuseReason>,
    /// Longest wait of an instruction.
    pub slowest_ns: u64,
    /// When its instructions retired and how long they had waited, where that
    /// is asked for.
    pub waits_ns: Vec<(u64, u64)>,
    /// Instructions retired, and pages or words they touched.
    pub retired: u64,
    /// Instructions that retired with a page whose frame was not taken.
    pub early: u64,
    /// Pages whose state may have changed in the last step.
    pub touched: Vec<Gfn>,
    /// [`crate::Scenario::hurry_every`].
    pub hurry_every: u64,
    /// Turns of the main loop since the last hurry.
    turns: u64,
}

/// The parts of the world that a host's step may change.
pub struct Surroundings<'a> {
    /// What pages must hold.
    pub oracle: &'a mut Oracle,
    /// What happened.
    pub trace: &'a mut Trace,
    /// What the processors did to words.
    pub history: &'a mut History,
    /// What they did to words of litmus instances.
    pub litmus: &'a mut Vec<(Place, history::Event)>,
    /// The run.
    pub scenario: &'a Scenario,
}

/// Virtual time counts nanoseconds, and so does the TSC.
fn clock() -> Clock {
    Clock::new(1_000_000_000)
}

impl Host {
    /// A node that looks for its cluster.
    #[must_use]
    pub fn new(index: usize, config: fabric::Config, frames: u64, now: u64) -> Host {
        let mut pool = FramePool::new();
        let end = addr::Frame(frames + 1);
        pool.add(addr::Frame(1), end);
        pool.know(end, end.offset_by(landing::RING));
        let mut memory = VecMemory::new((frames + 1 + landing::RING) as usize);
        // One NIC in two splits frames; the others have them copied.
        let splits = config.incarnation & 2 != 0;
        let landing = splits.then(|| Landing::new(end, &mut memory));
        Host {
            index,
            node: Node::new(config, clock(), now),
            memory,
            pool: Some(pool),
            total_frames: frames,
            mmu: Mmu::default(),
            program: None,
            cpu: Processor::default(),
            landing,
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            tx_blocked: false,
            laid: None,
            free_at: now,
            alive: true,
            lost: Vec::new(),
            over: false,
            refused: Vec::new(),
            slowest_ns: 0,
            waits_ns: Vec::new(),
            retired: 0,
            early: 0,
            touched: Vec::new(),
            hurry_every: 0,
            turns: 0,
        }
    }

    /// Its name in the cluster, once formed.
    #[must_use]
    pub fn id(&self) -> Option<NodeId> {
        self.node.cluster.as_ref().map(Cluster::me)
    }

    /// Whether its program is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.cpu.instruction.is_none()
            && self.cpu.meeting.is_none()
            && self.program.as_ref().is_some_and(Program::is_done)
    }

    /// When it has something to do.
    #[must_use]
    pub fn wakes_at(&self) -> u64 {
        if !self.alive {
            return u64::MAX;
        }
        let mut at = self.node.timeout_ns().unwrap_or(u64::MAX);
        let sends = self.tx_blocked && self.tx.len() < TX_RING;
        if !self.rx.is_empty() || self.cpu.searching || sends {
            at = 0;
        }
        if self.program.is_some() && self.cpu.since.is_none() && !self.is_done() {
            at = at.min(self.cpu.next_ns);
        }
        at.max(self.free_at)
    }

    /// Does what the image does when the guest has exited for no request.
    fn hurry(&mut self, now: u64) {
        self.turns += 1;
        if self.turns == self.hurry_every {
            self.turns = 0;
            self.node.hurry(now);
        } else if self.hurry_every != 0 {
            self.node.refresh(now);
        }
    }

    /// One turn of the main loop.
    ///
    /// # Errors
    /// The failure that it shows.
    pub fn step(&mut self, now: u64, at: &mut Surroundings<'_>) -> Result<(), Failure> {
        self.touched.clear();
        let mut any = false;
        for _ in 0..BATCH {
            let Some(bytes) = self.rx.pop_front() else { break };
            any = true;
            at.trace.frame(now, self.index, "hears", &bytes, 0);
            self.touched.extend(trace::messages(&bytes).iter().map(|m| m.gfn));
            self.answer(now, &bytes, at);
            self.receive(now, &bytes, at)?;
            self.send(now, at);
        }
        self.node.tick(now, &mut self.memory);
        self.hurry(now);
        self.lay_ahead();
        self.send(now, at);
        while let Some(event) = self.node.event(now, None) {
            self.happened(now, event, at)?;
        }
        if any && self.cpu.since.is_none() {
            // The frame's interrupt made the guest exit.
            self.release_held();
        }
        self.run(now, at)?;
        self.send(now, at);
        match self.node.cluster.as_ref().and_then(Cluster::fatal) {
            Some(node::Fatal::Violation(v)) => Err(Failure::about(
                Class::Crash,
                v.message.gfn,
                format!("host {}: {v:?}", self.index),
            )),
            Some(fatal) => {
                Err(Failure::new(Class::Crash, format!("host {}: {fatal:?}", self.index)))
            }
            None => Ok(()),
        }
    }

    /// Gets the frame that is written ahead ready in the NIC.
    fn lay_ahead(&mut self) {
        let laid = &mut self.laid;
        self.node.lay_ahead(laid.is_none(), |frame, _| {
            *laid = Some(frame.to_vec());
            true
        });
    }

    /// Sends what can be foreseen of a frame before that is taken.
    fn answer(&mut self, now: u64, bytes: &[u8], at: &mut Surroundings<'_>) {
        let mut header = [0; 600];
        let mut desk = Desk { header: &mut header, laid: self.laid.as_deref_mut() };
        let Some(t) = self.node.foresee(now, bytes, &self.memory, &mut desk) else { return };
        if self.hand(now, t, &header, at) {
            self.node.foresaw(now, t.page.is_some());
        } else {
            self.node.unforesee();
        }
    }

    /// Sends the request for a page before the protocol takes the steps to it, if
    /// it can be told.
    pub(crate) fn ask(
        &mut self,
        now: u64,
        (gfn, access): (Gfn, Access),
        at: &mut Surroundings<'_>,
    ) {
        let cluster = self.node.cluster.as_ref().expect("programs run in a cluster");
        let entry = cluster.coherence().entry(&self.memory, gfn);
        let request = cluster.foresee_fetch(&self.memory, gfn, access, &entry);
        let Some(request) = request else { return };
        let mut header = [0; 600];
        let mut desk = Desk { header: &mut header, laid: self.laid.as_deref_mut() };
        if let Some(t) = self.node.foresee_request(now, &request, &mut desk)
            && !self.hand(now, t, &header, at)
        {
            self.node.unforesee();
        }
    }

    /// Gives the NIC a frame that was foreseen, if it has a descriptor for it.
    fn hand(&mut self, now: u64, t: Transmit, header: &[u8], at: &mut Surroundings<'_>) -> bool {
        let free = self.tx.len() < TX_RING;
        let laid = self.laid.take();
        if free {
            let header = match laid.filter(|_| t.is_laid) {
                Some(laid) => laid,
                None => header[..t.header_len].to_vec(),
            };
            at.trace.frame(now, self.index, "foresees", &header, t.page.map_or(0, |p| p.len));
            self.tx.push_back(Descriptor { header, page: t.page });
        }
        free
    }

    /// Hands on a frame from the NIC as that has it: in one piece, or a whole
    /// page by itself.
    fn receive(
        &mut self,
        now: u64,
        bytes: &[u8],
        at: &mut Surroundings<'_>,
    ) -> Result<(), Failure> {
        let split = self.landing.as_mut().zip(Landing::header_len(bytes));
        let Some((landing, header_len)) = split else {
            self.node.frame(now, bytes, &mut self.memory);
            return Ok(());
        };
        let (header, page) = bytes.split_at(header_len);
        let frame = landing.fill(&mut self.memory, page)?;
        if let Some(access) = self.cpu.missing
            && self.node.map_early(header, frame, access, &mut self.memory)
        {
            self.run_early(now, at)?;
        }
        let frame = self.node.landed(now, header, frame, &mut self.memory);
        if let Some(landing) = &mut self.landing {
            landing.refill(&mut self.memory, frame);
        }
        Ok(())
    }

    fn happened(
        &mut self,
        now: u64,
        event: Event,
        at: &mut Surroundings<'_>,
    ) -> Result<(), Failure> {
        match event {
            Event::Formed => {
                let membership = self.node.fabric().membership().expect("it has formed").clone();
                let pool = self.pool.take().expect("it forms once");
                let limits = |frames, cluster, runs| at.scenario.limits(frames, cluster, runs);
                let memory = &mut self.memory;
                let mut cluster =
                    Cluster::with_limits(&membership, pool, Format::NPT, memory, limits)
                        .expect("every node is large enough");
                at.scenario.hold_ns.into_iter().for_each(|ns| cluster.fix_hold_ns(ns));
                // All nodes run programs, so each may gain by large pages.
                cluster.merge_every_ns(Some(at.scenario.merge_ns));
                let layout = cluster.coherence().layout().clone();
                let plan = program::litmus_plan(at.scenario, &layout);
                let me = cluster.me().index();
                self.program = Some(Program::new(at.scenario, &layout, me, &plan));
                self.cpu.next_ns = now;
                self.node.cluster = Some(cluster);
            }
            Event::PeerLost { node, .. } if at.scenario.mishap.may_end_cluster() => {
                self.lost.push((node, now));
                self.halt();
                // As the image does: nothing may go on anywhere.
                self.node.fabric_mut().stop(now, StopReason::Fatal(LOST));
            }
            Event::Stopped { .. } if at.scenario.mishap.may_end_cluster() => self.halt(),
            Event::PeerLost { .. } | Event::Stopped { .. } => {
                let what = format!("host {}: {event:?} without a cause", self.index);
                return Err(Failure::new(Class::Crash, what));
            }
            Event::Refused { reason, .. } => self.refused.push(reason),
            Event::StopDone
            | Event::NodeJoined { .. }
            | Event::JoinTimeout { .. }
            | Event::ProbeReply { .. } => {}
        }
        Ok(())
    }

    /// Ends the program where it stands.
    fn halt(&mut self) {
        self.over = true;
        self.cpu.instruction = None;
        self.cpu.missing = None;
        self.cpu.since = None;
        self.cpu.searching = false;
        self.cpu.meeting = None;
        if let Some(program) = &mut self.program {
            program.stop();
        }
    }

    /// Gives the NIC what waits, as far as it has descriptors.
    fn send(&mut self, now: u64, at: &mut Surroundings<'_>) {
        let mut header = [0; 600];
        self.tx_blocked = false;
        loop {
            if self.tx.len() == TX_RING {
                self.tx_blocked = true;
                return;
            }
            let Some(t) = self.node.transmit(now, &mut header) else { return };
            let header = header[..t.header_len].to_vec();
            at.trace.frame(now, self.index, "sends", &header, t.page.map_or(0, |p| p.len));
            self.node.sent(now, t.page.is_some(), None);
            self.laid = None;
            self.tx.push_back(Descriptor { header, page: t.page });
        }
    }

    /// A frame as the NIC puts it on the wire, its page read only now.
    pub fn take_sent(&mut self) -> Option<Vec<u8>> {
        let Descriptor { mut header, page } = self.tx.pop_front()?;
        if let Some(PageSlice { frame, offset, len }) = page {
            let start = header.len();
            header.resize(start + usize::from(len), 0);
            self.memory.read(frame, usize::from(offset), &mut header[start..]);
        }
        Some(header)
    }
}
