//! The requester: opens fetches and installs what comes back.
//!
//! A fetch ends when it has its answer and as many acknowledgements as that
//! announced, in whatever order they come; then the page is installed and the
//! home hears Done. Its rows are in the crate's README, as the engine was seen
//! to take them.

use super::{Coherence, Env, Event, HELD_MAX, Kind, Message, Open, Output, Violation};
use addr::{Access, Arrived, Frame, Gfn, NodeId, RUN_PAGES};
use paging::{Entry, HostMemory, PageState};

/// How an access stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The page is here with the right to do it.
    Ready,
    /// A transaction is open; ask again after the next message.
    Pending,
    /// Frames or transactions ran short; ask again after the next message.
    Starved,
}

/// What the home or the owner has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    None,
    /// The right alone.
    Grant {
        txn: u32,
    },
    /// The page, which lies in the frame now.
    Data {
        txn: u32,
        exclusive: bool,
    },
}

/// An open fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    pub(crate) home: NodeId,
    pub(crate) frame: Frame,
    pub(crate) answer: Answer,
    /// Acknowledgements that the answer announced less those that came.
    pub(crate) acks_due: i32,
    pub(crate) prefetch: bool,
    /// Asked for ahead of need, and needed meanwhile.
    pub(crate) wanted: bool,
}

/// What this node has of a page that it was given.
pub(crate) const fn state_of(exclusive: bool) -> PageState {
    if exclusive { PageState::Exclusive } else { PageState::Shared }
}

impl Fetch {
    pub(crate) fn is_answered(&self) -> bool {
        self.answer != Answer::None
    }

    /// Whether all has come that it waits for.
    fn is_complete(&self) -> Result<bool, &'static str> {
        if !self.is_answered() || self.acks_due > 0 {
            return Ok(false);
        }
        if self.acks_due < 0 {
            return Err("more acknowledgements than announced");
        }
        Ok(true)
    }
}

