//! Accesses that a node makes itself, on another node's word.
//!
//! A benchmark needs pages whose master is on a certain node. The leader asks
//! that node to write-access a range through the protocol, as a device or a
//! vCPU there would; nothing is forged.
//!
//! Control messages share the fabric with coherence and are told apart by
//! their first byte, which no coherence message uses.

use super::cluster::{Cluster, Outbox};
use addr::{Access, Gfn, NodeId};
use coherence::Progress;
use paging::HostMemory;
use wire::Channel;

const PLACE: u8 = 0xf0;
const SHARE: u8 = 0xf1;
const PLACED: u8 = 0xf2;

/// A control message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// Access these pages in this way.
    Take { gfn: Gfn, count: u32, access: Access },
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
            Control::Taken => b[0] = PLACED,
        }
        b
    }

    pub(crate) fn from_bytes(b: &[u8; wire::BODY_BYTES]) -> Option<Control> {
        let take = |access| Control::Take {
            gfn: Gfn(u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]])),
            count: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            access,
        };
        match b[0] {
            PLACE => Some(take(Access::Write)),
            SHARE => Some(take(Access::Read)),
            PLACED => Some(Control::Taken),
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

/// One piece of work at a time, and the pieces asked of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Actor {
    work: Option<Work>,
    outstanding: u32,
}

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
            Control::Taken => self.outstanding = self.outstanding.saturating_sub(1),
        }
    }

    /// Pieces of work asked of other nodes and not yet done.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding
    }
}

impl Cluster {
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
