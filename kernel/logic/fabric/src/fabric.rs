//! The fabric as its user sees it.

use crate::ahead::{Ahead, Like};
use crate::fifo::Fifo;
use crate::foresee::Foreseen;
use crate::forming::Forming;
use crate::io::{Control, Io};
use crate::peer::{Links, Peer};
use crate::receiver::{Plan, Pool};
use crate::{Config, Counters, Event, Member, Membership, Outgoing, SendError, Status, StopReason};
use addr::{Frame, NodeId, PAGE_SIZE};
use alloc::vec;
use alloc::vec::Vec;
use wire::{ETHERNET_BYTES, HeaderKey};

/// Answers to probes that are awaited at once.
const PROBES: usize = 64;

/// Where an orderly stop stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stopping {
    No,
    /// This node stops the cluster and tells the peers.
    Telling {
        reason: StopReason,
        tries: u8,
        next_ns: u64,
    },
    /// Nothing more is sent or taken, but Stop is still answered.
    Stopped,
}

/// An answer to a probe that is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Probing {
    pub(crate) token: u64,
    pub(crate) got: u16,
}

/// Transport and membership of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fabric {
    pub(crate) io: Io,
    pub(crate) forming: Forming,
    pub(crate) membership: Option<Membership>,
    pub(crate) links: Option<Links>,
    pub(crate) stopping: Stopping,
    /// No timer but that of acknowledgements runs out earlier.
    pub(crate) scan_ns: u64,
    pub(crate) probes: Vec<Probing>,
    pub(crate) last_token: u64,
    pub(crate) probe_page: Option<Frame>,
    pub(crate) last_heard: Option<NodeId>,
    pub(crate) foreseen: Foreseen,
    /// What the last frame that was foreseen was like, and another one like it.
    pub(crate) like: Option<Like>,
    pub(crate) ahead: Option<Ahead>,
    /// The header of the messages taken last.
    pub(crate) known: Option<HeaderKey>,
}

impl Fabric {
    /// Starts looking for the other nodes. A cluster of one forms at once.
    ///
    /// # Panics
    /// If the configuration is senseless.
    #[must_use]
    pub fn new(config: Config, now_ns: u64) -> Fabric {
        config.check();
        let mut io = Io::new(config, now_ns);
        let forming = Forming::new(&mut io);
        let mut fabric = Fabric {
            io,
            forming,
            membership: None,
            links: None,
            stopping: Stopping::No,
            scan_ns: now_ns,
            probes: vec![Probing::default(); PROBES],
            last_token: 0,
            probe_page: None,
            last_heard: None,
            foreseen: Foreseen::NONE,
            like: None,
            ahead: None,
            known: None,
        };
        if config.nodes == 1 && fabric.forming.proposing() {
            fabric.form();
        }
        fabric
    }

    /// Makes the forming roster the membership.
    pub(crate) fn form(&mut self) {
        let config = self.io.config;
        let numbered = self.forming.members().enumerate();
        let members: Vec<Member> = numbered.map(|(n, e)| Member::new(n as u16, &e)).collect();
        let me = members.iter().position(|m| m.mac == config.mac).expect("this node is a member");
        let mtu = members.iter().map(|m| m.mtu).min().expect("a membership is not empty");
        let epoch = self.forming.epoch;
        let now = self.io.now_ns;
        let plan = Plan::new(mtu);
        let others = members.len() - 1;
        let buffers = if plan.parts > 1 && others > 0 { config.reassembly } else { 0 };
        let make = |(n, m): (usize, &Member)| Peer::new(m, &config, now, plan.parts, n == me);
        self.links = Some(Links {
            epoch,
            me: me as u16,
            plan,
            frame_bytes: usize::from(mtu) + ETHERNET_BYTES,
            window: config.window(),
            peers: members.iter().enumerate().map(make).collect(),
            watched: crate::peer::watched(&config, me as u16),
            armed: Fifo::new(others),
            rumour: (0, now),
            confirmed: 0,
            commit_ns: 0,
            greet_ns: None,
            ready: Fifo::new(others),
            acks: Fifo::new(others),
            news: None,
            sending: None,
            pool: Pool::new(buffers),
        });
        let me = NodeId(me as u16);
        self.membership = Some(Membership { epoch, me, mtu, members });
        self.scan_ns = if others == 0 { u64::MAX } else { now };
        self.io.vital_event(Event::Formed);
        if me == NodeId::LEADER {
            self.send_commits();
        }
        self.greet();
    }

