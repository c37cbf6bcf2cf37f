//! Exactly-once delivery, page release, credits, idleness.
//!
//! Whole clusters over virtual minutes: too long for an interpreter. What Miri
//! can look at, frames and hostile bytes, is in `hostile.rs`.
#![cfg(not(miri))]

mod common;
use addr::{Frame, NodeId};
use common::{FAIR, MS, STORM, Sim, Weather};
use fabric::{Channel, Event, SendError};
use std::collections::HashSet;

const CHANNELS: [Channel; 3] = [Channel::Request, Channel::Forward, Channel::Response];

/// Every node sends `count` messages to random others, every third with a
/// page; all must come once, and no page may be released before.
fn exchange(seed: u64, weather: Weather, nodes: u16, mtu: u16, count: u64) -> Sim {
    let mut sim = Sim::cluster(seed, weather, nodes, mtu);
    let mut expected: Vec<HashSet<u64>> = vec![HashSet::new(); usize::from(nodes)];
    let mut receiver = std::collections::HashMap::new();
    let mut left = vec![count; usize::from(nodes)];
    while left.iter().any(|&l| l > 0) {
        let from = sim.rng.below(u64::from(nodes)) as usize;
        let burst = sim.rng.below(40);
        for _ in 0..burst.min(left[from]) {
            let me = sim.nodes[from].fabric.membership().unwrap().me;
            let to = NodeId(sim.rng.below(u64::from(nodes)) as u16);
            if to == me {
                continue;
            }
            let channel = CHANNELS[sim.rng.below(3) as usize];
            let id = (from as u64) << 32 | left[from];
            let paged = id.is_multiple_of(3);
            match sim.send(from, to, channel, id, paged) {
                Ok(()) => {
                    expected[sim.by_id(to.0)].insert(id);
                    receiver.insert(id, sim.by_id(to.0));
                    left[from] -= 1;
                }
                Err(e) => assert_eq!(e, SendError::Full),
            }
        }
        for _ in 0..sim.rng.below(60) {
            sim.step();
            check_releases(&mut sim, &receiver);
        }
    }
    sim.until(60_000 * MS, |s| {
        s.nodes.iter().zip(&expected).all(|(n, e)| n.inbox.seen.len() == e.len())
            && s.nodes.iter().all(|n| n.lent.is_empty())
    });
    check_releases(&mut sim, &receiver);
    for (node, expected) in sim.nodes.iter().zip(&expected) {
        assert_eq!(node.inbox.seen, *expected);
        let lost = node.events.iter().find(|e| matches!(e, Event::PeerLost { .. }));
        assert_eq!(lost, None);
    }
    sim
}

fn check_releases(sim: &mut Sim, receiver: &std::collections::HashMap<u64, usize>) {
    for n in 0..sim.nodes.len() {
        for id in std::mem::take(&mut sim.nodes[n].released) {
            let to = receiver[&id];
            assert!(sim.nodes[to].inbox.seen.contains(&id), "{id:#x} released undelivered");
        }
    }
}

#[test]
fn storm_with_jumbo_frames() {
    for seed in 0..4 {
        let sim = exchange(seed, STORM, 3, 9000, 1200);
        let resent: u64 = sim.nodes.iter().map(|n| n.fabric.counters().retransmits_fast).sum();
        assert!(resent > 0);
    }
}

#[test]
fn storm_with_small_frames() {
    for seed in 10..14 {
        exchange(seed, STORM, 3, 1500, 800);
    }
}

#[test]
fn storm_of_many_nodes() {
    exchange(20, STORM, 9, 1500, 200);
}

#[test]
fn heavy_loss() {
    let weather = Weather { loss: 400, double: 200, delay_ns: 50_000, jitter_ns: 3_000_000 };
    exchange(30, weather, 2, 1500, 300);
}

#[test]
fn fair_weather_repeats_nothing() {
    let sim = exchange(40, FAIR, 3, 9000, 1000);
    for node in &sim.nodes {
        let c = node.fabric.counters();
        assert_eq!((c.retransmits_fast, c.retransmits_timeout, c.duplicates), (0, 0, 0));
    }
    let sim = exchange(41, FAIR, 3, 1500, 1000);
    let again: u64 = sim.nodes.iter().map(|n| n.fabric.counters().duplicates).sum();
    assert_eq!(again, 0);
}

