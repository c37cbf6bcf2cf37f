//! The owner and the sharer: give pages up when the home says so.
//!
//! Its rows are in the crate's README, as the engine was seen to take them. A
//! forward for a page that is not here is put off while a grant that makes this
//! node the owner may be on its way, or the word that a page sent elsewhere was
//! refused there and stays; else it is a violation. All but the home's moves
//! and promotions are put off while the vCPU still needs the page.

use super::capacity::Phase;
use super::{Coherence, Env, Kind, Message, Open, Output};
use addr::{Gfn, NodeId};
use paging::{Entry, HostMemory, PageState};

impl Coherence {
    pub(crate) fn at_owner<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
    ) -> Result<(), &'static str> {
        let gfn = message.gfn;
        let takes =
            matches!(message.kind, Kind::ForwardShared | Kind::ForwardExclusive | Kind::Invalidate);
        if takes && self.held.contains(&gfn) {
            return self.defer(env, from, message);
        }
        let entry = self.approach(env.memory, gfn);
        match (message.kind, entry.state) {
            (Kind::ForwardShared | Kind::ForwardExclusive, PageState::Invalid) => {
                if self.grant_may_come(gfn) || self.is_moving(gfn) {
                    self.defer(env, from, message)
                } else {
                    Err("asked for a page that is not here")
                }
            }
            (Kind::ForwardShared | Kind::ForwardExclusive, PageState::Shared) => {
                Err("asked for the master and has a replica")
            }
            (Kind::ForwardShared, PageState::Owned | PageState::Exclusive) => {
                self.set_entry(env, gfn, Entry { state: PageState::Owned, ..entry });
                self.send_data(env, message, entry, Kind::Data, false);
                Ok(())
            }
            (Kind::ForwardExclusive, PageState::Owned | PageState::Exclusive) => {
                self.give_up(env, message);
                self.send_data(env, message, entry, Kind::Data, true);
                if let Some(frame) = entry.frame {
                    self.free(frame);
                }
                Ok(())
            }
            (Kind::Invalidate, PageState::Exclusive) => Err("asked to drop an exclusive page"),
            (Kind::Invalidate, PageState::Invalid | PageState::Shared | PageState::Owned) => {
                self.invalidate(env, message, entry);
                let ack = Message { kind: Kind::InvalidateAck, ..message };
                self.send(env, message.party, ack, None);
                Ok(())
            }
            (Kind::Promote, PageState::Invalid) => {
                let no = Message { kind: Kind::PromoteRefused, party: self.me, ..message };
                self.send(env, from, no, None);
                Ok(())
            }
            (Kind::Promote, PageState::Shared) => {
                self.set_entry(env, gfn, Entry { state: PageState::Owned, ..entry });
                let yes = Message { kind: Kind::Promoted, party: self.me, ..message };
                self.send(env, from, yes, None);
                Ok(())
            }
            (Kind::Promote, PageState::Owned) if self.is_open(gfn) => {
                // This node has just passed the page on and has not heard that
                // it arrived: what is left here is a replica on its way out.
                self.drop_copy(env, message, entry);
                let no = Message { kind: Kind::PromoteRefused, party: self.me, ..message };
                self.send(env, from, no, None);
                Ok(())
            }
            (Kind::Promote, PageState::Owned | PageState::Exclusive) => {
                Err("promoted and is the master")
            }
            (Kind::PutTo, PageState::Owned | PageState::Exclusive) => {
                self.move_out(env, message, entry)
            }
            (Kind::PutTo, PageState::Invalid | PageState::Shared) => self.move_again(env, message),
            (other, _) => unreachable!("{other:?} is not for the owner"),
        }
    }

    /// Whether a zero grant that covers the page may be on its way: an
    /// unanswered fetch of this or another page of the same run is open.
    pub(crate) fn grant_may_come(&self, gfn: Gfn) -> bool {
        let run = gfn.run_start();
        self.open.iter().any(|(&other, open)| {
            Gfn(other).run_start() == run && matches!(open, Open::Fetch(f) if !f.is_answered())
        })
    }

    /// Drops a copy, if it is here, because another node writes.
    pub(crate) fn invalidate<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        entry: Entry,
    ) {
        if entry.state != PageState::Invalid {
            self.drop_copy(env, message, entry);
            self.counters.invalidated += 1;
        } else if let Some(Open::Put(put)) = self.open.get_mut(&message.gfn.0)
            && put.phase == Phase::Moving
        {
            // It was sent elsewhere and refused there: the word that it stays is
            // overtaken by another node's write. Or it has arrived.
            let frame = put.entry.frame;
            put.phase = Phase::Gone;
            frame.into_iter().for_each(|f| self.free(f));
        }
    }

    /// Forgets the page and frees its frame.
    fn drop_copy<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        message: Message,
        entry: Entry,
    ) {
        self.give_up(env, message);
        entry.frame.into_iter().for_each(|f| self.free(f));
    }

    /// Forgets the page; what this node has open on it learns that.
    fn give_up<M: HostMemory, O: Output>(&mut self, env: &mut Env<'_, M, O>, message: Message) {
        if let Some(Open::Put(put)) = self.open.get_mut(&message.gfn.0) {
            put.lose_page();
        }
        self.set_entry(env, message.gfn, Entry::default());
    }

    pub(crate) fn send_data<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        asked: Message,
        entry: Entry,
        kind: Kind,
        exclusive: bool,
    ) {
        if kind == Kind::Data {
            self.counters.pages_out += 1;
        }
        let data = answer(&asked, entry.frame.is_none(), kind, exclusive);
        self.send(env, asked.party, data, entry.frame);
    }
}

/// The message that a page travels with, or that says that it is all zeroes.
#[inline(always)]
pub(crate) fn answer(asked: &Message, zero: bool, kind: Kind, exclusive: bool) -> Message {
    Message { kind, exclusive, zero, lead: 0, ..*asked }
}
