//! Frames that leave before the steps that send them are taken.
//!
//! Who looks at a frame before taking it ([`Fabric::glance`]) and can tell which
//! message will follow has the frame with that message written at once
//! ([`Fabric::foresee`]), hands it to the device, and only then takes the steps
//! that lead to it. When these come to [`Fabric::send`] with that message, it counts
//! as sent. Until then nothing is changed: a frame that the device did not take
//! is forgotten ([`Fabric::unforesee`]), and the message goes the usual way.

use crate::ahead::{Desk, Like};
use crate::fabric::{Fabric, Stopping};
use crate::peer::Sending;
use crate::{Outgoing, PageSlice, Transmit};
use addr::{NodeId, PAGE_SIZE};
use core::array;
use wire::{BODY_BYTES, Channel, Data, DataWriter, Header, HeaderKey, Kind, Message, Messages};

/// A frame of messages without pages that has come, is as expected, and was not
/// taken yet.
#[derive(Debug)]
pub struct Glance<'a> {
    seen: Seen,
    messages: Messages<'a>,
}

/// Who sent a frame that was glanced at, and what an answer acknowledges of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    from: u16,
    /// How many messages it has, by channel, a byte each.
    fresh: u32,
}

impl Seen {
    /// Who sent it.
    #[inline]
    #[must_use]
    pub fn from(&self) -> NodeId {
        NodeId(self.from)
    }
}

/// One message of a channel, as [`Seen`] counts them.
const fn one_of(channel: Channel) -> u32 {
    1 << (8 * channel.index())
}

impl<'a> Glance<'a> {
    /// Who sent it, and what an answer acknowledges of it.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// What its messages say.
    pub fn bodies(&self) -> impl Iterator<Item = &'a [u8; BODY_BYTES]> + use<'a> {
        self.messages.map(|message| message.body)
    }
}

/// A message that has left and was not sent yet. Where it lies: it is written while
/// somebody waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Foreseen {
    is_there: bool,
    message: Outgoing,
    /// The number it will have.
    sequence: u32,
    /// Its frame had other messages as well.
    has_company: bool,
    /// These, as [`Sending`] has them, but for acknowledgements that have been
    /// looked at since.
    numbers: [u64; Channel::COUNT],
    /// The numbers that the lowest bits stand for.
    bases: [u32; Channel::COUNT],
    at_ns: u64,
}

impl Foreseen {
    pub(crate) const NONE: Foreseen = Foreseen {
        is_there: false,
        message: Outgoing {
            to: NodeId(0),
            channel: Channel::Request,
            body: [0; BODY_BYTES],
            page: None,
            patient: false,
        },
        sequence: 0,
        has_company: false,
        numbers: [0; Channel::COUNT],
        bases: [0; Channel::COUNT],
        at_ns: 0,
    };
}

impl Fabric {
    /// The peer whose messages are in a frame, by its header, and the bytes of page
    /// in it. Whose header was looked at before needs no second look.
    #[inline(always)]
    fn source_of(&self, frame: &[u8]) -> Option<(u16, u16)> {
        let key = HeaderKey::of(frame)?;
        match self.known.as_ref().filter(|known| known.is(&key)) {
            Some(known) => Some((known.from(), known.payload())),
            None => self.look_up_source(frame),
        }
    }

    #[inline(never)]
    fn look_up_source(&self, frame: &[u8]) -> Option<(u16, u16)> {
        let header = Header::parse(frame).ok().filter(|header| header.kind == Kind::Data)?;
        self.addressed(&header).ok()?;
        Some((self.links.as_ref()?.source(&header).ok()?, header.payload))
    }

    /// Messages have been taken: the next will mostly have the same header.
    #[inline]
    pub(crate) fn remember(&mut self, frame: &[u8]) {
        self.known = HeaderKey::of(frame);
    }

