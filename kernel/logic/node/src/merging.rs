//! When runs of small pages are looked at, to become large again.
//!
//! A look is some 512 table entries, a copy of 2 MiB is 0.3 ms in which this
//! node does nothing else. So both are paced by the clock, and a round of all
//! memory begins some time after the last: a run that is merged has been this
//! node's alone for so long.

use super::cluster::Cluster;
use coherence::{Env, Visit};
use paging::HostMemory;

/// Between two rounds of all memory.
const ROUND_NS: u64 = 100_000_000;
/// Merges in that time at most: copies then take some 3 % of it.
const MERGES: u64 = 10;
/// Looks in that time at most, at [`LOOKS`] runs each.
const LOOKS_A_ROUND: u64 = 100;
/// Runs looked at in one go.
const LOOKS: u32 = 8;

/// When to look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Merging {
    /// Time between two rounds where a guest runs, which gains by it.
    round_ns: Option<u64>,
    next_ns: u64,
    /// In this round something was found.
    found: bool,
    /// In the last one as well: it is worth it to wake up for the next look.
    wakes: bool,
}

impl Merging {
    /// For a node that runs a guest, or does not.
    pub(crate) fn new(guest: bool) -> Merging {
        Merging { round_ns: guest.then_some(ROUND_NS), ..Merging::default() }
    }

    /// When to call [`Cluster::merge_runs`] again, if not whenever.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        self.wakes.then_some(self.next_ns)
    }

    /// Notes what a look came to, and when the next one is due; whether that is
    /// at once.
    fn seen(&mut self, visit: Visit, now_ns: u64, round_ns: u64) -> bool {
        match visit {
            Visit::Passed => return true,
            Visit::Marked => {
                (self.found, self.wakes) = (true, true);
                return true;
            }
            Visit::Merged => {
                (self.found, self.wakes) = (true, true);
                self.next_ns = now_ns + round_ns / MERGES;
            }
            Visit::Round => {
                self.wakes = core::mem::take(&mut self.found);
                self.next_ns = now_ns + round_ns;
            }
        }
        false
    }
}

impl Cluster {
    /// Has this node merge runs of small pages that are its alone, with so long
    /// between two rounds of its memory; with `None` it never does. At first
    /// only the node where the guest runs does.
    pub fn merge_every_ns(&mut self, round_ns: Option<u64>) {
        self.merging = Merging { round_ns, ..Merging::default() };
    }

    /// Looks at some runs if it is time, and merges one at most. For when nobody
    /// waits for this node.
    pub(crate) fn merge_runs(&mut self, memory: &mut impl HostMemory, now_ns: u64) {
        let Some(round_ns) = self.merging.round_ns.filter(|_| now_ns >= self.merging.next_ns)
        else {
            return;
        };
        self.merging.next_ns = now_ns + round_ns / LOOKS_A_ROUND;
        for _ in 0..LOOKS {
            let (coherence, outbox) = self.parts();
            let visit = coherence.visit_run(&mut Env { memory, out: outbox });
            if !self.merging.seen(visit, now_ns, round_ns) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr::{Access, Frame, Gfn, NodeId};
    use coherence::Progress;
    use fabric::{Member, Membership};
    use paging::FramePool;
    use paging::memory::fake::VecMemory;

    const FRAMES: u64 = 4096;
    const PAGE: Gfn = Gfn(700);
    const MS: u64 = 1_000_000;

    /// A cluster of one node with a run that has come apart.
    fn split() -> (Cluster, VecMemory) {
        let member = Member {
            id: NodeId(0),
            mac: [2, 0, 0, 0, 0, 0],
            incarnation: 1,
            pages: FRAMES,
            cpus: 1,
            mtu: 9000,
            window: 4,
            has_payload: true,
            lead: false,
        };
        let members = [member].into();
        let membership = Membership { epoch: 1, me: NodeId(0), mtu: 9000, members };
        let mut memory = VecMemory::new(FRAMES as usize + 1);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(FRAMES + 1));
        let cluster = Cluster::new(&membership, pool, paging::Format::EPT, &mut memory);
        let mut cluster = cluster.expect("it is large enough");
        write(&mut cluster, &mut memory);
        assert!(cluster.coherence().is_large(&memory, PAGE));
        take_apart(&mut cluster, &mut memory);
        (cluster, memory)
    }

    fn write(cluster: &mut Cluster, memory: &mut VecMemory) {
        assert_eq!(cluster.access(memory, PAGE, Access::Write, 0), Progress::Ready);
        cluster.release_held(memory);
    }

    fn take_apart(cluster: &mut Cluster, memory: &mut VecMemory) {
        let (coherence, outbox) = cluster.parts();
        assert!(coherence.protect(&mut Env { memory, out: outbox }, PAGE));
        write(cluster, memory);
        assert!(!cluster.coherence().is_large(memory, PAGE));
    }

    /// Passes time from `from` on until the run is large; when that was.
    fn merged_after(cluster: &mut Cluster, memory: &mut VecMemory, from: u64) -> Option<u64> {
        (from..from + 1000 * MS).step_by(MS as usize / 2).find(|&now| {
            cluster.merge_runs(memory, now);
            cluster.coherence().is_large(memory, PAGE)
        })
    }

    #[test]
    #[cfg_attr(miri, ignore = "moves megabytes")]
    fn a_run_is_merged_when_it_has_been_whole_for_a_round() {
        let (mut cluster, mut memory) = split();
        assert_eq!(cluster.timeout_ns(), None, "nothing is known yet");
        cluster.merge_runs(&mut memory, 0);
        assert!(cluster.timeout_ns().is_some(), "the next look is worth to wake up for");
        let at = merged_after(&mut cluster, &mut memory, 0).expect("in the end");
        assert!((ROUND_NS..ROUND_NS + 10 * MS).contains(&at), "{at}");
        assert_eq!(cluster.timeout_ns(), Some(at + ROUND_NS / MERGES));
        // A round in which nothing is found, and nothing wakes this node.
        merged_after(&mut cluster, &mut memory, at + 1).expect("it stays large");
        for now in (at..at + 4 * ROUND_NS).step_by(MS as usize) {
            cluster.merge_runs(&mut memory, now);
        }
        assert_eq!(cluster.timeout_ns(), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "moves megabytes")]
    fn what_is_lost_meanwhile_begins_anew() {
        let (mut cluster, mut memory) = split();
        cluster.merge_runs(&mut memory, 0);
        let (coherence, outbox) = cluster.parts();
        assert!(coherence.protect(&mut Env { memory: &mut memory, out: outbox }, PAGE));
        write(&mut cluster, &mut memory);
        let at = merged_after(&mut cluster, &mut memory, 0).expect("in the end");
        assert!((2 * ROUND_NS..2 * ROUND_NS + 20 * MS).contains(&at), "{at}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "moves megabytes")]
    fn who_runs_no_guest_merges_nothing() {
        let (mut cluster, mut memory) = split();
        cluster.merge_every_ns(None);
        assert_eq!(merged_after(&mut cluster, &mut memory, 0), None);
        cluster.merge_every_ns(Some(MS));
        let at = merged_after(&mut cluster, &mut memory, 0).expect("in the end");
        assert!((MS..5 * MS).contains(&at), "{at}");
    }
}
