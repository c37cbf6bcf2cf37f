//! When nodes that look for each other speak, how long they wait for one
//! another, and how members of a new cluster greet.

mod common;
use common::lab::{Lab, Sent, hello};
use common::{MS, config, mac};
use fabric::{Config, Drop, Event, Kind, StopReason};
use std::collections::BTreeSet;
use wire::{Body, Mac, Packet};

/// Mean time between two Hellos of a node in a small cluster.
const INTERVAL: u64 = 50 * MS;
/// The longest time between two of them.
const LONGEST: u64 = INTERVAL * 3 / 2;
const HEARTBEAT: u64 = 100 * MS;
/// Nodes of a cluster that is a large one, and the time in which one node
/// takes in a short frame from each.
const LARGE: u16 = 40;
const ALL_TAKE: u64 = 40 * 4_000;

/// When Hellos go, up to a time, and how many nodes they say are known.
fn hellos(lab: &mut Lab, end: u64) -> Vec<(u64, u16)> {
    let known = |frame: Vec<u8>| match Packet::parse(&frame).unwrap().body {
        Body::Hello(hello) => Some(hello.known),
        _ => None,
    };
    lab.until_by(end, |lab| lab.frames().into_iter().filter_map(known).collect())
}

/// One Hello goes to all who know already; a new one is not kept waiting.
#[test]
fn a_newcomer_hears_of_a_node_soon() {
    for seed in 0..16 {
        let mut lab = Lab::of(Config { seed, ..config(0, 4) }, &[]);
        let end = lab.now + LONGEST;
        let last = hellos(&mut lab.clone(), end)[0].0;
        hellos(&mut lab, last);
        // Just after a Hello: no two of them within a quarter of the interval.
        let mut early = lab.clone();
        early.hears_hello(hello(config(1, 4)));
        let next = hellos(&mut early, last + INTERVAL);
        assert_eq!(next[0], (last + INTERVAL / 4, 2));
        // Later: in about an eighth, as others may answer as well.
        assert_eq!(hellos(&mut lab, last + INTERVAL / 4), []);
        lab.hears_hello(hello(config(1, 4)));
        let (next, known) = hellos(&mut lab, last + INTERVAL)[0];
        let waited = next - last - INTERVAL / 4;
        assert!((INTERVAL / 16..=INTERVAL * 3 / 16).contains(&waited), "{waited}");
        assert_eq!(known, 2);
    }
}

/// Silence of twenty intervals is too long, and not one tick less.
#[test]
fn a_candidate_is_forgotten_when_it_has_been_silent_for_long() {
    const LONG: u64 = 20 * INTERVAL;
    let mut lab = Lab::new(0, 4, &[1, 2]);
    let all = hellos(&mut lab.clone(), lab.now + LONG + 2 * LONGEST);
    let soon = |&&(at, _): &&(u64, u16)| at - MS < LONG;
    let known: Vec<u16> = all.iter().map(|h| h.1).collect();
    assert!(all.iter().take_while(soon).count() > 13);
    let expected = all.iter().map(|h| if soon(&h) { 3 } else { 1 });
    assert_eq!(known, expected.collect::<Vec<u16>>());
    let last = all.last().unwrap().0;
    hellos(&mut lab, last - LONG);
    lab.hears_hello(hello(config(1, 4)));
    lab.now += 1;
    lab.hears_hello(hello(config(2, 4)));
    assert_eq!(hellos(&mut lab, last).last(), Some(&(last, 2)));
}

#[test]
fn our_own_absence_makes_nobody_forgotten() {
    let mut lab = Lab::new(0, 4, &[1, 2]);
    let back = lab.now + 60_000 * MS;
    lab.now = back;
    lab.fabric.handle_timeout(back);
    assert_eq!(hellos(&mut lab, back), [(back, 3)]);
}

