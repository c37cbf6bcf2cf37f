//! Nodes of a formed cluster: what they have to send, when they want to be
//! called, what they measure and whom they keep waiting.
#![cfg(not(miri))] // Whole nodes over virtual time: too long for an interpreter.

mod common;
use addr::{Access, Frame, Gfn};
use coherence::Progress;
use common::{FAR, FRAMES, Host, MS, World, tsc};
use fabric::Desk;
use machine::GuestMemory;
use node::{Clock, Cluster, Fatal, Node};

fn is_ready(world: &mut World, n: usize, gfn: Gfn, access: Access) -> bool {
    let host = &world.hosts[n];
    host.node.cluster.as_ref().unwrap().coherence().is_ready(&host.memory, gfn, access)
}

fn ask(world: &mut World, n: usize, gfn: Gfn, access: Access) -> Progress {
    let host = &mut world.hosts[n];
    host.node.cluster.as_mut().unwrap().access(&mut host.memory, gfn, access, 0)
}

/// A page that a node waits for is kept until it has been used, but not for ever.
#[test]
fn a_page_is_kept_for_a_while() {
    let mut world = World::new(2);
    let held = |world: &mut World| {
        world.touch(1, FAR, Access::Write);
        world.pass(MS);
        assert_eq!(ask(world, 0, FAR, Access::Write), Progress::Pending);
        world.exchange();
        assert_eq!(ask(world, 0, FAR, Access::Write), Progress::Ready);
        (0..3).for_each(|_| world.pass(MS)); // its Done as well
        assert_eq!(ask(world, 1, FAR, Access::Write), Progress::Pending);
        world.exchange();
        assert!(is_ready(world, 0, FAR, Access::Write), "it is kept");
    };
    world.cluster(0).fix_hold_ns(MS);
    held(&mut world);
    // The end of the time gives it up without a further exit.
    let since = tsc();
    while is_ready(&mut world, 0, FAR, Access::Write) {
        let soon = world.hosts[0].node.timeout_ns().expect("a time");
        assert!(soon < since + 3 * MS / 2, "it says when to call it");
        world.pass(MS / 20);
        assert!(tsc() < since + 2 * MS, "it is kept for ever");
    }
    assert!(tsc() > since + MS / 3 && is_ready(&mut world, 1, FAR, Access::Write));
    // So does the vCPU's next try for another page.
    held(&mut world);
    let late = tsc() + 3 * MS;
    let host = &mut world.hosts[0];
    host.node.cluster.as_mut().unwrap().still_waiting(&mut host.memory, late);
    world.exchange();
    assert!(is_ready(&mut world, 1, FAR, Access::Write));
    // Or the end of the instruction.
    held(&mut world);
    let host = &mut world.hosts[0];
    host.node.cluster.as_mut().unwrap().release_held(&mut host.memory);
    world.exchange();
    assert!(is_ready(&mut world, 1, FAR, Access::Write));
}

/// Translations are dropped once for each loss of a right.
#[test]
fn a_loss_owes_a_flush_once() {
    let mut world = World::new(2);
    world.touch(0, FAR, Access::Write);
    world.cluster(0).take_flush();
    assert!(!world.cluster(0).take_flush());
    world.touch(1, FAR, Access::Write);
    assert!(world.cluster(0).take_flush());
    assert!(!world.cluster(0).take_flush());
}

/// Pages fetched ahead come, at their distance, and what a node serves is timed.
#[test]
fn pages_fetched_ahead_come() {
    let mut world = World::new(2);
    (0..8).for_each(|i| world.touch(1, FAR.offset_by(i), Access::Write));
    let served = |world: &World| world.hosts[1].node.stages.serve.count();
    let before = served(&world);
    let host = &mut world.hosts[0];
    let cluster = host.node.cluster.as_mut().unwrap();
    cluster.prefetch(&mut host.memory, FAR, 2, 3, Access::Read);
    world.exchange();
    for i in 0..7 {
        let here = is_ready(&mut world, 0, FAR.offset_by(i), Access::Read);
        assert_eq!(here, i % 2 == 0 && i < 6, "{i}");
    }
    // Of those asked for in one frame the first.
    assert_eq!(served(&world), before + 1);
    assert!((1..MS).contains(&world.hosts[1].node.stages.serve.summary().p99));
}

