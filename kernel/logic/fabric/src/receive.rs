//! What comes in.

use crate::fabric::{Fabric, Stopping};
use crate::io::Control;
use crate::peer::{News, is_last_word};
use crate::receiver::Verdict;
use crate::{Drop, Event, RefuseReason, Sink, Status, StopReason};
use addr::{Arrived, Frame, NodeId, PAGE_SIZE};
use wire::{
    BROADCAST, Body, Data, Header, Hello, Kind, Packet, Payload, Probe, ProbeReply, Refuse,
};

impl Fabric {
    /// Takes a received frame that starts with its Ethernet header. What is
    /// damaged, foreign or out of date is dropped and counted.
    pub fn handle_frame(&mut self, now_ns: u64, frame: &[u8], sink: &mut impl Sink) {
        self.note_time(now_ns);
        // The page of a message may lie behind its header only.
        self.handle((frame, None), &mut Frame::default(), sink);
    }

    /// Takes a received frame whose whole page has landed in the page frame
    /// `landed`, apart from the rest. Who keeps the page frame has put another
    /// in its place.
    pub fn handle_landed(
        &mut self,
        now_ns: u64,
        frame: &[u8],
        landed: &mut Frame,
        sink: &mut impl Sink,
    ) {
        self.note_time(now_ns);
        self.handle((frame, Some(PAGE_SIZE)), landed, sink);
    }

    #[inline]
    fn handle(&mut self, frame: (&[u8], Option<usize>), landed: &mut Frame, sink: &mut impl Sink) {
        if let Err(reason) = self.take(frame, landed, sink) {
            self.io.counters.drop(reason);
        }
    }

    /// Takes a frame whose payload may lie apart. Somebody waits for what Data
    /// brings: it is not put together with all that a frame can be.
    #[inline]
    fn take(
        &mut self,
        (frame, apart): (&[u8], Option<usize>),
        landed: &mut Frame,
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let header = Header::parse(frame)?;
        if header.kind == Kind::Data {
            let data = Data::parse(frame, header.payload, apart)?;
            self.addressed(&header)?;
            self.data(&header, &data, landed, sink)?;
            self.remember(frame);
        } else {
            self.take_rare(&Packet::parse_body(frame, header, apart)?)?;
        }
        self.io.counters.frames_in[header.kind.index()] += 1;
        Ok(())
    }

    /// Whether a frame is for this node of this cluster.
    #[inline]
    pub(crate) fn addressed(&self, header: &Header) -> Result<(), Drop> {
        let config = &self.io.config;
        if header.cluster != config.cluster {
            return Err(Drop::OtherCluster);
        }
        if header.dst != config.mac && header.dst != BROADCAST {
            return Err(Drop::NotForMe);
        }
        // Of our own address only what tells two holders of it apart.
        let own = header.src == config.mac;
        if own && !matches!(header.kind, Kind::Hello | Kind::Refuse) {
            return Err(Drop::Echo);
        }
        Ok(())
    }

    #[inline(never)]
    fn take_rare(&mut self, packet: &Packet<'_>) -> Result<(), Drop> {
        let header = &packet.header;
        self.addressed(header)?;
        match &packet.body {
            Body::Data(_) => unreachable!("Data is not rare"),
            Body::Ack(link) | Body::Heartbeat(link) => {
                let node = self.peer(header)?;
                self.acknowledged(node, link)?;
            }
            Body::Hello(hello) => self.hello(hello)?,
            Body::Propose(roster) => {
                let key = (header.src, header.epoch, false);
                self.unformed()?;
                self.forming.roster(&mut self.io, key, roster)?;
                self.scan_ns = self.io.now_ns; // our consent may be due
            }
            Body::Commit(roster) => {
                let key = (header.src, header.epoch, true);
                if self.links.as_ref().is_some_and(|l| l.is_of_leader(header)) {
                    self.greet_leader(); // it has not heard us yet
                    return Ok(());
                }
                self.unformed()?;
                if self.forming.roster(&mut self.io, key, roster)? {
                    self.form();
                }
            }
            Body::Accept(accept) => {
                self.unformed()?;
                self.forming.accept(header.src, header.epoch, accept)?;
                if self.forming.agreed() {
                    self.form();
                }
            }
            Body::Refuse(refuse) => self.refuse(header, refuse)?,
            Body::Stop(stop) => {
                let reason = StopReason::from_wire(stop.reason, stop.code);
                self.stop_told(header, reason.ok_or(Drop::Malformed)?)?;
            }
            Body::StopAck => self.stop_acked(header)?,
            Body::Probe(probe) => self.probed(header, *probe)?,
            Body::ProbeReply(reply) => self.probe_replied(header, reply)?,
        }
        Ok(())
    }

    fn unformed(&self) -> Result<(), Drop> {
        match (&self.links, self.stopping) {
            (None, Stopping::No) => Ok(()),
            (None, _) => Err(Drop::Stopped),
            (Some(_), _) => Err(Drop::Unexpected),
        }
    }

