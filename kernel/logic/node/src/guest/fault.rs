//! The guest's faults: what is asked for, and what ahead of it.

use super::{Context, Guest, Step, Wait};
use crate::cluster::Cluster;
use crate::stages::{FaultKind, Stages};
use crate::streams::Run;
use addr::{Access, Gfn};
use coherence::Progress;
use fabric::Outgoing;
use paging::{HostMemory, PageState};
use vcpu::Vcpu;

/// A remote fault that has not been looked at for what it says of the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Missed {
    gfn: Gfn,
    access: Access,
    rip: u64,
}

/// Asks for pages that nobody waits for yet.
fn prefetch(cluster: &mut Cluster, memory: &mut impl HostMemory, run: Run, missed: Access) {
    cluster.prefetch(memory, run.from, run.step, run.count, run.access(missed));
}

impl Guest {
    /// Asks for a page again; `true` if it is here.
    pub(super) fn fetched<V, M: HostMemory>(
        &mut self,
        at: &mut Context<'_, V, M>,
        gfn: Gfn,
        access: Access,
        ahead: u16,
    ) -> bool {
        self.fetch(at.cluster, at.memory, at.now_ns, (gfn, access, ahead))
    }

    fn fetch<M: HostMemory>(
        &mut self,
        cluster: &mut Cluster,
        memory: &mut M,
        now_ns: u64,
        (gfn, access, ahead): (Gfn, Access, u16),
    ) -> bool {
        match cluster.access(memory, gfn, access, ahead) {
            Progress::Ready => true,
            progress @ (Progress::Pending | Progress::Starved) => {
                // Without an eviction under way no message will end the
                // shortage: the next call looks for more to evict.
                let nothing_leaves = cluster.coherence().puts_open() == 0;
                self.searching = progress == Progress::Starved && nothing_leaves;
                cluster.still_waiting(memory, now_ns);
                false
            }
        }
    }

    /// The request of the last fault, if that can be told and has not been made.
    pub(crate) fn foreseen(&self) -> Option<&Outgoing> {
        self.foreseen.as_ref()
    }

    /// Whether [`crate::Node::ask`] has something to do.
    #[must_use]
    pub fn is_to_ask(&self) -> bool {
        self.foreseen.is_some()
    }

    /// Makes the request of the last fault, if it has not been made.
    pub(crate) fn ask<M: HostMemory>(
        &mut self,
        cluster: &mut Cluster,
        memory: &mut M,
        now_ns: u64,
    ) {
        if self.foreseen.take().is_some()
            && let Wait::Fault { gfn, access, ahead, .. } = self.wait
        {
            self.fetch(cluster, memory, now_ns, (gfn, access, ahead));
        }
    }

    /// The guest touched RAM that this node does not hold in that way.
    pub(super) fn fault<V: Vcpu, M: HostMemory>(
        &mut self,
        at: &mut Context<'_, V, M>,
        gfn: Gfn,
        access: Access,
    ) -> Step {
        let entry = at.cluster.coherence_mut().approach(at.memory, gfn);
        let kind = match (entry.state, access) {
            (PageState::Invalid, Access::Read) => FaultKind::Read,
            (PageState::Invalid, Access::Write) => FaultKind::Write,
            (PageState::Shared | PageState::Owned, Access::Write) => FaultKind::Upgrade,
            (PageState::Shared | PageState::Owned, Access::Read) | (PageState::Exclusive, _) => {
                FaultKind::Local
            }
        };
        let run = match kind {
            FaultKind::Read | FaultKind::Write => self.miss(at, gfn, access),
            FaultKind::Upgrade => {
                self.streams.upgrade(gfn);
                Run::default()
            }
            _ => Run::default(),
        };
        let ahead = run.along_with(gfn);
        // One request is of one kind.
        let access = if ahead > 0 { run.access(access) } else { access };
        self.grants_before = at.cluster.coherence().counters().zero_grants;
        self.stamps.sent = 0;
        self.wait = Wait::Fault { gfn, access, ahead, kind };
        if run.count == 0 {
            self.foreseen = at.cluster.foresee_fetch(at.memory, gfn, access, &entry);
            if self.is_to_ask() {
                // The request leaves first.
                self.searching = false;
                self.stamps.queued = (at.tsc)();
                return Step::Blocked;
            }
            if at.cluster.coherence().is_early() {
                self.missed = None;
                return Step::Unsettled;
            }
        }
        let ready = self.fetched(at, gfn, access, ahead);
        if run.count > ahead {
            prefetch(at.cluster, at.memory, run, access);
        }
        self.stamps.queued = (at.tsc)();
        if ready {
            // Settled at once; the caller has nothing to send or wait for.
            self.stamps.mapped = self.stamps.queued;
            self.look_ahead(at.cluster, at.memory, at.stages);
            return self.settle_wait(at).unwrap_or(Step::Ran);
        }
        self.blocked()
    }

    /// What to fetch ahead of a miss, where a stream is followed that it may
    /// belong to: all can go in one request then. Otherwise that has time until
    /// the request for the page itself has left.
    fn miss<V, M: HostMemory>(
        &mut self,
        at: &mut Context<'_, V, M>,
        gfn: Gfn,
        access: Access,
    ) -> Run {
        let rip = self.fault_rip;
        if !self.streams.are_followed() {
            self.missed = Some(Missed { gfn, access, rip });
            return Run::default();
        }
        at.stages.hot.fault(gfn, rip);
        self.streams.miss(gfn, at.cluster.coherence().is_open(gfn))
    }

    /// Looks at the last miss, if that has not been done, and fetches ahead of
    /// it: to be called while the guest waits.
    pub(crate) fn look_ahead<M: HostMemory>(
        &mut self,
        cluster: &mut Cluster,
        memory: &mut M,
        stages: &mut Stages,
    ) {
        let Some(Missed { gfn, access, rip }) = self.missed.take() else { return };
        stages.hot.fault(gfn, rip);
        // No stream was followed: none has asked for the page before.
        let run = self.streams.miss(gfn, false);
        if run.count > 0 {
            prefetch(cluster, memory, run, access);
        }
    }
}
