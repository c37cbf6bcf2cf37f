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

/// Transactions that one message ends at most.
pub(crate) const ENDS_AT_ONCE: u16 = 32;
/// Longest that an end waits for others to go with, in nanoseconds.
const PATIENCE_NS: u64 = 100_000;

/// What waits to be sent, and what coherence may know of the other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    queues: [VecDeque<Outgoing>; Channel::COUNT],
    /// Ends of transactions, which nobody waits for, until time is looked at or
    /// more come to go with them.
    patient: VecDeque<(NodeId, Message)>,
    /// When the first of them was found waiting.
    patient_since_ns: Option<u64>,
    pub(crate) rooms: Rooms,
    pub(crate) flush_owed: bool,
    pub(crate) glimpses: Glimpses,
}

impl Output for Outbox {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        // Nobody waits for the end of a transaction but who wants the same page.
        if message.kind == Kind::Done {
            self.patient.push_back((to, message));
            return;
        }
        if self.ends_patience(message.gfn) {
            self.end_patience();
        }
        self.push(outgoing(to, message, page));
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
pub(crate) fn outgoing(to: NodeId, message: Message, page: Option<Frame>) -> Outgoing {
    let channel = match message.kind.class() {
        Class::Request => Channel::Request,
        Class::Forward => Channel::Forward,
        Class::Response => Channel::Response,
    };
    let patient = message.kind == Kind::Done;
    Outgoing { to, channel, body: message.to_bytes(), page, patient }
}

/// Whether `next` ends the transaction on the page after those of `end`, that
/// was begun just after them.
fn continues(end: &Message, next: &Message) -> bool {
    let count = end.count.max(1);
    count < ENDS_AT_ONCE
        && next.gfn == end.gfn.offset_by(u64::from(count))
        && next.txn == end.txn.wrapping_add(u32::from(count))
}

impl Outbox {
    pub(crate) fn new(nodes: usize) -> Outbox {
        Outbox {
            queues: array::from_fn(|_| VecDeque::with_capacity(ROOM)),
            patient: VecDeque::with_capacity(ROOM),
            patient_since_ns: None,
            rooms: Rooms::new(nodes),
            flush_owed: false,
            glimpses: Glimpses::default(),
        }
    }

