//! The home: keeps the directory and serialises the transactions of a page.
//!
//! Its rows are in the crate's README, as the engine was seen to take them.
//! A transaction ends by Done, MoveDone, Promoted or a last refusal; then the
//! next request that waits for the page is taken.

use super::directory::{DirectoryEntry, Holding, Sharers, run_is_chunk};
use super::{Coherence, Env, Event, Kind, Message, Output, Seen};
use addr::{Gfn, NodeId, RUN_PAGES};
use paging::HostMemory;

/// What an open transaction at home waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// Done from the requester.
    Done { requester: NodeId, exclusive: bool },
    /// Promoted or PromoteRefused from a sharer, one of so many.
    Promote { owner: NodeId, asked: NodeId, tries: u16 },
    /// MoveDone or MoveRefused from a target; others may have replicas.
    Move { owner: NodeId, target: NodeId, tries: u16, shared: bool },
}

/// An open transaction at home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Busy {
    pub(crate) txn: u32,
    pub(crate) waits: Waits,
    /// Requests that wait for this page.
    pub(crate) waiters: u16,
}

type Step = Result<(), &'static str>;

/// Whether a node that wants to write has a good copy. A coarse sharer set cannot
/// prove that.
pub(crate) fn is_upgrade(message: &Message, owner: NodeId, sharers: Sharers, nodes: u16) -> bool {
    let requester = message.party;
    owner == requester
        || (message.has_copy && sharers.is_exact(nodes) && sharers.contains(requester))
}

impl Coherence {
    #[inline(always)]
    pub(crate) fn home_of(&self, gfn: Gfn) -> NodeId {
        if self.asked_for.0 == gfn {
            return self.asked_for.1;
        }
        self.layout.home(gfn).expect("a page of RAM").0
    }

    fn index_of(&self, gfn: Gfn) -> u64 {
        if (gfn, self.me) == (self.asked_for.0, self.asked_for.1) {
            return self.asked_for.2;
        }
        let (home, index) = self.layout.home(gfn).expect("a page of RAM");
        assert_eq!(home, self.me, "a page of this home");
        index
    }

    fn entry_at_home(&self, memory: &impl HostMemory, gfn: Gfn) -> DirectoryEntry {
        self.directory.get(memory, self.index_of(gfn))
    }

