//! Discovery, refusals, loss of peers, stop.
//!
//! Whole clusters over virtual minutes: too long for an interpreter. What Miri
//! can look at, frames and hostile bytes, is in `hostile.rs`.
#![cfg(not(miri))]

mod common;
use addr::NodeId;
use common::{CLUSTER, FAIR, MS, STORM, Sim, Weather, config, mac};
use fabric::{Channel, Config, Drop, Event, Fabric, RefuseReason, StopReason};

fn formed(sim: &Sim) -> bool {
    sim.nodes.iter().filter(|n| n.on).all(|n| n.fabric.membership().is_some())
}

/// All nodes that are on have the same membership.
fn agree(sim: &Sim) {
    let mut all = sim.nodes.iter().filter(|n| n.on).map(|n| n.fabric.membership().unwrap());
    let first = all.next().unwrap();
    assert_ne!(first.epoch, 0);
    for m in all {
        assert_eq!((m.epoch, m.mtu, &m.members), (first.epoch, first.mtu, &first.members));
    }
    for n in sim.nodes.iter().filter(|n| n.on) {
        let m = n.fabric.membership().unwrap();
        let mine = &m.members[m.me.index()];
        assert_eq!((mine.id, mine.mac, mine.pages), (m.me, n.config.mac, n.config.pages));
        assert!(n.events.contains(&Event::Formed));
    }
}

fn refused(sim: &Sim, n: usize, by: usize, reason: RefuseReason) -> bool {
    sim.has(n, &Event::Refused { by: sim.nodes[by].config.mac, reason })
}

#[test]
fn one_node_forms_alone_and_is_silent() {
    let mut fabric = Fabric::new(config(0, 1), 5);
    assert_eq!(fabric.poll_event(), Some(Event::Formed));
    let m = fabric.membership().unwrap();
    assert_eq!((m.me, m.members.len()), (NodeId(0), 1));
    assert_eq!(fabric.poll_transmit(5, &mut [0; 256]), None);
    assert_eq!(fabric.poll_timeout(), None);
    fabric.stop(6, StopReason::PowerOff);
    assert_eq!(fabric.poll_event(), Some(Event::StopDone));
}

#[test]
fn nodes_find_each_other_quickly() {
    let mut sim = Sim::new(1, FAIR, (0..4).map(|n| config(n, 4)).collect());
    sim.until(200 * MS, formed);
    agree(&sim);
    for n in &sim.nodes {
        let joined = n.events.iter().filter(|e| matches!(e, Event::NodeJoined { .. })).count();
        assert_eq!(joined, 3);
    }
}

/// A sign of life that was due when the cluster was stopped is not sent any
/// more, and not waited for.
#[test]
fn a_stop_overtakes_a_heartbeat() {
    let mut sim = Sim::new(1, FAIR, (0..2).map(|n| config(n, 2)).collect());
    sim.until(200 * MS, formed);
    sim.run(300 * MS);
    let now = sim.now;
    let fabric = &mut sim.nodes[0].fabric;
    let mut buf = [0; 256];
    while fabric.poll_transmit(now, &mut buf).is_some() {}
    fabric.handle_timeout(now + 90 * MS);
    fabric.handle_timeout(now + 180 * MS);
    fabric.stop(now + 180 * MS, StopReason::PowerOff);
    let mut kinds = Vec::new();
    while let Some(t) = fabric.poll_transmit(now + 180 * MS, &mut buf) {
        kinds.push(wire::Packet::parse(&buf[..t.header_len]).unwrap().header.kind);
    }
    assert_eq!(kinds, [fabric::Kind::Stop]);
}

