//! The link to one peer.

use crate::fifo::Fifo;
use crate::io::Io;
use crate::receiver::{Plan, Pool, Receiver};
use crate::rtt::Rtt;
use crate::sender::{Due, Sender};
use crate::{Config, Drop, Member, Status};
use alloc::vec::Vec;
use core::array;
use wire::{Channel, DataWriter, Header, Link, Mac, Message};

/// Times in a row that silence is excused because we were away ourselves.
pub(crate) const GRACES: u8 = 4;
/// New messages or parts after which the acknowledgement does not wait.
const ACK_EVERY: u8 = 16;

/// Whether a message mostly ends an exchange, by its channel and the parts of its page:
/// then its acknowledgement waits for longer, and says little about the round trip.
#[inline]
pub(crate) fn is_last_word(channel: Channel, parts: u8) -> bool {
    channel == Channel::Response && parts == 0
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peer {
    pub(crate) mac: Mac,
    pub(crate) incarnation: u64,
    pub(crate) alive: bool,
    /// Has been heard in this epoch.
    pub(crate) confirmed: bool,
    pub(crate) senders: [Sender; Channel::COUNT],
    pub(crate) receivers: [Receiver; Channel::COUNT],
    pub(crate) rtt: Rtt,
    pub(crate) status: Status,
    pub(crate) heard_ns: u64,
    pub(crate) sent_ns: u64,
    /// Excuses used since it was last heard.
    pub(crate) graces: u8,
    /// When the retransmission timer runs out.
    pub(crate) rto_ns: Option<u64>,
    /// When the acknowledgement it is owed must go.
    pub(crate) ack_ns: Option<u64>,
    /// The same of what is acknowledged later ([`is_last_word`]).
    pub(crate) last_ack_ns: Option<u64>,
    /// New messages and parts since the last acknowledgement.
    pub(crate) fresh: u8,
    pub(crate) ack_now: bool,
    pub(crate) heartbeat_now: bool,
    pub(crate) in_ready: bool,
    pub(crate) in_acks: bool,
    /// It is in [`Links::armed`].
    pub(crate) in_armed: bool,
    pub(crate) stop_acked: bool,
    /// When it was last told that it is fenced.
    pub(crate) told_ns: Option<u64>,
}

impl Peer {
    pub(crate) fn new(member: &Member, config: &Config, now_ns: u64, parts: u8, me: bool) -> Peer {
        let queue = if me { 0 } else { config.queue() };
        let free_frames = u32::try_from(member.pages).unwrap_or(u32::MAX);
        let mut peer = Peer {
            mac: member.mac,
            incarnation: member.incarnation,
            alive: !me,
            confirmed: false,
            senders: array::from_fn(|_| Sender::new(queue, member.window, parts)),
            receivers: array::from_fn(|_| Receiver::new()),
            rtt: Rtt::new(config.rto_min_ns, config.rto_max_ns, config.last_ack_delay_ns),
            // Until it says more: that it has what it came with.
            status: Status { free_frames, masters: 0 },
            heard_ns: now_ns,
            sent_ns: now_ns,
            graces: 0,
            rto_ns: None,
            ack_ns: None,
            last_ack_ns: None,
            fresh: 0,
            ack_now: false,
            heartbeat_now: false,
            in_ready: false,
            in_acks: false,
            stop_acked: false,
            told_ns: None,
            in_armed: false,
        };
        if !config.is_large() && !me {
            peer.senders.iter_mut().for_each(Sender::open);
            peer.receivers.iter_mut().for_each(Receiver::open);
        }
        peer
    }

    pub(crate) fn outstanding(&self) -> bool {
        self.senders.iter().any(Sender::outstanding)
    }

    /// Whether a message would leave with the next.
    #[inline]
    pub(crate) fn has_due(&self) -> bool {
        self.senders.iter().any(Sender::has_due)
    }

    /// Lets nothing wait any longer.
    pub(crate) fn hurry(&mut self) {
        self.ack_ns = None;
        self.ack_now = true;
        self.senders.iter_mut().for_each(Sender::hurry);
    }

    /// Whether there is anything to send to it now.
    pub(crate) fn wants(&self) -> bool {
        self.alive
            && (self.ack_now || self.heartbeat_now || self.senders.iter().any(Sender::urgent))
    }

    /// What we tell it about what came from it.
    pub(crate) fn link(&self, window: u8) -> Link {
        let mut link = Link { window: [window; Channel::COUNT], ..Link::default() };
        for (n, receiver) in self.receivers.iter().enumerate() {
            (link.awaited[n], link.received[n]) = receiver.state();
        }
        link
    }

    /// Writes the messages without a page that are due, together: they are short,
    /// bounded by their windows, and a request is what somebody waits for. Their
    /// numbers by channel, and the most urgent channel that has a page due.
    #[inline]
    pub(crate) fn write_short(
        &self,
        writer: &mut DataWriter<'_>,
    ) -> ([u64; Channel::COUNT], Option<Channel>) {
        let (mut numbers, mut paged) = ([0; Channel::COUNT], None);
        for channel in Channel::BY_URGENCY {
            let sender = &self.senders[channel.index()];
            let taken = &mut numbers[channel.index()];
            while let Some(due) = sender.due(*taken) {
                if due.parts != 0 {
                    paged = paged.or(Some(channel));
                    break;
                }
                if !writer.room() {
                    break;
                }
                let Due { sequence, part, parts, body, .. } = due;
                writer.push(&Message { channel, sequence, part, parts, body });
                *taken |= due.bit;
            }
        }
        (numbers, paged)
    }

    /// Takes what it told us at `now` about what came from us.
    pub(crate) fn acknowledge(&mut self, link: &Link, now: u64, io: &mut Io) {
        let smoothed = self.rtt.smoothed().unwrap_or(0);
        let mut progress = false;
        for channel in Channel::BY_URGENCY {
            let n = channel.index();
            let news = (link.awaited[n], link.received[n], link.window[n]);
            if self.senders[n].knows(news) {
                continue;
            }
            let acked = self.senders[n].acknowledge(news, now, smoothed, |f| io.release(f));
            progress |= acked.progress;
            io.counters.retransmits_fast += u64::from(acked.lost);
            if let Some((ns, parts)) = acked.rtt {
                self.rtt.sample(ns, is_last_word(channel, parts));
            }
        }
        if progress {
            io.counters.acks_in += 1;
            self.rtt.progress();
            self.rto_ns = self.outstanding().then(|| now + self.rtt.timeout());
        }
    }

    /// Notes that `fresh` new messages or parts have come at `now_ns`, all of them the
    /// `last` of their exchanges or not.
    #[inline]
    pub(crate) fn owe_ack(
        &mut self,
        (fresh, last): (u8, bool),
        now_ns: u64,
        (config, window): (&Config, u8),
    ) {
        self.fresh = self.fresh.saturating_add(fresh);
        if self.fresh >= ACK_EVERY.min(window / 2) {
            self.ack_now = true;
        }
        if last {
            self.last_ack_ns.get_or_insert(now_ns + config.last_ack_delay_ns);
        } else {
            self.ack_ns.get_or_insert(now_ns + config.ack_delay_ns);
        }
    }

    /// Whether what is acknowledged later has waited for long enough.
    pub(crate) fn end_last_word(&mut self, now_ns: u64) -> bool {
        let ends = self.last_ack_ns.is_some_and(|at| at <= now_ns);
        if ends {
            self.last_ack_ns = None;
            self.ack_now = true;
        }
        ends
    }

    /// A frame with acknowledgements has gone out. Patient messages that had
    /// no room in it keep their time.
    pub(crate) fn sent(&mut self, now_ns: u64) {
        self.sent_ns = now_ns;
        self.fresh = 0;
        self.ack_now = false;
        self.heartbeat_now = false;
        self.last_ack_ns = None;
        if !self.senders.iter().any(Sender::is_patient) {
            self.ack_ns = None;
        }
        if self.rto_ns.is_none() && self.outstanding() {
            self.rto_ns = Some(now_ns + self.rtt.timeout());
        }
    }

    /// Runs the retransmission timer; whether something is to be sent again.
    pub(crate) fn expire(&mut self, io: &mut Io) -> bool {
        if self.rto_ns.is_none_or(|at| at > io.now_ns) {
            return false;
        }
        let timeout = self.rtt.timeout();
        let (mut lost, mut next) = (0, None);
        for sender in &mut self.senders {
            let (n, at) = sender.expire(io.now_ns, timeout);
            lost += n;
            next = at.into_iter().chain(next).min();
        }
        io.counters.retransmits_timeout += u64::from(lost);
        self.rto_ns = next;
        if lost > 0 {
            self.rtt.back_off();
            self.rto_ns = Some(io.now_ns + self.rtt.timeout());
        }
        lost > 0
    }

    /// When one of its timers runs out; a heartbeat that is already due but
    /// has not been taken by the device does not count, nor for a peer that is
    /// not `watched`.
    pub(crate) fn next_ns(&self, config: &Config, watched: bool) -> u64 {
        let dead_ns = self.heard_ns.saturating_add(config.dead_after_ns);
        let silent_ns = self.sent_ns.saturating_add(config.heartbeat_ns);
        let silent_ns = if self.heartbeat_now || !watched { u64::MAX } else { silent_ns };
        dead_ns.min(silent_ns).min(self.timed_ns().unwrap_or(u64::MAX))
    }

    /// When a retransmission or an acknowledgement that may be late is due.
    pub(crate) fn timed_ns(&self) -> Option<u64> {
        self.rto_ns.into_iter().chain(self.last_ack_ns).min()
    }

    /// Gives up everything to and from it.
    pub(crate) fn clear(&mut self, pool: &mut Pool, io: &mut Io) {
        self.alive = false;
        self.rto_ns = None;
        self.ack_ns = None;
        self.last_ack_ns = None;
        self.senders.iter_mut().for_each(|s| s.clear(|f| io.release(f)));
        self.receivers.iter_mut().for_each(|r| r.clear(pool));
    }
}

/// What a peer's frame said about what came from us, still to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct News {
    pub(crate) node: u16,
    pub(crate) link: Link,
    /// When the frame was taken.
    pub(crate) at_ns: u64,
}

