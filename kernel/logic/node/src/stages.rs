//! Where the time of a remote fault goes.
//!
//! The requester stamps one fault at a time; the owner stamps the serving of
//! a request. Stamps are TSC reads; recording is a bucket count, no more.

use super::histogram::Histogram;
use super::hot::HotPages;

/// What kind of miss a fault was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Answered on the spot.
    Local,
    /// A copy to read came from another node.
    Read,
    /// A page to write came from another node.
    Write,
    /// A copy that was here became writable.
    Upgrade,
    /// Zero pages were granted.
    FirstTouch,
}

/// Names of the kinds, in the order of [`FaultKind`].
pub const FAULT_NAMES: [&str; 5] =
    ["local_fault", "read_fault", "write_fault", "upgrade", "first_touch"];

/// Names of the stages of a read or write fault, in their order.
pub const STAGE_NAMES: [&str; 5] = ["lookup", "send", "wire_and_remote", "map", "resume"];

/// Stamps of the fault that is being handled, in TSC ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamps {
    /// The guest has exited.
    pub exit: u64,
    /// The request is in the fabric's queue.
    pub queued: u64,
    /// The NIC has been told of it; 0 until then.
    pub sent: u64,
    /// The last frame was taken from the NIC.
    pub received: u64,
    /// The page is mapped.
    pub mapped: u64,
}

/// Histograms of one node, in TSC ticks.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// By [`FaultKind`], from just after the exit to just before the entry.
    pub faults: [Histogram; 5],
    /// By stage, of read and write faults.
    pub stages: [Histogram; 5],
    /// From the arrival of a frame until the page it asks for is with the NIC.
    pub serve: Histogram,
    /// From the decision to move a page away until it has arrived.
    pub evict: Histogram,
    /// Where remote faults go to and come from.
    pub hot: HotPages,
}

impl Stages {
    /// Counts a fault whose guest is entered at `now`.
    pub fn fault(&mut self, kind: FaultKind, at: &Stamps, now: u64) {
        self.faults[kind as usize].record(now.saturating_sub(at.exit));
        let remote = matches!(kind, FaultKind::Read | FaultKind::Write);
        if remote && at.sent != 0 {
            let points = [at.exit, at.queued, at.sent, at.received, at.mapped, now];
            for (histogram, pair) in self.stages.iter_mut().zip(points.windows(2)) {
                histogram.record(pair[1].saturating_sub(pair[0]));
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.faults.iter_mut().chain(&mut self.stages).for_each(Histogram::clear);
        self.serve.clear();
        self.evict.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_remote_fault_add_up() {
        let mut stages = Stages::default();
        let at = Stamps { exit: 10, queued: 11, sent: 13, received: 17, mapped: 25 };
        stages.fault(FaultKind::Read, &at, 41);
        stages.fault(FaultKind::Upgrade, &at, 41);
        // Answered by this node itself: nothing was sent.
        stages.fault(FaultKind::Write, &Stamps { sent: 0, ..at }, 42);
        let mins = |list: &[Histogram; 5]| [0, 1, 2, 3, 4].map(|i| list[i].summary().min);
        assert_eq!(mins(&stages.faults), [0, 31, 32, 31, 0]);
        assert_eq!(mins(&stages.stages), [1, 2, 4, 8, 16]);
        assert!(stages.stages.iter().all(|h| h.count() == 1));
        stages.serve.record(1);
        stages.evict.record(1);
        stages.clear();
        let all = stages.faults.iter().chain(&stages.stages);
        assert_eq!(all.chain([&stages.serve, &stages.evict]).map(Histogram::count).sum::<u64>(), 0);
    }
}
