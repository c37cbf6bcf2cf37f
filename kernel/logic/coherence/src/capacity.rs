//! Capacity: a node never runs out of frames.
//!
//! Frames are kept back for tables (the floor) and for pages on their way (the
//! reserve). When free frames fall below three quarters of the reserve, [`Coherence::balance`]
//! makes room in the order of `replacement`: replicas are
//! dropped, zero pages become dormant, other masters leave through their home
//! for a sharer or for the node with most room. Sums of masters never exceed
//! the sum of frames less reserves, because the guest has no more memory than
//! that ([`Limits::contribution`]).

use super::replacement::Victim;
use super::{Coherence, Env, Event, Kind, Message, Open, Output, Violation};
use addr::{Arrived, Frame, Gfn, NodeId, RUN_PAGES};
use layout::Layout;
use paging::{Entry, HostMemory, PageState};

/// Sizes fixed at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Frames kept back for nested tables and directory tables.
    pub table_frames: u64,
    /// Frames that nested tables and directory tables may take at worst: the
    /// guest is not promised pages in them.
    pub unpromised: u64,
    /// Frames kept back for pages on their way.
    pub reserve: u64,
    /// Most fetches open at once.
    pub open_max: usize,
    /// Most evictions open at once.
    pub puts_max: usize,
    /// Sharers that a home asks at most, one after the other, to take a master
    /// over before it is moved to a node with room.
    pub asks_max: u16,
    /// Done messages of one node that may be on their way at once: what the
    /// transport takes from it before the caller stops opening fetches.
    pub dones_max: usize,
}

impl Limits {
    /// Limits of a node with `frames` frames in a cluster whose nodes have
    /// `cluster_frames` together. `runs_guest`: vCPUs here may touch all of the
    /// guest's memory; else this node holds little more than what it is home to.
    #[must_use]
    pub fn new(frames: u64, cluster_frames: u64, runs_guest: bool) -> Limits {
        // A table has 512 entries: nested tables for the pages held, directory
        // tables for the pages this node is home to, and the upper levels.
        let own = frames / RUN_PAGES;
        let elsewhere = cluster_frames.saturating_sub(frames) / RUN_PAGES;
        // For pages of others as many tables as for its own memory at most,
        // however large the cluster: 16 bytes a frame with its own. To a lender
        // they come from few places at a time.
        let others = if runs_guest { elsewhere } else { elsewhere / 16 }.min(own);
        let above =
            if runs_guest { others / RUN_PAGES } else { (elsewhere / RUN_PAGES).min(others / 8) };
        let table_frames = own + others + own + 16 + own / RUN_PAGES + above;
        let reserve = (frames / 256).clamp(192, 4096);
        let unpromised = if runs_guest && elsewhere > own {
            Limits::sparse_tables(frames.saturating_sub(own + reserve), own + elsewhere)
                .max(table_frames - own)
        } else {
            table_frames - own
        };
        let unpromised = own + unpromised;
        Limits {
            table_frames,
            unpromised,
            reserve,
            open_max: 128,
            puts_max: 32,
            asks_max: 4,
            dones_max: 512,
        }
    }

    /// Nested tables of a node that holds as many masters as it can of a guest of
    /// `runs` runs, each as far from the others as can be: one of leaves for each
    /// page or each run, and those above, with all frames taken.
    fn sparse_tables(frames: u64, runs: u64) -> u64 {
        let above = 16 + runs / RUN_PAGES;
        above + runs.min(frames.saturating_sub(above).div_ceil(2))
    }

    /// Whether the frames kept for tables are enough for a node that holds a
    /// page of every run. If not, further tables come out of frames for pages.
    pub(crate) fn cover_tables(&self, layout: &Layout, me: NodeId) -> bool {
        let end = layout.end().0;
        let spans = [RUN_PAGES * RUN_PAGES, RUN_PAGES * RUN_PAGES * RUN_PAGES];
        let upper = 1 + spans.map(|span| end.div_ceil(span)).iter().sum::<u64>();
        let leaves = layout.total_pages() / RUN_PAGES;
        self.table_frames >= upper + leaves + layout.pages_of(me) / RUN_PAGES
    }

    /// Pages that a node with `frames` frames adds to the guest's memory: a
    /// multiple of 2 MiB.
    #[must_use]
    pub fn contribution(&self, frames: u64) -> u64 {
        let usable = frames.saturating_sub(self.unpromised + self.reserve);
        usable / RUN_PAGES * RUN_PAGES
    }
}