/// A frame that has been written and not been taken note of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sending {
    pub(crate) node: u16,
    /// The numbers in it, by channel, as [`crate::sender::Due::bit`] counts them.
    pub(crate) numbers: [u64; Channel::COUNT],
    /// When it was written.
    pub(crate) at_ns: u64,
}

/// The links to all peers, once the membership is formed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Links {
    pub(crate) epoch: u64,
    pub(crate) me: u16,
    pub(crate) plan: Plan,
    /// Longest frame, with its Ethernet header.
    pub(crate) frame_bytes: usize,
    /// What we grant.
    pub(crate) window: u8,
    /// By node; this node's own is not alive.
    pub(crate) peers: Vec<Peer>,
    /// Peers that this node keeps in touch with: all in a small cluster, its
    /// neighbours in the ring of node numbers in a large one.
    pub(crate) watched: Vec<u16>,
    /// Other peers of which a timer runs ([`Peer::timed_ns`]), each once.
    pub(crate) armed: Fifo<u16>,
    /// Distance in the ring to the peer that next hears of this node out of
    /// turn, and when.
    pub(crate) rumour: (u16, u64),
    /// Peers from the first on that have all been heard.
    pub(crate) confirmed: u16,
    /// When members that have not been heard are sent the membership again.
    pub(crate) commit_ns: u64,
    /// When to send the leader a sign of life.
    pub(crate) greet_ns: Option<u64>,
    /// Peers there is something to send to, each once.
    pub(crate) ready: Fifo<u16>,
    /// Peers owed an acknowledgement, the longest waiting first, each once.
    pub(crate) acks: Fifo<u16>,
    /// Of the frame taken last: nobody waits for it, as for what that brought.
    pub(crate) news: Option<News>,
    /// The frame handed out last: what follows from that waits until the device
    /// has it, or until anything else is asked of the fabric.
    pub(crate) sending: Option<Sending>,
    pub(crate) pool: Pool,
}

