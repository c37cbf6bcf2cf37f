//! What runs that held came to.

use crate::host::Host;

/// What the world did to a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames lost.
    pub lost: u64,
    /// Frames that came twice.
    pub doubled: u64,
    /// Frames held up behind later ones.
    pub held_up: u64,
    /// Frames lost between the groups of a partition.
    pub cut: u64,
    /// Frames that found a NIC's ring full.
    pub overflows: u64,
    /// Times that a node stood still.
    pub pauses: u64,
    /// Nodes that were slow all along.
    pub slow: u64,
    /// Partitions.
    pub partitions: u64,
    /// Nodes that died.
    pub deaths: u64,
    /// Nodes that were switched on again.
    pub restarts: u64,
}

impl Faults {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let frames = self.lost + self.doubled + self.held_up + self.cut + self.overflows;
        frames + self.pauses + self.slow + self.partitions + self.deaths + self.restarts
    }
}

/// What one or many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Virtual time from boot to the end.
    pub virtual_ns: u64,
    /// Turns of main loops.
    pub steps: u64,
    /// Writes by all programs.
    pub writes: u64,
    /// Instructions retired, and pages or words they touched.
    pub operations: u64,
    /// Instructions retired with a page whose frame was not taken.
    pub early: u64,
    /// Histories checked, and events in them.
    pub histories: u64,
    /// As above.
    pub events: u64,
    /// Litmus instances judged.
    pub litmus: u64,
    /// Distinct outcomes of litmus shapes seen.
    pub outcomes: std::collections::BTreeSet<String>,
    /// What the world did.
    pub faults: Faults,
    /// Restarted nodes that the running cluster kept out.
    pub refused: u64,
    /// Clusters that ended as they must, on every node.
    pub ended: u64,
    /// Longest wait of an instruction.
    pub slowest_ns: u64,
    /// All nodes' coherence counters that tell what the run has reached.
    pub evicted: u64,
    /// Evictions of zero pages.
    pub evicted_zero: u64,
    /// Ownership passed to a sharer.
    pub promoted: u64,
    /// Moves refused for want of frames.
    pub moves_refused: u64,
    /// Evictions that found no room.
    pub no_room: u64,
    /// Nested tables taken out.
    pub tables_out: u64,
    /// Messages put off.
    pub deferred: u64,
    /// Pages fetched ahead.
    pub prefetches: u64,
    /// Runs that became large pages again, with a copy and without.
    pub merged: [u64; 2],
    /// Large pages that came apart.
    pub split: u64,
}

impl Summary {
    /// Adds what a host has counted.
    pub fn host(&mut self, host: &Host) {
        self.slowest_ns = self.slowest_ns.max(host.slowest_ns);
        self.operations += host.retired;
        self.early += host.early;
        let Some(cluster) = &host.node.cluster else { return };
        let c = cluster.coherence().counters();
        self.evicted += c.evicted;
        self.evicted_zero += c.evicted_zero;
        self.promoted += c.promoted;
        self.moves_refused += c.refused;
        self.no_room += c.no_room;
        self.tables_out += c.tables_out;
        self.deferred += c.deferred;
        self.prefetches += c.prefetches;
        self.merged[0] += c.merged - c.merged_in_place;
        self.merged[1] += c.merged_in_place;
        self.split += cluster.coherence().large_pages().1;
    }

    /// Adds another run.
    pub fn add(&mut self, run: &Summary) {
        self.virtual_ns += run.virtual_ns;
        self.steps += run.steps;
        self.writes += run.writes;
        self.operations += run.operations;
        self.early += run.early;
        self.histories += run.histories;
        self.events += run.events;
        self.litmus += run.litmus;
        self.outcomes.extend(run.outcomes.iter().cloned());
        self.refused += run.refused;
        self.ended += run.ended;
        self.slowest_ns = self.slowest_ns.max(run.slowest_ns);
        self.evicted += run.evicted;
        self.evicted_zero += run.evicted_zero;
        self.promoted += run.promoted;
        self.moves_refused += run.moves_refused;
        self.no_room += run.no_room;
        self.tables_out += run.tables_out;
        self.deferred += run.deferred;
        self.prefetches += run.prefetches;
        (0..2).for_each(|how| self.merged[how] += run.merged[how]);
        self.split += run.split;
        let (f, r) = (&mut self.faults, &run.faults);
        f.lost += r.lost;
        f.doubled += r.doubled;
        f.held_up += r.held_up;
        f.cut += r.cut;
        f.overflows += r.overflows;
        f.pauses += r.pauses;
        f.slow += r.slow;
        f.partitions += r.partitions;
        f.deaths += r.deaths;
        f.restarts += r.restarts;
    }
}