/// In a large cluster no node tells every other something at every turn.
#[test]
fn a_large_cluster_forms_and_watches_its_neighbours() {
    let nodes = 72;
    let mut sim = Sim::new(3, FAIR, (0..nodes).map(|n| config(n, nodes as u16)).collect());
    sim.until(2_000 * MS, formed);
    agree(&sim);
    let rosters = |n: &common::Node| {
        let out = &n.fabric.counters().frames_out;
        out[fabric::Kind::Propose.index()] + out[fabric::Kind::Commit.index()]
    };
    // Two entries of the roster for each node of the cluster, not for each two.
    assert!(rosters(&sim.nodes[0]) < 40, "{}", rosters(&sim.nodes[0]));
    sim.run(500 * MS);
    let beats = |n: &common::Node| n.fabric.counters().frames_out[fabric::Kind::Heartbeat.index()];
    let before: Vec<u64> = sim.nodes.iter().map(beats).collect();
    sim.run(1_000 * MS);
    for (node, before) in sim.nodes.iter().zip(before) {
        let sent = beats(node) - before;
        assert!((100..240).contains(&sent), "{sent} heartbeats in a second");
    }
    // A loss is noticed by the neighbours, and by who waits for an answer.
    sim.nodes[40].on = false;
    let body = common::body(1, Channel::Request, false);
    let ask = fabric::Outgoing {
        to: NodeId(40),
        channel: Channel::Request,
        body,
        page: None,
        patient: false,
    };
    let now = sim.now;
    sim.nodes[2].fabric.send(now, &ask).unwrap();
    sim.run(3_600 * MS);
    let misses = |n: &common::Node| {
        n.events.iter().any(|e| matches!(e, Event::PeerLost { node: NodeId(40), .. }))
    };
    let who: Vec<usize> = (0..nodes).filter(|&n| misses(&sim.nodes[n])).collect();
    let mut expected = vec![2];
    expected.extend((32..49).filter(|&n| n != 40));
    assert_eq!(who, expected);
}

#[test]
fn formation_survives_loss() {
    let terrible = Weather { loss: 400, double: 100, delay_ns: MS, jitter_ns: 20 * MS };
    for seed in 0..30 {
        let nodes = 2 + (seed % 5) as u16;
        let make = |n| Config { seed: seed * 100 + n as u64, ..config(n, nodes) };
        let weather = if seed % 2 == 0 { STORM } else { terrible };
        let mut sim = Sim::new(seed, weather, (0..usize::from(nodes)).map(make).collect());
        sim.until(20_000 * MS, formed);
        agree(&sim);
    }
}

#[test]
fn a_roster_of_many_frames() {
    let mut sim = Sim::new(2, STORM, (0..60).map(|n| config(n, 60)).collect());
    sim.until(20_000 * MS, formed);
    agree(&sim);
}

#[test]
fn leader_by_rule() {
    let lead = |choose: &dyn Fn(usize, &mut Config)| {
        let mut configs: Vec<_> = (0..4).map(|n| config(n, 4)).collect();
        configs.reverse();
        configs.iter_mut().for_each(|c| choose(usize::from(c.mac[5]), c));
        let mut sim = Sim::new(3, FAIR, configs);
        sim.until(1000 * MS, formed);
        agree(&sim);
        let members = &sim.nodes[0].fabric.membership().unwrap().members;
        assert!(members[1..].is_sorted_by_key(|m| m.mac));
        members[0].mac
    };
    assert_eq!(lead(&|_, _| {}), mac(0));
    assert_eq!(lead(&|n, c| c.has_payload = n >= 2), mac(2));
    assert_eq!(
        lead(&|n, c| {
            c.has_payload = n == 1;
            c.lead = n == 3;
        }),
        mac(3)
    );
}

#[test]
fn the_least_mtu_holds() {
    let small = Config { mtu: 1500, ..config(1, 2) };
    let mut sim = Sim::new(4, FAIR, vec![config(0, 2), small]);
    sim.until(1000 * MS, formed);
    agree(&sim);
    assert_eq!(sim.nodes[0].fabric.membership().unwrap().mtu, 1500);
    sim.send(0, NodeId(1), Channel::Response, 5, true).unwrap();
    sim.until(10 * MS, |s| s.nodes[1].inbox.seen.contains(&5));
}

