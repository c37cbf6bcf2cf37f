//! What coherence sends, until the fabric takes it.
//!
//! The fabric takes a message at once unless its queue for that peer and
//! channel is full. Each channel waits for itself: a response never stands
//! behind a request, or the classes of the protocol would mean nothing.

use super::actor::Control;
use super::glimpse::Glimpses;
use super::rooms::Rooms;
use addr::{Frame, Gfn, NodeId};
use alloc::collections::VecDeque;
use coherence::{Class, Kind, Message, Output};
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
    /// What nobody waits for, until time is looked at.
    patient: VecDeque<(Gfn, Outgoing)>,
    pub(crate) rooms: Rooms,
    pub(crate) flush_owed: bool,
    pub(crate) glimpses: Glimpses,
}

impl Output for Outbox {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        let channel = match message.kind.class() {
            Class::Request => Channel::Request,
            Class::Forward => Channel::Forward,
            Class::Response => Channel::Response,
        };
        // Nobody waits for the end of a transaction but who wants the same page.
        let patient = message.kind == Kind::Done;
        let outgoing = Outgoing { to, channel, body: message.to_bytes(), page, patient };
        if patient {
            self.patient.push_back((message.gfn, outgoing));
            return;
        }
        if self.patient.iter().any(|(gfn, _)| *gfn == message.gfn) {
            // The home would let a request wait for the end of the last one.
            self.end_patience();
        }
        self.push(outgoing);
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

impl Outbox {
    pub(crate) fn new(nodes: usize) -> Outbox {
        Outbox {
            queues: array::from_fn(|_| VecDeque::with_capacity(ROOM)),
            patient: VecDeque::with_capacity(ROOM),
            rooms: Rooms::new(nodes),
            flush_owed: false,
            glimpses: Glimpses::default(),
        }
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

    /// Whether there is anything patient.
    #[inline]
    pub(crate) fn is_patient(&self) -> bool {
        !self.patient.is_empty()
    }

    /// Lets what was patient leave with the rest.
    pub(crate) fn end_patience(&mut self) {
        while let Some((_, message)) = self.patient.pop_front() {
            self.push(message);
        }
    }

    /// Whether so much waits that this node should ask for nothing new: each
    /// fetch it ends leaves a message here.
    pub(crate) fn is_congested(&self) -> bool {
        self.queues.iter().any(|q| q.len() >= CONGESTED) || self.patient.len() >= CONGESTED
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
mod tests {
    use super::*;
    use fabric::Config;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    struct Nobody;
    impl fabric::Sink for Nobody {
        fn deliver(
            &mut self,
            _: NodeId,
            _: Channel,
            _: &[u8; wire::BODY_BYTES],
            _: Option<addr::Arrived<'_>>,
        ) {
        }
    }

    /// Two fabrics that have formed over a perfect link.
    fn pair() -> [Fabric; 2] {
        let config = |mac, life| Config { queue: 4, ..Config::new(mac, 1, 1, life, 2) };
        let mut pair = [Fabric::new(config(A, 1), 0), Fabric::new(config(B, 2), 0)];
        let mut now = 0;
        while pair.iter().any(|f| f.membership().is_none()) {
            now += 1_000_000;
            assert!(now < 10_000_000_000, "they never form");
            for (from, to) in [(0, 1), (1, 0)] {
                pair[from].handle_timeout(now);
                let mut frame = [0; 2048];
                while let Some(t) = pair[from].poll_transmit(now, &mut frame) {
                    pair[to].handle_frame(now, &frame[..t.header_len], &mut Nobody);
                }
            }
        }
        pair
    }

    #[test]
    fn a_full_request_queue_keeps_no_response_waiting() {
        let [mut fabric, _] = pair();
        let peer = NodeId(1 - fabric.membership().unwrap().me.0);
        let mut outbox = Outbox::new(2);
        let message = |kind| Message::new(kind, Gfn(1), peer);
        for _ in 0..CONGESTED + 100 {
            outbox.send(peer, message(Kind::GetShared), None);
        }
        outbox.send(peer, message(Kind::Promoted), None);
        assert!(outbox.is_congested());
        assert_eq!(outbox.flush_to(&mut fabric, 0), Ok(()));
        assert!(outbox.queues[Channel::Response.index()].is_empty());
        // The fabric has taken 60, which the peer grants, and 4 into its queue.
        assert_eq!(outbox.queues[Channel::Request.index()].len(), CONGESTED + 100 - 60 - 4);
    }

    #[test]
    fn a_done_waits_for_time_or_for_the_next_request_of_its_page() {
        let peer = NodeId(1);
        let mut outbox = Outbox::new(2);
        let message = |kind, gfn| Message::new(kind, Gfn(gfn), peer);
        outbox.send(peer, message(Kind::Done, 1), None);
        assert!(outbox.is_empty() && outbox.is_patient());
        outbox.send(peer, message(Kind::GetExclusive, 2), None);
        assert!(outbox.is_patient());
        outbox.send(peer, message(Kind::GetExclusive, 1), None);
        assert!(!outbox.is_patient());
        assert_eq!(outbox.queues[Channel::Response.index()].len(), 1);
        outbox.send(peer, message(Kind::Done, 3), None);
        outbox.end_patience();
        assert_eq!(outbox.queues[Channel::Response.index()].len(), 2);
    }

    #[test]
    fn what_coherence_asks_is_answered() {
        let mut outbox = Outbox::new(3);
        assert_eq!(outbox.roomiest(3, &[]), None);
        outbox.rooms.set(NodeId(2), 9);
        assert_eq!((outbox.free_frames(NodeId(1)), outbox.free_frames(NodeId(2))), (0, 9));
        assert_eq!(outbox.roomiest(3, &[]), Some(NodeId(2)));
        outbox.glimpses.remember(Gfn(1), Frame(1));
        outbox.flush();
        assert!(outbox.flush_owed && outbox.is_empty());
        assert_eq!(outbox.glimpses.find(Gfn(1)), None, "it may lie elsewhere now");
        outbox.control(NodeId(1), Channel::Request, Control::Taken);
        assert!(!outbox.is_empty() && !outbox.is_congested());
    }

    #[test]
    fn so_many_of_one_channel_are_too_many() {
        let mut outbox = Outbox::new(2);
        for i in 0..CONGESTED {
            assert!(!outbox.is_congested(), "{i}");
            outbox.send(NodeId(1), Message::new(Kind::GetShared, Gfn(1), NodeId(0)), None);
        }
        assert!(outbox.is_congested());
    }
}
