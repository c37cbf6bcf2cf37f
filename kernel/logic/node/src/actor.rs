//! Accesses that a node makes itself, on another node's word.
//!
//! A benchmark needs pages whose master is on a certain node. The leader asks
//! that node to write-access a range through the protocol, as a device or a
//! vCPU there would; nothing is forged. It can also have every node print and
//! clear its measurements at the same point of a benchmark (a mark).
//!
//! Control messages share the fabric with coherence and are told apart by
//! their first byte, which no coherence message uses.

use super::cluster::Cluster;
use super::outbox::Outbox;
use addr::{Access, Gfn, NodeId};
use coherence::Progress;
use paging::HostMemory;
use wire::Channel;

const PLACE: u8 = 0xf0;
const SHARE: u8 = 0xf1;
const PLACED: u8 = 0xf2;
const MARK: u8 = 0xf3;

/// A control message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// Access these pages in this way.
    Take { gfn: Gfn, count: u32, access: Access },
    /// Print and clear the measurements under this name.
    Mark { tag: u64 },
    /// Done.
    Taken,
}

impl Control {
    pub(crate) fn to_bytes(self) -> [u8; wire::BODY_BYTES] {
        let mut b = [0; wire::BODY_BYTES];
        match self {
            Control::Take { gfn, count, access } => {
                b[0] = if access == Access::Write { PLACE } else { SHARE };
                b[4..8].copy_from_slice(&count.to_le_bytes());
                b[8..16].copy_from_slice(&gfn.0.to_le_bytes());
            }
            Control::Mark { tag } => {
                b[0] = MARK;
                b[8..16].copy_from_slice(&tag.to_le_bytes());
            }
            Control::Taken => b[0] = PLACED,
        }
        b
    }

    pub(crate) fn from_bytes(b: &[u8; wire::BODY_BYTES]) -> Option<Control> {
        let word = u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
        let take = |access| Control::Take {
            gfn: Gfn(word),
            count: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            access,
        };
        match b[0] {
            PLACE => Some(take(Access::Write)),
            SHARE => Some(take(Access::Read)),
            PLACED => Some(Control::Taken),
            MARK => Some(Control::Mark { tag: word }),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Work {
    asked_by: NodeId,
    next: Gfn,
    left: u32,
    access: Access,
}

/// A mark that is to be printed here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    tag: u64,
    /// Who waits for it; nobody but the guest on the leader.
    asked_by: Option<NodeId>,
}

/// One piece of work at a time, and the pieces asked of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Actor {
    work: Option<Work>,
    outstanding: u32,
    mark: Option<Mark>,
    /// Marks printed so far.
    marks: u32,
}

/// Most marks that a node prints in its life: a guest cannot flood the log.
const MARKS_MAX: u32 = 64;

/// Pages accessed in one call of [`Cluster::act`].
const BATCH: u32 = 32;

impl Actor {
    pub(crate) fn control(&mut self, outbox: &mut Outbox, from: NodeId, control: Control) {
        match control {
            Control::Take { gfn, count, access } => {
                if self.work.is_some() {
                    // The asker waits for one before it sends the next.
                    outbox.control(from, Channel::Response, Control::Taken);
                    return;
                }
                self.work = Some(Work { asked_by: from, next: gfn, left: count, access });
            }
            Control::Mark { tag } => {
                if self.mark.is_some() || self.marks >= MARKS_MAX {
                    outbox.control(from, Channel::Response, Control::Taken);
                    return;
                }
                self.mark = Some(Mark { tag, asked_by: Some(from) });
            }
            Control::Taken => self.outstanding = self.outstanding.saturating_sub(1),
        }
    }

    /// Pieces of work asked of other nodes and not yet done.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding
    }
}

impl Cluster {
    /// Has every node print and clear its measurements; `false` if it cannot
    /// be done (now).
    pub(crate) fn ask_mark(&mut self, tag: u64) -> bool {
        let actor = &mut self.actor;
        if actor.mark.is_some() || actor.outstanding > 0 || actor.marks >= MARKS_MAX {
            return false;
        }
        actor.mark = Some(Mark { tag, asked_by: None });
        let (me, nodes) = (self.me().0, self.coherence().layout().nodes() as u16);
        for node in (0..nodes).filter(|&n| n != me) {
            self.actor.outstanding += 1;
            self.outbox_mut().control(NodeId(node), Channel::Request, Control::Mark { tag });
        }
        true
    }

    /// The name under which this node is to print its measurements now.
    #[must_use]
    pub fn mark(&self) -> Option<u64> {
        self.actor.mark.map(|m| m.tag)
    }

    /// The measurements were printed and cleared.
    pub fn marked(&mut self) {
        let Some(mark) = self.actor.mark.take() else { return };
        self.actor.marks += 1;
        if let Some(node) = mark.asked_by {
            self.outbox_mut().control(node, Channel::Response, Control::Taken);
        }
    }

    /// Asks `node` to access `count` pages from `gfn` on.
    pub(crate) fn ask(&mut self, node: NodeId, gfn: Gfn, count: u32, access: Access) {
        self.actor.outstanding += 1;
        let take = Control::Take { gfn, count, access };
        self.outbox_mut().control(node, Channel::Request, take);
    }

    /// Whether this node has accesses of its own to make.
    #[must_use]
    pub fn acting(&self) -> bool {
        self.actor.work.is_some()
    }

    /// Goes on with accesses of this node itself. Bounded work.
    pub fn act(&mut self, memory: &mut impl HostMemory) {
        let Some(mut work) = self.actor.work else { return };
        for _ in 0..BATCH {
            if work.left == 0 || self.coherence().home(work.next).is_none() {
                self.actor.work = None;
                let (node, done) = (work.asked_by, Control::Taken);
                self.outbox_mut().control(node, Channel::Response, done);
                return;
            }
            if self.access(memory, work.next, work.access, 0) != Progress::Ready {
                break;
            }
            self.release_held(memory);
            work.next = work.next.offset_by(1);
            work.left -= 1;
        }
        self.actor.work = Some(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_survive_the_wire() {
        let take = |access| Control::Take { gfn: Gfn(0x1234_5678_9ABC), count: 77, access };
        let tag = 0xFEDC_BA98_7654_3210;
        for control in
            [take(Access::Read), take(Access::Write), Control::Mark { tag }, Control::Taken]
        {
            assert_eq!(Control::from_bytes(&control.to_bytes()), Some(control));
        }
        assert_eq!(Control::from_bytes(&[0; wire::BODY_BYTES]), None);
    }
}
