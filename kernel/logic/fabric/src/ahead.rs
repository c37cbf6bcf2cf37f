//! A frame that is written before its message is known.
//!
//! Who has had a frame written early ([`Fabric::foresee`]) mostly wants another one
//! like it next: to the same peer, with a page or without, in answer to as much. All
//! of that but the message can be said while nobody waits ([`Fabric::write_ahead`]).
//! What was written is dropped when any of it is not true any more.

use crate::Status;
use crate::fabric::{Fabric, Stopping};
use crate::peer::{Links, Peer};
use wire::{Draft, Header, Kind, Link, Message, PAGE_OFFSET};

/// What frames of one message may have in common, in one word: the peer in bits 0 to
/// 15, bytes of page in 16 to 31, and from 32 on, a byte for each channel, messages
/// that it acknowledges beyond those taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Like(u64);

impl Like {
    #[inline(always)]
    pub(crate) fn new(node: u16, payload: u16, fresh: u32) -> Like {
        Like(u64::from(node) | u64::from(payload) << 16 | u64::from(fresh) << 32)
    }

    fn node(self) -> usize {
        usize::from(self.0 as u16)
    }

    fn payload(self) -> u16 {
        (self.0 >> 16) as u16
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
        Header { from: links.me, epoch: links.epoch, payload: self.payload(), ..header }
    }
}

/// A frame written ahead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ahead {
    like: Like,
    draft: Draft,
    /// It has been laid where it may leave from.
    is_laid: bool,
}

/// Where a frame that leaves early is written.
#[derive(Debug)]
pub struct Desk<'a> {
    /// All of it, if it does not lie in `laid`.
    pub header: &'a mut [u8],
    /// What was laid there last ([`Fabric::lay_ahead`]), if it still lies there.
    pub laid: Option<&'a mut [u8]>,
}

impl Fabric {
    /// Writes a frame like the last that was foreseen, but for its message. To be
    /// called when nobody waits; costs little where there is nothing to do.
    #[inline]
    pub fn write_ahead(&mut self) {
        if let Some(like) = self.like
            && !self.is_written(like)
        {
            self.write_like(like);
        }
    }

    fn write_like(&mut self, like: Like) {
        let Some(links) = &self.links else { return };
        let peer = &links.peers[like.node()];
        if peer.alive && self.stopping == Stopping::No {
            let draft = Draft::new(&like.header(self, links, peer), &like.link(links, peer));
            self.ahead = Some(Ahead { like, draft, is_laid: false });
        }
    }

    /// Has the frame that is written ahead laid where it can leave from: `lay` gets
    /// all of it but its message and the bytes of page that will follow, and says
    /// whether it lies there. To be called after [`Fabric::write_ahead`], with
    /// whether what was laid there last is `gone`.
    #[inline]
    pub fn lay_ahead(&mut self, gone: bool, lay: impl FnOnce(&[u8; PAGE_OFFSET], u16) -> bool) {
        if let Some(ahead) = self.ahead.as_mut().filter(|ahead| gone || !ahead.is_laid) {
            ahead.is_laid = lay(ahead.draft.frame(), ahead.like.payload());
        }
    }

    /// Whether a frame like that has been written.
    #[inline(always)]
    fn is_written(&self, like: Like) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.like == like)
    }

    /// Completes the frame like that, if it has been written, with its message. Its
    /// length, and whether it lies where it was laid.
    #[inline(always)]
    pub(crate) fn complete(
        &self,
        like: Like,
        message: &Message<'_>,
        desk: &mut Desk<'_>,
    ) -> Option<(usize, bool)> {
        let Ahead { draft, is_laid, .. } = self.ahead.as_ref().filter(|a| a.like == like)?;
        let laid = desk.laid.as_deref_mut().filter(|_| *is_laid);
        match laid.and_then(<[u8]>::first_chunk_mut) {
            Some(frame) => Some((draft.complete(message, frame), true)),
            None => Some((draft.finish(message, desk.header.first_chunk_mut()?), false)),
        }
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
