//! Runs of small pages become large again.
//!
//! A page table of 4 KiB leaves costs the guest more walks than one of 2 MiB,
//! and once other nodes have had pages of a run and given them back, its frames
//! lie anywhere. Where all 512 pages are this node's alone, they are copied to a
//! run of frames and mapped as one leaf; where they lie so already, only mapped.
//! When another node wants one of them, or it has to leave, the leaf comes apart.
//!
//! So that runs do not come apart right after, a hand goes round the tables of
//! leaves and merges only what was whole when it last came by, with no right to
//! any page lost since: it leaves a mark in the table that says so
//! ([`PageTable::mark`]). Nothing is merged while anything is open, so a copy
//! delays no fetch of this node, or while frames are not plenty, when pages are
//! likely to leave. No message is sent, and nobody else can tell.
//!
//! [`PageTable::mark`]: paging::PageTable::mark

use super::{Coherence, Env, Output};
use addr::{Frame, Gfn, RUN_PAGES};
use paging::table::Flush;
use paging::{Entry, HostMemory, PageState};

/// Entries of upper tables that the hand looks at in one call.
const STRIDE: usize = 64;

/// What a look at the next run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// Nothing is to be done there.
    Passed,
    /// It is whole, and was not when the hand came by last. If it stays so, it
    /// will be merged next time.
    Marked,
    /// It is one large page now. Was it copied, that took a while.
    Merged,
    /// The hand has been everywhere and begins anew.
    Round,
}

/// A run that may become large.
struct Whole {
    /// The run of frames that its pages lie in, if they do.
    lies: Option<Frame>,
    /// The youngest of their ranks.
    rank: u8,
}

impl Coherence {
    /// Looks at the next run that has a table of leaves, and merges it if that
    /// is worth it. Bounded work; nobody should wait for this node meanwhile.
    pub fn visit_run<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>) -> Visit {
        if !self.open.is_empty() {
            return Visit::Passed;
        }
        let end = self.layout.end();
        let (found, next) = self.table.next_leaves(env.memory, self.merge_hand, end, STRIDE);
        self.merge_hand = next.unwrap_or(Gfn(0));
        if next.is_none() {
            return Visit::Round;
        }
        let Some(leaves) = found.filter(|leaves| leaves.used == RUN_PAGES) else {
            return Visit::Passed;
        };
        let Some(whole) = self.mergeable(env.memory, leaves.run) else { return Visit::Passed };
        if !self.table.mark(env.memory, leaves.run) {
            return Visit::Marked;
        }
        let merged = self.merge_whole(env, leaves.run, &whole);
        if merged { Visit::Merged } else { Visit::Passed }
    }

    /// Merges the run of a page at once, whatever became of it lately; `false`
    /// if it is not this node's alone, is in use, or frames are too few.
    pub fn merge<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>, gfn: Gfn) -> bool {
        let run = gfn.run_start();
        let whole = self.mergeable(env.memory, run);
        whole.is_some_and(|whole| self.merge_whole(env, run, &whole))
    }

    /// Whether [`Coherence::merge`] may, and whether it would copy.
    #[must_use]
    pub fn may_merge(&self, memory: &impl HostMemory, gfn: Gfn) -> Option<bool> {
        Some(self.mergeable(memory, gfn.run_start())?.lies.is_none())
    }

    /// A run that is whole and has a place to lie in.
    fn mergeable(&self, memory: &impl HostMemory, run: Gfn) -> Option<Whole> {
        self.whole(memory, run).filter(|w| w.lies.is_some() || self.frames_are_plenty())
    }

    /// What its table of leaves says of a run that may become large: all pages
    /// are here to be written and nobody has anything to do with one of them.
    fn whole(&self, memory: &impl HostMemory, run: Gfn) -> Option<Whole> {
        let within = |gfn: Gfn| gfn.run_start() == run;
        let in_use = self.open.iter().any(|(&gfn, _)| within(Gfn(gfn)))
            || self.held.iter().any(|&gfn| within(gfn))
            || self.deferred.iter().any(|(_, message)| within(message.gfn));
        if in_use {
            return None;
        }
        let mut whole = Whole { lies: None, rank: 0 };
        for (i, entry) in (0..).zip(self.table.full_run(memory, run)?) {
            let frame = entry.frame.filter(|_| entry.writable())?;
            if i == 0 {
                whole.lies = Some(frame).filter(|f| f.run_index() == 0);
            }
            whole.lies = whole.lies.filter(|first| first.offset_by(i) == frame);
            whole.rank = self.younger(whole.rank, &entry);
        }
        Some(whole)
    }

    fn merge_whole<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        run: Gfn,
        whole: &Whole,
    ) -> bool {
        let Some(base) = whole.lies.or_else(|| self.pool.allocate_run()) else { return false };
        self.table.approach(env.memory, run);
        for i in 0..RUN_PAGES {
            let gfn = run.offset_by(i);
            let Entry { frame, rank, .. } = self.table.get(env.memory, gfn);
            self.replacement.ranked(rank, whole.rank, 1);
            let frame = frame.expect("it was looked at");
            if frame != base.offset_by(i) {
                env.memory.copy_frame(base.offset_by(i), frame);
                self.free(frame);
            }
        }
        self.counters.merged += 1;
        self.counters.merged_in_place += u64::from(whole.lies.is_some());
        let entry = Entry { rank: whole.rank, ..Entry::held(PageState::Exclusive, base) };
        if self.table.merge(env.memory, &mut self.pool, run, entry) == Flush::Owed {
            env.out.flush();
        }
        true
    }

    /// Whether so many frames are free that a run of them can be had and pages
    /// still do not have to leave soon.
    pub(crate) fn frames_are_plenty(&self) -> bool {
        let rest = RUN_PAGES.max(self.pool.total_frames() / 16);
        self.pool.free_frames() > self.floor() + self.limits.reserve + rest
    }
}