#[test]
fn restart_before_formation_replaces() {
    let mut sim = Sim::new(5, FAIR, vec![config(0, 3), config(1, 3)]);
    sim.run(200 * MS);
    sim.nodes.remove(1);
    sim.boot(Config { incarnation: 99, ..config(1, 3) });
    sim.run(200 * MS);
    sim.boot(config(2, 3));
    sim.until(1000 * MS, formed);
    agree(&sim);
    assert_eq!(sim.nodes[0].fabric.membership().unwrap().members[1].incarnation, 99);
}

#[test]
fn a_vanished_candidate_is_forgotten() {
    let mut sim = Sim::new(6, FAIR, vec![config(0, 3), config(1, 3)]);
    sim.run(200 * MS);
    sim.nodes.remove(1);
    sim.boot(config(2, 3));
    sim.run(5_000 * MS);
    sim.boot(config(3, 3));
    sim.until(2_000 * MS, formed);
    agree(&sim);
}

#[test]
fn restart_after_formation_is_refused_and_lost() {
    let mut sim = Sim::cluster(7, FAIR, 3, 9000);
    sim.nodes.remove(2);
    sim.boot(Config { incarnation: 99, ..config(2, 3) });
    sim.until(4_000 * MS, |s| {
        refused(s, 2, 0, RefuseReason::Fenced)
            && (0..2).all(|n| {
                let lost = |e: &Event| {
                    matches!(e, Event::PeerLost { node: NodeId(2), incarnation: 0x1002, .. })
                };
                s.nodes[n].events.iter().any(lost)
            })
    });
    assert!(sim.nodes[2].fabric.membership().is_none());
}

#[test]
fn a_restarted_leader_is_refused_too() {
    let mut sim = Sim::cluster(8, FAIR, 3, 9000);
    sim.nodes.remove(0);
    sim.boot(Config { incarnation: 99, ..config(0, 3) });
    sim.until(1_000 * MS, |s| refused(s, 2, 0, RefuseReason::Fenced));
}

#[test]
fn an_extra_node_is_refused() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed, STORM, (0..4).map(|n| config(n, 3)).collect());
        let in_cluster = |s: &Sim| -> Vec<usize> {
            (0..4).filter(|&n| s.nodes[n].fabric.membership().is_some()).collect()
        };
        sim.until(20_000 * MS, |s| in_cluster(s).len() == 3);
        let inside = in_cluster(&sim);
        let extra = (0..4).find(|n| !inside.contains(n)).unwrap();
        let epochs = inside.iter().map(|&n| sim.nodes[n].fabric.membership().unwrap().epoch);
        let epochs: std::collections::HashSet<_> = epochs.collect();
        assert_eq!(epochs.len(), 1);
        sim.until(2_000 * MS, |s| {
            let full =
                |e: &Event| matches!(e, Event::Refused { reason: RefuseReason::ClusterFull, .. });
            s.nodes[extra].events.iter().any(full)
        });
        assert_eq!(in_cluster(&sim), inside);
    }
}

/// Nodes that cannot lead wait for one that can, even if they are enough
/// without it; it takes the place of one of them.
#[test]
fn no_cluster_forms_without_a_payload() {
    for seed in 0..20 {
        let able = |n: usize| Config { needs_payload: true, has_payload: n == 2, ..config(n, 2) };
        let mut sim = Sim::new(seed, FAIR, vec![able(0), able(1)]);
        sim.run(1_000 * MS);
        assert!(sim.nodes.iter().all(|n| n.fabric.membership().is_none()));
        sim.boot(able(2));
        let inside = |s: &Sim, n: usize| s.nodes[n].fabric.membership().is_some();
        sim.until(2_000 * MS, |s| inside(s, 2) && (inside(s, 0) || inside(s, 1)));
        let membership = sim.nodes[2].fabric.membership().unwrap();
        assert_eq!(membership.members[0].mac, mac(2));
        let extra = usize::from(inside(&sim, 0));
        sim.until(2_000 * MS, |s| {
            let full =
                |e: &Event| matches!(e, Event::Refused { reason: RefuseReason::ClusterFull, .. });
            s.nodes[extra].events.iter().any(full)
        });
    }
}

