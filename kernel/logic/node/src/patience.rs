//! Ends of transactions that wait to be sent.
//!
//! Nobody waits for an end but who wants the same page. The only one for a node
//! waits for a message that it can travel in ([`coherence::End`]); several for one
//! node wait for more of a run, which travel as one. All of it is bounded: an end
//! that found no company leaves by itself.

use addr::{Gfn, NodeId};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use coherence::{End, Message};

/// Transactions that one message ends at most.
pub(crate) const ENDS_AT_ONCE: u16 = 32;
/// Longest that ends wait for more of a run, in nanoseconds.
pub(super) const RUN_NS: u64 = 100_000;
/// Longest that a lone end waits for a message to travel in, or to the end of the
/// NIC's lull ([`crate::lull::Lull`]) if that is later. The fabric keeps the acknowledgement
/// of the page for longer, and that leaves in the same frame.
pub(super) const LONE_NS: u64 = 180_000;
/// Nodes for which a lone end waits at once.
const LONES_MAX: usize = 8;

/// An end that leaves: to whom, and whether it may wait in the fabric for a frame
/// to travel with.
pub(crate) type Leaving = (NodeId, Message, bool);

/// The only end that waits for a node.
#[derive(Clone, Copy, Debug)]
struct Lone {
    to: NodeId,
    end: Message,
    /// When it was found waiting.
    since_ns: Option<u64>,
}

/// Ends of transactions that wait.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// The oldest first, one for each node.
    lones: Vec<Lone>,
    run: VecDeque<(NodeId, Message)>,
    /// When the first of `run` was found waiting.
    run_since_ns: Option<u64>,
}

/// Whether `next` ends the transaction on the page after those of `end`, that
/// was begun just after them.
fn continues(end: &Message, next: &Message) -> bool {
    let count = end.count.max(1);
    count < ENDS_AT_ONCE
        && next.gfn == end.gfn.offset_by(u64::from(count))
        && next.txn == end.txn.wrapping_add(u32::from(count))
}

impl Patience {
    pub(crate) fn new(room: usize) -> Patience {
        Patience {
            lones: Vec::with_capacity(LONES_MAX),
            run: VecDeque::with_capacity(room),
            run_since_ns: None,
        }
    }

    /// Ends that wait for others of a run.
    pub(crate) fn len(&self) -> usize {
        self.run.len()
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.lones.is_empty() && self.run.is_empty()
    }

    /// Keeps an end; one that has waited for long may have to leave for it.
    #[inline]
    pub(crate) fn keep(&mut self, to: NodeId, end: Message) -> Option<Leaving> {
        if let Some(i) = self.lones.iter().position(|lone| lone.to == to) {
            let first = self.lones.remove(i);
            self.run.push_back((to, first.end));
        }
        if !self.run.is_empty() {
            self.run.push_back((to, end));
            return None;
        }
        let is_full = self.lones.len() == LONES_MAX;
        let oldest = is_full.then(|| self.lones.remove(0));
        self.lones.push(Lone { to, end, since_ns: None });
        oldest.map(|lone| (lone.to, lone.end, true))
    }

    /// Whether a message about a page takes along what waits: the home would let a
    /// request wait for the end of the last one; and ends of a run travel with the
    /// request for the next.
    #[inline]
    pub(crate) fn ends_for(&self, gfn: Gfn) -> bool {
        !self.run.is_empty() || self.lones.iter().any(|lone| lone.end.gfn == gfn)
    }

    /// The end that travels in the next message to a node.
    #[inline(always)]
    pub(crate) fn travelling(&self, to: NodeId) -> Option<End> {
        self.lones.iter().find(|lone| lone.to == to).map(|lone| End::of(&lone.end))
    }

    /// It has.
    #[inline]
    pub(crate) fn travelled(&mut self, to: NodeId) {
        self.lones.retain(|lone| lone.to != to);
    }

    /// Whether there is anything that nobody has looked at yet.
    #[inline]
    pub(crate) fn is_unseen(&self) -> bool {
        self.lones.iter().any(|lone| lone.since_ns.is_none())
            || (!self.run.is_empty() && self.run_since_ns.is_none())
    }