/// Neighbours watched on each side in a large cluster. A loss that they all
/// fail to notice takes as many nodes down as there are of them at once.
const NEIGHBOURS: u16 = 8;

/// The peers that `me` watches.
pub(crate) fn watched(config: &Config, me: u16) -> Vec<u16> {
    let nodes = config.nodes;
    if !config.is_large() {
        return (0..nodes).filter(|&n| n != me).collect();
    }
    let after = (1..=NEIGHBOURS).map(|d| (me + d) % nodes);
    after.chain((1..=NEIGHBOURS).map(|d| (me + nodes - d) % nodes)).collect()
}

impl Links {
    /// The peer that a frame says it is from.
    #[inline]
    pub(crate) fn source(&self, header: &Header) -> Result<u16, Drop> {
        if self.epoch != header.epoch {
            return Err(Drop::Stale);
        }
        let peer = self.peers.get(usize::from(header.from)).ok_or(Drop::WrongSource)?;
        if peer.mac != header.src || header.from == self.me {
            return Err(Drop::WrongSource);
        }
        Ok(header.from)
    }

    /// Whether this node keeps in touch with a peer; so does that one then.
    pub(crate) fn watches(&self, node: u16) -> bool {
        let nodes = self.peers.len() as u16;
        let near = || {
            let away = (nodes + node - self.me) % nodes;
            away.min(nodes - away) <= NEIGHBOURS
        };
        self.watched.len() + 1 == usize::from(nodes) || near()
    }

