//! The production crate step by step: what a node says is under way, what it
//! refuses, and orders that chance seldom makes.

mod common;
use addr::{Access, Gfn, NodeId};
use coherence::{Kind, Message, Progress};
use common::{Cluster, value_of};
use paging::{HostMemory, PageState};

/// Only a home that lies could ask that; it must not panic an honest owner.
#[test]
fn a_page_asked_for_by_its_owner_itself_is_a_violation() {
    for kind in [Kind::ForwardShared, Kind::ForwardExclusive, Kind::PutTo] {
        // Page 0 of node 1's part, owned by node 0 with data in it.
        let mut cluster = Cluster::new(2, 60, &[1024 + 100]);
        while !cluster.access(0, 0, Access::Write, 0) {
            (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
        }
        let forward = Message { txn: 1, ..Message::new(kind, Gfn(1024 + 100), NodeId(0)) };
        let answer = cluster.with(0, |c, env| {
            c.release_held(env).expect("nothing waits");
            c.handle(env, NodeId(1), forward, None)
        });
        assert!(answer.is_err_and(|v| v.why.contains("to itself")), "{kind:?}");
    }
}

/// What the engine around asks a node about: which pages are in doubt, who
/// waits, and where the frames are.
#[test]
fn what_is_under_way_shows() {
    let gfn = Gfn(1024 + 100);
    let mut cluster = Cluster::new(2, 60, &[gfn.0]);
    let ask = |cluster: &mut Cluster, node: usize| {
        cluster.with(node, |c, env| c.access(env, gfn, Access::Write, 0)).unwrap()
    };
    // (open, idle, quiet, keeps others waiting, frames in transactions)
    let doubt = |cluster: &Cluster, node: usize| {
        let c = &cluster.nodes[node].0;
        assert!(c.is_idle(gfn.offset_by(1)) && !c.is_open(gfn.offset_by(1)));
        let open = (c.is_open(gfn), c.is_idle(gfn), c.is_quiet());
        (open, c.keeps_others_waiting(), c.frames_in_transactions())
    };
    const NOTHING: (bool, bool, bool) = (false, true, true);
    const OPEN: (bool, bool, bool) = (true, false, false);
    const WAITS: (bool, bool, bool) = (false, false, false);
    assert_eq!(
        (doubt(&cluster, 0), doubt(&cluster, 1)),
        ((NOTHING, false, 0), (NOTHING, false, 0))
    );
    assert_eq!(cluster.nodes[0].0.home(gfn), Some(NodeId(1)));
    assert_eq!(cluster.nodes[0].0.home(Gfn(2048)), None);

    // A first touch, answered with a run of zero pages.
    assert_eq!(ask(&mut cluster, 0), Progress::Pending);
    assert_eq!((doubt(&cluster, 0), doubt(&cluster, 1)), ((OPEN, false, 1), (NOTHING, false, 0)));
    (0..2).for_each(|_| cluster.deliver(0));
    assert_eq!(ask(&mut cluster, 0), Progress::Ready);
    assert_eq!(doubt(&cluster, 0), (NOTHING, false, 0));

    // The home wants it while its owner still needs it.
    assert_eq!(ask(&mut cluster, 1), Progress::Pending);
    assert_eq!(doubt(&cluster, 1), (OPEN, false, 1));
    cluster.deliver(0);
    assert_eq!((doubt(&cluster, 0), doubt(&cluster, 1)), ((WAITS, true, 0), (OPEN, false, 1)));
    cluster.with(0, |c, env| c.release_held(env)).unwrap();
    assert_eq!(doubt(&cluster, 0), (NOTHING, false, 1), "its frame is on the way");
    cluster.deliver(0);
    let (node, frame) = cluster.releases.pop().unwrap();
    cluster.nodes[node].0.released(frame);
    assert_eq!(
        (doubt(&cluster, 0), doubt(&cluster, 1)),
        ((NOTHING, false, 0), (NOTHING, false, 0))
    );

    // And is rid of it again, once it may go.
    let (c, memory) = &mut cluster.nodes[1];
    let frame = c.look(memory, gfn, Access::Write).unwrap().unwrap();
    memory.write_entry(frame, 3, 7);
    let evict = |cluster: &mut Cluster| cluster.with(1, |c, env| c.evict(env, gfn, true)).unwrap();
    assert!(!evict(&mut cluster), "the vCPU needs it");
    assert_eq!((cluster.nodes[1].0.puts_open(), cluster.nodes[1].0.take_started_put()), (0, None));
    cluster.with(1, |c, env| c.release_held(env)).unwrap();
    assert!(evict(&mut cluster));
    assert_eq!((doubt(&cluster, 0), doubt(&cluster, 1)), ((NOTHING, false, 0), (OPEN, false, 1)));
    let c = &mut cluster.nodes[1].0;
    assert_eq!((c.puts_open(), c.take_started_put()), (1, Some(gfn)));
    assert_eq!(c.take_started_put(), None);
    (0..2).for_each(|_| cluster.deliver(0));
    assert_eq!(cluster.nodes[1].0.puts_open(), 0);
    assert_eq!(doubt(&cluster, 1), (NOTHING, false, 1), "its frame is on the way");
    let counters = |node: usize| *cluster.nodes[node].0.counters();
    assert_eq!((counters(1).evicted, counters(1).pages_out, counters(0).adopted), (1, 0, 1));
    assert_eq!((counters(0).deferred, counters(0).pages_out, counters(1).pages_in), (1, 1, 1));
    let (c, memory) = &cluster.nodes[0];
    assert_eq!(value_of(memory, c.look(memory, gfn, Access::Write).unwrap()), 7);
}

/// A home that has a copy itself drops it and grants, in one message; only a
/// copy that its vCPU still needs costs a second one, when it may go.
#[test]
fn a_home_drops_its_own_copy_without_a_word() {
    let gfn = Gfn(1024 + 100);
    for kept in [false, true] {
        let mut cluster = Cluster::new(2, 60, &[gfn.0]);
        while !cluster.access(0, 0, Access::Write, 0) {
            (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
        }
        // The home reads it: both have it now.
        let ask = |cluster: &mut Cluster, node, access| {
            cluster.with(node, |c, env| c.access(env, gfn, access, 0)).unwrap()
        };
        while ask(&mut cluster, 1, Access::Read) == Progress::Pending {
            (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
        }
        if !kept {
            cluster.with(1, |c, env| c.release_held(env)).unwrap();
        }
        assert_eq!(ask(&mut cluster, 0, Access::Write), Progress::Pending);
        cluster.deliver(0);
        let said = |cluster: &Cluster| {
            let said = cluster.flying.iter().map(|f| (f.message.kind, f.message.count));
            said.collect::<Vec<_>>()
        };
        let state = |cluster: &Cluster| {
            let (c, memory) = &cluster.nodes[1];
            c.entry(memory, gfn).state
        };
        if kept {
            assert_eq!(
                (said(&cluster), state(&cluster)),
                (vec![(Kind::Grant, 1)], PageState::Shared)
            );
            cluster.deliver(0);
            assert_eq!(ask(&mut cluster, 0, Access::Write), Progress::Pending);
            cluster.with(1, |c, env| c.release_held(env)).unwrap();
            assert_eq!(said(&cluster), [(Kind::InvalidateAck, 0)]);
        } else {
            assert_eq!(said(&cluster), [(Kind::Grant, 0)]);
        }
        assert_eq!(state(&cluster), PageState::Invalid);
        cluster.deliver(0);
        assert_eq!(ask(&mut cluster, 0, Access::Write), Progress::Ready);
        assert_eq!(cluster.nodes[1].0.counters().invalidated, 1);
    }
}

/// A home keeps room for as many requests as every node may have open.
#[test]
fn so_many_evictions_and_no_more_are_open() {
    let pages: Vec<u64> = (0..5).map(|i| 1024 + 100 * i).collect();
    let mut cluster = Cluster::new(2, 60, &pages);
    for which in 0..pages.len() {
        while !cluster.access(0, which, Access::Write, 0) {
            (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
        }
    }
    for (i, &gfn) in pages.iter().enumerate() {
        let goes = cluster.with(0, |c, env| c.evict(env, Gfn(gfn), true)).unwrap();
        assert_eq!((goes, cluster.nodes[0].0.puts_open()), (i < 4, (i + 1).min(4)));
    }
    cluster.drain();
    assert_eq!(cluster.nodes[0].0.counters().evicted, 4);
    cluster.check();
}

/// What only a home that lies, or one that has lost count, could send.
#[test]
fn answers_that_cannot_be_are_violations() {
    let gfn = Gfn(1024 + 100);
    let grant =
        |count, lead| Message { count, lead, ..Message::new(Kind::ZeroGrant, gfn, NodeId(0)) };
    let plain = |kind| Message::new(kind, gfn, NodeId(0));
    let asked = || {
        let mut cluster = Cluster::new(2, 60, &[gfn.0]);
        assert!(!cluster.access(0, 0, Access::Write, 0));
        cluster
    };
    let tell = |cluster: &mut Cluster, node: usize, from: u16, message| {
        cluster.with(node, |c, env| c.handle(env, NodeId(from), message, None)).map_err(|v| v.why)
    };
    for bad in [grant(0, 0), grant(513, 0), grant(3, 3), grant(2, 101)] {
        assert!(tell(&mut asked(), 0, 1, bad).is_err_and(|why| why.contains("cover")), "{bad:?}");
    }
    assert_eq!(tell(&mut asked(), 0, 1, grant(101, 100)), Ok(()));
    // An acknowledgement that the answer did not announce.
    let mut cluster = asked();
    assert_eq!(tell(&mut cluster, 0, 1, plain(Kind::InvalidateAck)), Ok(()));
    assert!(
        tell(&mut cluster, 0, 1, plain(Kind::Grant)).is_err_and(|why| why.contains("announced"))
    );
    // An answer to nobody, and a grant without a copy or a run to come.
    assert!(tell(&mut Cluster::new(2, 60, &[gfn.0]), 0, 1, plain(Kind::Grant)).is_err());
    assert!(tell(&mut asked(), 0, 1, plain(Kind::Grant)).is_err_and(|why| why.contains("copy")));
    // An order to send a page away that has been given up meanwhile.
    let mut cluster = asked();
    assert_eq!(tell(&mut cluster, 0, 1, grant(1, 0)), Ok(()));
    let (c, memory) = &mut cluster.nodes[0];
    let frame = c.look(memory, gfn, Access::Write).unwrap().unwrap();
    memory.write_entry(frame, 3, 7);
    cluster.with(0, |c, env| c.release_held(env)).unwrap();
    assert!(cluster.with(0, |c, env| c.evict(env, gfn, true)).unwrap());
    let to_home = |kind| Message { party: NodeId(1), ..plain(kind) };
    assert_eq!(tell(&mut cluster, 0, 1, to_home(Kind::ForwardExclusive)), Ok(()));
    assert!(
        tell(&mut cluster, 0, 1, to_home(Kind::PutTo)).is_err_and(|why| why.contains("not here"))
    );
    // At home: a run longer than there can be, the end of another transaction.
    let get = |count| Message { count, ..plain(Kind::GetShared) };
    let home = || Cluster::new(2, 60, &[gfn.0]);
    assert_eq!(tell(&mut home(), 1, 0, get(512)), Ok(()));
    assert!(tell(&mut home(), 1, 0, get(513)).is_err_and(|why| why.contains("longer")));
    let mut cluster = home();
    while !cluster.access(1, 0, Access::Write, 0) {}
    tell(&mut cluster, 1, 0, Message { count: 1, ..plain(Kind::GetShared) }).unwrap();
    let forward = cluster.flying.last().map_or(0, |f| f.message.txn);
    let done = |txn| Message { txn, ..plain(Kind::Done) };
    assert!(tell(&mut cluster, 1, 0, done(forward + 1)).is_err_and(|why| why.contains("no such")));
}

/// A coarse sharer set cannot tell whether the replica of a node that writes is
/// good, so the node gets the page anew.
#[test]
fn a_replica_that_nobody_vouches_for_is_replaced() {
    let gfn = Gfn(1024 + 100);
    let mut cluster = Cluster::new(2, 60, &[gfn.0]);
    while !cluster.access(1, 0, Access::Write, 0) {}
    while !cluster.access(0, 0, Access::Read, 0) {
        cluster.drain();
    }
    assert!(!cluster.access(0, 0, Access::Write, 0));
    let data = Message {
        kind: Kind::Data,
        count: 0,
        exclusive: true,
        ..cluster.flying.pop().expect("it asks for the right").message
    };
    let bytes = [7; 4096];
    cluster.with(0, |c, env| c.handle(env, NodeId(1), data, Some(&bytes))).unwrap();
    let (c, memory) = &cluster.nodes[0];
    let frame = c.look(memory, gfn, Access::Write).expect("it may write");
    assert_eq!(value_of(memory, frame), u64::from_le_bytes([7; 8]));
    assert_eq!((c.masters(), c.replicas(), c.frames_in_transactions()), (1, 0, 0));
}

/// A sharer may have dropped its replica without a word. The master must not
/// move past those that have theirs.
#[test]
fn the_next_sharer_is_asked_when_one_has_dropped_its_replica() {
    let gfn = Gfn(3 * 1024 + 100);
    let mut cluster = Cluster::new(4, 60, &[gfn.0]);
    for (node, access) in [(0, Access::Write), (1, Access::Read), (2, Access::Read)] {
        while !cluster.access(node, 0, access, 0) {
            cluster.drain();
        }
    }
    for node in [1, 0] {
        assert!(cluster.with(node, |c, env| c.evict(env, gfn, true)).unwrap());
        cluster.drain();
    }
    let state = |node: usize| cluster.nodes[node].0.entry(&cluster.nodes[node].1, gfn).state;
    assert_eq!(
        [0, 1, 2, 3].map(state),
        [PageState::Invalid, PageState::Invalid, PageState::Owned, PageState::Invalid]
    );
    assert_eq!(cluster.nodes[0].0.counters().promoted, 1);
    cluster.check();
}

/// In a large cluster the set of sharers is coarse: a node that has dropped its
/// replica cannot be told from others and stays in it. Some are asked, each once;
/// then the page moves, and may have replicas for all that the home knows.
#[test]
#[cfg_attr(miri, ignore = "a coarse set needs fifty nodes")]
fn sharers_that_cannot_be_told_apart_are_asked_once() {
    let nodes = 50;
    let (home, gfn) = (nodes - 1, Gfn((nodes as u64 - 1) * 1024 + 100));
    let mut cluster = Cluster::new(nodes, 60, &[gfn.0]);
    let deliver_all = |cluster: &mut Cluster| {
        for _ in 0..40 {
            if !cluster.flying.is_empty() {
                cluster.deliver(0);
            }
        }
        assert!(cluster.flying.is_empty(), "messages never end");
    };
    for node in 0..6 {
        let access = if node == 0 { Access::Write } else { Access::Read };
        while !cluster.access(node, 0, access, 0) {
            deliver_all(&mut cluster);
        }
        deliver_all(&mut cluster);
    }
    for node in (0..6).rev() {
        assert!(cluster.with(node, |c, env| c.evict(env, gfn, true)).unwrap());
    }
    deliver_all(&mut cluster);
    let (c, memory) = &cluster.nodes[home];
    assert_eq!(c.entry(memory, gfn).state, PageState::Owned);
    assert_eq!(cluster.nodes[0].0.counters().evicted, 1);
    cluster.check();
}

/// A request to take a page may come when another node has it long since.
#[test]
fn a_late_eviction_leaves_the_next_owner_alone() {
    let gfn = Gfn(1024 + 100);
    let mut cluster = Cluster::new(3, 60, &[gfn.0]);
    let access = |cluster: &mut Cluster, node, access| {
        while !cluster.access(node, 0, access, 0) {
            cluster.drain();
        }
        cluster.drain();
    };
    access(&mut cluster, 0, Access::Write);
    assert!(cluster.with(0, |c, env| c.evict(env, gfn, true)).unwrap());
    let put = cluster.flying.pop().expect("a word to the home");
    access(&mut cluster, 1, Access::Write);
    access(&mut cluster, 2, Access::Read);
    cluster.flying.push(put);
    cluster.drain();
    cluster.check();
    let state = |node: usize| cluster.nodes[node].0.entry(&cluster.nodes[node].1, gfn).state;
    assert_eq!([0, 1, 2].map(state), [PageState::Invalid, PageState::Owned, PageState::Shared]);
    assert_eq!(cluster.nodes[0].0.puts_open(), 0);
}

/// The home gives a run of zero pages, and then the right to one of them, whose
/// word comes first.
#[test]
fn a_grant_may_overtake_that_of_its_run() {
    let first = Gfn(1024 + 100);
    let [second, third] = [1, 2].map(|i| first.offset_by(i));
    let mut cluster = Cluster::new(2, 60, &[first.0]);
    let ask = |cluster: &mut Cluster, gfn| {
        cluster.with(0, |c, env| c.access(env, gfn, Access::Write, 0)).unwrap()
    };
    assert_eq!(ask(&mut cluster, first), Progress::Pending);
    assert_eq!(ask(&mut cluster, second), Progress::Pending);
    cluster.deliver(0);
    cluster.deliver(0);
    let kinds: Vec<Kind> = cluster.flying.iter().map(|f| f.message.kind).collect();
    let grant = kinds.iter().position(|&k| k == Kind::Grant).expect("a right to the second");
    assert!(kinds.contains(&Kind::ZeroGrant));
    cluster.deliver(grant);
    assert_eq!(ask(&mut cluster, second), Progress::Pending, "the page is yet to come");
    cluster.deliver(0);
    for gfn in [first, second, third] {
        assert_eq!(ask(&mut cluster, gfn), Progress::Ready, "no word is needed: {gfn:?}");
        assert!(!cluster.nodes[0].0.is_open(gfn));
    }
    cluster.with(0, |c, env| c.release_held(env)).unwrap();
    cluster.drain();
    cluster.finish();
}

/// A run of zero pages ends no doubt but that about its own pages.
#[test]
fn a_run_leaves_other_open_pages_open() {
    let gfn = Gfn(1024 + 100);
    let far = gfn.offset_by(300);
    let mut cluster = Cluster::new(2, 60, &[gfn.0]);
    for page in [gfn, far] {
        assert!(!cluster.with(0, |c, env| c.is_ready(env.memory, page, Access::Write)));
        let ask = cluster.with(0, |c, env| c.access(env, page, Access::Write, 0)).unwrap();
        assert_eq!(ask, Progress::Pending);
    }
    let bytes = [7; 4096];
    let plain = |kind, gfn| Message::new(kind, gfn, NodeId(0));
    // One sharer has yet to say that its replica is gone.
    let data = Message { count: 1, exclusive: true, ..plain(Kind::Data, far) };
    let run = Message { count: 2, ..plain(Kind::ZeroGrant, gfn) };
    for (message, page) in [(data, Some(&bytes)), (run, None)] {
        cluster.with(0, |c, env| c.handle(env, NodeId(1), message, page)).unwrap();
    }
    let c = &cluster.nodes[0].0;
    assert_eq!((c.is_open(gfn), c.is_open(far)), (false, true));
}