/// Frames that a node keeps for its own fetches at most when others move pages
/// to it. Less than what [`Coherence::balance`] keeps free, so that a node
/// that others find full makes room itself.
const KEEP_MAX: u64 = 64;

/// Pages that may leave for each frame that a node takes for itself: one for that
/// frame, and one until there are plenty again.
const DEMAND: u64 = 2;

/// Pages looked at in one call of [`Coherence::balance`].
const SCAN_BUDGET: u64 = 256;

/// Nested tables that one page may need: all levels below the root.
const TABLES_A_PAGE: u64 = 3;

/// How far an eviction has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The page is still here, read-only.
    Asked,
    /// The page was sent to a target; the frame is kept until the home's word.
    Moving,
    /// Another transaction took the page away.
    Gone,
}

/// An open eviction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Put {
    pub(crate) phase: Phase,
    /// The page as it was sent.
    pub(crate) entry: Entry,
    pub(crate) zero: bool,
    /// When the page came, for the choice of pages to evict.
    since: u32,
}

impl Put {
    /// Whether a frame is kept for a page that the table has no more.
    pub(crate) fn keeps_frame(&self) -> bool {
        self.phase == Phase::Moving && self.entry.frame.is_some()
    }

    pub(crate) fn lose_page(&mut self) {
        self.phase = Phase::Gone;
    }
}

impl Coherence {
    /// Free frames that stay out of reach of pages: what tables may yet need.
    #[inline]
    pub(crate) fn floor(&self) -> u64 {
        let used = self.table.tables() + self.directory.tables();
        let left = self.limits.table_frames.saturating_sub(used);
        if self.tables_covered { left } else { left.max(self.tables_owed()) }
    }

    /// Tables that this node may yet need whatever it refuses: one for each
    /// chunk of its directory, one for each large leaf that comes apart, and
    /// those of what it fetches, with the next fetch or page that moves here.
    fn tables_owed(&self) -> u64 {
        let chunks = self.layout.pages_of(self.me).div_ceil(RUN_PAGES);
        let fetches = self.open.len() - self.leaving.len();
        let pages = (fetches as u64 + 1) * TABLES_A_PAGE;
        chunks - self.directory.tables() + self.table.large_leaves() + pages
    }

    /// A frame for a page.
    pub(crate) fn page_frame(&mut self) -> Option<Frame> {
        if self.pool.free_frames() <= self.floor() {
            return None;
        }
        self.pool.allocate()
    }

