//! Which pages leave first: those whose next use is likely the furthest off.
//!
//! Like LIRS and CLOCK-Pro (Jiang and Zhang, SIGMETRICS 2002; Jiang, Chen and
//! Zhang, USENIX ATC 2005), this goes by the time between two uses of a page,
//! not by the time since the last one, so a sweep over more memory than the
//! node has does not drive everything out. Time is counted in arrivals.
//!
//! - A page that arrives is *new*. It waits in a short queue; at its end it
//!   leaves if it was not used again meanwhile, else it becomes *kept*.
//! - All other pages are kept. A hand goes round them in the order of gfns and
//!   stamps those whose accessed flag is set with the time. When the queue is
//!   short, the hand looks for one of the oldest.
//! - A page that has left leaves in its table entry when it had come. If it
//!   comes back sooner than the oldest kept pages are old, it was worth more
//!   than they are: it is kept at once.
//!
//! In a sweep that repeats, no page comes back sooner than any other: what is
//! kept stays, and all the rest passes through the queue. Where the hardware
//! sets no accessed flags, stamps are arrivals, and a page that comes back soon
//! takes the place of a kept page at random.
//!
//! A rank ([`Entry::rank`]) is [`KEPT`] and a stamp of [`STAMPS`] ticks.

use super::{Coherence, Env, Output};
use addr::{Frame, Gfn, RUN_PAGES};
use alloc::collections::VecDeque;
use paging::{Entry, HostMemory, PageState};

/// Set in the rank of a kept page.
const KEPT: u8 = 0x80;
/// Ticks after which stamps repeat.
const STAMPS: usize = 64;
/// Ticks in as many arrivals as the node has frames.
const TICKS_A_FILL: u64 = 16;
/// Pages that the hand passes for each arrival: once round in half as many
/// arrivals as there are frames.
const PACE: u64 = 2;
/// Ticks of one round of the hand: by so much a stamp may be late.
const ROUND: u8 = (TICKS_A_FILL / PACE) as u8;
/// Stamps get no older than this, so that they do not come round.
const OLDEST: u8 = 40;
/// Table entries that one step of the hand looks at.
const STRIDE: usize = 128;
/// Pages that the hand passes at most in one call.
const STEPS_MAX: u64 = 64;
/// One in this many kept pages counts as one of the oldest.
const OLDEST_SHARE: u64 = 32;
/// Longest queue of new pages.
const QUEUE_MAX: u64 = 16384;
/// Room in the queue beyond the length it should have.
const QUEUE_SLACK: u64 = 64;

/// A page that is to leave.
pub(crate) struct Victim {
    pub(crate) gfn: Gfn,
    pub(crate) entry: Entry,
    /// When it came, or was last seen used.
    pub(crate) since: u32,
}

/// What the choice rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Replacement {
    /// New pages, oldest first; those that have gone meanwhile as well.
    queue: VecDeque<Gfn>,
    /// The length that the queue should have.
    queue_len: usize,
    /// The length that the queue may have.
    queue_max: usize,
    /// New pages at the queue's end whose accessed flag is that of their arrival.
    fresh: usize,
    /// Where the hand is.
    hand: Gfn,
    /// Pages that the hand still has to pass for arrivals so far.
    owed: u64,
    /// Pages that have arrived; wraps.
    arrivals: u32,
    tick: u8,
    tick_len: u32,
    into_tick: u32,
    /// Kept pages, by stamp.
    kept: [u32; STAMPS],
    kept_total: u64,
    /// Pages have left for want of frames.
    pressed: bool,
    /// The last kept page that was chosen cannot leave.
    stuck: bool,
    /// The next page is a new one, however short the queue is.
    new_next: bool,
    /// The state of a pseudo-random sequence.
    noise: u32,
}

