//! One node alone, in frames made by hand and in a time of its own.

use super::{CLUSTER, Inbox, MS, body, config, mac};
use fabric::{Channel, Config, Event, Fabric, Outgoing, RefuseReason};
use wire::{Accept, Body, DataWriter, Entry, Header, Hello, Kind, Link, Mac, Message};
use wire::{Packet, Refuse};

#[derive(Clone)]
pub struct Lab {
    pub me: Mac,
    pub fabric: Fabric,
    pub config: Config,
    pub now: u64,
    /// Of the membership, once there is one.
    pub epoch: u64,
    /// Bytes that the device has for a header.
    pub room: usize,
}

/// A frame that the node sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    pub kind: Kind,
    pub to: Mac,
    pub epoch: u64,
}

/// What a node of this configuration says of itself.
pub fn hello(config: Config) -> Hello {
    let mut fabric = Fabric::new(config, 0);
    fabric.handle_timeout(10_000 * MS);
    let mut frame = [0; 256];
    let len = fabric.poll_transmit(10_000 * MS, &mut frame).unwrap().header_len;
    match Packet::parse(&frame[..len]).unwrap().body {
        Body::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

pub fn entry(n: usize, nodes: u16) -> Entry {
    hello(config(n, nodes)).entry
}

impl Lab {
    /// A node that has heard these others.
    pub fn of(config: Config, others: &[usize]) -> Lab {
        let fabric = Fabric::new(config, MS);
        let mut lab = Lab { me: config.mac, fabric, config, now: MS, epoch: 0, room: 16384 };
        others.iter().for_each(|&other| lab.hears_hello(hello(lab.other(other))));
        lab
    }

    /// Node `n` of `nodes`, which has heard these others.
    pub fn new(n: usize, nodes: u16, others: &[usize]) -> Lab {
        Lab::of(config(n, nodes), others)
    }

    /// Node 0, which leads, just when the last of the others has consented.
    pub fn leader(config: Config) -> Lab {
        let others: Vec<usize> = (1..usize::from(config.nodes)).collect();
        let mut lab = Lab::of(config, &others);
        lab.epoch = lab.sends()[0].epoch;
        for n in others {
            lab.hears_accept(n, lab.epoch, lab.other(n).incarnation);
        }
        assert!(lab.is_member());
        lab
    }

    /// A member, just when it hears that the proposal of node 0 is committed.
    pub fn member(config: Config) -> Lab {
        let mut lab = Lab::of(config, &[]);
        lab.hears_roster(0, Kind::Propose, 7);
        lab.epoch = 7;
        lab.sends();
        lab.hears_ack(0, 7);
        assert!(lab.is_member());
        lab
    }

    /// Another node of the same kind.
    pub fn other(&self, n: usize) -> Config {
        let Config { mac, incarnation, cpus, pages, .. } = config(n, self.config.nodes);
        Config { mac, incarnation, cpus, pages, ..self.config }
    }

    pub fn hears(
        &mut self,
        n: usize,
        (kind, epoch): (Kind, u64),
        emit: impl Fn(&Header, &mut [u8]) -> usize,
    ) {
        let member = !matches!(kind, Kind::Propose | Kind::Accept | Kind::Hello | Kind::Refuse);
        let header = Header {
            dst: if kind == Kind::Hello { wire::BROADCAST } else { self.me },
            src: mac(n),
            kind,
            from: if member { n as u16 } else { wire::NO_NODE },
            payload: 0,
            cluster: CLUSTER,
            epoch,
            free_frames: 0,
            masters: 0,
        };
        let mut frame = [0; 16384];
        let len = emit(&header, &mut frame);
        self.fabric.handle_frame(self.now, &frame[..len], &mut Inbox::default());
    }

    pub fn hears_hello(&mut self, hello: Hello) {
        let n = usize::from(hello.entry.mac[5]);
        self.hears(n, (Kind::Hello, 0), |header, frame| hello.emit(header, frame));
    }

    pub fn hears_accept(&mut self, n: usize, epoch: u64, incarnation: u64) {
        let accept = Accept { incarnation };
        self.hears(n, (Kind::Accept, epoch), |header, frame| accept.emit(header, frame));
    }

    /// Node `n` says why the two of them cannot be in one cluster.
    pub fn hears_refuse(&mut self, n: usize, reason: u16) {
        let refuse = Refuse { incarnation: self.config.incarnation, reason, detail: 9 };
        self.hears(n, (Kind::Refuse, 0), |header, frame| refuse.emit(header, frame));
    }

    /// Node `n` proposes these `total` members, of which `entries` are the first.
    pub fn hears_proposal(&mut self, n: usize, epoch: u64, total: u16, entries: &[Entry]) {
        self.hears(n, (Kind::Propose, epoch), |header, frame| {
            wire::emit_roster(header, total, 0, entries.iter().copied(), frame)
        });
    }

    /// Node `n` proposes or commits a membership of the first nodes.
    pub fn hears_roster(&mut self, n: usize, kind: Kind, epoch: u64) {
        let nodes = self.config.nodes;
        let all: Vec<Entry> = (0..usize::from(nodes)).map(|n| hello(self.other(n)).entry).collect();
        self.hears(n, (kind, epoch), |header, frame| {
            wire::emit_roster(header, nodes, 0, all.iter().copied(), frame)
        });
    }

    /// A sign of life from a member.
    pub fn hears_ack(&mut self, n: usize, epoch: u64) {
        self.hears_link(n, epoch, Link::default());
    }

    /// A member says which messages have come.
    pub fn hears_link(&mut self, n: usize, epoch: u64, link: Link) {
        self.hears(n, (Kind::Ack, epoch), |header, frame| link.emit_frame(header, frame));
    }

    /// A member sends the messages of these numbers, and says which have come.
    pub fn hears_data(&mut self, n: usize, channel: Channel, numbers: &[u32], link: Link) {
        self.hears(n, (Kind::Data, self.epoch), |header, frame| {
            let mut writer = DataWriter::new(frame);
            for &sequence in numbers {
                let body = body(u64::from(sequence), channel, false);
                writer.push(&Message { channel, sequence, part: 0, parts: 0, body: &body });
            }
            writer.finish(header, &link)
        });
    }

    /// Sends a message to a member.
    pub fn posts(&mut self, to: u16, channel: Channel, patient: bool) {
        let message =
            Outgoing { to: addr::NodeId(to), channel, body: [0; 32], page: None, patient };
        self.fabric.send(self.now, &message).unwrap();
    }

    /// The header parts of the frames that it sends now.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frame = vec![0; self.room];
        let next = || {
            let len = self.fabric.poll_transmit(self.now, &mut frame)?.header_len;
            Some(frame[..len].to_vec())
        };
        std::iter::from_fn(next).collect()
    }

    pub fn sends(&mut self) -> Vec<Sent> {
        let sent = |frame: Vec<u8>| {
            let header = Packet::parse(&frame).unwrap().header;
            Sent { kind: header.kind, to: header.dst, epoch: header.epoch }
        };
        self.frames().into_iter().map(sent).collect()
    }

    /// The kinds of the frames that it sends now.
    pub fn kinds(&mut self) -> Vec<Kind> {
        self.sends().iter().map(|s| s.kind).collect()
    }

    /// What the node sends up to a time, and when, if it is woken as it asks.
    pub fn until(&mut self, end: u64) -> Vec<(u64, Sent)> {
        self.until_by(end, Lab::sends)
    }

    /// What `look` makes of what is sent, each time that the node is woken.
    pub fn until_by<T>(&mut self, end: u64, look: impl Fn(&mut Lab) -> Vec<T>) -> Vec<(u64, T)> {
        let mut all = Vec::new();
        loop {
            all.extend(look(self).into_iter().map(|sent| (self.now, sent)));
            match self.fabric.poll_timeout() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            self.fabric.handle_timeout(self.now);
        }
        self.now = end;
        all
    }

    /// Those of one kind: when they went, and to whom.
    pub fn until_of(&mut self, kind: Kind, end: u64) -> Vec<(u64, Mac)> {
        let all = self.until(end).into_iter();
        all.filter(|(_, sent)| sent.kind == kind).map(|(at, sent)| (at, sent.to)).collect()
    }

    pub fn proposes(&mut self) -> bool {
        self.sends().iter().any(|s| s.kind == Kind::Propose)
    }

    pub fn refusals(&mut self) -> Vec<RefuseReason> {
        let events = std::iter::from_fn(|| self.fabric.poll_event());
        let reason = |e| if let Event::Refused { reason, .. } = e { Some(reason) } else { None };
        events.filter_map(reason).collect()
    }

    pub fn is_member(&self) -> bool {
        self.fabric.membership().is_some()
    }
}
