//! A node alone with frames made by hand: which proposals it takes, which
//! consent it counts, and when it stays out.

mod common;
use common::{CLUSTER, Inbox, MS, config, mac};
use fabric::{Config, Drop, Event, Fabric, RefuseReason};
use wire::{Accept, Body, Entry, Header, Hello, Kind, Link, Mac, Packet, Refuse};

struct Lab {
    me: Mac,
    fabric: Fabric,
    now: u64,
}

/// A frame that the node sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sent {
    kind: Kind,
    to: Mac,
    epoch: u64,
}

/// What a node of this configuration says of itself.
fn hello(config: Config) -> Hello {
    let mut fabric = Fabric::new(config, 0);
    fabric.handle_timeout(100 * MS);
    let mut frame = [0; 256];
    let len = fabric.poll_transmit(100 * MS, &mut frame).unwrap().header_len;
    match Packet::parse(&frame[..len]).unwrap().body {
        Body::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn entry(n: usize, nodes: u16) -> Entry {
    hello(config(n, nodes)).entry
}

impl Lab {
    /// Node `n` of `nodes`, which has heard these others.
    fn new(n: usize, nodes: u16, others: &[usize]) -> Lab {
        let mut lab = Lab { me: mac(n), fabric: Fabric::new(config(n, nodes), MS), now: MS };
        others.iter().for_each(|&other| lab.hears_hello(hello(config(other, nodes))));
        lab
    }

    fn hears(
        &mut self,
        n: usize,
        (kind, epoch): (Kind, u64),
        emit: impl Fn(&Header, &mut [u8]) -> usize,
    ) {
        let header = Header {
            dst: if kind == Kind::Hello { wire::BROADCAST } else { self.me },
            src: mac(n),
            kind,
            from: if kind == Kind::Ack { n as u16 } else { wire::NO_NODE },
            payload: 0,
            cluster: CLUSTER,
            epoch,
            free_frames: 0,
            masters: 0,
        };
        let mut frame = [0; 512];
        let len = emit(&header, &mut frame);
        self.fabric.handle_frame(self.now, &frame[..len], &mut Inbox::default());
    }

    fn hears_hello(&mut self, hello: Hello) {
        let n = usize::from(hello.entry.mac[5]);
        self.hears(n, (Kind::Hello, 0), |header, frame| hello.emit(header, frame));
    }

    fn hears_accept(&mut self, n: usize, epoch: u64, incarnation: u64) {
        let accept = Accept { incarnation };
        self.hears(n, (Kind::Accept, epoch), |header, frame| accept.emit(header, frame));
    }

    /// Node `n` says why the two of them cannot be in one cluster.
    fn hears_refuse(&mut self, n: usize, reason: u16) {
        let incarnation = config(usize::from(self.me[5]), 2).incarnation;
        let refuse = Refuse { incarnation, reason, detail: 9 };
        self.hears(n, (Kind::Refuse, 0), |header, frame| refuse.emit(header, frame));
    }

    /// Node `n` proposes these `total` members, of which `entries` are the first.
    fn hears_proposal(&mut self, n: usize, epoch: u64, total: u16, entries: &[Entry]) {
        self.hears(n, (Kind::Propose, epoch), |header, frame| {
            wire::emit_roster(header, total, 0, entries.iter().copied(), frame)
        });
    }

    /// A sign of life from a member.
    fn hears_ack(&mut self, n: usize, epoch: u64) {
        self.hears(n, (Kind::Ack, epoch), |header, frame| {
            Link::default().emit_frame(header, frame)
        });
    }

    fn sends(&mut self) -> Vec<Sent> {
        let mut frame = [0; 512];
        let next = || {
            let len = self.fabric.poll_transmit(self.now, &mut frame)?.header_len;
            let header = Packet::parse(&frame[..len]).unwrap().header;
            Some(Sent { kind: header.kind, to: header.dst, epoch: header.epoch })
        };
        std::iter::from_fn(next).collect()
    }

    fn proposes(&mut self) -> bool {
        self.sends().iter().any(|s| s.kind == Kind::Propose)
    }

    fn refusals(&mut self) -> Vec<RefuseReason> {
        let events = std::iter::from_fn(|| self.fabric.poll_event());
        let reason = |e| if let Event::Refused { reason, .. } = e { Some(reason) } else { None };
        events.filter_map(reason).collect()
    }

    fn is_member(&self) -> bool {
        self.fabric.membership().is_some()
    }
}

/// The members of a cluster of three, as the first of these proposes them.
fn roster(order: [usize; 3]) -> [Entry; 3] {
    order.map(|n| entry(n, 3))
}

/// A node counts on what each has consented to in this very life and proposal.
#[test]
fn only_consent_to_this_proposal_counts() {
    let mut lab = Lab::new(0, 3, &[1, 2]);
    let sent = lab.sends();
    assert_eq!(
        sent.iter().map(|s| (s.kind, s.to)).collect::<Vec<_>>(),
        [(Kind::Propose, mac(1)), (Kind::Propose, mac(2))]
    );
    let epoch = sent[0].epoch;
    let life = |n: usize| config(n, 3).incarnation;
    for n in [1, 2] {
        lab.hears_accept(n, epoch ^ 1, life(n));
        lab.hears_accept(n, epoch, life(n) + 1);
    }
    assert_eq!((lab.is_member(), lab.fabric.counters().dropped(Drop::Stale)), (false, 4));
    lab.hears_accept(1, epoch, life(1));
    assert!(!lab.is_member());
    lab.hears_accept(2, epoch, life(2));
    assert!(lab.is_member());
}

/// Who can no longer be a member is not made one by the consent of the others,
/// and a proposal that waits to be sent is not sent.
#[test]
fn a_proposal_falls_with_one_of_its_members() {
    let stranger = hello(Config { nodes: 4, ..config(2, 3) });
    let mut lab = Lab::new(0, 3, &[1, 2]);
    let epoch = lab.sends()[0].epoch;
    lab.hears_hello(stranger);
    lab.hears_accept(1, epoch, config(1, 3).incarnation);
    assert!(!lab.is_member());
    let mut lab = Lab::new(0, 3, &[1, 2]);
    lab.hears_hello(stranger);
    let kinds: Vec<Kind> = lab.sends().iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Kind::Refuse]);
}