/// With every Hello, to those who have not consented; after twenty intervals
/// there is another one.
#[test]
fn a_proposal_is_repeated_and_then_given_up() {
    let mut lab = Lab::new(0, 3, &[1, 2]);
    let start = lab.now;
    let first = lab.sends()[0].epoch;
    lab.hears_accept(1, first, config(1, 3).incarnation);
    lab.until(start + 10 * INTERVAL);
    [1, 2].iter().for_each(|&n| lab.hears_hello(hello(config(n, 3))));
    let sent = lab.until(start + 20 * INTERVAL + 2 * LONGEST);
    let times = |kind, to: Mac, epoch: u64| -> Vec<u64> {
        let is = |s: &Sent| (s.kind, s.to) == (kind, to) && [0, epoch].contains(&s.epoch);
        sent.iter().filter(|(_, s)| is(s)).map(|s| s.0).collect()
    };
    let mut beats = times(Kind::Hello, wire::BROADCAST, 0);
    let until = beats.partition_point(|&at| at - start < 20 * INTERVAL);
    assert_eq!(times(Kind::Propose, mac(2), first), beats[..until]);
    assert_eq!(times(Kind::Propose, mac(1), first), []);
    // The Hello that gives it up, and then a new one, to both.
    beats.drain(..=until);
    let again = sent.iter().find(|(_, s)| s.kind == Kind::Propose && s.epoch != first);
    let (_, Sent { epoch, .. }) = *again.unwrap();
    assert_eq!(times(Kind::Propose, mac(1), epoch), beats);
    assert_eq!(times(Kind::Propose, mac(2), epoch), beats);
}

/// Twice as long as the proposer waits, so that it cannot be committed any more
/// when another one is consented to.
#[test]
fn consent_is_repeated_and_outlasts_the_proposal() {
    const WORD: u64 = 40 * INTERVAL;
    let mut lab = Lab::new(2, 3, &[]);
    let start = 10 * INTERVAL;
    lab.until(start);
    lab.hears_roster(0, Kind::Propose, 7);
    let consent = Sent { kind: Kind::Accept, to: mac(0), epoch: 7 };
    assert_eq!(lab.sends(), [consent]);
    let sent = lab.until(start + WORD - 1);
    let consents = sent.iter().filter(|s| s.1 == consent).map(|s| s.0);
    let beats = sent.iter().filter(|s| s.1.kind == Kind::Hello).map(|s| s.0);
    let consents: Vec<u64> = consents.collect();
    assert_eq!(consents, beats.collect::<Vec<u64>>());
    assert!(consents.last().is_some_and(|&at| at > start + WORD - LONGEST));
    let other = |lab: &mut Lab| {
        let [a, b, c] = [1, 0, 2].map(|n| hello(config(n, 3)).entry);
        lab.hears_proposal(1, 8, 3, &[a, b, c]);
    };
    other(&mut lab);
    assert_eq!((lab.sends(), lab.fabric.counters().dropped(Drop::Unexpected)), (vec![], 1));
    assert_eq!(lab.until_of(Kind::Accept, start + WORD + LONGEST), []);
    other(&mut lab);
    assert_eq!(lab.sends(), [Sent { kind: Kind::Accept, to: mac(1), epoch: 8 }]);
}

/// As long as silent nodes are remembered.
#[test]
fn who_has_a_double_stays_out_for_long() {
    const DISPUTED: u16 = 3;
    let mut lab = Lab::new(1, 2, &[]);
    lab.hears_refuse(0, DISPUTED);
    let end = lab.now + 20 * INTERVAL;
    for (at, consents) in [(end - 1, 0), (end, 1)] {
        lab.until(at);
        lab.hears_roster(0, Kind::Propose, 7);
        assert_eq!(lab.until_of(Kind::Accept, at).len(), consents);
    }
}

/// Consent to one proposal must not count for another.
#[test]
fn no_two_proposals_of_a_node_have_one_epoch() {
    for incarnation in [0, u64::MAX - 16] {
        let mut lab = Lab::of(Config { incarnation, ..config(0, 2) }, &[]);
        let mut epochs = BTreeSet::new();
        for life in 100..116 {
            lab.hears_hello(hello(Config { incarnation: life, ..config(1, 2) }));
            let sent = lab.sends();
            assert_eq!(sent.len(), 1);
            epochs.insert(sent[0].epoch);
        }
        assert_eq!(epochs.len(), 16);
    }
}

