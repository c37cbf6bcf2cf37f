//! What is refused before it does harm, and what a node says of its peers.

mod common;
use common::{CLUSTER, FAIR, Inbox, MS, Sim, config, mac};
use fabric::{Channel, Config, Drop, Event, Fabric, RefuseReason, StopReason};
use std::panic::catch_unwind;
use wire::{Entry, Header, Hello, Kind, Payload, ProbeReply};

/// A configuration comes from this program itself, so a wrong one is a bug.
#[test]
fn a_wrong_configuration_is_refused() {
    let good = config(0, 2);
    let _ = Fabric::new(good, 0);
    let most = Config { nodes: 4096, mtu: 1500, queue: 1, reassembly: 1, hello_ns: 1000, ..good };
    let _ = Fabric::new(Config { heartbeat_ns: 2, dead_after_ns: 3, ..most }, 0);
    let _ = Fabric::new(Config { rto_max_ns: good.rto_min_ns, ..good }, 0);
    for (what, bad) in [
        ("no node", Config { nodes: 0, ..good }),
        ("too many nodes", Config { nodes: 4097, ..good }),
        ("a short MTU", Config { mtu: 1499, ..good }),
        ("a long MTU", Config { mtu: 9001, ..good }),
        ("a group's address", Config { mac: [1, 0, 0, 0, 0, 1], ..good }),
        ("no queue", Config { queue: 0, ..good }),
        ("no reassembly", Config { reassembly: 0, ..good }),
        ("no pause between Hellos", Config { hello_ns: 999, ..good }),
        ("late acknowledgements", Config { ack_delay_ns: good.rto_min_ns, ..good }),
        ("no range of time-outs", Config { rto_max_ns: good.rto_min_ns - 1, ..good }),
        ("no pause between heartbeats", Config { heartbeat_ns: 1, ..good }),
        ("dead before a heartbeat", Config { dead_after_ns: good.heartbeat_ns, ..good }),
    ] {
        assert!(catch_unwind(|| Fabric::new(bad, 0)).is_err(), "{what}");
    }
}

#[test]
fn only_what_can_be_a_member_is_a_candidate() {
    let good = Entry {
        mac: mac(1),
        window: 60,
        has_payload: false,
        lead: false,
        incarnation: 5,
        pages: 512,
        cpus: 1,
        mtu: 1500,
    };
    let known = |entry: Entry| {
        let mut fabric = Fabric::new(config(0, 3), 0);
        let header = Header {
            dst: wire::BROADCAST,
            src: entry.mac,
            kind: Kind::Hello,
            from: wire::NO_NODE,
            payload: 0,
            cluster: CLUSTER,
            epoch: 0,
            free_frames: 0,
            masters: 0,
        };
        let mut frame = [0; 200];
        let len = Hello { build: 7, nodes: 3, known: 1, entry }.emit(&header, &mut frame);
        fabric.handle_frame(0, &frame[..len], &mut Inbox::default());
        let heard = std::iter::from_fn(|| fabric.poll_event()).count();
        (heard, fabric.counters().dropped(Drop::Malformed))
    };
    assert_eq!(known(good), (1, 0));
    assert_eq!(known(Entry { mtu: 9000, pages: 1 << 40, ..good }), (1, 0));
    for bad in [
        Entry { mtu: 1499, ..good },
        Entry { mtu: 9001, ..good },
        Entry { pages: 0, ..good },
        Entry { pages: 513, ..good },
        Entry { pages: (1 << 40) + 512, ..good },
        Entry { mac: [3, 0, 0, 0, 0, 1], ..good },
    ] {
        assert_eq!(known(bad), (0, 1), "{bad:?}");
    }
}

#[test]
fn a_peer_is_heard_and_its_distance_known() {
    let mut sim = Sim::cluster(3, FAIR, 2, 9000);
    let (leader, other) = (sim.by_id(0), sim.by_id(1));
    let to = addr::NodeId(1);
    let before = sim.nodes[leader].fabric.rtt_ns(to);
    for id in 0..8 {
        sim.send(leader, to, Channel::Request, id, false).unwrap();
        sim.run(MS);
    }
    let heard = &mut sim.nodes[other].fabric;
    assert_eq!((heard.take_heard(), heard.take_heard()), (Some(addr::NodeId(0)), None));
    assert!(heard.is_alive(to) && heard.is_alive(addr::NodeId(0)));
    assert!(!heard.is_alive(addr::NodeId(2)));
    // There and back, and at most the delay of an acknowledgement.
    let trip = 2 * FAIR.delay_ns;
    let rtt = sim.nodes[leader].fabric.rtt_ns(to).expect("it was measured");
    assert!((trip..=trip + sim.nodes[leader].config.ack_delay_ns).contains(&rtt), "{rtt}");
    assert_eq!((before, sim.nodes[leader].fabric.rtt_ns(addr::NodeId(2))), (None, None));
}