    /// Looks at a received frame without taking it. `None` unless it will be
    /// taken whole and in order, and has no page.
    #[must_use]
    pub fn glance<'a>(&self, frame: &'a [u8]) -> Option<Glance<'a>> {
        let (from, payload) = self.source_of(frame)?;
        if payload != 0 || self.stopping != Stopping::No {
            return None;
        }
        let messages = Data::parse(frame, 0, None).ok()?.messages();
        let links = self.links.as_ref()?;
        let peer = &links.peers[usize::from(from)];
        let mut fresh = 0;
        for Message { channel, sequence, .. } in messages {
            let earlier = fresh >> (8 * channel.index()) & 0xFF;
            let first = sequence.wrapping_sub(earlier);
            if !peer.receivers[channel.index()].awaits(first) || earlier >= links.window.into() {
                return None;
            }
            fresh += one_of(channel);
        }
        peer.alive.then_some(Glance { seen: Seen { from, fresh }, messages })
    }

    /// The same of a frame with one message, and what that says: somebody waits for
    /// the answer. `None` of any other.
    #[inline(always)]
    #[must_use]
    pub fn glance_one<'a>(&self, frame: &'a [u8]) -> Option<(Seen, &'a [u8; BODY_BYTES])> {
        let (from, payload) = self.source_of(frame)?;
        if payload != 0 || self.stopping != Stopping::No {
            return None;
        }
        let message = Message::only(frame)?;
        let links = self.links.as_ref()?;
        let peer = links.peers.get(usize::from(from)).filter(|peer| peer.alive)?;
        let is_next = peer.receivers[message.channel.index()].awaits(message.sequence);
        let seen = Seen { from, fresh: one_of(message.channel) };
        (is_next && links.window > 0).then_some((seen, message.body))
    }

    /// Looks at a received frame whose whole page lies apart, without taking it.
    /// What its message says, if [`Fabric::handle_landed`] will deliver that.
    #[must_use]
    pub fn glance_landed<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8; BODY_BYTES]> {
        let (from, payload) = self.source_of(frame)?;
        if self.stopping != Stopping::No {
            return None;
        }
        let mut messages = Data::parse(frame, payload, Some(PAGE_SIZE)).ok()?.messages();
        let links = self.links.as_ref()?;
        let peer = &links.peers[usize::from(from)];
        let message = messages.next()?;
        let is_next = peer.receivers[message.channel.index()].awaits(message.sequence);
        let is_whole = links.plan.parts == 1 && message.parts == 1;
        (peer.alive && is_next && is_whole && links.window > 0).then_some(message.body)
    }

    /// Writes the frame with which `message` will leave when it is sent next, as
    /// [`Fabric::poll_transmit`] would. It acknowledges the frame that was
    /// glanced at, if the message goes to where that came from. `None` where
    /// anything else is to leave first.
    #[inline(always)]
    pub fn foresee(
        &mut self,
        now_ns: u64,
        message: &Outgoing,
        seen: Option<Seen>,
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        self.note_time(now_ns);
        let links = self.links.as_ref()?;
        if self.stopping != Stopping::No
            || self.foreseen.is_there
            || self.io.control.front().is_some()
            || links.ready.front().is_some()
            || (message.page.is_some() && !self.io.can_hold_page())
        {
            return None;
        }
        let peer = links.peers.get(message.to.index()).filter(|p| p.alive)?;
        let Outgoing { to, channel, ref body, page, .. } = *message;
        let sequence = peer.senders[channel.index()].next_number(page)?;
        let page = page.map(|frame| {
            let (offset, len) = links.plan.slice(0);
            PageSlice { frame, offset, len }
        });
        let fresh = seen.filter(|seen| seen.from() == to).map_or(0, |seen| seen.fresh);
        let like = Like::new(to.0, page.map_or(0, |p| p.len), fresh);
        let parts = u8::from(page.is_some());
        let last = Message { channel, sequence, part: 0, parts, body };
        // A page has a frame for itself.
        let is_alone = page.is_some() || !peer.has_due();
        let completed = if is_alone { self.complete(like, &last, desk) } else { None };
        let (header_len, is_laid) = match completed {
            Some(completed) => completed,
            None => {
                let room = desk.header.len().min(links.frame_bytes);
                let mut writer = DataWriter::new(&mut desk.header[..room]);
                if !is_alone {
                    (self.foreseen.numbers, _) = peer.write_short(&mut writer);
                    self.foreseen.bases = array::from_fn(|n| peer.senders[n].base());
                }
                if !writer.room() {
                    return None;
                }
                writer.push(&last);
                (writer.finish(&like.header(self, links, peer), &like.link(links, peer)), false)
            }
        };
        let foreseen = &mut self.foreseen;
        foreseen.is_there = true;
        foreseen.message = *message;
        foreseen.sequence = sequence;
        foreseen.has_company = !is_alone;
        foreseen.at_ns = self.io.now_ns;
        self.like = Some(like);
        Some(Transmit { header_len, page, is_laid })
    }

    /// The device did not take the frame that [`Fabric::foresee`] wrote.
    pub fn unforesee(&mut self) {
        self.foreseen = Foreseen::NONE;
    }

    /// Whether a message has left that was not sent yet.
    #[inline]
    #[must_use]
    pub fn has_foreseen(&self) -> bool {
        self.foreseen.is_there
    }

    /// Takes a message that is sent for the one that has left, if it is.
    pub(crate) fn recognise(&mut self, message: &Outgoing) -> Option<Sending> {
        let senders = &self.links.as_ref()?.peers.get(message.to.index())?.senders;
        let sender = &senders[message.channel.index()];
        let Foreseen { is_there, message: ref foreseen, sequence, at_ns, .. } = self.foreseen;
        let next = sender.next_number(message.page);
        if !is_there || foreseen != message || next != Some(sequence) {
            return None;
        }
        let mut numbers = [0; Channel::COUNT];
        if self.foreseen.has_company {
            let Foreseen { numbers: company, bases, .. } = &self.foreseen;
            let acknowledged = |n: usize| senders[n].base().wrapping_sub(bases[n]);
            numbers = array::from_fn(|n| company[n].checked_shr(acknowledged(n)).unwrap_or(0));
        }
        numbers[message.channel.index()] |= sender.next_bit();
        self.foreseen = Foreseen::NONE;
        self.io.counters.frames_out[Kind::Data.index()] += 1;
        Some(Sending { node: message.to.0, numbers, at_ns })
    }
}
