//! Nested tables: as many as what the node holds needs, however large the guest.
//!
//! Frames are kept back for so many ([`Limits::table_frames`]); where pages lie
//! so far apart that these do not do, further ones come out of the frames for
//! pages, and go when pages want those:
//!
//! - A table of leaves that says nothing is taken out. It is known from when its
//!   last page left; should too many leave theirs at once, a hand finds the rest.
//! - While frames run short, a hand looks for runs of which few pages are here,
//!   or pages of zeroes without frames alone. Their pages leave as pages leave
//!   for want of frames, and then the table.
//! - Who touches a run for the first time is granted its page alone: the table
//!   of a run of zeroes would say much and go late.
//!
//! So there are never more tables than are kept back for and pages held, and a
//! fetch that needs one waits as one that needs a frame does: each fetch has what
//! it may yet need out of reach of pages (the floor).
//!
//! [`Limits::table_frames`]: super::Limits::table_frames

use super::{Coherence, Env, Open, Output};
use addr::{Gfn, RUN_PAGES};
use alloc::collections::VecDeque;
use paging::HostMemory;
use paging::table::Flush;

/// Runs that are known to have lost their last page.
const EMPTIED_MAX: usize = 256;
/// Entries of upper tables that the hand looks at in one call.
const STRIDE: usize = 64;
/// A run of which no more pages lie in frames is worth its table.
const FEW: u64 = 32;

/// Which tables may go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tables {
    /// Runs whose last page has left, oldest first.
    emptied: VecDeque<Gfn>,
    /// Where the hand is.
    hand: Gfn,
    /// The run whose pages are being sent away, and the next of them.
    emptying: Option<Gfn>,
}

impl Tables {
    pub(crate) fn new() -> Tables {
        Tables { emptied: VecDeque::with_capacity(EMPTIED_MAX), hand: Gfn(0), emptying: None }
    }

    /// Notes that a run has lost its last page.
    #[cold]
    pub(crate) fn emptied(&mut self, run: Gfn) {
        if self.emptied.len() == EMPTIED_MAX {
            self.emptied.pop_front();
        }
        self.emptied.push_back(run);
    }
}

impl Coherence {
    /// Whether there are more nested tables than frames are kept back for, with
    /// those that large leaves may yet need.
    pub(crate) fn tables_over(&self) -> bool {
        let nested = self.table.tables() + self.table.large_leaves();
        let directory = self.layout.pages_of(self.me).div_ceil(RUN_PAGES);
        nested + directory > self.limits.table_frames
    }

    /// Whether a fetch of zeroes should be granted its page alone: the first of its
    /// run, while there are so many tables that few can have many pages.
    #[inline(always)]
    pub(crate) fn wants_one(&self, memory: &impl HostMemory, gfn: Gfn) -> bool {
        !self.tables_covered && self.lacks_leaves(memory, gfn)
    }

    #[inline(never)]
    fn lacks_leaves(&self, memory: &impl HostMemory, gfn: Gfn) -> bool {
        self.tables_over() && !self.table.has_leaves(memory, gfn)
    }

    /// Takes out the table of a page's run, if no page of it is here and nothing
    /// is open that may need it; whether it was.
    pub fn take_out<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
    ) -> bool {
        let run = gfn.run_start();
        // A page that has left and may have to stay comes back to its entry.
        if self.open.iter().any(|(&page, _)| Gfn(page).run_start() == run) {
            return false;
        }
        let flush = self.table.take_out(env.memory, &mut self.pool, run);
        if flush == Flush::Owed {
            env.out.flush();
            self.counters.tables_out += 1;
        }
        flush == Flush::Owed
    }

    /// Takes out tables that say nothing while there are too many. Bounded work.
    pub(crate) fn trim_tables<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>) {
        if self.table.empty_leaves() == 0 {
            self.tables.emptied.clear();
            return;
        }
        for _ in 0..STRIDE {
            if self.table.empty_leaves() == 0 || !self.tables_over() {
                return;
            }
            let run = match self.tables.emptied.pop_front() {
                Some(run) => run,
                None => match self.move_table_hand(env.memory, 1) {
                    Some((run, 0)) => run,
                    _ => continue,
                },
            };
            self.take_out(env, run);
        }
    }

    /// Moves the hand to the next table of leaves; its run, and pages of it.
    fn move_table_hand<M: HostMemory>(&mut self, memory: &M, budget: usize) -> Option<(Gfn, u64)> {
        let end = self.layout.end();
        let (found, next) = self.table.next_leaves(memory, self.tables.hand, end, budget);
        self.tables.hand = next.unwrap_or(Gfn(0));
        found.map(|leaves| (leaves.run, leaves.used))
    }

    /// Has pages leave of a run that is not worth its table. Bounded work; how
    /// many frames come free by it in the end.
    pub(crate) fn empty_a_run<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        room_elsewhere: bool,
    ) -> u64 {
        let chosen = self.tables.emptying.take().or_else(|| self.sparse_run(env.memory));
        let Some(from) = chosen else { return 0 };
        self.table.approach(env.memory, from);
        let puts_max = self.limits.puts_max.div_ceil(2);
        let mut frames = 0;
        for i in from.run_index() as u64..RUN_PAGES {
            let gfn = from.run_start().offset_by(i);
            let entry = self.table.get(env.memory, gfn);
            if !entry.is_held() || self.is_open(gfn) {
                continue;
            }
            if self.leaving.len() >= puts_max {
                self.tables.emptying = Some(gfn);
                return frames;
            }
            let victim = self.victim(env.memory, gfn);
            if !self.consider(env, &victim, room_elsewhere) {
                return frames; // in use, or there is no place for it
            }
            frames += u64::from(entry.frame.is_some());
        }
        frames
    }

    /// A run of which few pages lie in frames, none of which was used of late.
    fn sparse_run<M: HostMemory>(&mut self, memory: &mut M) -> Option<Gfn> {
        let mut best: Option<(Gfn, u64)> = None;
        for _ in 0..STRIDE {
            let Some((run, used)) = self.move_table_hand(memory, 1) else { continue };
            if used > 0 && best.is_none_or(|(_, least)| used < least) {
                best = Some((run, used));
            }
        }
        let (run, _) = best?;
        let (mut framed, mut used) = (0, false);
        if self.table.is_large(memory, run) {
            self.table.split(memory, &mut self.pool, run).expect("frames for tables are kept back");
        }
        self.table.approach(memory, run);
        for i in 0..RUN_PAGES {
            let entry = self.table.get(memory, run.offset_by(i));
            framed += u64::from(entry.frame.is_some());
            used |= entry.accessed;
        }
        (framed <= FEW && !used).then_some(run)
    }

    /// Evictions under way that leave no frame behind.
    pub(crate) fn leaving_without_frame(&self) -> usize {
        let unbacked = |gfn: &&Gfn| match self.open.get(&gfn.0) {
            Some(Open::Put(put)) => put.entry.frame.is_none(),
            _ => false,
        };
        self.leaving.iter().filter(unbacked).count()
    }
}