    /// Sends those that it keeps in touch with, and the leader, a sign of life
    /// in the new epoch.
    fn greet(&mut self) {
        let links = self.links.as_mut().expect("the membership has formed");
        let leader = NodeId::LEADER.0;
        for i in 0..links.watched.len() {
            links.greet(links.watched[i]);
        }
        if links.me != leader {
            self.greet_leader();
        }
    }

    /// Sends the leader a sign of life; not all nodes of a large cluster at
    /// once, which would be more than it can take in.
    pub(crate) fn greet_leader(&mut self) {
        let Io { config, rng, now_ns, .. } = &mut self.io;
        let links = self.links.as_mut().expect("the membership has formed");
        if config.is_large() {
            let at = *now_ns + rng.next() % (u64::from(config.nodes) * crate::forming::TAKE_NS);
            links.greet_ns.get_or_insert(at);
            self.scan_ns = self.scan_ns.min(at);
        } else {
            links.greet(NodeId::LEADER.0);
        }
    }

    /// Sends the membership to all that have not been heard in it: to each,
    /// or to all at once where they are many.
    pub(crate) fn send_commits(&mut self) {
        let hello_ns = self.io.config.hello_ns;
        let links = self.links.as_mut().expect("the membership has formed");
        links.commit_ns = self.io.now_ns + hello_ns;
        let missing: Vec<wire::Mac> =
            links.alive().filter(|(_, p)| !p.confirmed).map(|(_, p)| p.mac).collect();
        self.io.rosters(&missing, true);
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`SendError`]; the message, and its page, stay the caller's.
    pub fn send(&mut self, now_ns: u64, message: &Outgoing) -> Result<(), SendError> {
        self.note_time(now_ns);
        if self.stopping != Stopping::No {
            return Err(SendError::Stopped);
        }
        let has_left = if self.has_foreseen() { self.recognise(message) } else { None };
        let links = self.links.as_mut().ok_or(SendError::NotFormed)?;
        let peer = links.peers.get_mut(message.to.index()).filter(|p| p.alive);
        let peer = peer.ok_or(SendError::NoSuchPeer)?;
        let Outgoing { ref body, page, patient, .. } = *message;
        if page.is_some() {
            self.io.hold_page()?;
        }
        let sender = &mut peer.senders[message.channel.index()];
        if !sender.push(body, page, patient) {
            self.io.pages_held -= usize::from(page.is_some());
            return Err(SendError::Full);
        }
        if has_left.is_some() {
            links.sending = has_left;
        } else if sender.urgent() {
            links.mark_ready(message.to.0);
        } else if patient {
            peer.ack_ns.get_or_insert(self.io.now_ns + self.io.config.ack_delay_ns);
            links.mark_ack(message.to.0);
        }
        self.io.counters.messages_out[message.channel.index()] += 1;
        self.io.counters.pages_out += u64::from(page.is_some());
        Ok(())
    }