    /// The peer that sent a frame of the membership; notes its sign of life.
    #[inline(always)]
    fn peer(&mut self, header: &Header) -> Result<u16, Drop> {
        if self.links.is_none() {
            self.form_late(header);
        }
        let links = self.links.as_mut().ok_or(Drop::Stale)?;
        let node = links.source(header)?;
        let peer = &mut links.peers[usize::from(node)];
        if !peer.alive {
            self.fence(node);
            return Err(Drop::FromLost);
        }
        peer.heard_ns = self.io.now_ns;
        peer.graces = 0;
        peer.confirmed = true;
        peer.status = Status { free_frames: header.free_frames, masters: header.masters };
        self.last_heard = Some(NodeId(node));
        Ok(node)
    }

    /// Forms where the commit itself is late or lost.
    #[cold]
    fn form_late(&mut self, header: &Header) {
        if self.forming.committed_by(header.epoch) {
            self.form();
        }
    }

    /// Tells a node that is taken for lost so, now and then.
    #[cold]
    fn fence(&mut self, node: u16) {
        let Some(links) = &mut self.links else { return };
        let peer = &mut links.peers[usize::from(node)];
        let again_ns = peer.told_ns.map_or(0, |at| at + self.io.config.heartbeat_ns);
        if again_ns <= self.io.now_ns {
            peer.told_ns = Some(self.io.now_ns);
            let (to, incarnation) = (peer.mac, peer.incarnation);
            let reason = RefuseReason::Fenced;
            self.io.control(Control::Refuse { to, incarnation, reason });
        }
    }

    /// Keeps what a frame acknowledges until time is looked at, or until the
    /// next frame: what the frame brings is waited for, this is not. Nor is the
    /// acknowledgement that the frame is owed itself.
    #[inline]
    fn acknowledged(&mut self, node: u16, link: &wire::Link) -> Result<(), Drop> {
        if self.stopping != Stopping::No {
            return Err(Drop::Stopped);
        }
        self.settle();
        let links = self.links.as_mut().ok_or(Drop::Stale)?;
        links.news = Some(News { node, link: *link, at_ns: self.io.now_ns });
        Ok(())
    }

