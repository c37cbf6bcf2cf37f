//! Time: retransmission, acknowledgement, liveness, stop.

use crate::Event;
use crate::fabric::{Fabric, Stopping};
use crate::io::Control;
use crate::peer::GRACES;

/// How often a peer is told to stop.
const STOP_TRIES: u8 = 10;
/// Time between two of them.
const STOP_RETRY_NS: u64 = 20_000_000;

impl Fabric {
    /// When to call [`Fabric::handle_timeout`] at the latest; `None` when
    /// there is nothing to wait for but frames.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.links.as_ref().is_some_and(|l| l.news.is_some() || l.sending.is_some()) {
            return Some(self.io.now_ns);
        }
        let ack = self.links.as_ref().and_then(|l| l.ack_ns()).unwrap_or(u64::MAX);
        let at = self.scan_ns.min(ack);
        (at != u64::MAX).then_some(at)
    }

    /// Lets the time pass. Does nothing but compare when it is too early.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        self.note_time(now_ns);
        self.settle();
        let now = self.io.now_ns;
        self.end_patience(now);
        if self.scan_ns <= now {
            self.scan();
        }
    }

    /// Lets acknowledgements and patient messages wait no longer for a frame to
    /// travel with, [`crate::Config::ack_delay_ns`] or not.
    pub fn hurry(&mut self) {
        self.settle();
        self.end_patience(u64::MAX);
    }

    /// Forgets retransmissions that are not needed any more, so that
    /// [`Fabric::poll_timeout`] tells no earlier time than there is need for. It is
    /// not looked for whenever something is acknowledged, as that takes long.
    pub fn refresh(&mut self, now_ns: u64) {
        self.note_time(now_ns);
        self.settle();
        if self.links.is_some() {
            self.scan();
        }
    }

    /// Ends the patience that was to last until `until_ns` at most.
    fn end_patience(&mut self, until_ns: u64) {
        let Some(links) = self.links.as_mut() else { return };
        while links.ack_ns().is_some_and(|at| at <= until_ns) {
            let node = links.acks.pop().expect("an acknowledgement is due");
            let peer = &mut links.peers[usize::from(node)];
            peer.in_acks = false;
            peer.hurry();
            links.mark_ready(node);
            links.trim_acks();
        }
    }

    /// Takes the time, and note of what was sent before. A jump of more than a
    /// heartbeat says that this node itself was away (its host paused it, a
    /// firmware call took long): the peers' silence is then excused, so that what
    /// waits in the device is read first and they get another full period; a few
    /// times in a row, so that a peer which is really gone is still noticed.
    #[inline(always)]
    pub(crate) fn note_time(&mut self, now_ns: u64) {
        self.sent();
        let away = now_ns.saturating_sub(self.io.now_ns);
        self.io.now_ns = self.io.now_ns.max(now_ns);
        if away > self.io.config.heartbeat_ns {
            self.excuse(now_ns);
        }
    }

    #[cold]
    fn excuse(&mut self, now_ns: u64) {
        self.io.counters.pauses += 1;
        match self.links.as_mut() {
            None => self.forming.excuse(now_ns),
            Some(links) => {
                for (_, peer) in links.alive().filter(|(_, p)| p.graces < GRACES) {
                    peer.graces += 1;
                    peer.heard_ns = now_ns;
                }
            }
        }
    }

    /// Looks at all nodes' timers.
    pub(crate) fn scan(&mut self) {
        match self.stopping {
            Stopping::Stopped => self.scan_ns = u64::MAX,
            Stopping::Telling { .. } => self.scan_stopping(),
            Stopping::No if self.links.is_none() => self.scan_ns = self.forming.tick(&mut self.io),
            Stopping::No => self.scan_peers(),
        }
    }

    /// Looks at the peers that this node keeps in touch with, and at those
    /// whose answer it waits for.
    fn scan_peers(&mut self) {
        let now = self.io.now_ns;
        let config = self.io.config;
        let mut next = u64::MAX;
        let links = self.links.as_mut().expect("the membership has formed");
        let (watched, armed) = (links.watched.len(), links.armed.len());
        for i in 0..watched {
            let node = self.links.as_ref().expect("as above").watched[i];
            next = next.min(self.scan_peer(node, true));
        }
        for _ in 0..armed {
            let links = self.links.as_mut().expect("as above");
            let node = links.armed.pop().expect("counted above");
            links.peers[usize::from(node)].in_armed = false;
            if links.peers[usize::from(node)].timed_ns().is_some() {
                next = next.min(self.scan_peer(node, false));
                let links = self.links.as_mut().expect("as above");
                let peer = &mut links.peers[usize::from(node)];
                if peer.timed_ns().is_some() && links.armed.push(node) {
                    peer.in_armed = true;
                }
            }
        }
        let links = self.links.as_mut().expect("as above");
        if links.me == 0 && links.unconfirmed() {
            if links.commit_ns <= now {
                self.send_commits();
            }
            next = next.min(now + config.hello_ns);
        }
        if config.is_large() {
            next = next.min(self.spread());
            let links = self.links.as_mut().expect("as above");
            if links.greet_ns.is_some_and(|at| at <= now) {
                links.greet_ns = None;
                links.greet(addr::NodeId::LEADER.0);
            }
            next = next.min(links.greet_ns.unwrap_or(u64::MAX));
        }
        // A look at least every half heartbeat, so that an absence shows.
        let half = now + config.heartbeat_ns / 2;
        self.scan_ns = if next == u64::MAX { u64::MAX } else { next.min(half) };
    }

    /// Looks at one peer's timers; when the next of them runs out.
    fn scan_peer(&mut self, node: u16, watched: bool) -> u64 {
        let now = self.io.now_ns;
        let config = self.io.config;
        let links = self.links.as_mut().expect("the membership has formed");
        let peer = &mut links.peers[usize::from(node)];
        if !peer.alive {
            return u64::MAX;
        }
        if peer.heard_ns.saturating_add(config.dead_after_ns) <= now {
            self.lose(node);
            return u64::MAX;
        }
        let again = peer.expire(&mut self.io);
        let silent = watched && peer.sent_ns.saturating_add(config.heartbeat_ns) <= now;
        peer.heartbeat_now |= silent;
        let owed = peer.end_last_word(now);
        let next = peer.next_ns(&config, watched);
        if again || silent || owed {
            links.mark_ready(node);
        }
        next
    }

    /// Tells one more peer of this node, each time another, so that news of
    /// free frames go beyond the neighbours; when the next is due.
    fn spread(&mut self) -> u64 {
        let now = self.io.now_ns;
        let heartbeat_ns = self.io.config.heartbeat_ns;
        let links = self.links.as_mut().expect("the membership has formed");
        let (distance, due) = links.rumour;
        if due > now {
            return due;
        }
        let nodes = links.peers.len() as u16;
        links.rumour = (distance % (nodes - 1) + 1, now + heartbeat_ns);
        links.greet((links.me + links.rumour.0) % nodes);
        links.rumour.1
    }

    /// Fences a silent peer.
    fn lose(&mut self, node: u16) {
        let links = self.links.as_mut().expect("the membership has formed");
        let peer = &mut links.peers[usize::from(node)];
        peer.clear(&mut links.pool, &mut self.io);
        self.io.vital_event(Event::PeerLost {
            node: addr::NodeId(node),
            incarnation: peer.incarnation,
            epoch: links.epoch,
            status: peer.status,
        });
        links.trim_acks();
    }

    fn scan_stopping(&mut self) {
        let Stopping::Telling { reason, tries, next_ns } = self.stopping else { return };
        let now = self.io.now_ns;
        let mut open = false;
        if let Some(links) = self.links.as_mut() {
            for (to, _) in links.alive().filter(|(_, p)| !p.stop_acked) {
                open = true;
                if next_ns <= now && tries < STOP_TRIES {
                    self.io.control(Control::Stop { to });
                }
            }
        }
        if !open || (next_ns <= now && tries == STOP_TRIES) {
            self.stopping = Stopping::Stopped;
            self.scan_ns = u64::MAX;
            self.io.vital_event(Event::StopDone);
        } else if next_ns <= now {
            self.scan_ns = now + STOP_RETRY_NS;
            self.stopping = Stopping::Telling { reason, tries: tries + 1, next_ns: self.scan_ns };
        }
    }
}
