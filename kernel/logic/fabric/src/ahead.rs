//! A frame that is written before its message is known.
//!
//! Who has had a frame written early ([`Fabric::foresee`]) mostly wants another one
//! like it next: to the same peer, with a page or without, in answer to as much. All
//! of that but the message can be said while nobody waits ([`Fabric::write_ahead`]).
//! What was written is dropped when any of it is not true any more.

use crate::Status;
use crate::fabric::{Fabric, Stopping};
use crate::peer::{Links, Peer};
use wire::{Channel, Draft, Header, Kind, Link};

/// What frames of one message may have in common, in one word: the peer in bits 0 to
/// 15, bytes of page in 16 to 31, and from 32 on, a byte for each channel, messages
/// that it acknowledges beyond those taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Like(u64);

impl Like {
    #[inline(always)]
    pub(crate) fn new(node: u16, payload: u16, [a, b, c]: [u8; Channel::COUNT]) -> Like {
        let fresh = u64::from(u32::from_le_bytes([a, b, c, 0]));
        Like(u64::from(node) | u64::from(payload) << 16 | fresh << 32)
    }

    fn node(self) -> usize {
        usize::from(self.0 as u16)
    }

    /// What such a frame says about what came from the peer.
    #[inline]
    pub(crate) fn link(self, links: &Links, peer: &Peer) -> Link {
        let mut link = peer.link(links.window);
        for (awaited, fresh) in link.awaited.iter_mut().zip(self.0.to_le_bytes().split_at(4).1) {
            *awaited = awaited.wrapping_add(u32::from(*fresh));
        }
        link
    }

    /// Its header.
    #[inline]
    pub(crate) fn header(self, fabric: &Fabric, links: &Links, peer: &Peer) -> Header {
        let header = fabric.io.header(peer.mac, Kind::Data);
        Header { from: links.me, epoch: links.epoch, payload: (self.0 >> 16) as u16, ..header }
    }
}

/// A frame written ahead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ahead {
    like: Like,
    draft: Draft,
}

impl Fabric {
    /// Writes a frame like the last that was foreseen, but for its message. To be
    /// called when nobody waits; costs little where there is nothing to do.
    #[inline]
    pub fn write_ahead(&mut self) {
        if let Some(like) = self.like
            && self.written_ahead(like).is_none()
        {
            self.write_like(like);
        }
    }

    fn write_like(&mut self, like: Like) {
        let Some(links) = &self.links else { return };
        let peer = &links.peers[like.node()];
        if peer.alive && self.stopping == Stopping::No {
            let draft = Draft::new(&like.header(self, links, peer), &like.link(links, peer));
            self.ahead = Some(Ahead { like, draft });
        }
    }

    /// The frame like that, if it has been written.
    #[inline(always)]
    pub(crate) fn written_ahead(&self, like: Like) -> Option<&Draft> {
        self.ahead.as_ref().filter(|ahead| ahead.like == like).map(|ahead| &ahead.draft)
    }

    /// What a node has received, or says of itself, has changed.
    #[inline(always)]
    pub(crate) fn drop_ahead(&mut self) {
        self.ahead = None;
    }

    /// Sets what every frame says of this node from now on.
    pub fn set_status(&mut self, status: Status) {
        if self.io.status != status {
            self.io.status = status;
            self.drop_ahead();
        }
    }
}
