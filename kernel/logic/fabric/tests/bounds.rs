//! What is refused before it does harm, and what a node says of its peers.

mod common;
use common::{CLUSTER, FAIR, Inbox, MS, Sim, config, mac};
use fabric::{Channel, Config, Drop, Fabric};
use std::panic::catch_unwind;
use wire::{Entry, Header, Hello, Kind};

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