/// The ends of a run's transactions travel together, and all of them end.
#[test]
fn a_run_ends_in_few_messages() {
    const RUN: u16 = 16;
    let mut world = World::new(2);
    (0..u64::from(RUN)).for_each(|i| world.touch(1, FAR.offset_by(i), Access::Write));
    let responses = |world: &World| {
        let counters = world.hosts[0].node.fabric().counters();
        counters.messages_out[fabric::Channel::Response.index()]
    };
    let before = responses(&world);
    let host = &mut world.hosts[0];
    let cluster = host.node.cluster.as_mut().unwrap();
    cluster.prefetch(&mut host.memory, FAR, 1, RUN, Access::Write);
    world.exchange();
    (0..2).for_each(|_| world.pass(MS));
    assert_eq!(responses(&world), before + 1);
    for i in 0..u64::from(RUN) {
        assert!(is_ready(&mut world, 0, FAR.offset_by(i), Access::Write), "{i}");
    }
    for n in [0, 1] {
        assert!(world.cluster(n).coherence().is_quiet());
        assert_eq!(world.cluster(n).fatal(), None);
    }
}

/// The end of a transaction travels in the request for the next page, whether that is
/// foreseen by the home or not; that of the last leaves when it has waited.
#[test]
fn an_end_travels_in_the_next_request() {
    const PAGES: u64 = 8;
    let mut world = World::new(2);
    (0..PAGES).for_each(|i| world.touch(1, FAR.offset_by(i), Access::Write));
    (0..2).for_each(|_| world.pass(MS));
    let messages = |world: &World| {
        let counters = world.hosts[0].node.fabric().counters();
        [fabric::Channel::Request, fabric::Channel::Response]
            .map(|channel| counters.messages_out[channel.index()])
    };
    let open = |world: &mut World| {
        let pages = (0..PAGES).map(|i| FAR.offset_by(i));
        let Host { node, memory, .. } = &world.hosts[1];
        let coherence = node.cluster.as_ref().unwrap().coherence();
        let index = |gfn| coherence.layout().home(gfn).unwrap().1;
        pages.filter(|&gfn| coherence.directory().get(memory, index(gfn)).busy).count()
    };
    let ([requests, responses], foreseen) = (messages(&world), world.foreseen);
    for i in 0..PAGES {
        assert_eq!(ask(&mut world, 0, FAR.offset_by(i), Access::Read), Progress::Pending);
        world.exchange();
        assert!(is_ready(&mut world, 0, FAR.offset_by(i), Access::Read), "{i}");
        let host = &mut world.hosts[1];
        host.node.tick(tsc(), &mut host.memory);
        assert_eq!(open(&mut world), 1, "the last one alone");
    }
    assert_eq!(messages(&world), [requests + PAGES, responses]);
    assert_eq!(world.foreseen, foreseen + PAGES);
    (0..3).for_each(|_| world.pass(MS));
    assert_eq!(messages(&world), [requests + PAGES, responses + 1]);
    assert_eq!(open(&mut world), 0);
    for n in [0, 1] {
        assert!(world.cluster(n).coherence().is_quiet());
        assert_eq!(world.cluster(n).fatal(), None);
    }
}

/// More ends than a node ever sends at once are no message.
#[test]
fn a_message_that_ends_too_much_stops_a_node() {
    let mut world = World::new(2);
    let to = addr::NodeId(0);
    let done = coherence::Message::new(coherence::Kind::Done, FAR, to);
    let body = coherence::Message { count: 33, ..done }.to_bytes();
    let channel = fabric::Channel::Response;
    let bad = fabric::Outgoing { to, channel, body, page: None, patient: false };
    world.hosts[1].node.fabric_mut().send(tsc(), &bad).unwrap();
    world.exchange();
    assert_eq!(world.cluster(0).fatal(), Some(node::Fatal::Unreadable(addr::NodeId(1))));
}

/// A node that takes more than it has frames for moves pages to the other.
#[test]
fn what_does_not_fit_moves_and_is_timed() {
    let mut world = World::new(2);
    (0..1024).for_each(|gfn| world.put(Gfn(gfn).start(), &[gfn as u8 | 1]));
    (0..20).for_each(|_| world.pass(MS));
    let evicted = world.cluster(0).coherence().counters().evicted;
    assert!(world.cluster(1).coherence().counters().adopted > 0 && evicted > 100, "{evicted}");
    let times = world.hosts[0].node.stages.evict.summary();
    assert!((1..=evicted).contains(&times.count), "{times:?}");
    assert!((100..100 * MS).contains(&times.min), "{times:?}");
    for gfn in 0..1024 {
        world.touch(0, Gfn(gfn), Access::Read);
        let mut byte = [0];
        world.view(0).read(Gfn(gfn).start(), &mut byte).expect("it is here");
        assert_eq!(byte[0], gfn as u8 | 1, "{gfn}");
    }
    assert!(world.hosts.iter().all(|h| h.node.cluster.as_ref().unwrap().fatal().is_none()));
}