/// Nor by itself: a node that lends its memory to nobody says so in the end.
#[test]
fn a_node_alone_that_cannot_lead_waits_and_says_so() {
    let able = Config { needs_payload: true, join_timeout_ns: 500 * MS, ..config(0, 1) };
    let mut sim = Sim::new(1, FAIR, vec![able]);
    sim.until(1_000 * MS, |s| {
        s.nodes[0].events.contains(&Event::JoinTimeout { present: 1, of: 1 })
    });
    assert!(sim.nodes[0].fabric.membership().is_none());
}

#[test]
fn mismatches_are_reported_on_both_sides() {
    let two = |change: &dyn Fn(&mut Config, &mut Config)| {
        let (mut a, mut b) = (config(0, 2), config(1, 2));
        change(&mut a, &mut b);
        let mut sim = Sim::new(9, FAIR, vec![a, b]);
        sim.run(1_000 * MS);
        assert!(sim.nodes.iter().all(|n| n.fabric.membership().is_none()));
        sim
    };
    let sim = two(&|a, _| a.build = 8);
    assert!(refused(&sim, 0, 1, RefuseReason::VersionMismatch { theirs: 7 }));
    assert!(refused(&sim, 1, 0, RefuseReason::VersionMismatch { theirs: 8 }));
    let sim = two(&|a, _| a.nodes = 3);
    assert!(refused(&sim, 0, 1, RefuseReason::NodeCountMismatch { theirs: 2 }));
    assert!(refused(&sim, 1, 0, RefuseReason::NodeCountMismatch { theirs: 3 }));
    let sim = two(&|a, b| (a.lead, b.lead) = (true, true));
    assert!(refused(&sim, 0, 1, RefuseReason::TwoForcedLeaders));
    assert!(refused(&sim, 1, 0, RefuseReason::TwoForcedLeaders));
    let sim = two(&|a, b| b.mac = a.mac);
    assert!(refused(&sim, 0, 1, RefuseReason::DuplicateIdentity));
    assert!(refused(&sim, 1, 0, RefuseReason::DuplicateIdentity));
    for n in &sim.nodes {
        let refusals = n.events.iter().filter(|e| matches!(e, Event::Refused { .. })).count();
        assert_eq!(refusals, 1, "each is reported once");
    }
}

#[test]
fn a_double_of_a_member_is_refused() {
    let mut sim = Sim::cluster(10, FAIR, 2, 9000);
    sim.boot(Config { incarnation: 99, ..config(1, 2) });
    sim.until(1_000 * MS, |s| {
        let double = |e: &Event| {
            let reason = RefuseReason::DuplicateIdentity;
            matches!(e, Event::Refused { reason: r, .. } if *r == reason)
        };
        s.nodes[2].events.iter().any(double)
    });
    sim.send(0, NodeId(1), Channel::Request, 1, true).unwrap();
    sim.until(10 * MS, |s| s.nodes[1].inbox.seen.contains(&1));
}

#[test]
fn two_clusters_share_a_link() {
    let other = |n| Config { cluster: CLUSTER + 1, ..config(n, 2) };
    let mut sim = Sim::new(11, FAIR, vec![config(0, 2), other(1), config(2, 2), other(3)]);
    sim.until(1_000 * MS, formed);
    let epoch = |n: usize| sim.nodes[n].fabric.membership().unwrap().epoch;
    assert_eq!(epoch(0), epoch(2));
    assert_eq!(epoch(1), epoch(3));
    assert!(sim.nodes[0].fabric.counters().dropped(Drop::OtherCluster) > 0);
}

#[test]
fn join_timeout_tells_who_is_there() {
    let make = |n| Config { join_timeout_ns: 500 * MS, ..config(n, 3) };
    let mut sim = Sim::new(12, FAIR, vec![make(0), make(1)]);
    sim.run(499 * MS);
    assert!(!sim.has(0, &Event::JoinTimeout { present: 2, of: 3 }));
    sim.run(2 * MS);
    assert!(sim.has(0, &Event::JoinTimeout { present: 2, of: 3 }));
    sim.boot(make(2)); // the search goes on
    sim.until(500 * MS, formed);
}

