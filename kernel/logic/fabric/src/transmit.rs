//! What goes out.

use crate::fabric::{Fabric, Stopping};
use crate::io::Control;
use crate::peer::Sending;
use crate::sender::Due;
use crate::{PageSlice, Transmit};
use wire::{
    Accept, DataWriter, Header, Kind, Mac, Message, PAGE_OFFSET, Probe, ProbeReply, Refuse, Stop,
    emit_roster, roster_room,
};

/// Longest header part before the MTU is agreed.
const UNAGREED_BYTES: usize = wire::MTU_MIN as usize + wire::ETHERNET_BYTES;

impl Fabric {
    /// Writes the next frame's header part to `header` (at least
    /// [`PAGE_OFFSET`] bytes; more lets small messages share a frame) and
    /// says what page bytes follow it. Frames may be shorter than Ethernet's
    /// least; the device pads.
    ///
    /// # Panics
    /// If `header` is too short.
    pub fn poll_transmit(&mut self, now_ns: u64, header: &mut [u8]) -> Option<Transmit> {
        assert!(header.len() >= PAGE_OFFSET, "the header buffer is too short");
        self.note_time(now_ns);
        while let Some(control) = self.io.control.pop() {
            if let Some(transmit) = self.control_frame(control, header) {
                return Some(transmit);
            }
        }
        loop {
            let links = self.links.as_mut()?;
            let node = links.ready.pop()?;
            links.peers[usize::from(node)].in_ready = false;
            if let Some(transmit) = self.peer_frame(node, header) {
                return Some(transmit);
            }
            self.sent_to(node);
        }
    }

    /// The frame that [`Fabric::poll_transmit`] gave is with the device: takes
    /// note of what was in it, which nobody waits for. Who does not say so
    /// leaves that to the next call.
    #[inline]
    pub fn sent(&mut self) {
        if self.links.as_ref().is_some_and(|l| l.sending.is_some()) {
            self.take_note();
        }
    }

    fn take_note(&mut self) {
        let Some(links) = self.links.as_mut() else { return };
        let Some(Sending { node, numbers, at_ns }) = links.sending.take() else { return };
        let peer = &mut links.peers[usize::from(node)];
        for (sender, numbers) in peer.senders.iter_mut().zip(numbers) {
            sender.took(numbers, at_ns);
        }
        peer.sent(at_ns);
        self.scan_ns = self.scan_ns.min(peer.rto_ns.unwrap_or(u64::MAX));
        links.mark_armed(node, at_ns);
        self.sent_to(node);
    }

    /// Queues a peer again that wants more, and drops from the queue of
    /// acknowledgements what has left.
    fn sent_to(&mut self, node: u16) {
        let Some(links) = self.links.as_mut() else { return };
        // A cluster that ends sends no more, whatever is still wanted.
        let going_on = self.stopping == Stopping::No;
        if going_on && links.peers[usize::from(node)].wants() {
            links.mark_ready(node);
        }
        links.trim_acks();
    }

    /// A header to a peer in the membership's epoch.
    fn link_header(&self, to: u16, kind: Kind) -> Option<Header> {
        let links = self.links.as_ref()?;
        let mac = links.peers.get(usize::from(to))?.mac;
        Some(Header { from: links.me, epoch: links.epoch, ..self.io.header(mac, kind) })
    }

    /// Messages for a peer, or an acknowledgement, or a heartbeat.
    fn peer_frame(&mut self, node: u16, buf: &mut [u8]) -> Option<Transmit> {
        let links = self.links.as_mut()?;
        let (plan, now) = (links.plan, self.io.now_ns);
        let peer = &mut links.peers[usize::from(node)];
        if !peer.alive || self.stopping != Stopping::No {
            return None;
        }
        let room = buf.len().min(links.frame_bytes);
        let mut writer = DataWriter::new(&mut buf[..room]);
        let (mut numbers, paged) = peer.write_short(&mut writer);
        let mut page = None;
        // A page, or a part of one, has a frame for itself.
        if let Some(channel) = paged.filter(|_| writer.count() == 0) {
            let due = peer.senders[channel.index()].due(0).expect("it was due just now");
            let Due { sequence, part, parts, body, .. } = due;
            writer.push(&Message { channel, sequence, part, parts, body });
            page = due.page.map(|frame| {
                let (offset, len) = plan.slice(part);
                PageSlice { frame, offset, len }
            });
            numbers[channel.index()] = due.bit;
        }
        let kind = match (writer.count(), peer.ack_now, peer.heartbeat_now) {
            (0, false, false) => return None,
            (0, false, true) => Kind::Heartbeat,
            (0, true, _) => Kind::Ack,
            (_, _, _) => Kind::Data,
        };
        let link = peer.link(links.window);
        let header = Header {
            from: links.me,
            epoch: links.epoch,
            payload: page.map_or(0, |p: PageSlice| p.len),
            ..self.io.header(peer.mac, kind)
        };
        let header_len = match kind {
            Kind::Data => writer.finish(&header, &link),
            _ => link.emit_frame(&header, buf),
        };
        links.sending = Some(Sending { node, numbers, at_ns: now });
        self.io.counters.frames_out[kind.index()] += 1;
        Some(Transmit { header_len, page, is_laid: false })
    }

