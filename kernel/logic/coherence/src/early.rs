//! A page that is mapped before the step that takes it.
//!
//! When the page that the vCPU waits for has come, the vCPU can go on as soon as
//! the page is mapped. The rest of the step (the fetch ends, the home hears Done)
//! can wait until the vCPU has exited again, and until the request that it exited
//! for has left. So the engine around may have the page mapped
//! ([`Coherence::map_early`]), run the vCPU, and hand over the message next
//! ([`Coherence::handle_arrived`]). Nobody but the vCPU sees a difference: nothing
//! else is handled in between but one access to another page. The model checker
//! tries it in every state in which a page can come, and compares.

use super::requester::{Answer, state_of};
use super::{Coherence, Env, Kind, Message, Open, Output};
use addr::{Arrived, Frame, Gfn};
use paging::{Entry, HostMemory};

/// A page that is mapped, and its fetch is still open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Early {
    pub(crate) gfn: Gfn,
    frame: Frame,
    /// What its entry said of its past.
    history: u32,
}

impl Coherence {
    /// Maps the page of an answer that has come and lies in `page`, a frame of the
    /// link's, if the vCPU waits for it, nothing else is open and this answer is
    /// all that is missing. `false` where any of that is not so, and nothing is
    /// changed. Else the same message has to be handed over next, with the page in
    /// that frame; until then nothing may be called but [`Coherence::release_held`],
    /// [`Coherence::foresee_fetch`] and, if that foresees a request,
    /// [`Coherence::access`].
    pub fn map_early(
        &mut self,
        memory: &mut impl HostMemory,
        message: &Message,
        page: Frame,
    ) -> bool {
        let gfn = message.gfn;
        let Some(Open::Fetch(fetch)) = self.open.get(&gfn.0) else { return false };
        let is_all = message.kind == Kind::Data
            && message.party == self.me
            && message.carries_page()
            && message.count == 0
            && fetch.answer == Answer::None
            && fetch.acks_due == 0;
        // Where the home is this node, Done lets go on who waits there.
        let waits_at_home = || self.busy.get(&gfn.0).is_some_and(|busy| busy.waiters > 0);
        let is_alone = (!fetch.prefetch || fetch.wanted)
            && (fetch.home != self.me || !waits_at_home())
            && self.fetches_open() == 1
            && self.deferred.is_empty()
            && self.early.is_none();
        if !is_all || !is_alone {
            return false;
        }
        let state = state_of(message.exclusive);
        let entry = Entry::held(state, page);
        let Some(history) = self.table.map_early(memory, gfn, entry) else { return false };
        self.hold(gfn);
        self.early = Some(Early { gfn, frame: page, history });
        true
    }

    /// Whether a page is mapped and the message with it was not handed over.
    #[inline]
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.early.is_some()
    }

    /// Takes the message whose page is mapped.
    pub(crate) fn take_early<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        early: Early,
        message: &Message,
        page: Option<Arrived<'_>>,
    ) -> Result<(), &'static str> {
        let Early { gfn, frame, history } = early;
        let landed = match page {
            Some(Arrived::Landed(landed)) if *landed == frame => landed,
            _ => return Err("another page than the one that is mapped"),
        };
        self.early = None;
        let Some(Open::Fetch(fetch)) = self.open.remove(&gfn.0) else { unreachable!("it is open") };
        Self::land(&mut self.counters, env.memory, fetch.frame, Arrived::Landed(landed));
        self.counters.pages_in += 1;
        let rank = self.arrives_again(env.memory, gfn, history);
        self.table.count_early(env.memory, gfn);
        if rank != 0 {
            self.table.set_rank(env.memory, gfn, rank);
        }
        self.count_filled(&Entry { rank, ..Entry::held(state_of(message.exclusive), frame) });
        self.say_done(env, gfn, message.txn);
        Ok(())
    }
}