    /// Takes the acknowledgements of the last frame, if nobody has.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.links.as_ref().is_some_and(|links| links.news.is_some()) {
            self.settle_news();
        }
    }

    #[inline(never)]
    fn settle_news(&mut self) {
        let Some(links) = self.links.as_mut() else { return };
        let Some(News { node, link, at_ns }) = links.news.take() else { return };
        let peer = &mut links.peers[usize::from(node)];
        if !peer.alive {
            return;
        }
        peer.acknowledge(&link, at_ns, &mut self.io);
        // The time-out may be shorter than it was when the timers were seen.
        self.scan_ns = self.scan_ns.min(peer.timed_ns().unwrap_or(u64::MAX));
        let (wants, owed, owed_late) =
            (peer.wants(), peer.ack_ns.is_some(), peer.last_ack_ns.is_some());
        if wants {
            links.mark_ready(node);
        }
        if owed {
            // No answer has taken it along.
            links.mark_ack(node);
        }
        if owed_late {
            links.mark_armed(node, at_ns);
        }
    }

    fn data(
        &mut self,
        header: &Header,
        data: &Data<'_>,
        landed: &mut Frame,
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let node = self.peer(header)?;
        if !sink.is_ready() {
            return Err(Drop::Unexpected);
        }
        self.acknowledged(node, &data.link)?;
        self.drop_ahead();
        let links = self.links.as_mut().ok_or(Drop::Stale)?;
        let (plan, window) = (links.plan, links.window);
        let peer = &mut links.peers[usize::from(node)];
        let counters = &mut self.io.counters;
        let (mut fresh, mut last) = (0, true);
        for message in data.messages() {
            let channel = message.channel;
            let receiver = &mut peer.receivers[channel.index()];
            let verdict = receiver.accept(&message, data.payload, (plan, window), &mut links.pool);
            let from = NodeId(node);
            match verdict {
                Verdict::Whole => {
                    let page = match data.payload {
                        Payload::Here(bytes) => bytes.try_into().ok().map(Arrived::Bytes),
                        Payload::Apart(_) => Some(Arrived::Landed(&mut *landed)),
                    };
                    counters.messages_in[channel.index()] += 1;
                    counters.pages_in += u64::from(page.is_some());
                    sink.deliver(from, channel, message.body, page);
                }
                Verdict::Assembled(buffer) => {
                    counters.messages_in[channel.index()] += 1;
                    counters.pages_in += 1;
                    let page = Arrived::Bytes(links.pool.page(buffer));
                    sink.deliver(from, channel, message.body, Some(page));
                    links.pool.give_back(buffer);
                }
                Verdict::Kept => {}
                Verdict::Duplicate => {
                    counters.duplicates += 1;
                    peer.ack_now = true;
                }
                Verdict::Beyond => counters.drop(Drop::BeyondWindow),
                Verdict::NoBuffer => counters.drop(Drop::NoBuffer),
                Verdict::Malformed => counters.drop(Drop::Malformed),
            }
            peer.ack_now |= peer.receivers[channel.index()].gap();
            let new = matches!(verdict, Verdict::Whole | Verdict::Assembled(_) | Verdict::Kept);
            fresh += u8::from(new);
            last &= !new || is_last_word(channel, message.parts);
        }
        if fresh != 0 {
            peer.owe_ack((fresh, last), self.io.now_ns, (&self.io.config, window));
        }
        Ok(())
    }

    fn hello(&mut self, hello: &Hello) -> Result<(), Drop> {
        if self.links.is_none() {
            self.unformed()?;
            self.forming.hello(&mut self.io, hello)?;
            self.scan_ns = self.io.now_ns; // the next Hello may be due earlier
            return Ok(());
        }
        let theirs = hello.entry;
        let members = &self.membership.as_ref().ok_or(Drop::Unexpected)?.members;
        let config = &self.io.config;
        let own = theirs.mac == config.mac;
        if own && theirs.incarnation == config.incarnation {
            return Err(Drop::Echo);
        }
        let me_leads = members[0].mac == config.mac;
        if !me_leads && !own && theirs.mac != members[0].mac {
            return Ok(()); // the leader answers
        }
        let member = members.iter().find(|m| m.mac == theirs.mac);
        let reason = match (member, self.forming.conflict(&self.io, hello)) {
            (Some(m), _) if m.incarnation == theirs.incarnation && me_leads => {
                // It has missed the commit.
                self.io.control(Control::Roster { to: theirs.mac, commit: true, first: 0 });
                return Ok(());
            }
            _ if own => RefuseReason::DuplicateIdentity,
            (Some(_), None) => RefuseReason::Fenced,
            (_, Some((_, told @ RefuseReason::VersionMismatch { .. }))) => told,
            (_, Some((_, told @ RefuseReason::NodeCountMismatch { .. }))) => told,
            _ => RefuseReason::ClusterFull,
        };
        let to = if own { BROADCAST } else { theirs.mac };
        self.io.control(Control::Refuse { to, incarnation: theirs.incarnation, reason });
        Ok(())
    }

    fn refuse(&mut self, header: &Header, refuse: &Refuse) -> Result<(), Drop> {
        let reason = RefuseReason::from_wire(refuse.reason, refuse.detail);
        let reason = reason.ok_or(Drop::Malformed)?;
        if refuse.incarnation != self.io.config.incarnation {
            return Err(Drop::NotForMe);
        }
        if let Some(links) = &self.links
            && (reason != RefuseReason::Fenced || links.epoch != header.epoch)
        {
            return Err(Drop::Stale);
        }
        if reason == RefuseReason::DuplicateIdentity {
            self.forming.stay_out(&self.io);
        }
        self.forming.report(&mut self.io, header.src, reason);
        Ok(())
    }

    fn stop_told(&mut self, header: &Header, reason: StopReason) -> Result<(), Drop> {
        let node = self.peer(header)?;
        self.io.control(Control::StopAck { to: node });
        let links = self.links.as_mut().ok_or(Drop::Stale)?;
        // Whoever stops need not be told to.
        links.peers[usize::from(node)].stop_acked = true;
        if self.stopping == Stopping::No {
            self.stopping = Stopping::Stopped;
            self.give_up_messages();
            self.io.vital_event(Event::Stopped { by: NodeId(node), reason });
        }
        self.scan();
        Ok(())
    }

    fn stop_acked(&mut self, header: &Header) -> Result<(), Drop> {
        let node = self.peer(header)?;
        let links = self.links.as_mut().ok_or(Drop::Stale)?;
        links.peers[usize::from(node)].stop_acked = true;
        self.scan();
        Ok(())
    }

    fn probed(&mut self, header: &Header, probe: Probe) -> Result<(), Drop> {
        let to = self.peer(header)?;
        let Probe { token, bytes } = probe;
        self.io.control(Control::ProbeReply { to, token, bytes, part: 0 });
        Ok(())
    }

    fn probe_replied(&mut self, header: &Header, reply: &ProbeReply<'_>) -> Result<(), Drop> {
        self.peer(header)?;
        let row = reply.token as usize % self.probes.len();
        let probing = &mut self.probes[row];
        if probing.token != reply.token || reply.token == 0 {
            return Err(Drop::Stale);
        }
        probing.got = probing.got.saturating_add(reply.payload.len() as u16);
        if probing.got >= reply.total {
            let bytes = usize::from(probing.got);
            probing.token = 0;
            self.io.event(Event::ProbeReply { token: reply.token, bytes });
        }
        Ok(())
    }
}
