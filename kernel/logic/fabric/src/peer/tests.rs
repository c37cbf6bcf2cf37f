use super::*;
use crate::Fabric;
use wire::{Accept, Entry, Hello};

fn config(nodes: u16, mtu: u16) -> Config {
    Config { mtu, ..Config::new([2, 0, 0, 0, 0, 0], 1, 1, 1, nodes) }
}

/// Those of the leader of a new cluster.
fn links(config: Config) -> Links {
    let Config { nodes, mtu, .. } = config;
    let mut fabric = Fabric::new(config, 0);
    let others = (1..nodes).map(|n| [2, 0, 0, 0, (n >> 8) as u8, n as u8]);
    let entry = |mac| Entry {
        mac,
        window: 4,
        has_payload: false,
        lead: false,
        incarnation: 1,
        pages: 512,
        cpus: 1,
        mtu,
    };
    for mac in others.clone() {
        let hello = Hello { build: 1, nodes, known: 1, entry: entry(mac) };
        fabric.forming.hello(&mut fabric.io, &hello).unwrap();
    }
    let epoch = fabric.forming.epoch;
    for mac in others {
        fabric.forming.accept(mac, epoch, &Accept { incarnation: 1 }).unwrap();
    }
    if nodes > 1 {
        fabric.form();
    }
    fabric.links.unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "needs the nodes of a large cluster")]
fn nodes_watch_each_other() {
    for nodes in [2, 32, 33, 40] {
        let config = config(nodes, 1500);
        let mut links = links(config);
        let watched = |me| super::watched(&config, me);
        for (me, other) in (0..nodes).flat_map(|n| (0..n).map(move |m| (n, m))) {
            let watches = watched(me).contains(&other);
            assert_eq!(watched(other).contains(&me), watches);
            for (me, other) in [(me, other), (other, me)] {
                (links.me, links.watched) = (me, watched(me));
                assert_eq!(links.watches(other), watches, "{me} {other}");
            }
        }
    }
}

#[test]
fn memory_for_pages_in_parts_is_taken_where_they_come() {
    let pool = |nodes, mtu| links(config(nodes, mtu)).pool;
    assert_eq!((pool(1, 1500), pool(2, 9000)), (Pool::new(0), Pool::new(0)));
    assert_eq!(pool(2, 1500), Pool::new(config(2, 1500).reassembly));
}