impl Replacement {
    pub(crate) fn new(frames: u64) -> Replacement {
        let queue_len = (frames / 16).clamp(16, QUEUE_MAX);
        let queue_max = (queue_len + QUEUE_SLACK) as usize;
        Replacement {
            queue: VecDeque::with_capacity(queue_max),
            queue_len: queue_len as usize,
            queue_max,
            fresh: 0,
            hand: Gfn(0),
            owed: 0,
            arrivals: 1,
            tick: 0,
            tick_len: u32::try_from(frames / TICKS_A_FILL).unwrap_or(u32::MAX).max(1),
            into_tick: 0,
            kept: [0; STAMPS],
            kept_total: 0,
            pressed: false,
            stuck: false,
            new_next: false,
            noise: 1,
        }
    }

    const fn stamp(&self) -> u8 {
        KEPT | self.tick
    }

    fn age(&self, rank: u8) -> u8 {
        self.tick.wrapping_sub(rank) & (STAMPS - 1) as u8
    }

    /// Counts pages that go from one rank to another.
    pub(crate) fn ranked(&mut self, from: u8, to: u8, pages: u64) {
        if from == to {
            return;
        }
        if from & KEPT != 0 {
            self.kept[usize::from(from & !KEPT)] -= pages as u32;
            self.kept_total -= pages;
        }
        if to & KEPT != 0 {
            self.kept[usize::from(to & !KEPT)] += pages as u32;
            self.kept_total += pages;
        }
    }

    #[inline(always)]
    fn pass_time(&mut self) {
        self.arrivals = self.arrivals.wrapping_add(1);
        self.owed += PACE;
        self.into_tick += 1;
        if self.into_tick >= self.tick_len {
            self.into_tick = 0;
            self.tick = (self.tick + 1) & (STAMPS - 1) as u8;
        }
    }

    /// An age that more than one in [`OLDEST_SHARE`] kept pages have.
    fn old_age(&self) -> u8 {
        let mut left = self.kept_total / OLDEST_SHARE;
        for age in (1..STAMPS as u8).rev() {
            let stamp = self.tick.wrapping_sub(age) & (STAMPS - 1) as u8;
            let here = u64::from(self.kept[usize::from(stamp)]);
            if here > left {
                return age;
            }
            left -= here;
        }
        0
    }

    fn draw(&mut self) -> u32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        self.noise
    }
}

impl Coherence {
    /// Notes that a page comes to lie in a frame here; its rank.
    #[inline(always)]
    pub(crate) fn arrives<M: HostMemory>(&mut self, memory: &mut M, gfn: Gfn) -> u8 {
        let past = if self.replacement.pressed { self.table.history(memory, gfn) } else { 0 };
        self.arrives_again(memory, gfn, past)
    }

    /// The same for a page with this history, which counts under pressure only.
    #[inline(always)]
    pub(crate) fn arrives_again<M: HostMemory>(
        &mut self,
        memory: &mut M,
        gfn: Gfn,
        past: u32,
    ) -> u8 {
        self.replacement.pass_time();
        if self.replacement.pressed && self.returns_soon(past) {
            return self.replacement.stamp();
        }
        self.enqueue(memory, gfn);
        0
    }

    /// Whether a page with this history left a shorter time ago than the oldest are
    /// old.
    fn returns_soon(&self, came: u32) -> bool {
        let r = &self.replacement;
        if came == 0 {
            return false;
        }
        let away = u64::from(r.arrivals.wrapping_sub(came));
        if !self.table.format().has_accessed() {
            return away < self.pool.total_frames();
        }
        // Half a round is what a stamp is late on average.
        let sure = u64::from(r.old_age().saturating_sub(ROUND / 2));
        away < sure * u64::from(r.tick_len)
    }

    /// Puts a page into the queue; where it is full, the oldest one is kept.
    #[inline(always)]
    pub(crate) fn enqueue<M: HostMemory>(&mut self, memory: &mut M, gfn: Gfn) {
        if self.replacement.queue.len() >= self.replacement.queue_max {
            self.keep_oldest(memory);
        }
        self.replacement.queue.push_back(gfn);
        self.replacement.fresh += 1;
    }