    fn set_holding<M: HostMemory, O>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        holding: Holding,
        busy: bool,
    ) {
        let index = self.index_of(gfn);
        self.directory
            .set(env.memory, &mut self.pool, index, DirectoryEntry { holding, busy })
            .expect("frames for tables are kept back");
    }

    pub(crate) fn at_home<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
    ) -> Step {
        match message.kind {
            Kind::GetShared | Kind::GetExclusive => {
                if message.party != from {
                    return Err("asked for another node");
                }
                self.get(env, message)
            }
            Kind::Put => {
                if message.party != from {
                    return Err("asked for another node");
                }
                self.put_asked(env, message)
            }
            Kind::Done => self.done(env, from, message),
            Kind::MoveDone | Kind::MoveRefused => self.moved(env, from, message),
            Kind::Promoted | Kind::PromoteRefused => self.promoted(env, from, message),
            other => unreachable!("{other:?} is not for the home"),
        }
    }

    /// A request for a page, unless it is a prefetch, and for those after it
    /// that are easily had.
    fn get<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>, message: Message) -> Step {
        let run = message.count.max(1);
        if u64::from(run) > RUN_PAGES {
            return Err("a run longer than there can be");
        }
        self.get_one(env, Message { count: 1, ..message })?;
        self.reaches(env, &message);
        for i in 1..u64::from(run) {
            let gfn = message.gfn.offset_by(i);
            if self.layout.home(gfn).is_none_or(|(home, _)| home != self.me) {
                return Err("a run past the end of this home");
            }
            let one = Message { gfn, count: 1, has_copy: false, prefetch: true, ..message };
            let entry = self.entry_at_home(env.memory, gfn);
            let easy = !entry.busy
                && match entry.holding {
                    Holding::Dormant => false,
                    Holding::Exclusive(owner) | Holding::Shared(owner, _) => owner != message.party,
                };
            let event = Event::Further(one.kind);
            self.begins(env, event, &one);
            if easy {
                self.get_one(env, one)?;
            } else {
                self.send(env, one.party, Message { kind: Kind::Skip, ..one }, None);
            }
            self.ends(env, event, &one);
        }
        Ok(())
    }

    fn get_one<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
    ) -> Step {
        let gfn = message.gfn;
        let requester = message.party;
        let entry = self.entry_at_home(env.memory, gfn);
        if entry.busy {
            return self.wait(env, message);
        }
        let exclusive = message.kind == Kind::GetExclusive;
        match entry.holding {
            Holding::Dormant => self.grant_zero(env, message),
            Holding::Exclusive(owner) if owner == requester => {
                let txn = self.begin(env, gfn, entry.holding, requester, true)?;
                self.grant(env, message, txn, 0);
            }
            Holding::Exclusive(owner) => {
                let txn = self.begin(env, gfn, entry.holding, requester, exclusive)?;
                self.forward(env, message, owner, txn, 0);
            }
            Holding::Shared(owner, _) if !exclusive && owner != requester => {
                let txn = self.begin(env, gfn, entry.holding, requester, false)?;
                self.forward(env, message, owner, txn, 0);
            }
            Holding::Shared(owner, sharers) => {
                let txn = self.begin(env, gfn, entry.holding, requester, true)?;
                self.take_from_all(env, message, owner, sharers, txn);
            }
        }
        Ok(())
    }

    /// A write to a page with replicas: all others drop theirs.
    fn take_from_all<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        owner: NodeId,
        sharers: Sharers,
        txn: u32,
    ) {
        let requester = message.party;
        let nodes = self.layout.nodes() as u16;
        let mut acks = 0;
        let drop = message.invalidation(txn);
        for node in sharers.iter(nodes) {
            if node != requester && node != owner && !self.drops_at_once(env, node, drop) {
                self.send(env, node, drop, None);
                acks += 1;
            }
        }
        if is_upgrade(&message, owner, sharers, nodes) {
            if owner != requester && !self.drops_at_once(env, owner, drop) {
                self.send(env, owner, drop, None);
                acks += 1;
            }
            self.grant(env, message, txn, acks);
        } else {
            self.forward(env, message, owner, txn, acks);
        }
    }

    /// Whether [`Coherence::drops_at_once`].
    pub(crate) fn would_drop_at_once(&self, node: NodeId, gfn: Gfn) -> bool {
        node == self.me && !self.held.contains(&gfn)
    }

    /// Drops the copy that this home has itself, which then needs no word to
    /// the requester; not one that its vCPU still needs.
    fn drops_at_once<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        node: NodeId,
        message: Message,
    ) -> bool {
        let can = self.would_drop_at_once(node, message.gfn);
        if can {
            let event = Event::Message(Kind::Invalidate);
            self.begins(env, event, &message);
            let entry = self.approach(env.memory, message.gfn);
            self.invalidate(env, message, entry);
            self.ends(env, event, &message);
        }
        can
    }

    fn grant_zero<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>, message: Message) {
        let index = self.index_of(message.gfn);
        let most = if message.alone { 1 } else { RUN_PAGES };
        let whole = !message.alone && run_is_chunk(&self.layout, message.gfn);
        let (start, count) = self
            .directory
            .grant_run(env.memory, &mut self.pool, index, message.party, most, whole)
            .expect("frames for tables are kept back");
        let mut grant = Message::new(Kind::ZeroGrant, message.gfn, message.party);
        grant.count = count as u16;
        grant.lead = (index - start) as u16;
        self.send(env, message.party, grant, None);
    }

    fn grant<M, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        txn: u32,
        acks: u16,
    ) {
        self.send(env, message.party, message.granted(txn, acks), None);
    }

    fn forward<M, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        owner: NodeId,
        txn: u32,
        acks: u16,
    ) {
        self.send(env, owner, message.forwarded(txn, acks), None);
    }

    /// Opens a transaction for a requester.
    fn begin<M: HostMemory, O>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        holding: Holding,
        requester: NodeId,
        exclusive: bool,
    ) -> Result<u32, &'static str> {
        self.set_busy(env, gfn, holding, Waits::Done { requester, exclusive })
    }

    fn set_busy<M: HostMemory, O>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        holding: Holding,
        waits: Waits,
    ) -> Result<u32, &'static str> {
        if self.busy.len() >= self.busy_max {
            return Err("more requests than the nodes can have open");
        }
        let txn = self.fresh_txn();
        if let Some(before) = self.busy.insert(gfn.0, Busy { txn, waits, waiters: 0 }) {
            // Those that waited for the last step wait for this one.
            self.busy.get_mut(&gfn.0).expect("it is there").waiters = before.waiters;
        }
        self.set_holding(env, gfn, holding, true);
        Ok(txn)
    }

    /// The next number of a transaction.
    fn fresh_txn(&mut self) -> u32 {
        let txn = self.next_txn;
        self.next_txn = self.next_txn.wrapping_add(1);
        txn
    }

    fn wait<M, O: Output>(&mut self, env: &mut Env<'_, M, O>, message: Message) -> Step {
        if O::WATCHES {
            env.out.watch(Seen::Queues);
        }
        if self.waiting.len() >= self.requests_max {
            return Err("more requests than the nodes can have open");
        }
        let busy = self.busy.get_mut(&message.gfn.0).expect("a busy page");
        busy.waiters += 1;
        self.counters.queued += 1;
        self.waiting.push_back((message.party, message));
        Ok(())
    }

    /// Closes the transaction of a page and takes the next request for it.
    fn finish<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        holding: Holding,
    ) -> Step {
        let busy = self.busy.remove(&gfn.0).expect("a busy page");
        self.set_holding(env, gfn, holding, false);
        self.reaches(env, &Message::new(Kind::Done, gfn, self.me));
        let mut left = busy.waiters;
        while left > 0 {
            let at = self
                .waiting
                .iter()
                .position(|(_, m)| m.gfn == gfn)
                .expect("a request for each waiter");
            let (_, message) = self.waiting.remove(at).expect("found above");
            left -= 1;
            let event = Event::Message(message.kind);
            self.begins(env, event, &message);
            match message.kind {
                Kind::Put => self.put_asked(env, message)?,
                _ => self.get_one(env, message)?,
            }
            self.ends(env, event, &message);
            if let Some(next) = self.busy.get_mut(&gfn.0) {
                next.waiters = left;
                break;
            }
        }
        Ok(())
    }

    fn transaction(&self, message: Message) -> Result<Busy, &'static str> {
        match self.busy.get(&message.gfn.0) {
            Some(busy) if busy.txn == message.txn => Ok(*busy),
            _ => Err("no such transaction"),
        }
    }

    fn done<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
    ) -> Step {
        let Waits::Done { requester, exclusive } = self.transaction(message)?.waits else {
            return Err("Done in another transaction");
        };
        if requester != from {
            return Err("Done from another node");
        }
        let entry = self.entry_at_home(env.memory, message.gfn);
        let holding = match entry.holding {
            _ if exclusive => Holding::Exclusive(requester),
            Holding::Dormant => return Err("Done for a dormant page"),
            Holding::Exclusive(owner) => {
                let mut sharers = Sharers::default();
                sharers.insert(requester);
                Holding::Shared(owner, sharers)
            }
            Holding::Shared(owner, mut sharers) => {
                sharers.insert(requester);
                Holding::Shared(owner, sharers)
            }
        };
        self.finish(env, message.gfn, holding)
    }

    /// An owner wants to be rid of a page.
    fn put_asked<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
    ) -> Step {
        let entry = self.entry_at_home(env.memory, message.gfn);
        if entry.busy {
            return self.wait(env, message);
        }
        let from = message.party;
        match entry.holding {
            Holding::Exclusive(owner) if owner == from => {
                self.place(env, message, entry.holding, false)
            }
            Holding::Shared(owner, sharers) if owner == from => {
                let nodes = self.layout.nodes() as u16;
                let heir = sharers.iter(nodes).find(|&n| n != from);
                match heir {
                    Some(asked) => self.promote(env, message, entry.holding, (asked, 1)),
                    None => self.place(env, message, entry.holding, false),
                }
            }
            Holding::Dormant | Holding::Exclusive(_) | Holding::Shared(..) => {
                self.answer_put(env, message, Kind::PutStale);
                Ok(())
            }
        }
    }

    fn answer_put<M, O: Output>(&mut self, env: &mut Env<'_, M, O>, message: Message, kind: Kind) {
        let answer = Message { kind, txn: 0, ..message };
        self.send(env, message.party, answer, None);
    }

    fn promote<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        holding: Holding,
        (asked, tries): (NodeId, u16),
    ) -> Step {
        let owner = message.party;
        let waits = Waits::Promote { owner, asked, tries };
        let txn = self.set_busy(env, message.gfn, holding, waits)?;
        self.send(env, asked, Message { kind: Kind::Promote, txn, ..message }, None);
        Ok(())
    }

    fn promoted<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
    ) -> Step {
        let Waits::Promote { owner, asked, tries } = self.transaction(message)?.waits else {
            return Err("Promoted in another transaction");
        };
        let Holding::Shared(_, mut sharers) = self.entry_at_home(env.memory, message.gfn).holding
        else {
            return Err("promotion of a page without replicas");
        };
        if asked != from {
            return Err("Promoted by another node");
        }
        sharers.remove(from, self.layout.nodes() as u16);
        let put = Message { kind: Kind::Put, party: owner, ..message };
        if message.kind == Kind::Promoted {
            self.answer_put(env, put, Kind::PutAck);
            // The former owner may read its copy until it hears of this.
            sharers.insert(owner);
            return self.finish(env, message.gfn, Holding::Shared(from, sharers));
        }
        // That sharer had dropped its replica: the next one, or a move. Of those
        // that were not asked some may have one.
        let nodes = self.layout.nodes() as u16;
        let holding = Holding::Shared(owner, sharers);
        match sharers.iter(nodes).find(|&n| n != owner && n > from) {
            Some(next) if tries < self.limits.asks_max => {
                self.promote(env, put, holding, (next, tries + 1))
            }
            rest => self.place(env, put, holding, rest.is_some()),
        }
    }

    /// Finds a place for a master: nowhere if it is zero and nobody can have a
    /// replica (`shared`), else a node with room.
    fn place<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        holding: Holding,
        shared: bool,
    ) -> Step {
        let was_busy = self.busy.contains_key(&message.gfn.0);
        let owner = message.party;
        let (holding, answer) = if message.zero && !shared {
            (Holding::Dormant, Kind::PutAck)
        } else if let Some(target) = self.roomiest(env, owner, None) {
            let waits = Waits::Move { owner, target, tries: 1, shared };
            return self.order_move(env, message, holding, waits);
        } else {
            (holding, Kind::PutKeep)
        };
        self.answer_put(env, message, answer);
        if was_busy {
            return self.finish(env, message.gfn, holding);
        }
        self.set_holding(env, message.gfn, holding, false);
        Ok(())
    }

    /// Has the owner send a master to a node with room.
    fn order_move<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        put: Message,
        holding: Holding,
        waits: Waits,
    ) -> Step {
        let Waits::Move { owner, target, shared, .. } = waits else { unreachable!("a move") };
        let txn = self.set_busy(env, put.gfn, holding, waits)?;
        let exclusive = !shared;
        let order = Message { kind: Kind::PutTo, party: target, txn, exclusive, ..put };
        self.send(env, owner, order, None);
        Ok(())
    }

    /// This node itself if it has room: a page at its home is one hop away and
    /// next to its neighbours. Else the node with most free frames, other than
    /// the owner and one that has just refused.
    fn roomiest<M, O: Output>(
        &self,
        env: &Env<'_, M, O>,
        owner: NodeId,
        refused: Option<NodeId>,
    ) -> Option<NodeId> {
        let mine = if owner == self.me || refused == Some(self.me) { 0 } else { self.room() };
        if mine > 0 && refused.is_none() {
            return Some(self.me);
        }
        let nodes = self.layout.nodes() as u16;
        let other = env.out.roomiest(nodes, &[self.me, owner, refused.unwrap_or(owner)]);
        let room = |n: NodeId| (env.out.free_frames(n), core::cmp::Reverse(n));
        match other {
            Some(n) if room(n) > (mine, core::cmp::Reverse(self.me)) => Some(n),
            _ => (mine > 0).then_some(self.me),
        }
    }

    fn moved<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
    ) -> Step {
        let Waits::Move { owner, target, tries, shared } = self.transaction(message)?.waits else {
            return Err("MoveDone in another transaction");
        };
        if target != from {
            return Err("MoveDone from another node");
        }
        let put = Message { kind: Kind::Put, party: owner, ..message };
        let holding = self.entry_at_home(env.memory, message.gfn).holding;
        if message.kind == Kind::MoveDone {
            self.answer_put(env, put, Kind::PutAck);
            let holding = match holding {
                Holding::Shared(_, mut sharers) if shared => {
                    sharers.remove(target, self.layout.nodes() as u16);
                    Holding::Shared(target, sharers)
                }
                _ => Holding::Exclusive(target),
            };
            return self.finish(env, message.gfn, holding);
        }
        let next = self.roomiest(env, owner, Some(from));
        match next.filter(|_| usize::from(tries) < 2 * self.layout.nodes()) {
            Some(target) => {
                let waits = Waits::Move { owner, target, tries: tries + 1, shared };
                self.order_move(env, put, holding, waits)
            }
            None => {
                self.answer_put(env, put, Kind::PutKeep);
                self.finish(env, message.gfn, holding)
            }
        }
    }
}