    /// Queues a peer of which a timer runs, if nobody looks at it anyway.
    pub(crate) fn mark_armed(&mut self, node: u16, now_ns: u64) {
        let peer = &self.peers[usize::from(node)];
        if peer.timed_ns().is_some() && !peer.in_armed && !self.watches(node) {
            let peer = &mut self.peers[usize::from(node)];
            peer.in_armed = true;
            // Its silence counts from when it had something to answer.
            peer.heard_ns = peer.heard_ns.max(now_ns);
            assert!(self.armed.push(node), "a peer is twice in the queue of timers");
        }
    }

    pub(crate) fn mark_ready(&mut self, node: u16) {
        let peer = &mut self.peers[usize::from(node)];
        if !peer.in_ready {
            peer.in_ready = true;
            assert!(self.ready.push(node), "a peer is twice in the ready queue");
        }
    }

    /// Whether a peer has not been heard in this epoch. Those that have are
    /// passed once, from the first on.
    pub(crate) fn unconfirmed(&mut self) -> bool {
        let settled = |p: &Peer| p.confirmed || !p.alive;
        while self.peers.get(usize::from(self.confirmed)).is_some_and(settled) {
            self.confirmed += 1;
        }
        usize::from(self.confirmed) < self.peers.len()
    }

    /// Whether a frame is the leader's in this epoch.
    pub(crate) fn is_of_leader(&self, header: &Header) -> bool {
        self.me != 0 && header.epoch == self.epoch && header.src == self.peers[0].mac
    }

    /// Sends a peer a sign of life.
    pub(crate) fn greet(&mut self, node: u16) {
        let peer = &mut self.peers[usize::from(node)];
        if peer.alive {
            peer.heartbeat_now = true;
            self.mark_ready(node);
        }
    }

    /// Queues a peer that is owed an acknowledgement.
    pub(crate) fn mark_ack(&mut self, node: u16) {
        let peer = &mut self.peers[usize::from(node)];
        if !peer.in_acks {
            peer.in_acks = true;
            assert!(self.acks.push(node), "a peer is twice in the ack queue");
        }
    }

    /// Drops from the front of the queue who is owed nothing any more.
    pub(crate) fn trim_acks(&mut self) {
        while let Some(&node) = self.acks.front() {
            let peer = &mut self.peers[usize::from(node)];
            if peer.ack_ns.is_some() {
                break;
            }
            peer.in_acks = false;
            self.acks.pop();
        }
    }

    /// When the first acknowledgement must go.
    pub(crate) fn ack_ns(&self) -> Option<u64> {
        self.acks.front().and_then(|&node| self.peers[usize::from(node)].ack_ns)
    }

    /// Peers that are alive, with their node numbers.
    pub(crate) fn alive(&mut self) -> impl Iterator<Item = (u16, &mut Peer)> {
        let numbered = self.peers.iter_mut().enumerate().map(|(n, p)| (n as u16, p));
        numbered.filter(|(_, p)| p.alive)
    }
}

#[cfg(test)]
mod tests;