impl Coherence {
    /// Asks for a page on behalf of the guest or of the hypervisor itself, and
    /// for up to `ahead` pages after it that nobody waits for.
    ///
    /// # Errors
    /// [`Violation`] as [`Coherence::handle`] (the home may be this node).
    ///
    /// # Panics
    /// If there is no RAM at `gfn` ([`Coherence::home`] tells).
    pub fn access<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        access: Access,
        ahead: u16,
    ) -> Result<Progress, Violation> {
        let (event, about) = (Event::Fault(access), Message::new(Kind::GetShared, gfn, self.me));
        self.begins(env, event, &about);
        let progress = self.try_access(env, gfn, access, ahead)?;
        self.ends(env, event, &about);
        match progress {
            Progress::Ready => return Ok(progress),
            Progress::Starved => {
                self.demands();
                self.balance(env)?;
                return Ok(progress);
            }
            // Without a word to this node itself nothing has changed.
            Progress::Pending if self.local.is_empty() => return Ok(progress),
            Progress::Pending => self.settle(env)?,
        }
        // A home that is this node may have answered already.
        Ok(if self.is_ready(env.memory, gfn, access) { Progress::Ready } else { Progress::Pending })
    }

    /// Whether the page is here with the right to do it.
    #[inline]
    #[must_use]
    pub fn is_ready(&self, memory: &impl HostMemory, gfn: Gfn, access: Access) -> bool {
        Self::allows(self.table.get(memory, gfn), access)
    }

    fn allows(entry: Entry, access: Access) -> bool {
        match access {
            Access::Read => entry.readable(),
            Access::Write => entry.writable(),
        }
    }

    fn try_access<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        access: Access,
        ahead: u16,
    ) -> Result<Progress, Violation> {
        let entry = self.table.get(env.memory, gfn);
        if Self::allows(entry, access) {
            return Ok(Progress::Ready);
        }
        let open = self.open.contains_key(&gfn.0);
        if entry.state != PageState::Invalid && entry.frame.is_none() && !entry.leaving {
            if !self.materialise(env, gfn, entry) {
                return Ok(Progress::Starved);
            }
            if access == Access::Read || entry.state == PageState::Exclusive {
                return Ok(Progress::Ready);
            }
        }
        if open {
            if let Some(Open::Fetch(fetch)) = self.open.get_mut(&gfn.0) {
                fetch.wanted = true;
            }
            return Ok(Progress::Pending);
        }
        if entry.leaving {
            // Made read-only by `protect` alone; nothing is on its way.
            self.set_entry(env, gfn, Entry { leaving: false, ..entry });
            return self.try_access(env, gfn, access, ahead);
        }
        let state = entry.state;
        if !self.open_fetch(gfn, access, state, false) {
            return Ok(Progress::Starved);
        }
        let mut run = 1;
        while run <= ahead && self.open_ahead(env, gfn.offset_by(u64::from(run)), gfn, access) {
            run += 1;
        }
        self.send_get(env, gfn, access, (run, state));
        if run <= ahead {
            // What lies behind a page that is here, or has another home.
            let rest = gfn.offset_by(u64::from(run));
            self.ask_ahead(env, (rest, 1), ahead + 1 - run, access);
        }
        Ok(Progress::Pending)
    }

    /// Asks for `count` pages from `from` on, each `step` pages after the one
    /// before, that nobody waits for. All but the first of a
    /// request are left out where they cannot be had at once, and the rest where
    /// frames are short.
    ///
    /// # Errors
    /// [`Violation`] as [`Coherence::handle`] (the home may be this node).
    pub fn prefetch<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: Gfn,
        step: i64,
        count: u16,
        access: Access,
    ) -> Result<(), Violation> {
        self.ask_ahead(env, (from, step), count, access);
        self.settle(env)
    }

    fn ask_ahead<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        (from, step): (Gfn, i64),
        count: u16,
        access: Access,
    ) {
        let mut start = from;
        let mut run = 0;
        for i in 0..count {
            let Some(gfn) = from.0.checked_add_signed(i64::from(i) * step).map(Gfn) else { break };
            if run == 0 {
                start = gfn;
            }
            let opened = self.open_ahead(env, gfn, start, access);
            run += u16::from(opened);
            // Only neighbours of one home go into one request.
            if run > 0 && (!opened || step != 1) {
                self.send_get(env, start, access, (run, PageState::Invalid));
                run = 0;
            }
        }
        if run > 0 {
            self.send_get(env, start, access, (run, PageState::Invalid));
        }
    }

    /// Opens a fetch of a page that nobody waits for, together with that of
    /// page `with`.
    fn open_ahead<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        with: Gfn,
        access: Access,
    ) -> bool {
        self.pool.free_frames() > self.floor() + self.limits.reserve / 4
            && self.can_prefetch(env.memory, gfn, with)
            && self.open_fetch(gfn, access, PageState::Invalid, true)
    }

    /// Makes an exclusive page read-only without telling anyone, so that the
    /// next write faults and is answered on the spot: the floor that remote
    /// faults are measured against. `false` if the page is not exclusive here.
    pub fn protect<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>, gfn: Gfn) -> bool {
        let entry = self.table.get(env.memory, gfn);
        let can = entry.writable() && !self.is_open(gfn);
        if can {
            self.set_entry(env, gfn, Entry { leaving: true, ..entry });
        }
        can
    }

    fn can_prefetch(&self, memory: &impl HostMemory, gfn: Gfn, with: Gfn) -> bool {
        let home = |g| self.layout.home(g).map(|(n, _)| n);
        home(gfn).is_some()
            && home(gfn) == home(with)
            && !self.open.contains_key(&gfn.0)
            && self.table.get(memory, gfn).state == PageState::Invalid
    }

    /// Gives a frame of zeroes to a page that is held without one.
    fn materialise<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        entry: Entry,
    ) -> bool {
        let Some(frame) = self.page_frame() else { return false };
        self.demands();
        env.memory.zero(frame);
        self.counters.materialised += 1;
        let rank = self.arrives(env.memory, gfn);
        self.set_entry(env, gfn, Entry { frame: Some(frame), rank, ..entry });
        self.hold(gfn);
        true
    }

    /// Opens a fetch of a page that is here in `state`.
    fn open_fetch(&mut self, gfn: Gfn, want: Access, state: PageState, prefetch: bool) -> bool {
        if self.fetches_open() >= self.limits.open_max {
            return false;
        }
        let Some(frame) = self.page_frame() else { return false };
        self.demands();
        match (prefetch, want, state) {
            (true, _, _) => self.counters.prefetches += 1,
            (false, Access::Read, _) => self.counters.read_fetches += 1,
            (false, Access::Write, PageState::Invalid) => self.counters.write_fetches += 1,
            (false, Access::Write, _) => self.counters.upgrades += 1,
        }
        let home = self.home_of(gfn);
        let fetch =
            Fetch { home, frame, answer: Answer::None, acks_due: 0, prefetch, wanted: false };
        self.open.insert(gfn.0, Open::Fetch(fetch));
        true
    }

    /// Asks for `run` pages, of which the first is here in `state`.
    fn send_get<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        access: Access,
        (run, state): (u16, PageState),
    ) {
        let get = Message { count: run, ..self.request(env.memory, gfn, access, state) };
        let home = self.home_of(gfn);
        self.send(env, home, get, None);
    }

    /// The request for a page that is here in `state`.
    #[inline(always)]
    pub(crate) fn request(
        &self,
        memory: &impl HostMemory,
        gfn: Gfn,
        access: Access,
        state: PageState,
    ) -> Message {
        let kind = match access {
            Access::Read => Kind::GetShared,
            Access::Write => Kind::GetExclusive,
        };
        let mut get = Message::new(kind, gfn, self.me);
        get.count = 1;
        get.alone = self.is_leaving_near(gfn) || self.wants_one(memory, gfn);
        get.has_copy = state != PageState::Invalid;
        get
    }

    /// Keeps a page that the vCPU waits for until it has got on.
    #[inline(always)]
    pub(crate) fn hold(&mut self, gfn: Gfn) {
        if self.held.len() < HELD_MAX && !self.held.contains(&gfn) {
            self.held.push(gfn);
        }
    }

    #[inline(always)]
    pub(crate) fn at_requester<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: &Message,
        page: Option<Arrived<'_>>,
    ) -> Result<(), &'static str> {
        let gfn = message.gfn;
        if let Some(early) = self.early
            && early.gfn == gfn
        {
            return self.take_early(env, early, message, page);
        }
        let Some(Open::Fetch(fetch)) = self.open.get_mut(&gfn.0) else {
            return Err("an answer that nobody asked for");
        };
        match message.kind {
            Kind::ZeroGrant => return self.zero_granted(env, *message),
            Kind::Skip => {
                if !fetch.prefetch {
                    return Err("a page that is waited for was skipped");
                }
                let frame = fetch.frame;
                self.open.remove(&gfn.0);
                self.free(frame);
                self.counters.skipped += 1;
                return Ok(());
            }
            Kind::InvalidateAck => fetch.acks_due -= 1,
            Kind::Grant => {
                if fetch.answer != Answer::None {
                    return Err("answered twice");
                }
                fetch.answer = Answer::Grant { txn: message.txn };
                fetch.acks_due += i32::from(message.count);
            }
            Kind::Data => {
                if fetch.answer != Answer::None {
                    return Err("answered twice");
                }
                fetch.answer = Answer::Data { txn: message.txn, exclusive: message.exclusive };
                fetch.acks_due += i32::from(message.count);
                match page {
                    Some(page) => {
                        let counters = &mut self.counters;
                        fetch.frame = Self::land(counters, env.memory, fetch.frame, page);
                    }
                    None => env.memory.zero(fetch.frame),
                }
                self.counters.pages_in += 1;
            }
            other => unreachable!("{other:?} is not for the requester"),
        }
        if fetch.is_complete()? { self.install(env, gfn) } else { Ok(()) }
    }

    /// Installs the page of a fetch that is complete.
    #[inline(always)]
    fn install<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
    ) -> Result<(), &'static str> {
        let Some(Open::Fetch(fetch)) = self.open.remove(&gfn.0) else { unreachable!("it is open") };
        let txn = match fetch.answer {
            Answer::None => unreachable!("it was answered"),
            Answer::Grant { txn } => {
                let entry = self.table.get(env.memory, gfn);
                if entry.state == PageState::Invalid {
                    // It may have overtaken the grant of a run that holds the page.
                    if !self.grant_may_come(gfn) {
                        return Err("a grant without a copy");
                    }
                    self.open.insert(gfn.0, Open::Fetch(fetch));
                    return Ok(());
                }
                self.free(fetch.frame);
                self.set_entry(env, gfn, Entry { state: PageState::Exclusive, ..entry });
                txn
            }
            Answer::Data { txn, exclusive } => {
                let entry = self.table.get(env.memory, gfn);
                match (entry.state, exclusive) {
                    (PageState::Invalid, _) => {}
                    // The home could not tell that this replica was good.
                    (PageState::Shared, true) => {
                        self.set_entry(env, gfn, Entry::default());
                        entry.frame.into_iter().for_each(|f| self.free(f));
                    }
                    _ => return Err("data for a page that is here"),
                }
                self.fill_with(env, gfn, exclusive, fetch.frame);
                txn
            }
        };
        if !fetch.prefetch || fetch.wanted {
            self.hold(gfn);
        }
        self.say_done(env, gfn, txn);
        Ok(())
    }

    /// Notes a page that has come into a frame, of which nothing was here.
    #[inline(always)]
    fn fill_with<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        exclusive: bool,
        frame: Frame,
    ) {
        let entry = self.newly_held(env.memory, gfn, state_of(exclusive), frame);
        self.fill_entry(env, gfn, entry);
    }

    /// Tells the home that a transaction is over here.
    #[inline(always)]
    pub(crate) fn say_done<M, O: Output>(&mut self, env: &mut Env<'_, M, O>, gfn: Gfn, txn: u32) {
        let mut done = Message::new(Kind::Done, gfn, self.me);
        done.txn = txn;
        let home = self.home_of(gfn);
        self.send(env, home, done, None);
    }

    /// Installs a run of zero pages. A whole chunk becomes one large page of
    /// real frames where there are plenty, else pages without frames.
    fn zero_granted<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
    ) -> Result<(), &'static str> {
        let gfn = message.gfn;
        let Some(Open::Fetch(fetch)) = self.open.remove(&gfn.0) else { unreachable!("open") };
        let count = u64::from(message.count);
        let lead = u64::from(message.lead);
        let start = Gfn(gfn.0.checked_sub(lead).ok_or("a grant before the first page")?);
        if count == 0 || count > RUN_PAGES || lead >= count {
            return Err("a grant that does not cover the page");
        }
        self.counters.zero_grants += 1;
        self.counters.zero_pages += count;
        if !self.install_zero_chunk(env, start, count)? {
            for i in 0..count {
                let page = start.offset_by(i);
                if self.table.get(env.memory, page).state != PageState::Invalid {
                    return Err("a grant of a page that is here");
                }
                self.set_entry(env, page, Entry::zero(PageState::Exclusive));
            }
        }
        let entry = self.table.get(env.memory, gfn);
        if entry.frame.is_none() && !fetch.prefetch {
            env.memory.zero(fetch.frame);
            self.counters.materialised += 1;
            let rank = self.arrives(env.memory, gfn);
            self.set_entry(env, gfn, Entry { frame: Some(fetch.frame), rank, ..entry });
        } else {
            self.free(fetch.frame);
        }
        if !fetch.prefetch {
            self.hold(gfn);
        }
        self.reaches(env, &message);
        self.retry_after_grant(env, start, count)
    }

    fn install_zero_chunk<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        start: Gfn,
        count: u64,
    ) -> Result<bool, &'static str> {
        if count != RUN_PAGES || start.run_index() != 0 {
            return Ok(false);
        }
        let run = if self.frames_are_plenty() { self.pool.allocate_run() } else { None };
        let entry = match run {
            Some(base) => {
                (0..RUN_PAGES).for_each(|i| env.memory.zero(base.offset_by(i)));
                self.counters.materialised += RUN_PAGES;
                Entry { rank: self.kept_rank(), ..Entry::held(PageState::Exclusive, base) }
            }
            None => Entry::zero(PageState::Exclusive),
        };
        let whole = self
            .table
            .set_run(env.memory, &mut self.pool, start, entry)
            .expect("frames for tables are kept back");
        if whole {
            self.masters += RUN_PAGES;
            self.replacement.ranked(0, entry.rank, RUN_PAGES);
        } else if let Some(base) = run {
            (0..RUN_PAGES).for_each(|i| self.pool.release(base.offset_by(i)));
        }
        Ok(whole)
    }

    /// Grants and forwards may have overtaken the grant of a run that made this
    /// node the owner.
    fn retry_after_grant<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        start: Gfn,
        count: u64,
    ) -> Result<(), &'static str> {
        let waits = |(&gfn, open): (&u64, &Open)| match open {
            Open::Fetch(fetch) if (start.0..start.0 + count).contains(&gfn) => {
                fetch.is_answered().then(|| (gfn, fetch.is_complete()))
            }
            _ => None,
        };
        loop {
            let Some((gfn, complete)) = self.open.iter().find_map(waits) else { break };
            if complete? {
                self.install(env, Gfn(gfn))?;
            }
            if self.open.contains_key(&gfn) {
                return Err("a grant for a page in doubt");
            }
        }
        self.retry_deferred(env).map_err(|v| v.why)
    }
}