    /// When some of it leaves at the latest.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        let lones = self.lones.iter().filter_map(|lone| Some(lone.since_ns? + LONE_NS));
        lones.chain(self.run_since_ns.map(|since| since + RUN_NS)).min()
    }

    /// Lets leave what cannot wait any longer, and what waits for more of a run if
    /// no `more` is to come.
    #[inline]
    pub(crate) fn expire(&mut self, now_ns: u64, more: bool, leave: impl FnMut(Leaving)) {
        if !self.is_empty() {
            self.look(now_ns, more, leave);
        }
    }

    fn look(&mut self, now_ns: u64, more: bool, mut leave: impl FnMut(Leaving)) {
        self.lones.retain_mut(|lone| {
            let since_ns = *lone.since_ns.get_or_insert(now_ns);
            let stays = now_ns < since_ns + LONE_NS;
            if !stays {
                leave((lone.to, lone.end, false));
            }
            stays
        });
        if !self.run.is_empty() {
            let since_ns = *self.run_since_ns.get_or_insert(now_ns);
            let many = self.run.len() >= usize::from(ENDS_AT_ONCE);
            if !more || many || now_ns >= since_ns + RUN_NS {
                self.end_run(leave);
            }
        }
    }

    /// Lets leave the lone ends, without waiting for a message to travel in.
    pub(crate) fn end_lones(&mut self, mut leave: impl FnMut(Leaving)) {
        self.lones.drain(..).for_each(|lone| leave((lone.to, lone.end, false)));
    }

    /// Lets leave what a message about a page takes along ([`Patience::ends_for`]).
    pub(crate) fn end_for(&mut self, gfn: Gfn, mut leave: impl FnMut(Leaving)) {
        let same = self.lones.extract_if(.., |lone| lone.end.gfn == gfn);
        same.for_each(|lone| leave((lone.to, lone.end, true)));
        self.end_run(leave);
    }

    /// Ends of transactions on neighbours that were begun one after the other leave
    /// in one message, whose count says how many they are.
    fn end_run(&mut self, mut leave: impl FnMut(Leaving)) {
        self.run_since_ns = None;
        while let Some((to, mut end)) = self.run.pop_front() {
            while self.run.front().is_some_and(|(t, next)| *t == to && continues(&end, next)) {
                self.run.pop_front();
                end.count = end.count.max(1) + 1;
            }
            leave((to, end, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use coherence::Kind;

    fn done(gfn: u64, txn: u32) -> Message {
        Message { txn, ..Message::new(Kind::Done, Gfn(gfn), NodeId(0)) }
    }

    /// Who leaves: to whom, first page, transaction, count, and whether it may wait.
    type Left = Vec<(u16, u64, u32, u16, bool)>;

    fn left(f: impl FnOnce(&mut dyn FnMut(Leaving))) -> Left {
        let mut all = Vec::new();
        f(&mut |(to, m, patient)| all.push((to.0, m.gfn.0, m.txn, m.count, patient)));
        all
    }

    fn keep(patience: &mut Patience, to: u16, gfn: u64, txn: u32) {
        assert_eq!(patience.keep(NodeId(to), done(gfn, txn)), None);
    }

    fn expire(patience: &mut Patience, now_ns: u64, more: bool) -> Left {
        left(|leave| patience.expire(now_ns, more, leave))
    }

    #[test]
    fn ends_of_a_run_travel_as_one() {
        let mut patience = Patience::new(64);
        for i in 0..3 {
            keep(&mut patience, 1, 10 + i, u32::MAX.wrapping_add(i as u32));
        }
        keep(&mut patience, 1, 13, 3); // another transaction came between
        keep(&mut patience, 1, 15, 4); // another page lies between
        keep(&mut patience, 2, 16, 5); // another home
        keep(&mut patience, 2, 16, 6);
        let all =
            [(1, 10, u32::MAX, 3), (1, 13, 3, 0), (1, 15, 4, 0), (2, 16, 5, 0), (2, 16, 6, 0)];
        let all = all.map(|(to, gfn, txn, count)| (to, gfn, txn, count, true));
        assert_eq!(expire(&mut patience, 0, false), all);
        let most = u32::from(ENDS_AT_ONCE);
        (0..most + 1).for_each(|i| keep(&mut patience, 1, u64::from(i), i));
        let all = [(1, 0, 0, ENDS_AT_ONCE, true), (1, u64::from(most), most, 0, true)];
        assert_eq!(expire(&mut patience, 0, true), all);
    }

    #[test]
    fn ends_of_a_run_wait_for_more_but_not_long() {
        let mut patience = Patience::new(64);
        keep(&mut patience, 1, 10, 1);
        keep(&mut patience, 1, 11, 2);
        assert!(patience.is_unseen() && patience.len() == 2);
        assert_eq!(
            (expire(&mut patience, 7, true), patience.until_ns()),
            (vec![], Some(7 + RUN_NS))
        );
        assert!(!patience.is_unseen());
        assert_eq!(expire(&mut patience, 6 + RUN_NS, true), []);
        assert_eq!(expire(&mut patience, 7 + RUN_NS, true), [(1, 10, 1, 2, true)]);
        assert_eq!(patience.until_ns(), None);
        // None of the kind is to come; a request takes them along too.
        keep(&mut patience, 1, 20, 5);
        keep(&mut patience, 1, 21, 6);
        assert_eq!(expire(&mut patience, 0, false), [(1, 20, 5, 2, true)]);
        keep(&mut patience, 1, 20, 5);
        keep(&mut patience, 1, 21, 6);
        assert!(patience.ends_for(Gfn(99)));
        assert_eq!(left(|leave| patience.end_for(Gfn(99), leave)), [(1, 20, 5, 2, true)]);
    }

    #[test]
    fn a_lone_end_waits_for_company_and_then_leaves_at_once() {
        let mut patience = Patience::new(64);
        assert_eq!((expire(&mut patience, 5, true), patience.until_ns()), (vec![], None));
        for more in [false, true] {
            keep(&mut patience, 1, 10, 1);
            assert!(patience.is_unseen());
            assert_eq!(expire(&mut patience, 7, more), []);
            keep(&mut patience, 2, 20, 2);
            assert_eq!(expire(&mut patience, 6 + LONE_NS, more), []);
            assert_eq!(patience.until_ns(), Some(7 + LONE_NS));
            // The fabric would let it wait again.
            assert_eq!(expire(&mut patience, 7 + LONE_NS, more), [(1, 10, 1, 0, false)]);
            assert_eq!(expire(&mut patience, 6 + 2 * LONE_NS, more), [(2, 20, 2, 0, false)]);
            assert_eq!(patience.until_ns(), None);
        }
        keep(&mut patience, 1, 10, 1);
        keep(&mut patience, 2, 20, 2);
        let all = [(1, 10, 1, 0, false), (2, 20, 2, 0, false)];
        assert_eq!(left(|leave| patience.end_lones(leave)), all, "in a hurry");
        assert!(!patience.is_unseen());
        // Before the acknowledgement that leaves in the same frame.
        assert!(LONE_NS < fabric::Config::new([2; 6], 1, 1, 1, 2).ack_delay_ns);
    }

    #[test]
    fn a_message_takes_along_the_end_for_its_node() {
        let mut patience = Patience::new(64);
        keep(&mut patience, 1, 10, 1);
        keep(&mut patience, 2, 20, 2);
        assert!(patience.ends_for(Gfn(10)) && !patience.ends_for(Gfn(11)));
        assert_eq!(patience.travelling(NodeId(2)), Some(End { gfn: Gfn(20), txn: 2 }));
        assert_eq!(patience.travelling(NodeId(3)), None);
        patience.travelled(NodeId(2));
        assert_eq!(patience.travelling(NodeId(2)), None);
        assert_eq!(left(|leave| patience.end_for(Gfn(10), leave)), [(1, 10, 1, 0, true)]);
        assert_eq!((patience.is_unseen(), patience.len()), (false, 0));
    }

    #[test]
    fn ends_for_many_nodes_wait_no_longer_than_there_is_room() {
        let mut patience = Patience::new(64);
        let last = LONES_MAX as u16;
        (0..last).for_each(|n| keep(&mut patience, n, u64::from(n), 1));
        let oldest = patience.keep(NodeId(last), done(99, 1));
        assert_eq!(oldest, Some((NodeId(0), done(0, 1), true)));
        assert_eq!(patience.travelling(NodeId(last)), Some(End { gfn: Gfn(99), txn: 1 }));
    }
}