#[test]
fn a_silent_peer_is_lost_in_time_and_its_pages_come_back() {
    let mut sim = Sim::cluster(13, FAIR, 3, 1500);
    sim.run(500 * MS);
    sim.nodes[2].fabric.set_status(fabric::Status { free_frames: 3, masters: 4 });
    sim.run(500 * MS);
    sim.nodes[2].on = false;
    let start = sim.now;
    for id in 0..100 {
        sim.send(0, NodeId(2), Channel::Response, id, true).unwrap();
    }
    let epoch = sim.nodes[0].fabric.membership().unwrap().epoch;
    let status = fabric::Status { free_frames: 3, masters: 4 };
    let lost = Event::PeerLost { node: NodeId(2), incarnation: 0x1002, epoch, status };
    sim.until(4_000 * MS, |s| (0..2).all(|n| s.has(n, &lost)));
    let took = sim.now - start;
    assert!((2_800 * MS..3_200 * MS).contains(&took), "{took}");
    assert!(sim.nodes[0].lent.is_empty());
    assert_eq!(sim.nodes[0].released.len(), 100);
    let sent = sim.send(0, NodeId(2), Channel::Response, 200, true);
    assert_eq!(sent, Err(fabric::SendError::NoSuchPeer));
    // It comes back without having noticed, and is told.
    sim.nodes[2].on = true;
    sim.until(1_000 * MS, |s| refused(s, 2, 0, RefuseReason::Fenced));
    assert!(sim.nodes[0].fabric.counters().dropped(Drop::FromLost) > 0);
}

#[test]
fn our_own_absence_loses_nobody() {
    let mut sim = Sim::cluster(14, FAIR, 2, 9000);
    sim.run(500 * MS);
    // The whole host sleeps, again and again: all clocks jump.
    for _ in 0..6 {
        sim.now += 60_000 * MS;
        sim.run(3_050 * MS); // no heartbeat is under way at the end
    }
    for n in &sim.nodes {
        assert!(!n.events.iter().any(|e| matches!(e, Event::PeerLost { .. })));
        assert!(n.fabric.counters().pauses > 0);
    }
    // Absence after absence does not keep a dead peer alive for ever.
    sim.nodes[1].on = false;
    let mut jumps = 0;
    while !sim.nodes[0].events.iter().any(|e| matches!(e, Event::PeerLost { .. })) {
        sim.now += 1_000 * MS;
        let now = sim.now;
        sim.nodes[0].fabric.handle_timeout(now);
        sim.drain(0);
        jumps += 1;
        assert!(jumps < 12);
    }
}

#[test]
fn stop_reaches_everyone() {
    for (reason, weather) in
        [(StopReason::PowerOff, FAIR), (StopReason::Reset, STORM), (StopReason::Fatal(42), STORM)]
    {
        let mut sim = Sim::cluster(15, weather, 3, 9000);
        sim.send(1, NodeId(0), Channel::Request, 1, true).unwrap();
        let now = sim.now;
        sim.nodes[1].fabric.stop(now, reason);
        sim.drain(1);
        assert!(sim.nodes[1].lent.is_empty());
        let stopped = Event::Stopped { by: NodeId(1), reason };
        sim.until(1_000 * MS, |s| s.has(0, &stopped) && s.has(2, &stopped));
        sim.until(1_000 * MS, |s| s.has(1, &Event::StopDone));
        sim.run(5_000 * MS);
        for n in &sim.nodes {
            assert!(!n.events.iter().any(|e| matches!(e, Event::PeerLost { .. })));
            assert_eq!(n.fabric.poll_timeout(), None);
        }
        let sent = sim.send(0, NodeId(1), Channel::Request, 1, false);
        assert_eq!(sent, Err(fabric::SendError::Stopped));
    }
}

#[test]
fn stop_gives_up_on_the_dead() {
    let mut sim = Sim::cluster(16, FAIR, 2, 9000);
    sim.nodes[1].on = false;
    let now = sim.now;
    sim.nodes[0].fabric.stop(now, StopReason::PowerOff);
    sim.until(300 * MS, |s| s.has(0, &Event::StopDone));
}
