//! A node alone with frames made by hand: which proposals it takes, which
//! consent it counts, and when it stays out.

mod common;
use common::lab::{Lab, Sent, entry, hello};
use common::{MS, config, mac};
use fabric::{Config, Drop, Event, RefuseReason};
use wire::{Entry, Kind};

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
