//! The guest on the leading node: one vCPU, its machine, and what it waits for.
//!
//! [`Guest::step`] is called over and over by the node's main loop. It runs
//! the vCPU to its next exit and deals with that, or says why it cannot:
//! a page is on its way, the guest is halted, or it has ended.

mod fault;

use super::bench::{self, Wait as BenchWait};
use super::cluster::Cluster;
use super::stages::{FaultKind, Stages, Stamps};
use super::streams::Streams;
use super::view::View;
use addr::{Access, Gfn};
use fabric::{Fabric, Outgoing};
use fault::Missed;
use machine::{Death, Machine, Outcome};
use paging::HostMemory;
use vcpu::{Exit, Vcpu};

/// How the guest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It switched itself off.
    PowerOff,
    /// It reset itself.
    Reset,
    /// It cannot go on.
    Dead(Death),
}

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It ran; call again.
    Ran,
    /// It ran, and nothing has changed but the vCPU: call again at once, unless
    /// something has come meanwhile.
    Again,
    /// A physical interrupt wants the host; look at the devices, call again.
    Interrupted,
    /// It waits for a message.
    Blocked,
    /// It went on with a page whose frame was not taken: that comes first, see
    /// [`super::Node::map_early`]; then call again.
    Unsettled,
    /// It is halted until [`Guest::deadline`] or an input.
    Halted,
    /// It is over.
    Ended(End),
}

/// What the vCPU waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    Nothing,
    /// The guest's own access.
    Fault {
        gfn: Gfn,
        access: Access,
        ahead: u16,
        kind: FaultKind,
    },
    /// A page that the machine needs to handle an exit.
    Exit {
        exit: Exit,
        gfn: Gfn,
        access: Access,
    },
    /// An exit that is dealt with when the frame of the last page has been taken.
    Frame(Exit),
    /// A page that the machine needs to end a hypercall.
    Result {
        value: u64,
        gfn: Gfn,
        access: Access,
    },
    /// A benchmark's measurement.
    Bench(BenchWait),
}

/// The guest and what the engine knows of it.
pub struct Guest {
    /// The guest's machine.
    pub machine: Machine,
    wait: Wait,
    stamps: Stamps,
    /// The fault that the guest resumes from, whose last stamp is taken just then.
    settled: Option<FaultKind>,
    /// A fault that is over and not yet counted, and when it was.
    uncounted: Option<(FaultKind, Stamps, u64)>,
    streams: Streams,
    /// The request of the last fault, if that can be told and has not been made.
    foreseen: Option<Outgoing>,
    /// The last miss, if it is to be looked at while the guest waits.
    missed: Option<Missed>,
    searching: bool,
    fault_rip: u64,
    grants_before: u64,
    /// How often it has exited.
    exits: u64,
}

/// What a step works with.
pub struct Context<'a, V, M> {
    /// The vCPU.
    pub vcpu: &'a mut V,
    /// The node's page frames.
    pub memory: &'a mut M,
    /// This node's part in the cluster.
    pub cluster: &'a mut Cluster,
    /// The fabric.
    pub fabric: &'a mut Fabric,
    /// Measurements.
    pub stages: &'a mut Stages,
    /// Reads the TSC.
    pub tsc: fn() -> u64,
    /// Nanoseconds, as the fabric counts them.
    pub now_ns: u64,
    /// TSC ticks a second.
    pub tsc_hz: u64,
}

const CPU: usize = 0;

impl Guest {
    /// A guest whose operating system is loaded.
    #[must_use]
    pub fn new(machine: Machine) -> Guest {
        Guest {
            machine,
            wait: Wait::Nothing,
            stamps: Stamps::default(),
            settled: None,
            uncounted: None,
            streams: Streams::default(),
            foreseen: None,
            missed: None,
            searching: false,
            fault_rip: 0,
            grants_before: 0,
            exits: 0,
        }
    }