    /// Sends a raw request that the peer's fabric answers at once with
    /// `bytes` bytes of the page it was given by
    /// [`Fabric::set_probe_page`] (none without one). Neither is repeated
    /// when lost. Returns the token of [`Event::ProbeReply`].
    ///
    /// # Errors
    /// [`SendError`], like [`Fabric::send`].
    ///
    /// # Panics
    /// If more than a page is asked for.
    pub fn probe(&mut self, now_ns: u64, to: NodeId, bytes: u16) -> Result<u64, SendError> {
        assert!(usize::from(bytes) <= PAGE_SIZE);
        self.note_time(now_ns);
        if self.stopping != Stopping::No {
            return Err(SendError::Stopped);
        }
        let links = self.links.as_ref().ok_or(SendError::NotFormed)?;
        links.peers.get(to.index()).filter(|p| p.alive).ok_or(SendError::NoSuchPeer)?;
        let token = self.last_token + 1;
        if !self.io.control.push(Control::Probe { to: to.0, token, bytes }) {
            return Err(SendError::Full);
        }
        self.last_token = token;
        self.probes[token as usize % PROBES] = Probing { token, got: 0 };
        Ok(token)
    }

    /// Says from which page probes are answered. It is never released.
    pub fn set_probe_page(&mut self, page: Option<Frame>) {
        self.probe_page = page;
    }

    /// What a node last said of itself; of this node, what was set.
    #[must_use]
    pub fn peer_status(&self, node: NodeId) -> Option<Status> {
        let links = self.links.as_ref()?;
        if node.0 == links.me {
            return Some(self.io.status);
        }
        links.peers.get(node.index()).map(|p| p.status)
    }

    /// The peer whose frame was taken last, once: its status may have changed.
    pub fn take_heard(&mut self) -> Option<NodeId> {
        self.last_heard.take()
    }

    /// Whether a node is a member that is not lost.
    #[must_use]
    pub fn is_alive(&self, node: NodeId) -> bool {
        let alive =
            |l: &Links| l.peers.get(node.index()).is_some_and(|p| p.alive) || node.0 == l.me;
        self.links.as_ref().is_some_and(alive)
    }

    /// The smoothed round-trip time to a peer, as acknowledgements show it
    /// (their delay included).
    #[must_use]
    pub fn rtt_ns(&self, node: NodeId) -> Option<u64> {
        self.links.as_ref()?.peers.get(node.index())?.rtt.smoothed()
    }

    /// Stops the cluster: gives up all messages, tells every peer until it
    /// answers or has been told ten times, then reports [`Event::StopDone`].
    /// All page frames come back through [`Fabric::poll_released`]; the
    /// device may still hold transmit descriptors of them.
    pub fn stop(&mut self, now_ns: u64, reason: StopReason) {
        self.note_time(now_ns);
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Telling { reason, tries: 0, next_ns: self.io.now_ns };
        self.give_up_messages();
        self.scan();
    }

    /// Gives up everything to and from all peers; they stay alive.
    pub(crate) fn give_up_messages(&mut self) {
        self.foreseen = Foreseen::NONE;
        self.drop_ahead();
        let Some(links) = self.links.as_mut() else { return };
        links.news = None;
        let Links { peers, pool, .. } = links;
        for peer in peers.iter_mut().filter(|p| p.alive) {
            peer.clear(pool, &mut self.io);
            peer.alive = true;
        }
    }

    /// The membership, once formed.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Whether [`Fabric::poll_transmit`] may have a frame: a cheap look.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let waits = |l: &Links| l.ready.front().is_some() || l.sending.is_some();
        self.io.control.front().is_some() || self.links.as_ref().is_some_and(waits)
    }

    /// The next thing that has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.io.events.pop()
    }

    /// The next page frame given to [`Fabric::send`] that is not referred to
    /// any more: its message has been delivered, or the peer is lost or the
    /// cluster stopped. A frame sent n times comes back n times.
    ///
    /// The device may still hold a transmit descriptor of it for a repetition
    /// that turned out needless; the receiver discards that whatever the
    /// frame holds by then.
    pub fn poll_released(&mut self) -> Option<Frame> {
        self.sent();
        self.settle();
        self.io.released.pop()
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.io.counters
    }
}
