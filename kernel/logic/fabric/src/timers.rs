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
        let ack = self.links.as_ref().and_then(|l| l.ack_ns()).unwrap_or(u64::MAX);
        let at = self.scan_ns.min(ack);
        (at != u64::MAX).then_some(at)
    }

    /// Lets the time pass. Does nothing but compare when it is too early.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        self.note_time(now_ns);
        let now = self.io.now_ns;
        if let Some(links) = self.links.as_mut() {
            while links.ack_ns().is_some_and(|at| at <= now) {
                let node = links.acks.pop().expect("an acknowledgement is due");
                let peer = &mut links.peers[usize::from(node)];
                peer.in_acks = false;
                peer.hurry();
                links.mark_ready(node);
                links.trim_acks();
            }
        }
        if self.scan_ns <= now {
            self.scan();
        }
    }

    /// Takes the time. A jump of more than a heartbeat says that this node
    /// itself was away (its host paused it, a firmware call took long): the
    /// peers' silence is then excused, so that what waits in the device is
    /// read first and they get another full period; a few times in a row, so
    /// that a peer which is really gone is still noticed.
    #[inline]
    pub(crate) fn note_time(&mut self, now_ns: u64) {
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

    fn scan_peers(&mut self) {
        let now = self.io.now_ns;
        let config = self.io.config;
        let mut next = u64::MAX;
        let mut commits = false;
        for node in 0..config.nodes {
            let links = self.links.as_mut().expect("the membership has formed");
            let peer = &mut links.peers[usize::from(node)];
            if !peer.alive {
                continue;
            }
            let dead_ns = peer.heard_ns.saturating_add(config.dead_after_ns);
            if dead_ns <= now {
                self.lose(node);
                continue;
            }
            let again = peer.expire(&mut self.io);
            let silent = peer.sent_ns.saturating_add(config.heartbeat_ns) <= now;
            peer.heartbeat_now |= silent;
            commits |= !peer.confirmed && links.me == 0;
            next = next.min(peer.next_ns(&config));
            if again || silent {
                links.mark_ready(node);
            }
        }
        if commits {
            next = next.min(now + config.hello_ns);
            self.send_commits();
        }
        // A look at least every half heartbeat, so that an absence shows.
        let half = now + config.heartbeat_ns / 2;
        self.scan_ns = if next == u64::MAX { u64::MAX } else { next.min(half) };
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
