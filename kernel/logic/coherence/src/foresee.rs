//! What a step will send, told before it is taken.
//!
//! Somebody waits for what a request leads to, and most of the step that takes it
//! is not needed to tell that: one message, whose contents the state says. So
//! the engine around may ask for it, hand it to the device, and only then take the
//! step. Nothing is changed here, and whatever is not plain is not foreseen. The
//! step itself decides as ever; who has sent what was foreseen must see to it that
//! the step sends the same. The model checker asks before every step, and compares.

use super::directory::{Holding, Sharers};
use super::home::is_upgrade;
use super::owner::answer;
use super::{Coherence, Kind, Message, Role};
use addr::{Access, Frame, Gfn, NodeId};
use paging::{Entry, HostMemory, PageState};

/// A message, to whom it goes, and the page with it.
pub type Foreseen = (NodeId, Message, Option<Frame>);

impl Coherence {
    /// What [`Coherence::handle`] will send first to another node when it takes
    /// this message. `None` where it sends nothing, or where that is not plain.
    #[must_use]
    pub fn foresee_answer(
        &self,
        memory: &impl HostMemory,
        from: NodeId,
        message: &Message,
    ) -> Option<Foreseen> {
        match self.foresee_page(memory, from, message) {
            Some((data, page)) => Some((data.party, data, Some(page))),
            None => self.foresee_other(memory, from, message),
        }
    }

    /// Of that, the page alone with the message that goes to its party, where the
    /// page lies here: somebody waits for it longest.
    #[inline(always)]
    #[must_use]
    pub fn foresee_page(
        &self,
        memory: &impl HostMemory,
        from: NodeId,
        message: &Message,
    ) -> Option<(Message, Frame)> {
        let (home, index) = self.layout.home(message.gfn)?;
        let exclusive = matches!(message.kind, Kind::GetExclusive | Kind::ForwardExclusive);
        let (txn, count) = match message.kind {
            Kind::GetShared | Kind::GetExclusive
                if message.count <= 1 && message.party == from && home == self.me =>
            {
                let (owner, is_shared) = self.directory.quiet_owner(memory, index)?;
                let is_full = self.busy.len() >= self.busy_max;
                if owner != self.me || (exclusive && is_shared) || is_full {
                    return None;
                }
                (self.next_txn, 0)
            }
            Kind::ForwardShared | Kind::ForwardExclusive
                if home == from && message.party.index() < self.layout.nodes() =>
            {
                (message.txn, message.count)
            }
            _ => return None,
        };
        if message.party == self.me || self.held.contains(&message.gfn) {
            return None;
        }
        let page = self.table.master(memory, message.gfn)?;
        let forward = Message { txn, count, ..*message };
        Some((answer(&forward, false, Kind::Data, exclusive), page))
    }

    /// What [`Coherence::foresee_page`] does not tell of that.
    #[must_use]
    pub fn foresee_other(
        &self,
        memory: &impl HostMemory,
        from: NodeId,
        message: &Message,
    ) -> Option<Foreseen> {
        let (home, index) = self.layout.home(message.gfn)?;
        if message.party.index() >= self.layout.nodes() || message.party == self.me {
            return None;
        }
        match message.kind {
            Kind::GetShared | Kind::GetExclusive => {
                let single = message.count <= 1 && message.party == from && home == self.me;
                if single { self.foresee_get(memory, index, message) } else { None }
            }
            Kind::ForwardShared | Kind::ForwardExclusive if home == from => {
                self.foresee_forward(memory, message)
            }
            Kind::Invalidate if home == from => self.foresee_drop(memory, message),
            _ => None,
        }
    }