    /// Whether a message about a page takes along what is patient: the home would
    /// let a request wait for the end of the last one; and ends of a run travel
    /// with the request for the next.
    #[inline]
    pub(crate) fn ends_patience(&self, gfn: Gfn) -> bool {
        match self.patient.front() {
            None => false,
            Some((_, end)) => self.patient.len() > 1 || end.gfn == gfn,
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

    /// Whether there is anything patient that nobody has looked at yet.
    #[inline]
    pub(crate) fn is_patient(&self) -> bool {
        !self.patient.is_empty() && self.patient_since_ns.is_none()
    }

    /// When what is patient leaves at the latest.
    pub(crate) fn patient_until_ns(&self) -> Option<u64> {
        self.patient_since_ns.map(|since| since + PATIENCE_NS)
    }

    /// Lets what is patient leave, unless `more` of the kind is to come and it
    /// can wait for that.
    #[inline]
    pub(crate) fn try_patience(&mut self, now_ns: u64, more: bool) {
        if self.patient.is_empty() {
            return;
        }
        let since = *self.patient_since_ns.get_or_insert(now_ns);
        let many = self.patient.len() >= usize::from(ENDS_AT_ONCE);
        if !more || many || now_ns >= since + PATIENCE_NS {
            self.end_patience();
        }
    }

    /// Lets what was patient leave with the rest: ends of transactions on
    /// neighbours that were begun one after the other in one message, whose
    /// count says how many they are.
    pub(crate) fn end_patience(&mut self) {
        self.patient_since_ns = None;
        while let Some((to, mut end)) = self.patient.pop_front() {
            while self.patient.front().is_some_and(|(t, next)| *t == to && continues(&end, next)) {
                self.patient.pop_front();
                end.count = end.count.max(1) + 1;
            }
            self.push(outgoing(to, end, None));
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
    use alloc::{vec, vec::Vec};
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

    /// What waits in the queue of responses: first page, transaction, count.
    fn ends(outbox: &Outbox) -> Vec<(u16, u64, u32, u16)> {
        let queue = outbox.queues[Channel::Response.index()].iter();
        let read = |o: &Outgoing| (o.to, Message::from_bytes(&o.body).expect("a message"));
        queue.map(read).map(|(to, m)| (to.0, m.gfn.0, m.txn, m.count)).collect()
    }

    fn end(outbox: &mut Outbox, to: u16, gfn: u64, txn: u32) {
        let done = Message { txn, ..Message::new(Kind::Done, Gfn(gfn), NodeId(0)) };
        outbox.send(NodeId(to), done, None);
    }

    #[test]
    fn ends_of_a_run_travel_as_one() {
        let mut outbox = Outbox::new(3);
        for i in 0..3 {
            end(&mut outbox, 1, 10 + i, u32::MAX.wrapping_add(i as u32));
        }
        end(&mut outbox, 1, 13, 3); // another transaction came between
        end(&mut outbox, 1, 15, 4); // another page lies between
        end(&mut outbox, 2, 16, 5); // another home
        end(&mut outbox, 2, 16, 6);
        outbox.end_patience();
        let last = [(1, 13, 3, 0), (1, 15, 4, 0), (2, 16, 5, 0), (2, 16, 6, 0)];
        assert_eq!(ends(&outbox)[0], (1, 10, u32::MAX, 3));
        assert_eq!(ends(&outbox)[1..], last);
        let mut outbox = Outbox::new(3);
        let most = u32::from(ENDS_AT_ONCE);
        (0..most + 1).for_each(|i| end(&mut outbox, 1, u64::from(i), i));
        outbox.end_patience();
        assert_eq!(ends(&outbox), [(1, 0, 0, ENDS_AT_ONCE), (1, u64::from(most), most, 0)]);
    }

    #[test]
    fn ends_wait_for_more_of_them_but_not_long() {
        let mut outbox = Outbox::new(2);
        assert_eq!(outbox.patient_until_ns(), None);
        outbox.try_patience(5, true);
        assert_eq!(outbox.patient_until_ns(), None, "nothing waits");
        end(&mut outbox, 1, 10, 1);
        assert!(outbox.is_patient());
        outbox.try_patience(7, true);
        assert!(!outbox.is_patient(), "it was looked at");
        assert_eq!((outbox.patient_until_ns(), ends(&outbox).len()), (Some(7 + PATIENCE_NS), 0));
        end(&mut outbox, 1, 11, 2);
        outbox.try_patience(6 + PATIENCE_NS, true);
        assert_eq!(ends(&outbox).len(), 0);
        outbox.try_patience(7 + PATIENCE_NS, true);
        assert_eq!((ends(&outbox), outbox.patient_until_ns()), (vec![(1, 10, 1, 2)], None));
        // None of the kind is to come, or enough have.
        end(&mut outbox, 1, 20, 5);
        outbox.try_patience(0, false);
        assert_eq!(ends(&outbox).len(), 2);
        (0..ENDS_AT_ONCE).for_each(|i| end(&mut outbox, 1, 30 + u64::from(i), 6 + u32::from(i)));
        outbox.try_patience(0, true);
        assert_eq!(ends(&outbox).len(), 3);
        // A request takes along what is more than one.
        end(&mut outbox, 1, 100, 90);
        outbox.send(NodeId(1), Message::new(Kind::GetShared, Gfn(200), NodeId(0)), None);
        assert_eq!(ends(&outbox).len(), 3);
        end(&mut outbox, 1, 101, 91);
        outbox.send(NodeId(1), Message::new(Kind::GetShared, Gfn(201), NodeId(0)), None);
        assert_eq!(ends(&outbox).len(), 4);
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