    /// Frames that other nodes may fill with masters.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.pool.free_frames().saturating_sub(self.floor() + KEEP_MAX.min(self.limits.reserve / 3))
    }

    /// Notes that this node takes a frame for itself.
    pub(crate) fn demands(&mut self) {
        self.demand = (self.demand + DEMAND).min(self.limits.reserve.max(DEMAND));
    }

    /// Makes room if frames run short because of this node's own accesses: a
    /// node that others have filled keeps what it was given, but for a few pages
    /// for each that it takes itself. Else two full nodes would pass each other
    /// their pages for ever. Bounded work; to be called between messages: what
    /// leaves should not go before what the guest waits for.
    ///
    /// # Errors
    /// [`Violation`] as [`Coherence::handle`].
    pub fn balance<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Result<(), Violation> {
        let free = self.pool.free_frames();
        let low = self.floor() + self.limits.reserve * 3 / 4;
        let high = self.floor() + self.limits.reserve;
        let pressed = self.demand > 0 && free < high + self.limits.reserve;
        self.look_after_ranks(env.memory, pressed);
        let sparse = !self.tables_covered && self.tables_over();
        if sparse {
            self.trim_tables(env);
        }
        if self.demand == 0 || free >= low {
            return Ok(());
        }
        let leaving = self.leaving.len() - self.leaving_without_frame();
        let mut expected = free + leaving as u64 + self.transit.freeing();
        if expected >= high {
            self.demand = 0;
            return Ok(());
        }
        // Where no other node has room, only replicas and zero pages can go.
        let nodes = self.layout.nodes() as u16;
        let room_elsewhere = env.out.roomiest(nodes, &[self.me]).is_some();
        if sparse {
            let goes = self.empty_a_run(env, room_elsewhere);
            expected += goes;
            self.demand = self.demand.saturating_sub(goes);
        }
        let mut budget = SCAN_BUDGET;
        let wanted = |c: &Coherence, expected| expected < high && c.demand > 0;
        while wanted(self, expected) && self.leaving.len() < self.limits.puts_max && budget > 0 {
            if let Some(victim) = self.next_victim(env, &mut budget) {
                let goes = self.consider(env, &victim, room_elsewhere);
                expected += u64::from(goes);
                self.demand -= u64::from(goes);
                self.looked_at(env, &victim, goes);
            }
        }
        self.settle(env)
    }

    /// Starts to get rid of one page, as [`Coherence::balance`] does with those
    /// that it chooses; `false` if it is in use or cannot go.
    /// `room_elsewhere`: another node may have room.
    ///
    /// # Errors
    /// [`Violation`] as [`Coherence::handle`].
    pub fn evict<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        room_elsewhere: bool,
    ) -> Result<bool, Violation> {
        let victim = self.victim(env.memory, gfn);
        let goes = self.leaving.len() < self.limits.puts_max
            && self.consider(env, &victim, room_elsewhere);
        self.settle(env)?;
        Ok(goes)
    }

    /// Starts to get rid of one page, unless it is in use.
    pub(crate) fn consider<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        victim: &Victim,
        room_elsewhere: bool,
    ) -> bool {
        let Victim { gfn, entry, since } = *victim;
        let shared = entry.state == PageState::Shared;
        let busy = self.open.contains_key(&gfn.0)
            || self.held.contains(&gfn)
            || (!shared && self.grant_may_come(gfn)); // see is_leaving_near
        let stays = || entry.frame.is_some_and(|f| !env.memory.is_zero(f));
        if busy || !entry.is_held() || (!shared && !room_elsewhere && stays()) {
            return false;
        }
        let about = Message::new(Kind::Put, gfn, self.me);
        self.begins(env, Event::Evict, &about);
        if shared {
            self.set_entry(env, gfn, Entry::default());
            self.remember(env.memory, gfn, since);
            entry.frame.into_iter().for_each(|f| self.free(f));
            self.counters.dropped += 1;
        } else {
            self.start_put(env, gfn, entry, since);
        }
        self.ends(env, Event::Evict, &about);
        true
    }

    /// Asks the home to take a master off this node.
    fn start_put<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        entry: Entry,
        since: u32,
    ) {
        // Taken out of writing first, so that what is looked at stays so.
        self.set_entry(env, gfn, Entry { leaving: true, ..entry });
        let zero = entry.frame.is_none_or(|f| env.memory.is_zero(f));
        if zero {
            // Out of reading as well: once dormant at home, another node may
            // write it before this one hears.
            self.set_entry(env, gfn, Entry { leaving: true, ..Entry::zero(entry.state) });
            entry.frame.into_iter().for_each(|f| self.free(f));
        }
        self.open.insert(gfn.0, Open::Put(Put { phase: Phase::Asked, entry, zero, since }));
        self.leaving.push(gfn);
        self.started_put = Some(gfn);
        let mut put = Message::new(Kind::Put, gfn, self.me);
        put.zero = zero;
        let home = self.home_of(gfn);
        self.send(env, home, put, None);
    }

    /// The home found a place: the page leaves. The frame stays as it is until
    /// the home says that the page has arrived.
    pub(crate) fn move_out<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        entry: Entry,
    ) -> Result<(), &'static str> {
        let Some(Open::Put(put)) = self.open.get_mut(&message.gfn.0) else {
            return Err("told to move a page that stays");
        };
        if put.phase != Phase::Asked {
            return Err("told twice to move a page");
        }
        put.phase = Phase::Moving;
        // Should it have to stay after all, it waits in the queue once more.
        put.entry = Entry { leaving: false, rank: 0, ..entry };
        let since = put.since;
        self.set_entry(env, message.gfn, Entry::default());
        self.remember(env.memory, message.gfn, since);
        self.send_data(env, message, entry, Kind::Move, message.exclusive);
        Ok(())
    }

    /// The first target had no room.
    pub(crate) fn move_again<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
    ) -> Result<(), &'static str> {
        match self.open.get(&message.gfn.0) {
            Some(Open::Put(put)) if put.phase == Phase::Moving => {
                let entry = put.entry;
                self.send_data(env, message, entry, Kind::Move, message.exclusive);
                Ok(())
            }
            _ => Err("told to move a page that is not here"),
        }
    }

    /// The home's last word on an eviction.
    pub(crate) fn put_answered<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
    ) -> Result<(), &'static str> {
        let gfn = message.gfn;
        let Some(Open::Put(put)) = self.open.remove(&gfn.0) else {
            return Err("an answer that nobody asked for");
        };
        let at = self.leaving.iter().position(|&page| page == gfn).expect("an open eviction");
        self.leaving.swap_remove(at);
        let here = self.table.get(env.memory, gfn);
        match (message.kind, put.phase) {
            (Kind::PutAck, Phase::Asked) => {
                self.set_entry(env, gfn, Entry::default());
                self.remember(env.memory, gfn, put.since);
                self.counters.evicted += 1;
                if put.zero {
                    self.counters.evicted_zero += 1;
                } else {
                    self.counters.promoted += 1;
                }
                here.frame.into_iter().for_each(|f| self.free(f));
                Ok(())
            }
            (Kind::PutAck, Phase::Moving) => {
                self.counters.evicted += 1;
                put.entry.frame.into_iter().for_each(|f| self.free(f));
                Ok(())
            }
            // Passed on to a sharer whose next write has overtaken this, taken
            // away before the home came to it, or kept and asked for since.
            (Kind::PutAck | Kind::PutStale | Kind::PutKeep, Phase::Gone) => Ok(()),
            (Kind::PutKeep, Phase::Asked) => {
                self.counters.no_room += 1;
                self.set_entry(env, gfn, Entry { leaving: false, rank: 0, ..here });
                self.enqueue(env.memory, gfn);
                Ok(())
            }
            (Kind::PutKeep, Phase::Moving) => {
                self.counters.no_room += 1;
                self.set_entry(env, gfn, put.entry);
                self.enqueue(env.memory, gfn);
                self.reaches(env, &message);
                // A forward may have overtaken this word.
                self.retry_deferred(env).map_err(|v| v.why)
            }
            (Kind::PutStale, Phase::Asked | Phase::Moving) => Err("stale, but the page is here"),
            (other, _) => unreachable!("{other:?} does not answer an eviction"),
        }
    }

    /// Whether the page was sent to another node that has yet to take it.
    pub(crate) fn is_moving(&self, gfn: Gfn) -> bool {
        matches!(self.open.get(&gfn.0), Some(Open::Put(p)) if p.phase == Phase::Moving)
    }

    /// Whether an eviction is open of a page in the same run. A grant of zero
    /// pages must not cover such a page: it would begin an ownership before the
    /// word has come that the one before is over, and a forward that overtakes
    /// the grant could not tell which of the two it ends. So no fetch asks for
    /// more than its page then, and no page leaves while a grant may come.
    pub(crate) fn is_leaving_near(&self, gfn: Gfn) -> bool {
        let run = gfn.run_start();
        self.leaving.iter().any(|page| page.run_start() == run)
    }

    /// Another node's master comes to stay. Not while an eviction of the page
    /// is open here: its request may still be on its way and would then take
    /// the page that has come back for the one that left.
    pub(crate) fn adopt<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        page: Option<Arrived<'_>>,
    ) -> Result<(), &'static str> {
        let gfn = message.gfn;
        let leaving = matches!(self.open.get(&gfn.0), Some(Open::Put(_)));
        let state = if message.exclusive { PageState::Exclusive } else { PageState::Owned };
        let here = self.table.get(env.memory, gfn);
        match here.state {
            _ if leaving => {}
            PageState::Invalid => {}
            // Its replica is as good as what has come.
            PageState::Shared if !message.exclusive => {
                self.set_entry(env, gfn, Entry { state, ..here });
                self.counters.adopted += 1;
                self.moved_here(env, message, Kind::MoveDone);
                return Ok(());
            }
            _ => return Err("a page moved to where it is"),
        }
        let room = !leaving && self.room() > 0;
        let frame = if room { self.page_frame() } else { None };
        let kind = match (frame, page) {
            (Some(frame), Some(page)) => {
                let frame = Self::land(&mut self.counters, env.memory, frame, page);
                let entry = self.newly_held(env.memory, gfn, state, frame);
                self.set_entry(env, gfn, entry);
                Kind::MoveDone
            }
            (Some(frame), None) => {
                self.free(frame);
                self.set_entry(env, gfn, Entry::zero(state));
                Kind::MoveDone
            }
            (None, _) => Kind::MoveRefused,
        };
        match kind {
            Kind::MoveDone => self.counters.adopted += 1,
            _ => self.counters.refused += 1,
        }
        self.moved_here(env, message, kind);
        Ok(())
    }

    /// Tells the home what has become of a page that was moved here.
    fn moved_here<M, O: Output>(&mut self, env: &mut Env<'_, M, O>, message: Message, kind: Kind) {
        let home = self.home_of(message.gfn);
        self.send(env, home, Message { kind, party: self.me, zero: false, ..message }, None);
    }
}

#[cfg(test)]
mod tests;