    /// When a halted guest wants to run again, as a TSC value.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.machine.next_deadline()
    }

    /// When a guest that is about to run is to be interrupted, as a TSC value.
    pub fn upcoming_deadline(&mut self, now_tsc: u64) -> Option<u64> {
        self.machine.upcoming_deadline(now_tsc)
    }

    /// Notes when a frame was sent or taken, for the stages of a fault.
    pub(crate) fn stamp_sent(&mut self, tsc: u64) {
        if self.stamps.sent == 0 {
            self.stamps.sent = tsc;
        }
    }

    /// Counts the fault that is over: the guest has not waited for that.
    #[inline]
    pub(crate) fn count_fault(&mut self, stages: &mut Stages) {
        if let Some((kind, stamps, resumed)) = &self.uncounted {
            stages.fault(*kind, stamps, *resumed);
            self.uncounted = None;
        }
    }

    /// When the vCPU last exited, as a TSC value: since then it waits.
    #[must_use]
    pub fn exited_at(&self) -> u64 {
        self.stamps.exit
    }

    /// Notes when a frame was taken from the NIC.
    pub fn received(&mut self, tsc: u64) {
        self.stamps.received = tsc;
    }

    pub(crate) fn probe_answered(&mut self, token: u64, tsc: u64) {
        if let Wait::Bench(wait) = &mut self.wait {
            wait.answered(token, tsc);
        }
    }

    /// Runs the guest to its next exit and deals with it.
    pub fn step<V: Vcpu, M: HostMemory>(&mut self, at: &mut Context<'_, V, M>) -> Step {
        if self.is_waiting()
            && let Some(step) = self.settle_wait(at)
        {
            return step;
        }
        let now = (at.tsc)();
        if self.machine.run_state(CPU) != machine::RunState::Running
            && !self.machine.wakes(CPU, now)
        {
            return Step::Halted;
        }
        self.machine.prepare_entry(CPU, at.vcpu, now);
        if at.cluster.take_flush() {
            at.vcpu.flush();
        }
        if let Some(kind) = self.settled.take() {
            self.count_fault(at.stages);
            self.uncounted = Some((kind, self.stamps, (at.tsc)()));
        }
        let exit = at.vcpu.run();
        self.stamps.exit = (at.tsc)();
        self.exits += 1;
        self.exited(at, exit)
    }

    /// Deals with what the vCPU waits for; `None` if it may run.
    fn settle_wait<V: Vcpu, M: HostMemory>(&mut self, at: &mut Context<'_, V, M>) -> Option<Step> {
        match self.wait {
            Wait::Nothing => None,
            Wait::Fault { gfn, access, ahead, kind } => {
                self.foreseen = None;
                // Nothing else is mapped early.
                let ready = at.cluster.coherence().is_early()
                    || at.cluster.coherence().is_ready(at.memory, gfn, access);
                if !ready && !self.fetched(at, gfn, access, ahead) {
                    return Some(self.blocked());
                }
                self.stamps.mapped = (at.tsc)();
                self.wait = Wait::Nothing;
                let grants = at.cluster.coherence().counters().zero_grants;
                let kind = if grants > self.grants_before { FaultKind::FirstTouch } else { kind };
                self.settled = Some(kind);
                None
            }
            Wait::Exit { exit, gfn, access } => {
                if !self.fetched(at, gfn, access, 0) {
                    return Some(self.blocked());
                }
                self.wait = Wait::Nothing;
                Some(self.ask_machine(at, exit))
            }
            Wait::Frame(_) if at.cluster.coherence().is_early() => Some(Step::Unsettled),
            Wait::Frame(exit) => {
                self.wait = Wait::Nothing;
                Some(self.exited(at, exit))
            }
            Wait::Result { value, gfn, access } => {
                if !self.fetched(at, gfn, access, 0) {
                    return Some(self.blocked());
                }
                self.wait = Wait::Nothing;
                Some(self.end_hypercall(at, value))
            }
            Wait::Bench(mut wait) => {
                let value = wait.poll(at.fabric, at.now_ns, (at.tsc)());
                self.wait = Wait::Bench(wait);
                let Some(value) = value else { return Some(Step::Blocked) };
                self.wait = Wait::Nothing;
                Some(self.end_hypercall(at, value))
            }
        }
    }

    /// What its own access waits for.
    #[inline]
    #[must_use]
    pub fn awaits(&self) -> Option<(Gfn, Access)> {
        match self.wait {
            Wait::Fault { gfn, access, .. } => Some((gfn, access)),
            _ => None,
        }
    }

    /// The page that it waits for, whatever for.
    pub(crate) fn wants(&self) -> Option<(Gfn, Access)> {
        match self.wait {
            Wait::Fault { gfn, access, .. }
            | Wait::Exit { gfn, access, .. }
            | Wait::Result { gfn, access, .. } => Some((gfn, access)),
            Wait::Nothing | Wait::Frame(_) | Wait::Bench(_) => None,
        }
    }

    /// Whether it waits for a page or an answer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.wait != Wait::Nothing
    }

    fn exited<V: Vcpu, M: HostMemory>(&mut self, at: &mut Context<'_, V, M>, exit: Exit) -> Step {
        let rip = at.vcpu.registers().rip;
        let fault_in_ram = match exit {
            Exit::PageFault { gpa, access, .. } => {
                let gfn = gpa.gfn();
                at.cluster.coherence().layout().linear(gfn).map(|_| (gfn, access))
            }
            _ => None,
        };
        let early = at.cluster.coherence().is_early();
        if early && (fault_in_ram.is_none() || self.streams.are_followed()) {
            self.wait = Wait::Frame(exit);
            return Step::Unsettled;
        }
        if fault_in_ram.is_none() || rip != self.fault_rip {
            // The instruction that pages were kept for has ended.
            at.cluster.release_held(at.memory);
        }
        let Some((gfn, access)) = fault_in_ram else {
            let step = self.ask_machine(at, exit);
            let again = step == Step::Ran && self.machine.is_calm(CPU);
            return if again && self.wait == Wait::Nothing { Step::Again } else { step };
        };
        self.fault_rip = rip;
        let step = self.fault(at, gfn, access);
        if step == Step::Unsettled {
            self.wait = Wait::Frame(exit);
        }
        step
    }

    /// Waits for a message, or comes back at once while it looks for frames.
    fn blocked(&self) -> Step {
        if self.searching { Step::Ran } else { Step::Blocked }
    }

    fn ask_machine<V: Vcpu, M: HostMemory>(
        &mut self,
        at: &mut Context<'_, V, M>,
        exit: Exit,
    ) -> Step {
        let now = (at.tsc)();
        let mut view = View { cluster: at.cluster, memory: at.memory };
        let outcome = self.machine.handle_exit(CPU, &exit, at.vcpu, &mut view, now);
        match outcome {
            Outcome::Resume if exit == Exit::HostInterrupt => Step::Interrupted,
            Outcome::Resume => Step::Ran,
            Outcome::Halted => Step::Ran,
            Outcome::Pending { gfn, access } => {
                self.wait = Wait::Exit { exit, gfn, access };
                Step::Ran
            }
            Outcome::PowerOff => Step::Ended(End::PowerOff),
            Outcome::Reset => Step::Ended(End::Reset),
            Outcome::Dead(death) => Step::Ended(End::Dead(death)),
            Outcome::Hypercall => self.hypercall(at),
        }
    }

    fn hypercall<V: Vcpu, M: HostMemory>(&mut self, at: &mut Context<'_, V, M>) -> Step {
        self.count_fault(at.stages);
        let call = bench::Call::of(at.vcpu.registers());
        match bench::start(call, self.exits, at) {
            bench::Started::Value(value) => self.end_hypercall(at, value),
            bench::Started::Wait(wait) => {
                self.wait = Wait::Bench(wait);
                Step::Blocked
            }
        }
    }

    fn end_hypercall<V: Vcpu, M: HostMemory>(
        &mut self,
        at: &mut Context<'_, V, M>,
        value: u64,
    ) -> Step {
        let now = (at.tsc)();
        let mut view = View { cluster: at.cluster, memory: at.memory };
        match self.machine.end_hypercall(CPU, value, at.vcpu, &mut view, now) {
            Outcome::Pending { gfn, access } => {
                self.wait = Wait::Result { value, gfn, access };
                Step::Ran
            }
            _ => Step::Ran,
        }
    }
}