/// Among enough nodes of which none may lead, one makes way for a leader; else
/// nobody does.
#[test]
fn only_a_missing_leader_displaces_a_candidate() {
    for bits in 0..8 {
        let [me, first, newcomer] = [0, 1, 2].map(|n| bits >> n & 1 != 0);
        let of = |n, has_payload| Config { needs_payload: true, has_payload, ..config(n, 2) };
        let mut lab = Lab::of(of(0, me), &[]);
        lab.hears_hello(hello(of(1, first)));
        lab.hears_hello(hello(of(2, newcomer)));
        let kept = u64::from(me || first || !newcomer);
        assert_eq!(lab.fabric.counters().dropped(Drop::Unexpected), kept, "{bits:#b}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs more frames than fit a queue")]
fn what_finds_no_room_is_counted_and_what_comes_once_finds_it() {
    const MANY: u64 = 500;
    let mut lab = Lab::of(Config { join_timeout_ns: MS, ..config(0, 2) }, &[]);
    let stranger = hello(Config { build: 8, ..config(1, 2) });
    for n in 1..=MANY {
        lab.hears(n as usize, (Kind::Hello, 0), |header, frame| stranger.emit(header, frame));
    }
    let (sent, told) = (lab.kinds().len() as u64, lab.fabric.counters().control_overflows);
    assert!(told > 0 && sent + told == MANY, "{sent} sent, {told} not");
    lab.now += MS;
    lab.fabric.handle_timeout(lab.now);
    let events: Vec<Event> = std::iter::from_fn(|| lab.fabric.poll_event()).collect();
    let (lost, got) = (lab.fabric.counters().events_lost, events.len() as u64 - 1);
    assert!(lost > 0 && lost + got == MANY, "{lost} lost, {got} not");
    assert_eq!(events.last(), Some(&Event::JoinTimeout { present: 1, of: 2 }));
}

#[test]
fn a_new_member_greets_all_and_the_leader_when_it_asks() {
    let mut lab = Lab::member(config(2, 3));
    let start = lab.now;
    let greeting = |n| (start, Sent { kind: Kind::Heartbeat, to: mac(n), epoch: 7 });
    assert_eq!(lab.until(start), [greeting(0), greeting(1)]);
    lab.hears_roster(0, Kind::Commit, 7);
    assert_eq!(lab.until(start), [greeting(0)]);
    assert_eq!(lab.fabric.counters().events_lost, 0);
    // Neither another's commit nor another membership is the leader's.
    lab.hears_roster(1, Kind::Commit, 7);
    lab.hears_roster(0, Kind::Commit, 8);
    lab.hears_roster(0, Kind::Propose, 7);
    assert_eq!(lab.until(start), []);
    assert_eq!(lab.fabric.counters().dropped(Drop::Unexpected), 3);
    let mut leader = Lab::leader(config(0, 3));
    leader.until(start);
    leader.hears_roster(1, Kind::Commit, leader.epoch);
    assert_eq!(
        (leader.until(start), leader.fabric.counters().dropped(Drop::Unexpected)),
        (vec![], 1)
    );
}

#[test]
fn a_leader_commits_until_all_are_heard() {
    const HELLO: u64 = 10 * MS;
    let mut lab = Lab::leader(Config { hello_ns: HELLO, ..config(0, 3) });
    let start = lab.now;
    assert_eq!(lab.until_of(Kind::Commit, start), [(start, mac(1)), (start, mac(2))]);
    lab.hears_ack(1, lab.epoch);
    let again = [1, 2, 3].map(|n| (start + n * HELLO, mac(2)));
    assert_eq!(lab.until_of(Kind::Commit, start + 3 * HELLO + MS), again);
    // One that asks itself is told at once.
    lab.hears_hello(hello(lab.other(1)));
    assert_eq!(lab.sends(), [Sent { kind: Kind::Commit, to: mac(1), epoch: lab.epoch }]);
    lab.hears_ack(2, lab.epoch);
    assert_eq!(lab.until_of(Kind::Commit, start + 2 * HEARTBEAT), []);
    // Nothing wakes it any more but its heartbeats.
    assert_eq!(lab.fabric.poll_timeout(), Some(lab.now + HEARTBEAT / 2));
}

#[test]
fn who_is_a_member_looks_for_nobody() {
    let mut lab = Lab::new(2, 3, &[]);
    lab.now += INTERVAL;
    lab.fabric.handle_timeout(lab.now); // a Hello waits for the device
    lab.hears_roster(0, Kind::Propose, 7);
    lab.hears_ack(0, 7);
    assert!(!lab.until(lab.now + 10 * INTERVAL).iter().any(|s| s.1.kind == Kind::Hello));
    let mut lab = Lab::new(0, 2, &[]);
    lab.fabric.stop(lab.now, StopReason::PowerOff);
    lab.hears_hello(hello(config(1, 2)));
    assert_eq!((lab.sends(), lab.fabric.counters().dropped(Drop::Stopped)), (vec![], 1));
}

/// Until the membership says what all can take, frames are of the least size,
/// and as full as that allows.
#[test]
#[cfg_attr(miri, ignore = "needs the nodes of a large cluster")]
fn a_roster_fits_every_link() {
    let room = wire::roster_room(1514);
    let nodes = 2 * room as u16;
    let mut lab = Lab::of(config(0, nodes), &(1..usize::from(nodes)).collect::<Vec<_>>());
    let lengths: Vec<usize> = lab.frames().iter().map(Vec::len).collect();
    assert!(lengths.len() == 2 && lengths.iter().all(|&len| len <= 1514), "{lengths:?}");
}

/// In a large cluster the answers to one node come one by one, as fast as it
/// takes them in.
#[test]
#[cfg_attr(miri, ignore = "needs the nodes of a large cluster")]
fn many_nodes_do_not_answer_at_once() {
    let (mut consents, mut greetings) = (Vec::new(), Vec::new());
    // Those that are not the leader's neighbours.
    for n in 9..=31 {
        let mut lab = Lab::of(config(n, LARGE), &[]);
        let start = lab.now;
        lab.hears_roster(0, Kind::Propose, 7);
        let went = lab.until_of(Kind::Accept, start + ALL_TAKE);
        assert_eq!((went.len(), went[0].1), (1, mac(0)));
        consents.push(went[0].0 - start);
        let start = lab.now;
        lab.hears_ack(0, 7);
        let went = lab.until_of(Kind::Heartbeat, start + ALL_TAKE).into_iter();
        let went: Vec<u64> = went.filter(|&(_, to)| to == mac(0)).map(|w| w.0 - start).collect();
        assert_eq!(went.len(), 1);
        greetings.extend(went);
    }
    for waits in [consents, greetings] {
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least < ALL_TAKE / 4 && *most > ALL_TAKE * 3 / 4, "{waits:?}");
    }
}