    /// A rare frame; `None` if there is no reason for it any more.
    fn control_frame(&mut self, control: Control, buf: &mut [u8]) -> Option<Transmit> {
        let mut page = None;
        let (kind, header_len) = match control {
            Control::Hello if self.links.is_some() => return None,
            Control::Hello => {
                let header = self.io.header(wire::BROADCAST, Kind::Hello);
                (Kind::Hello, self.forming.hello_frame(&self.io).emit(&header, buf))
            }
            Control::Roster { to, commit, first } => self.roster_frame(to, commit, first, buf)?,
            Control::Accept { to, epoch } => {
                let header = Header { epoch, ..self.io.header(to, Kind::Accept) };
                let accept = Accept { incarnation: self.io.config.incarnation };
                (Kind::Accept, accept.emit(&header, buf))
            }
            Control::Refuse { to, incarnation, reason } => {
                let epoch = self.links.as_ref().map_or(0, |l| l.epoch);
                let header = Header { epoch, ..self.io.header(to, Kind::Refuse) };
                let (reason, detail) = reason.to_wire();
                (Kind::Refuse, Refuse { incarnation, reason, detail }.emit(&header, buf))
            }
            Control::Stop { to } => {
                let Stopping::Telling { reason, .. } = self.stopping else { return None };
                let (reason, code) = reason.to_wire();
                let header = self.link_header(to, Kind::Stop)?;
                (Kind::Stop, Stop { reason, code }.emit(&header, buf))
            }
            Control::StopAck { to } => {
                (Kind::StopAck, Stop::emit_ack(&self.link_header(to, Kind::StopAck)?, buf))
            }
            Control::Probe { to, token, bytes } => {
                let header = self.link_header(to, Kind::Probe)?;
                (Kind::Probe, Probe { token, bytes }.emit(&header, buf))
            }
            Control::ProbeReply { to, token, bytes, part } => {
                let (len, slice) = self.probe_reply(to, (token, bytes, part), buf)?;
                page = slice;
                (Kind::ProbeReply, len)
            }
        };
        self.io.counters.frames_out[kind.index()] += 1;
        Some(Transmit { header_len, page, is_laid: false })
    }

    /// As many entries of the roster as fit; the rest is queued again.
    fn roster_frame(
        &mut self,
        to: Mac,
        commit: bool,
        first: u16,
        buf: &mut [u8],
    ) -> Option<(Kind, usize)> {
        let formed = self.links.is_some();
        if commit != formed || !(formed || self.forming.proposing()) {
            return None;
        }
        let kind = if commit { Kind::Commit } else { Kind::Propose };
        let from = self.links.as_ref().map_or(wire::NO_NODE, |l| l.me);
        let header = Header { from, epoch: self.forming.epoch, ..self.io.header(to, kind) };
        let total = self.io.config.nodes;
        let room = roster_room(buf.len().min(UNAGREED_BYTES));
        let count = room.min(usize::from(total - first));
        let skipped = self.forming.members().skip(usize::from(first));
        let len = emit_roster(&header, total, first, skipped.take(count), buf);
        let next = first + count as u16;
        if next < total {
            self.io.control.unpop(Control::Roster { to, commit, first: next });
        }
        Some((kind, len))
    }

    /// The answer to a probe, or its part; a next part is queued in front.
    fn probe_reply(
        &mut self,
        to: u16,
        (token, bytes, part): (u64, u16, u8),
        buf: &mut [u8],
    ) -> Option<(usize, Option<PageSlice>)> {
        let header = self.link_header(to, Kind::ProbeReply)?;
        let total = if self.probe_page.is_some() { bytes } else { 0 };
        let (offset, whole) = self.links.as_ref()?.plan.slice(part);
        let len = whole.min(total.saturating_sub(offset));
        let reply = ProbeReply {
            token,
            total,
            offset: offset.min(total),
            payload: wire::Payload::Apart(0),
        };
        let header_len = reply.emit(&Header { payload: len, ..header }, buf);
        if offset + len < total {
            self.io.control.unpop(Control::ProbeReply { to, token, bytes, part: part + 1 });
        }
        let slice = |frame| PageSlice { frame, offset, len };
        Some((header_len, self.probe_page.filter(|_| len > 0).map(slice)))
    }
}