#[test]
fn same_seed_same_run() {
    let run = || {
        let mut sim = exchange(50, STORM, 3, 1500, 100);
        sim.run(500 * MS);
        (sim.now, sim.sent.clone(), sim.nodes[0].inbox.order.clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn one_fault_takes_two_data_frames() {
    let mut sim = Sim::cluster(60, FAIR, 2, 9000);
    sim.run(300 * MS);
    let before = sim.sent.get("data").copied().unwrap_or(0);
    let start = sim.now;
    sim.send(0, NodeId(1), Channel::Request, 1, false).unwrap();
    sim.until(MS, |s| s.nodes[1].inbox.seen.contains(&1));
    sim.send(1, NodeId(0), Channel::Response, 2, true).unwrap();
    sim.until(MS, |s| s.nodes[0].inbox.seen.contains(&2));
    assert_eq!(sim.now - start, 2 * FAIR.delay_ns);
    assert_eq!(sim.sent["data"] - before, 2);
    sim.until(MS, |s| s.nodes[1].released == [2]);
}

#[test]
fn waiting_small_messages_share_frames() {
    let mut sim = Sim::cluster(70, FAIR, 2, 9000);
    sim.run(300 * MS);
    let before = sim.sent.get("data").copied().unwrap_or(0);
    // Far more than the window: what waits leaves together later.
    for id in 0..200 {
        sim.send(0, NodeId(1), Channel::Request, id, false).unwrap();
    }
    sim.until(1000 * MS, |s| s.nodes[1].inbox.seen.len() == 200);
    assert!(sim.sent["data"] - before < 120, "{:?}", sim.sent);
}

#[test]
fn a_response_passes_waiting_requests() {
    let mut sim = Sim::cluster(80, FAIR, 2, 1500);
    sim.run(300 * MS);
    // Requests that the peer never grants: it hears nothing.
    let mut id = 0;
    sim.nodes[1].on = false;
    while sim.send(0, NodeId(1), Channel::Request, id, true).is_ok() {
        id += 1;
    }
    assert!(id >= 256);
    sim.nodes[1].on = true;
    sim.send(0, NodeId(1), Channel::Response, 10_000, true).unwrap();
    sim.until(MS, |s| s.nodes[1].inbox.seen.contains(&10_000));
    sim.until(10_000 * MS, |s| s.nodes[1].inbox.seen.len() as u64 == id + 1);
}

#[test]
fn credits_bound_what_is_in_flight() {
    let mut sim = Sim::cluster(90, FAIR, 2, 9000);
    sim.run(300 * MS);
    sim.nodes[1].on = false;
    for id in 0..250 {
        sim.send(0, NodeId(1), Channel::Request, id, false).unwrap();
    }
    let (a, b) = (sim.nodes[0].config.mac, sim.nodes[1].config.mac);
    assert_eq!(sim.highest[&(a, b, Channel::Request.index())], 60);
}

#[test]
fn an_idle_cluster_sends_only_heartbeats() {
    let mut sim = exchange(100, FAIR, 4, 9000, 50);
    sim.run(1000 * MS);
    sim.sent.clear();
    sim.run(10_000 * MS);
    assert_eq!(sim.sent.keys().copied().collect::<Vec<_>>(), ["heartbeat"]);
    // 12 directed links, ten a second each, less at most the rounding.
    let sent = sim.sent["heartbeat"];
    assert!((700..=1212).contains(&sent), "{sent}");
}

#[test]
fn send_says_what_is_wrong() {
    let mut sim = Sim::new(110, FAIR, vec![common::config(0, 2), common::config(1, 2)]);
    let send = |sim: &mut Sim, to| sim.send(0, NodeId(to), Channel::Request, 9, false);
    assert_eq!(send(&mut sim, 1), Err(SendError::NotFormed));
    sim.until(1000 * MS, |s| s.nodes.iter().all(|n| n.fabric.membership().is_some()));
    assert_eq!(send(&mut sim, 0), Err(SendError::NoSuchPeer));
    assert_eq!(send(&mut sim, 2), Err(SendError::NoSuchPeer));
    assert_eq!(send(&mut sim, u16::MAX), Err(SendError::NoSuchPeer));
    assert_eq!(send(&mut sim, 1), Ok(()));
}

#[test]
fn probes_are_answered_with_the_page() {
    for mtu in [1500, 9000] {
        let mut sim = Sim::cluster(120, FAIR, 2, mtu);
        let page = Some(Frame(77));
        for (bytes, page) in [(0, None), (4096, page), (64, page), (0, page)] {
            sim.nodes[1].fabric.set_probe_page(page);
            let token = sim.nodes[0].fabric.probe(sim.now, NodeId(1), bytes).unwrap();
            sim.drain(0);
            let reply = Event::ProbeReply { token, bytes: usize::from(bytes) };
            sim.until(MS, |s| s.has(0, &reply));
        }
    }
}

#[test]
fn status_travels_with_every_frame() {
    let mut sim = Sim::cluster(130, FAIR, 2, 9000);
    let status = fabric::Status { free_frames: 12, masters: 34 };
    let to = sim.nodes[1].fabric.membership().unwrap().me;
    sim.nodes[1].fabric.set_status(status);
    sim.run(200 * MS);
    assert_eq!(sim.nodes[0].fabric.peer_status(to), Some(status));
}

#[test]
fn refused_messages_cost_nothing() {
    let mut sim = Sim::cluster(140, FAIR, 2, 9000);
    sim.nodes[1].on = false;
    let mut id = 0;
    while sim.send(0, NodeId(1), Channel::Request, id, true).is_ok() {
        id += 1;
    }
    for _ in 0..2000 {
        let again = sim.send(0, NodeId(1), Channel::Request, id, true);
        assert_eq!(again, Err(SendError::Full));
    }
    // The other channels have their own queues.
    sim.send(0, NodeId(1), Channel::Forward, id, true).unwrap();
    sim.send(0, NodeId(1), Channel::Response, id + 1, true).unwrap();
    sim.nodes[1].on = true;
    sim.until(5_000 * MS, |s| s.nodes[0].lent.is_empty());
    assert_eq!(sim.nodes[1].inbox.seen.len() as u64, id + 2);
}

#[test]
fn a_lost_peer_gives_its_buffers_back() {
    let make = |n| fabric::Config { mtu: 1500, reassembly: 1, ..common::config(n, 3) };
    let mut sim = Sim::new(150, FAIR, (0..3).map(make).collect());
    sim.until(1_000 * MS, |s| s.nodes.iter().all(|n| n.fabric.membership().is_some()));
    sim.run(300 * MS);
    // Node 2 never gets more than the first part through, and falls silent.
    sim.censor = Some(Box::new(|from, bytes| from != 2 || bytes[89] & 0xF == 0));
    sim.send(2, NodeId(0), Channel::Request, 1, true).unwrap();
    sim.run(MS);
    sim.nodes[2].on = false;
    sim.send(1, NodeId(0), Channel::Request, 2, true).unwrap();
    sim.run(1_000 * MS);
    assert!(!sim.nodes[0].inbox.seen.contains(&2));
    assert!(sim.nodes[0].fabric.counters().dropped(fabric::Drop::NoBuffer) > 0);
    sim.until(4_000 * MS, |s| s.nodes[0].inbox.seen.contains(&2));
    assert!(!sim.nodes[0].fabric.is_alive(NodeId(2)));
}

#[test]
fn what_comes_too_early_comes_again() {
    for mtu in [1500, 9000] {
        let mut sim = Sim::cluster(160, FAIR, 2, mtu);
        let to = sim.by_id(1);
        let from = sim.by_id(0);
        sim.nodes[to].inbox.closed = true;
        sim.send(from, NodeId(1), Channel::Request, 1, true).unwrap();
        sim.send(from, NodeId(1), Channel::Response, 2, false).unwrap();
        sim.run(300 * MS);
        assert!(sim.nodes[to].inbox.seen.is_empty());
        assert!(sim.nodes[to].fabric.is_alive(NodeId(0)), "it was heard nevertheless");
        sim.nodes[to].inbox.closed = false;
        sim.until(1_000 * MS, |s| s.nodes[to].inbox.seen.len() == 2);
    }
}

#[test]
fn a_patient_message_travels_with_another_or_after_the_delay() {
    let mut sim = Sim::cluster(170, FAIR, 2, 9000);
    let (from, to) = (sim.by_id(0), sim.by_id(1));
    sim.run(300 * MS);
    let frames = |s: &Sim| s.sent.get("data").copied().unwrap_or(0);
    let delay = sim.nodes[from].config.ack_delay_ns;
    let send = |s: &mut Sim, id| s.send(from, NodeId(1), Channel::Response, id, false).unwrap();
    // Numbers that four divides are patient.
    let before = frames(&sim);
    send(&mut sim, 4);
    sim.run(delay / 2);
    assert_eq!(frames(&sim), before, "it waits");
    send(&mut sim, 5);
    sim.run(delay / 4);
    assert_eq!(frames(&sim), before + 1, "both in one frame");
    assert_eq!(sim.nodes[to].inbox.seen.len(), 2);
    sim.run(10 * MS);
    let before = frames(&sim);
    send(&mut sim, 8);
    sim.run(delay * 2);
    assert_eq!(frames(&sim), before + 1, "not for ever");
    assert_eq!(sim.nodes[to].inbox.seen.len(), 3);
    // Many do not wait.
    sim.run(10 * MS);
    let before = frames(&sim);
    (3..18).for_each(|i| send(&mut sim, 4 * i));
    assert_eq!(frames(&sim), before);
    send(&mut sim, 4 * 18);
    assert!(frames(&sim) > before);
}