/// Before it has formed a node takes no message for done, and gives back the
/// page frame that the link lent it.
#[test]
fn a_frame_of_the_link_stays_the_links() {
    let mut world = World::new(2);
    let landing = Frame(FRAMES + 1);
    let mut young = Node::new(
        fabric::Config::new([2, 0, 0, 0, 0, 9], 1, 1, 9, 2),
        Clock::new(common::HZ),
        tsc(),
    );
    assert_eq!(young.landed(tsc(), &[0; 64], landing, &mut world.hosts[0].memory), landing);
    let host = &mut world.hosts[0];
    assert_eq!(host.node.landed(tsc(), &[0; 64], landing, &mut host.memory), landing);
}

/// Where nothing waits, a node is called when its fabric wants it.
#[test]
fn an_idle_node_is_called_for_its_fabric() {
    let world = World::new(2);
    let fabric = |world: &World, n: usize| world.hosts[n].node.fabric().poll_timeout();
    for n in [0, 1] {
        assert_eq!(world.hosts[n].node.timeout_ns(), fabric(&world, n));
        assert!(fabric(&world, n).is_some_and(|at| at > 1));
    }
}

/// A message that is none ends the cluster and says whose it was.
#[test]
fn what_cannot_be_read_stops_a_node() {
    let mut world = World::new(2);
    let (to, channel) = (addr::NodeId(0), fabric::Channel::Request);
    let bad = fabric::Outgoing { to, channel, body: [0xEE; 32], page: None, patient: false };
    world.hosts[1].node.fabric_mut().send(tsc(), &bad).unwrap();
    assert_eq!(world.cluster(0).fatal(), None);
    world.exchange();
    assert_eq!(world.cluster(0).fatal(), Some(node::Fatal::Unreadable(addr::NodeId(1))));
}

/// What comes before a node has its part in the cluster comes again.
#[test]
fn a_message_that_comes_too_early_is_not_lost() {
    let mut world = World::new(2);
    let cluster = world.hosts[1].node.cluster.take();
    assert_eq!(ask(&mut world, 0, FAR, Access::Read), Progress::Pending);
    world.exchange();
    world.pass(MS);
    world.hosts[1].node.cluster = cluster;
    world.touch(0, FAR, Access::Read);
}

/// What has left is sent, or the node stops; what the device did not take leaves
/// as usual.
#[test]
fn what_was_foreseen_is_done() {
    for (taken, fatal) in [(true, None), (false, None), (true, Some(Fatal::Unforeseen))] {
        let mut world = World::new(2);
        world.touch(1, FAR, Access::Write);
        world.pass(MS);
        let Host { node, memory, .. } = &mut world.hosts[0];
        let cluster = node.cluster.as_mut().expect("it has formed");
        cluster.access(memory, FAR, Access::Read, 0);
        world.collect(0);
        let (to, bytes) = world.flying.pop_front().expect("a request");
        let mut header = [0; 600];
        let Host { node, memory, .. } = &mut world.hosts[to];
        let mut desk = Desk { header: &mut header, laid: None };
        let t = node.foresee(tsc(), &bytes, memory, &mut desk).expect("a plain request");
        assert!(t.page.is_some() && node.fabric().has_foreseen());
        assert_eq!(node.foresee(tsc(), &bytes, memory, &mut desk), None, "one at a time");
        match taken {
            true => node.foresaw(tsc(), true),
            false => node.unforesee(),
        }
        let served = node.stages.serve.count();
        assert_eq!(served, u64::from(taken));
        // Another frame comes in between, which must not be.
        let come = if fatal.is_some() { vec![0; 64] } else { bytes };
        node.frame(tsc(), &come, memory);
        assert_eq!(node.cluster.as_ref().and_then(Cluster::fatal), fatal);
        if fatal.is_none() {
            // It is sent once: now, if it has not left.
            world.collect(to);
            assert_eq!(world.flying.len(), usize::from(!taken));
            assert_eq!(world.hosts[to].node.stages.serve.count(), 1);
        }
    }
}
