//! What coherence sends, until the fabric takes it.
//!
//! The fabric takes a message at once unless its queue for that peer and
//! channel is full. Each channel waits for itself: a response never stands
//! behind a request, or the classes of the protocol would mean nothing. But for one
//! that nobody waits for: the lone end of a transaction travels in the next message
//! to the same node ([`coherence::End`]), which waits for the link's acknowledgements
//! at most, never for the protocol.

use super::actor::Control;
use super::glimpse::Glimpses;
use super::patience::{Leaving, Patience};
use super::rooms::Rooms;
use addr::{Frame, NodeId};
use alloc::collections::VecDeque;
use coherence::{Class, End, Kind, Message, Output};
use core::array;
use fabric::{Fabric, Outgoing, SendError};
use wire::Channel;

/// Room for messages of one channel before anything is allocated.
const ROOM: usize = 1024;
/// Messages of one channel that wait before the node opens no more fetches.
const CONGESTED: usize = ROOM / 4;

/// What waits to be sent, and what coherence may know of the other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    queues: [VecDeque<Outgoing>; Channel::COUNT],
    pub(crate) patience: Patience,
    pub(crate) rooms: Rooms,
    pub(crate) flush_owed: bool,
    pub(crate) glimpses: Glimpses,
}

impl Output for Outbox {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        // Nobody waits for the end of a transaction but who wants the same page.
        if message.kind == Kind::Done {
            self.queues[Channel::Response.index()]
                .extend(self.patience.keep(to, message).map(ended));
            return;
        }
        if self.patience.ends_for(message.gfn) {
            let responses = &mut self.queues[Channel::Response.index()];
            self.patience.end_for(message.gfn, |leaving| responses.push_back(ended(leaving)));
        }
        let foreseen = self.foresee(to, message, page);
        self.patience.travelled(to);
        self.push(foreseen);
    }

    fn free_frames(&self, node: NodeId) -> u64 {
        u64::from(self.rooms.free(node))
    }

    fn roomiest(&self, _nodes: u16, not: &[NodeId]) -> Option<NodeId> {
        self.rooms.roomiest(not)
    }

    fn flush(&mut self) {
        self.flush_owed = true;
        self.glimpses = Glimpses::default();
    }
}

#[inline(always)]
fn outgoing(to: NodeId, message: Message, page: Option<Frame>, end: Option<End>) -> Outgoing {
    let channel = match message.kind.class() {
        Class::Request => Channel::Request,
        Class::Forward => Channel::Forward,
        Class::Response => Channel::Response,
    };
    Outgoing { to, channel, body: message.to_bytes_with(end), page, patient: false }
}

fn ended((to, end, patient): Leaving) -> Outgoing {
    Outgoing { patient, ..outgoing(to, end, None, None) }
}

impl Outbox {
    pub(crate) fn new(nodes: usize) -> Outbox {
        Outbox {
            queues: array::from_fn(|_| VecDeque::with_capacity(ROOM)),
            patience: Patience::new(ROOM),
            rooms: Rooms::new(nodes),
            flush_owed: false,
            glimpses: Glimpses::default(),
        }
    }

    /// What [`Output::send`] makes of this message, which takes along nothing that
    /// is patient but as its page does ([`Patience::ends_for`]).
    #[inline(always)]
    pub(crate) fn foresee(&self, to: NodeId, message: Message, page: Option<Frame>) -> Outgoing {
        outgoing(to, message, page, self.patience.travelling(to))
    }

    fn push(&mut self, message: Outgoing) {
        self.queues[message.channel.index()].push_back(message);
    }

    pub(crate) fn control(&mut self, to: NodeId, channel: Channel, control: Control) {
        self.push(Outgoing { to, channel, body: control.to_bytes(), page: None, patient: false });
    }

    /// Whether nothing waits but what is patient.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Lets leave what was patient for long, and ends of runs if no `more` is to come.
    #[inline]
    pub(crate) fn try_patience(&mut self, now_ns: u64, more: bool) {
        let responses = &mut self.queues[Channel::Response.index()];
        self.patience.expire(now_ns, more, |leaving| responses.push_back(ended(leaving)));
    }

    /// Lets leave the ends that wait for a message to travel in.
    pub(crate) fn hurry(&mut self) {
        let responses = &mut self.queues[Channel::Response.index()];
        self.patience.end_lones(|leaving| responses.push_back(ended(leaving)));
    }

    /// Whether so much waits that this node should ask for nothing new: each
    /// fetch it ends leaves a message here.
    pub(crate) fn is_congested(&self) -> bool {
        self.queues.iter().any(|q| q.len() >= CONGESTED) || self.patience.len() >= CONGESTED
    }

    /// Hands the fabric what it takes now.
    pub(crate) fn flush_to(
        &mut self,
        fabric: &mut Fabric,
        now_ns: u64,
    ) -> Result<(), (NodeId, SendError)> {
        for channel in Channel::BY_URGENCY {
            let queue = &mut self.queues[channel.index()];
            while let Some(message) = queue.front() {
                match fabric.send(now_ns, message) {
                    Ok(()) => drop(queue.pop_front()),
                    Err(SendError::Full) => break,
                    // The cluster is ending; nothing more will be answered.
                    Err(SendError::Stopped | SendError::NoSuchPeer) => queue.clear(),
                    Err(error @ SendError::NotFormed) => return Err((message.to, error)),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