    /// What [`Coherence::access`] will send when it asks for a page that is not
    /// here in that way, of which this node holds `entry` ([`Coherence::entry`]).
    #[must_use]
    pub fn foresee_fetch(
        &self,
        memory: &impl HostMemory,
        gfn: Gfn,
        access: Access,
        entry: &Entry,
    ) -> Option<(NodeId, Message)> {
        debug_assert_eq!(*entry, self.table.get(memory, gfn));
        let (home, index) = self.layout.home(gfn)?;
        let is_plain = match entry.state {
            PageState::Invalid => true,
            PageState::Shared | PageState::Owned => {
                access == Access::Write && entry.frame.is_some() && !entry.leaving
            }
            PageState::Exclusive => false,
        };
        let opens = is_plain
            && self.fetches_open() < self.limits.open_max
            && self.pool.free_frames() > self.floor()
            && !self.is_open(gfn);
        if !opens {
            return None;
        }
        let get = self.request(memory, gfn, access, entry.state);
        if home == self.me { self.foresee_own(memory, index, &get) } else { Some((home, get)) }
    }

    /// What this home will send when its own node asks it for a page.
    fn foresee_own(
        &self,
        memory: &impl HostMemory,
        index: u64,
        get: &Message,
    ) -> Option<(NodeId, Message)> {
        let (to, message, page) = self.foresee_get(memory, index, get)?;
        (to != self.me && page.is_none()).then_some((to, message))
    }

    /// The home's part: nobody else's transaction on the page is open.
    fn foresee_get(
        &self,
        memory: &impl HostMemory,
        index: u64,
        message: &Message,
    ) -> Option<Foreseen> {
        let entry = self.directory.get(memory, index);
        if entry.busy || self.busy.len() >= self.busy_max {
            return None;
        }
        let requester = message.party;
        let exclusive = message.kind == Kind::GetExclusive;
        let one = Message { count: 1, ..*message };
        let owner = match entry.holding {
            Holding::Exclusive(owner) if owner != requester => owner,
            Holding::Shared(owner, _) if !exclusive && owner != requester => owner,
            Holding::Shared(owner, sharers) if exclusive => {
                let upgrades = is_upgrade(&one, owner, sharers, self.layout.nodes() as u16);
                if let Some(first) = self.first_to_drop(&one, owner, sharers, upgrades) {
                    let drop = one.invalidation(self.next_txn);
                    // What this node needs itself it tells itself.
                    return (first != self.me).then_some((first, drop, None));
                }
                if upgrades {
                    return Some((requester, one.granted(self.next_txn, 0), None));
                }
                owner
            }
            _ => return None,
        };
        let forward = one.forwarded(self.next_txn, 0);
        if owner == self.me {
            self.foresee_forward(memory, &forward)
        } else {
            Some((owner, forward, None))
        }
    }

    /// The first node that has to be told to drop its copy for a write, the owner last
    /// and only where it need not send the page. This node's own goes without a word.
    fn first_to_drop(
        &self,
        message: &Message,
        owner: NodeId,
        sharers: Sharers,
        upgrades: bool,
    ) -> Option<NodeId> {
        let sharers = sharers.iter(self.layout.nodes() as u16).filter(|&node| node != owner);
        let mut others =
            sharers.chain(upgrades.then_some(owner)).filter(|&node| node != message.party);
        others.find(|&node| !self.would_drop_at_once(node, message.gfn))
    }

    /// The owner's part: the page is here and its vCPU does not need it.
    fn foresee_forward(&self, memory: &impl HostMemory, message: &Message) -> Option<Foreseen> {
        debug_assert_eq!(message.kind.role(), Role::Owner);
        if self.held.contains(&message.gfn) {
            return None;
        }
        let entry = self.table.get(memory, message.gfn);
        let exclusive = message.kind == Kind::ForwardExclusive;
        let data = answer(message, entry.frame.is_none(), Kind::Data, exclusive);
        entry.state.is_master().then_some((message.party, data, entry.frame))
    }

    /// The sharer's part: its vCPU does not need the copy.
    fn foresee_drop(&self, memory: &impl HostMemory, message: &Message) -> Option<Foreseen> {
        let drops = !self.held.contains(&message.gfn)
            && self.table.get(memory, message.gfn).state != PageState::Exclusive;
        drops.then_some((message.party, Message { kind: Kind::InvalidateAck, ..*message }, None))
    }
}
