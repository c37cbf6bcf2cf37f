//! Messages in, each to the role that it is for; messages out, those to this
//! node itself by a queue of its own; and those that have to wait for the vCPU.

use super::{Coherence, Env, Event, Kind, Message, Output, Role, Seen, Violation};
use addr::{Arrived, Frame, NodeId, PageBytes};
use paging::HostMemory;

impl Coherence {
    /// Takes a message from the fabric, and everything that follows from it at
    /// this node. `page` is there when [`Message::carries_page`] says so.
    ///
    /// # Errors
    /// [`Violation`] if the protocol does not allow the message; the node must
    /// not go on.
    pub fn handle<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
        page: Option<&PageBytes>,
    ) -> Result<(), Violation> {
        self.handle_arrived(env, from, message, page.map(Arrived::Bytes))
    }

    /// Like [`Coherence::handle`], for a page that may lie in a frame of the
    /// link's already. Such a frame is kept where it can be, and the frame that
    /// was kept for the page goes to the link in exchange.
    ///
    /// # Errors
    /// As [`Coherence::handle`].
    pub fn handle_arrived<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
        page: Option<Arrived<'_>>,
    ) -> Result<(), Violation> {
        self.dispatch(env, from, &message, page)?;
        self.settle(env)
    }

    /// Handles the messages that this node has sent to itself.
    #[inline]
    pub(crate) fn settle<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Result<(), Violation> {
        if self.local.is_empty() { Ok(()) } else { self.settle_local(env) }
    }

    #[inline(never)]
    fn settle_local<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Result<(), Violation> {
        while let Some(message) = self.local.pop_front() {
            match message.kind.role() {
                Role::Home => self.dispatch(env, self.me, &message, None)?,
                // What this home asks for needs no look at the layout.
                _ => self.perform(env, self.me, &message, None)?,
            }
        }
        Ok(())
    }

    fn dispatch<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: &Message,
        page: Option<Arrived<'_>>,
    ) -> Result<(), Violation> {
        let bad = |why| Err(Violation { from, message: *message, why });
        let Some((home, index)) = self.layout.home(message.gfn) else {
            return bad("the page is not RAM");
        };
        if message.party.index() >= self.layout.nodes() {
            return bad("there is no such node");
        }
        if message.carries_page() != page.is_some() {
            return bad("a page is missing or too many");
        }
        match message.kind.role() {
            Role::Home if home != self.me => return bad("this node is not its home"),
            Role::Owner if home != from => return bad("only the home may ask that"),
            _ => self.asked_for = (message.gfn, home, index),
        }
        self.perform(env, from, message, page)
    }

    /// Handles a message about a page of RAM from somebody who may send it.
    fn perform<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: &Message,
        page: Option<Arrived<'_>>,
    ) -> Result<(), Violation> {
        let bad = |why| Err(Violation { from, message: *message, why });
        let role = message.kind.role();
        let to_me = message.party == self.me;
        self.begins(env, Event::Message(message.kind), message);
        let step = match role {
            Role::Home => self.at_home(env, from, *message),
            Role::Owner if to_me => return bad("asked to give a page to itself"),
            Role::Owner => self.at_owner(env, from, *message),
            Role::Requester | Role::Capacity if !to_me => return bad("an answer for another node"),
            Role::Requester => self.at_requester(env, message, page),
            Role::Capacity if message.kind == Kind::Move => self.adopt(env, *message, page),
            Role::Capacity => self.put_answered(env, *message),
        };
        self.ends(env, Event::Message(message.kind), message);
        step.map_err(|why| Violation { from, message: *message, why })
    }

    /// Sends a message, to this node itself by its own queue.
    pub(crate) fn send<M, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        to: NodeId,
        message: Message,
        page: Option<Frame>,
    ) {
        if O::WATCHES {
            env.out.watch(Seen::Sends(message.kind));
        }
        if to == self.me {
            assert!(page.is_none(), "a page never travels from a node to itself");
            self.local.push_back(message);
        } else {
            if let Some(frame) = page {
                self.transit.leave(frame);
            }
            env.out.send(to, message, page);
        }
    }

    /// Says that the vCPU has got on: pages kept for it may go, and messages
    /// that waited for that are handled.
    ///
    /// # Errors
    /// [`Violation`] as [`Coherence::handle`].
    #[inline]
    pub fn release_held<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Result<(), Violation> {
        self.held.clear();
        if self.deferred.is_empty() { Ok(()) } else { self.go_on_with_deferred(env) }
    }

    /// Apart, so that an exit with nothing put off calls nothing.
    #[cold]
    fn go_on_with_deferred<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Result<(), Violation> {
        self.retry_deferred(env)?;
        self.settle(env)
    }

    /// Handles again what was put off; what still must wait is put off anew.
    pub(crate) fn retry_deferred<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Result<(), Violation> {
        for _ in 0..self.deferred.len() {
            let (from, message) = self.deferred.remove(0);
            self.dispatch(env, from, &message, None)?;
        }
        Ok(())
    }

    pub(crate) fn defer<M, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        from: NodeId,
        message: Message,
    ) -> Result<(), &'static str> {
        if O::WATCHES {
            env.out.watch(Seen::PutsOff);
        }
        if self.deferred.len() >= self.requests_max {
            return Err("more messages put off than there can be");
        }
        self.counters.deferred += 1;
        self.deferred.push((from, message));
        Ok(())
    }
}