/// No two proposals that share a node can both be committed.
#[test]
fn a_node_keeps_its_word_to_one_proposer() {
    let mut lab = Lab::new(2, 3, &[]);
    let accepts = |to, epoch| [Sent { kind: Kind::Accept, to: mac(to), epoch }];
    lab.hears_proposal(0, 7, 3, &roster([0, 1, 2]));
    assert_eq!(lab.sends(), accepts(0, 7));
    lab.hears_proposal(1, 8, 3, &roster([1, 0, 2]));
    assert_eq!((lab.sends(), lab.fabric.counters().dropped(Drop::Unexpected)), (vec![], 1));
    lab.hears_proposal(0, 9, 3, &roster([0, 1, 2]));
    assert_eq!(lab.sends(), accepts(0, 9));
    // A sign of life in this epoch, and in no other, says that it was committed.
    lab.hears_ack(0, 7);
    assert!(!lab.is_member());
    lab.hears_ack(0, 9);
    assert_eq!(lab.fabric.membership().map(|m| m.epoch), Some(9));
    // Of a proposal that is not complete nothing can be committed.
    let mut lab = Lab::new(2, 3, &[]);
    lab.hears_proposal(0, 7, 3, &roster([0, 1, 2])[..2]);
    lab.hears_ack(0, 7);
    assert_eq!((lab.is_member(), lab.sends()), (false, vec![]));
}

/// A node that proposes gives way to one that should rather lead, to no other.
#[test]
fn the_better_proposal_is_taken() {
    let mut lab = Lab::new(1, 3, &[2, 3]);
    assert!(lab.proposes());
    lab.hears_proposal(2, 7, 3, &roster([2, 1, 3]));
    assert_eq!(lab.sends(), []);
    lab.hears_proposal(0, 8, 3, &roster([0, 1, 2]));
    assert_eq!(lab.sends(), [Sent { kind: Kind::Accept, to: mac(0), epoch: 8 }]);
}

#[test]
fn a_membership_has_an_order_and_every_member_as_it_is() {
    let [leader, other, me] = roster([0, 1, 2]);
    for bad in [
        [leader, other, entry(3, 3)],
        [leader, other, Entry { incarnation: 99, ..me }],
        [leader, me, other],
        [leader, leader, me],
        [leader, other, other],
        [other, leader, me],
        [leader, Entry { mtu: 1499, ..other }, me],
    ] {
        let mut lab = Lab::new(2, 3, &[]);
        lab.hears_proposal(0, 7, 3, &bad);
        let malformed = lab.fabric.counters().dropped(Drop::Malformed);
        assert_eq!((lab.sends(), malformed), (vec![], 1), "{bad:?}");
    }
}

/// One frame may be the last of our own earlier life; two are another node's.
#[test]
fn a_double_is_believed_when_it_is_heard_again() {
    let double = |incarnation| hello(Config { incarnation, ..config(0, 2) });
    let mut lab = Lab::new(0, 2, &[]);
    lab.hears_hello(double(5));
    lab.hears_hello(double(6));
    assert_eq!(lab.refusals(), []);
    lab.hears_hello(double(6));
    assert_eq!(lab.refusals(), [RefuseReason::DuplicateIdentity]);
}

/// While its address is disputed a node neither proposes nor consents. Any
/// other refusal is between two nodes and keeps nobody from its cluster.
#[test]
fn only_who_has_a_double_stays_out() {
    const DISPUTED: u16 = 3;
    let other = hello(config(1, 2));
    for reason in 1..=6 {
        let mut lab = Lab::new(0, 2, &[]);
        lab.hears_refuse(1, reason);
        lab.hears_hello(other);
        assert_eq!(lab.proposes(), reason != DISPUTED, "{reason}");
        let mut lab = Lab::new(1, 2, &[]);
        lab.hears_refuse(0, reason);
        lab.hears_proposal(0, 7, 2, &[entry(0, 2), entry(1, 2)]);
        assert_eq!(lab.sends().len(), usize::from(reason != DISPUTED), "{reason}");
        lab.now += 2_000 * MS;
        lab.hears_proposal(0, 8, 2, &[entry(0, 2), entry(1, 2)]);
        assert_eq!(lab.sends().iter().filter(|s| s.kind == Kind::Accept).count(), 1);
    }
}

#[test]
fn every_reason_to_refuse_is_understood() {
    let mut lab = Lab::new(0, 2, &[]);
    (0..8).for_each(|reason| lab.hears_refuse(1, reason));
    assert_eq!(
        lab.refusals(),
        [
            RefuseReason::VersionMismatch { theirs: 9 },
            RefuseReason::ClusterFull,
            RefuseReason::DuplicateIdentity,
            RefuseReason::NodeCountMismatch { theirs: 9 },
            RefuseReason::TwoForcedLeaders,
            RefuseReason::Fenced,
        ]
    );
    assert_eq!(lab.fabric.counters().dropped(Drop::Malformed), 2);
}

/// What is kept free for news that come once leaves room for the rest.
#[test]
fn who_joins_a_larger_cluster_is_told() {
    let mut lab = Lab::new(0, 20, &[1]);
    assert_eq!(lab.fabric.poll_event(), Some(Event::NodeJoined { known: 2, of: 20 }));
}
