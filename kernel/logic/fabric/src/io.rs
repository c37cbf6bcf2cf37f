//! What all parts of the fabric share: queues to the outside, clock, counts.

use crate::counters::Counters;
use crate::fifo::Fifo;
use crate::rng::Rng;
use crate::{Config, Event, RefuseReason, SendError, Status};
use addr::Frame;
use wire::{Header, Kind, Mac, NO_NODE};

/// A frame to send that is no message. All are repeated by some timer or
/// asked for again by the peer, so that a full queue only costs time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Control {
    Hello,
    /// The roster from entry `first` on, as a proposal or for good.
    Roster {
        to: Mac,
        commit: bool,
        first: u16,
    },
    Accept {
        to: Mac,
        epoch: u64,
    },
    Refuse {
        to: Mac,
        incarnation: u64,
        reason: RefuseReason,
    },
    Stop {
        to: u16,
    },
    StopAck {
        to: u16,
    },
    Probe {
        to: u16,
        token: u64,
        bytes: u16,
    },
    ProbeReply {
        to: u16,
        token: u64,
        bytes: u16,
        part: u8,
    },
}

/// Nodes up to which each gets a roster of its own.
const ROSTERS_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Io {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    /// The latest time heard of.
    pub(crate) now_ns: u64,
    pub(crate) status: Status,
    pub(crate) control: Fifo<Control>,
    pub(crate) events: Fifo<Event>,
    pub(crate) released: Fifo<Frame>,
    /// Pages taken by `send` and not yet given back.
    pub(crate) pages_held: usize,
    pub(crate) counters: Counters,
}

impl Io {
    pub(crate) fn new(config: Config, now_ns: u64) -> Io {
        let nodes = usize::from(config.nodes);
        let flights = usize::from(config.queue) + crate::sender::ROWS;
        let pages = (nodes - 1) * wire::Channel::COUNT * flights;
        Io {
            rng: Rng(config.seed ^ config.incarnation.rotate_left(32)),
            now_ns,
            status: Status::default(),
            control: Fifo::new(4 * nodes + 128),
            events: Fifo::new(2 * nodes + 128),
            released: Fifo::new(pages.min(1 << 16)),
            pages_held: 0,
            counters: Counters::default(),
            config,
        }
    }

    #[inline]
    pub(crate) fn header(&self, dst: Mac, kind: Kind) -> Header {
        Header {
            dst,
            src: self.config.mac,
            kind,
            from: NO_NODE,
            payload: 0,
            cluster: self.config.cluster,
            epoch: 0,
            free_frames: self.status.free_frames,
            masters: self.status.masters,
        }
    }

    pub(crate) fn control(&mut self, control: Control) {
        if !self.control.push(control) {
            self.counters.control_overflows += 1;
        }
    }

    /// Reports an event of which there can be many; room is kept for the
    /// others.
    pub(crate) fn event(&mut self, event: Event) {
        let kept = usize::from(self.config.nodes) + 16;
        if self.events.free() <= kept || !self.events.push(event) {
            self.counters.events_lost += 1;
        }
    }

    /// Reports an event that comes at most once, or once for each peer.
    pub(crate) fn vital_event(&mut self, event: Event) {
        if !self.events.push(event) {
            self.counters.events_lost += 1;
        }
    }

    /// Sends the roster to some nodes, by broadcast where they are many: it is
    /// as long as the cluster is large.
    pub(crate) fn rosters(&mut self, to: &[Mac], commit: bool) {
        if to.len() > ROSTERS_MAX {
            self.control(Control::Roster { to: wire::BROADCAST, commit, first: 0 });
            return;
        }
        to.iter().for_each(|&to| self.control(Control::Roster { to, commit, first: 0 }));
    }

    pub(crate) fn hold_page(&mut self) -> Result<(), SendError> {
        if !self.can_hold_page() {
            return Err(SendError::Full);
        }
        self.pages_held += 1;
        Ok(())
    }

    /// Whether there is room to give back one page more.
    pub(crate) fn can_hold_page(&self) -> bool {
        self.released.free() > self.pages_held
    }

    /// A page frame is no longer referred to.
    pub(crate) fn release(&mut self, frame: Frame) {
        self.pages_held -= 1;
        assert!(self.released.push(frame), "more pages released than held");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_for_many_is_sent_to_all_at_once() {
        for (count, frames) in [(0, 0), (ROSTERS_MAX, ROSTERS_MAX), (ROSTERS_MAX + 1, 1)] {
            let mut io = Io::new(Config::new([0; 6], 1, 1, 1, 100), 0);
            io.rosters(&[[2; 6]; ROSTERS_MAX + 1][..count], false);
            assert_eq!(io.control.len(), frames);
        }
    }
}