/// What a newcomer hears from a cluster that has formed without it.
#[test]
fn a_cluster_says_why_it_takes_no_more() {
    let newcomer = config(2, 2);
    for (config, reason) in [
        (newcomer, RefuseReason::ClusterFull),
        (Config { build: 8, ..newcomer }, RefuseReason::VersionMismatch { theirs: 7 }),
        (Config { nodes: 3, ..newcomer }, RefuseReason::NodeCountMismatch { theirs: 2 }),
    ] {
        let mut sim = Sim::cluster(4, FAIR, 2, 9000);
        sim.boot(config);
        sim.run(500 * MS);
        let by = sim.nodes[sim.by_id(0)].config.mac;
        assert!(sim.has(2, &Event::Refused { by, reason }), "{:?}", sim.nodes[2].events);
    }
}

/// Page frames that have come back can be lent again, for ever.
#[test]
#[cfg_attr(miri, ignore = "needs more pages than may be lent at once")]
fn pages_come_back() {
    let mut sim = Sim::cluster(5, FAIR, 2, 9000);
    let from = sim.by_id(0);
    for id in 0..1500 {
        sim.send(from, addr::NodeId(1), Channel::Response, id, true).unwrap();
        sim.run(MS);
    }
    assert!(sim.nodes[from].lent.is_empty());
}

#[test]
fn an_answer_to_no_probe_is_stale() {
    let mut sim = Sim::cluster(6, FAIR, 2, 9000);
    let (leader, other) = (sim.by_id(0), sim.by_id(1));
    let header = Header {
        dst: sim.nodes[leader].config.mac,
        src: sim.nodes[other].config.mac,
        kind: Kind::ProbeReply,
        from: 1,
        payload: 0,
        cluster: CLUSTER,
        epoch: sim.nodes[leader].fabric.membership().unwrap().epoch,
        free_frames: 0,
        masters: 0,
    };
    for (n, token) in [0, 999].into_iter().enumerate() {
        let reply = ProbeReply { token, total: 0, offset: 0, payload: Payload::Apart(0) };
        let mut frame = [0; 200];
        let len = reply.emit(&header, &mut frame);
        let node = &mut sim.nodes[leader];
        node.fabric.handle_frame(sim.now, &frame[..len], &mut node.inbox);
        assert_eq!(node.fabric.counters().dropped(Drop::Stale), n as u64 + 1);
        assert_eq!(node.fabric.poll_event(), None);
    }
}

/// In fair weather a node that stops the cluster tells each peer once.
#[test]
fn who_has_heard_of_the_stop_is_not_told_again() {
    let mut sim = Sim::cluster(7, FAIR, 3, 9000);
    let now = sim.now;
    sim.nodes[0].fabric.stop(now, StopReason::PowerOff);
    sim.drain(0);
    sim.until(5_000 * MS, |s| s.has(0, &Event::StopDone));
    assert_eq!((sim.sent["stop"], sim.sent["stop-ack"]), (2, 2));
}

/// What is counted is what went and came, and each once.
#[test]
fn traffic_is_counted() {
    for mtu in [1500, 9000] {
        let mut sim = Sim::cluster(8, FAIR, 2, mtu);
        let (from, to) = (sim.by_id(0), sim.by_id(1));
        for (id, channel) in [Channel::Request, Channel::Forward, Channel::Response]
            .into_iter()
            .flat_map(|channel| [channel; 3])
            .enumerate()
        {
            let id = id as u64 * 2 + 1; // none of them is patient
            sim.send(from, addr::NodeId(1), channel, id, id.is_multiple_of(3)).unwrap();
            sim.run(10 * MS);
        }
        let [sent, came] = [from, to].map(|n| sim.nodes[n].fabric.counters().clone());
        assert_eq!((sent.messages_out, sent.pages_out, sent.acks_in), ([3; 3], 3, 9));
        assert_eq!((came.messages_in, came.pages_in, came.duplicates), ([3; 3], 3, 0));
        for kind in [Kind::Hello, Kind::Propose, Kind::Commit, Kind::Data, Kind::Heartbeat] {
            let all = |n: &common::Node| n.fabric.counters().frames_out[kind.index()];
            let name = format!("{kind:?}").to_lowercase();
            assert_eq!(sim.nodes.iter().map(all).sum::<u64>(), sim.sent[name.as_str()], "{kind:?}");
            assert_eq!(came.frames_in[kind.index()], sent.frames_out[kind.index()], "{kind:?}");
        }
    }
}