    /// Makes the oldest new page a kept one.
    fn keep_oldest<M: HostMemory>(&mut self, memory: &mut M) {
        if let Some((gfn, _)) = self.dequeue(memory) {
            self.rank(memory, gfn, 0, 1, self.replacement.stamp());
        }
    }

    /// Takes the oldest new page off the queue, if it is still here.
    fn dequeue<M: HostMemory>(&mut self, memory: &M) -> Option<(Gfn, Entry)> {
        let r = &mut self.replacement;
        let gfn = r.queue.pop_front()?;
        r.fresh = r.fresh.min(r.queue.len());
        let entry = self.table.get(memory, gfn);
        let is_new = entry.state != PageState::Invalid && entry.rank & KEPT == 0;
        (is_new && entry.frame.is_some()).then_some((gfn, entry))
    }

    fn rank<M: HostMemory>(&mut self, memory: &mut M, gfn: Gfn, from: u8, pages: u64, to: u8) {
        self.table.set_rank(memory, gfn, to);
        self.replacement.ranked(from, to, pages);
    }

    /// Clears the accessed flags of new pages whose arrival is over, so that
    /// another use shows.
    fn clear_fresh<M: HostMemory>(&mut self, memory: &mut M) {
        let still = (self.replacement.queue_len / 4).max(8);
        for _ in 0..STEPS_MAX {
            let r = &mut self.replacement;
            if r.fresh <= still {
                return;
            }
            let gfn = r.queue[r.queue.len() - r.fresh];
            r.fresh -= 1;
            let entry = self.table.get(memory, gfn);
            if entry.accessed && entry.rank & KEPT == 0 && !self.table.is_large(memory, gfn) {
                self.table.set_rank(memory, gfn, entry.rank);
            }
        }
    }

    /// Does what arrivals have left to do: bounded work, not on a fault's path.
    pub(crate) fn look_after_ranks<M: HostMemory>(&mut self, memory: &mut M, pressed: bool) {
        self.clear_fresh(memory);
        if pressed {
            self.replacement.pressed = true;
            let steps = self.replacement.owed.min(STEPS_MAX);
            self.replacement.owed = (self.replacement.owed - steps).min(self.pool.total_frames());
            (0..steps).for_each(|_| _ = self.move_hand(memory, u8::MAX));
        } else {
            self.replacement.owed = 0;
            for _ in 0..STEPS_MAX {
                if self.replacement.queue.len() <= self.replacement.queue_len {
                    return;
                }
                self.keep_oldest(memory);
            }
        }
    }

    /// Moves the hand to the next page held, and brings its stamp up to date;
    /// the page if it is kept, unused and at least `wanted` ticks old.
    fn move_hand<M: HostMemory>(&mut self, memory: &mut M, wanted: u8) -> Option<(Gfn, bool)> {
        let end = self.layout.end();
        let (found, next) = self.table.scan(memory, self.replacement.hand, end, STRIDE);
        self.replacement.hand = next.unwrap_or(Gfn(0));
        let page = found?;
        let rank = page.entry.rank;
        if rank & KEPT == 0 || page.entry.frame.is_none() {
            return None;
        }
        let pages = if page.large { RUN_PAGES } else { 1 };
        let age = self.replacement.age(rank);
        if page.entry.accessed {
            self.rank(memory, page.gfn, rank, pages, self.replacement.stamp());
            return None;
        }
        if age >= wanted {
            return Some((page.gfn, page.large));
        }
        if age > OLDEST {
            let oldest = self.replacement.tick.wrapping_sub(OLDEST) & (STAMPS - 1) as u8;
            self.rank(memory, page.gfn, rank, pages, KEPT | oldest);
        }
        None
    }