/// Every heartbeat one more peer hears of a node, in the order of the ring.
#[test]
#[cfg_attr(miri, ignore = "needs the nodes of a large cluster")]
fn news_go_round_a_large_cluster() {
    let me = 20;
    let forever = Config { dead_after_ns: 1_000_000 * MS, ..config(me, LARGE) };
    let mut lab = Lab::member(forever);
    let start = lab.now;
    let beats = lab.until_of(Kind::Heartbeat, start + 80 * HEARTBEAT);
    let last = usize::from(LARGE) - 1;
    for turn in 0..80 {
        let at = start + turn as u64 * HEARTBEAT;
        let far = |&&(when, to): &&(u64, Mac)| when == at && usize::from(to[5]).abs_diff(me) > 8;
        // The leader is greeted besides, once and a little later.
        let told: Vec<Mac> = beats.iter().filter(far).map(|b| b.1).collect();
        let ahead = turn % last + 1;
        let next = mac((me + ahead) % usize::from(LARGE));
        let near = (9..=31).contains(&ahead);
        assert_eq!(told, if near { vec![next] } else { vec![] }, "turn {turn}");
    }
    let greeted =
        |&&(when, to): &&(u64, Mac)| to == mac(0) && !(when - start).is_multiple_of(HEARTBEAT);
    assert_eq!(beats.iter().filter(greeted).count(), 1);
}