    /// Finds a page that is to leave, taking at least one off `budget`.
    pub(crate) fn next_victim<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        budget: &mut u64,
    ) -> Option<Victim> {
        let r = &mut self.replacement;
        let new_next = core::mem::take(&mut r.new_next) || r.kept_total == 0;
        if r.queue.len() > r.queue_len || (new_next && !r.queue.is_empty()) {
            *budget -= 1;
            return self.next_new(env.memory);
        }
        let flags = self.table.format().has_accessed();
        if !flags && self.replacement.draw().is_multiple_of(4) {
            self.jump();
        }
        let wanted = if flags { self.replacement.old_age() } else { 0 };
        while *budget > 0 {
            *budget -= 1;
            let Some((gfn, large)) = self.move_hand(env.memory, wanted) else { continue };
            if large {
                self.table
                    .split(env.memory, &mut self.pool, gfn)
                    .expect("frames for tables are kept back");
                self.replacement.hand = gfn;
                continue;
            }
            return Some(self.victim(env.memory, gfn));
        }
        self.replacement.new_next = self.replacement.stuck;
        None
    }

    /// Takes note whether a page found leaves. One that cannot (its master has
    /// no place to go, or it is in use) is kept, and the next one is a new one:
    /// where only few pages can leave, both kinds are looked through in turn.
    pub(crate) fn looked_at<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        victim: &Victim,
        goes: bool,
    ) {
        let rank = victim.entry.rank;
        if rank & KEPT != 0 {
            (self.replacement.stuck, self.replacement.new_next) = (!goes, !goes);
        }
        if !goes {
            self.rank(env.memory, victim.gfn, rank, 1, self.replacement.stamp());
        }
    }

    /// A page that is to leave whatever its rank.
    pub(crate) fn victim<M: HostMemory>(&self, memory: &M, gfn: Gfn) -> Victim {
        let entry = self.table.get(memory, gfn);
        let age = u32::from(self.replacement.age(entry.rank));
        let ago = age.wrapping_mul(self.replacement.tick_len);
        Victim { gfn, entry, since: self.replacement.arrivals.wrapping_sub(ago) }
    }

    fn next_new<M: HostMemory>(&mut self, memory: &mut M) -> Option<Victim> {
        let waited = self.replacement.queue.len() as u32;
        let (gfn, entry) = self.dequeue(memory)?;
        if entry.accessed {
            self.rank(memory, gfn, entry.rank, 1, self.replacement.stamp());
            return None;
        }
        Some(Victim { gfn, entry, since: self.replacement.arrivals.wrapping_sub(waited) })
    }

    /// Sends the hand to a place at random.
    fn jump(&mut self) {
        let far = u64::from(self.replacement.draw()) << 16 | u64::from(self.replacement.draw());
        self.replacement.hand = Gfn(far % self.layout.end().0);
    }

    /// Remembers of a page that has left when it came.
    pub(crate) fn remember<M: HostMemory>(&mut self, memory: &mut M, gfn: Gfn, since: u32) {
        self.table.set_history(memory, gfn, since.max(1));
    }

    /// The rank of a page that comes to lie in this frame and is kept at once.
    pub(crate) fn kept_rank(&self) -> u8 {
        self.replacement.stamp()
    }

    /// The rank of a kept page that is used when one of `rank` is (0 for none)
    /// and when one with this entry is.
    pub(crate) fn younger(&self, rank: u8, entry: &Entry) -> u8 {
        let r = &self.replacement;
        let new = entry.rank & KEPT == 0 || entry.accessed;
        let other = if new { r.stamp() } else { entry.rank };
        if rank & KEPT == 0 || r.age(other) < r.age(rank) { other } else { rank }
    }

    /// Pages that are kept, and those that wait in the queue.
    #[must_use]
    pub fn ranks(&self) -> (u64, usize) {
        (self.replacement.kept_total, self.replacement.queue.len())
    }

    /// An entry for a page that has just come to lie in `frame`.
    pub(crate) fn newly_held<M: HostMemory>(
        &mut self,
        memory: &mut M,
        gfn: Gfn,
        state: PageState,
        frame: Frame,
    ) -> Entry {
        Entry { rank: self.arrives(memory, gfn), ..Entry::held(state, frame) }
    }
}

#[cfg(test)]
mod tests;
