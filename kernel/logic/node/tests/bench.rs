//! Hypercalls of benchmark guests, from the exit to the result in RAX.
#![cfg(not(miri))] // Instructions are decoded.

mod common;
use addr::{Access, Gfn};
use common::{CODE, FRAMES, HZ, MS, World};
use node::bench::ERROR;
use node::{End, Step};
use vcpu::{Exit, RAX};

const NONE: [u64; 3] = [0; 3];

#[test]
fn what_is_asked_is_told() {
    let mut world = World::with_guest(3);
    assert_eq!(world.call(1, NONE), 3);
    assert_eq!(world.call(9, NONE), HZ);
    let free = world.cluster(0).coherence().free_frames();
    assert!(free < FRAMES);
    assert_eq!(world.call(10, NONE), free);
    for (gfn, home) in [(0, 0), (511, 0), (512, 1), (1024, 2), (1535, 2), (1536, ERROR)] {
        assert_eq!(world.call(11, [gfn, 0, 0]), home, "{gfn}");
    }
    // The first touch gives a whole run: it comes apart when one page gets a frame.
    assert_eq!(world.call(14, [600, 0, 0]), 0);
    world.touch(0, Gfn(600), Access::Read);
    let host = &world.hosts[0];
    let large = host.node.cluster.as_ref().unwrap().coherence().is_large(&host.memory, Gfn(600));
    assert_eq!(world.call(14, [600, 0, 0]), u64::from(large));
    assert_eq!(world.call(14, [1 << 40, 0, 0]), ERROR);
    assert_eq!(world.call(0, NONE), ERROR);
    assert_eq!(world.call(99, NONE), ERROR);
}

/// Another node takes pages on the guest's word, for writing or for reading.
#[test]
fn another_node_takes_what_it_is_told_to() {
    let mut world = World::with_guest(2);
    let taken = |world: &mut World| {
        while world.call(4, NONE) != 0 {
            world.pass(MS);
        }
    };
    // Pages of the leader, with data in them.
    (0..100).for_each(|i| world.put(Gfn(100 + i).start(), &[7]));
    assert_eq!(world.call(2, [100, 100, 1]), 0);
    assert_eq!((world.call(4, NONE), world.call(2, [100, 1, 1])), (1, ERROR), "one at a time");
    taken(&mut world);
    let ready = |world: &World, n: usize, gfn, access| {
        let host = &world.hosts[n];
        host.node.cluster.as_ref().unwrap().coherence().is_ready(&host.memory, Gfn(gfn), access)
    };
    for gfn in 100..200 {
        assert!(ready(&world, 1, gfn, Access::Write) && !ready(&world, 0, gfn, Access::Read));
    }
    assert!(!ready(&world, 1, 99, Access::Read) && !ready(&world, 1, 200, Access::Read));
    world.put(Gfn(300).start(), &[7]);
    assert_eq!(world.call(3, [300, 1, 1]), 0);
    taken(&mut world);
    assert!(ready(&world, 1, 300, Access::Read) && ready(&world, 0, 300, Access::Read));
    assert!(!ready(&world, 1, 300, Access::Write));
    // Beyond the guest's memory there is nothing to take.
    assert_eq!(world.call(2, [1020, 100, 1]), 0);
    taken(&mut world);
    assert!(ready(&world, 1, 1023, Access::Write));
    let bad = [[0, 1, 0], [0, 1, 2], [0, 1, 1 << 20], [0, 1 << 32, 1]];
    for operands in bad {
        assert_eq!(world.call(2, operands), ERROR, "{operands:?}");
    }
    assert!(world.hosts.iter().all(|h| h.node.cluster.as_ref().unwrap().fatal().is_none()));
}

/// Round trips one by one, and a stream of them with sixteen on their way.
#[test]
fn round_trips_are_timed() {
    let mut world = World::with_guest(2);
    world.hosts[1].node.fabric_mut().set_probe_page(Some(addr::Frame(FRAMES + 1)));
    let replies = |world: &World| {
        let is = |e: &&fabric::Event| matches!(e, fabric::Event::ProbeReply { .. });
        world.hosts[0].events.iter().filter(is).count()
    };
    for (number, count) in [(5, 1), (5, 7), (6, 40)] {
        let before = replies(&world);
        let took = world.call(number, [64, count, 1]);
        assert_eq!((replies(&world) - before) as u64, count);
        // Each trip is two frames of a microsecond and some looks at the clock.
        assert!((2_000..100 * MS).contains(&took), "{took}");
    }
    // So many, and no more, are on their way at once.
    for (number, window) in [(5, 1), (6, 16)] {
        world.vcpu.registers.rip = CODE.0;
        world.vcpu.registers.gpr[RAX] = number;
        (world.vcpu.registers.gpr[1], world.vcpu.registers.gpr[2]) = (100, 1);
        assert_eq!(world.exit(Exit::Hypercall), Step::Blocked);
        assert_eq!(world.step(), Step::Blocked);
        world.collect(0);
        let probes = |world: &World| {
            let kind = |bytes: &[u8]| wire::Packet::parse(bytes).unwrap().header.kind;
            world.flying.iter().filter(|(_, bytes)| kind(bytes) == wire::Kind::Probe).count()
        };
        assert_eq!(probes(&world), window);
        world.settle();
    }
    let page = addr::PAGE_SIZE as u64;
    assert!(world.call(5, [page, 1, 1]) < 100 * MS);
    let bad = [[page + 1, 1, 1], [64, 0, 1], [64, 1, 0], [64, 1, 2], [1 << 16, 1, 1]];
    for operands in bad {
        assert_eq!(world.call(5, operands), ERROR, "{operands:?}");
    }
}

/// A lost probe is not sent again: the measurement ends in time.
#[test]
fn a_lost_probe_ends_the_measurement() {
    let mut world = World::with_guest(2);
    world.vcpu.registers.rip = CODE.0;
    world.vcpu.registers.gpr[..4].copy_from_slice(&[5, 3, 1, 64]);
    assert_eq!(world.exit(Exit::Hypercall), Step::Blocked);
    world.connected = false;
    assert_eq!(world.step(), Step::Blocked);
    world.exchange();
    world.connected = true;
    let mut waited = 0;
    while world.step() == Step::Blocked {
        waited += 100;
        world.pass(100 * MS);
        assert!(waited < 3_000, "it waits for ever");
    }
    assert!(waited >= 2_000, "{waited}");
    assert_eq!(world.vcpu.registers.gpr[RAX], ERROR);
}

/// Made read-only and told to nobody: the next write is answered on the spot.
#[test]
fn a_protected_page_faults_and_is_here() {
    let mut world = World::with_guest(2);
    world.put(Gfn(5).start(), &[1]);
    assert_eq!((world.call(7, [5, 0, 0]), world.call(7, [5, 0, 0])), (1, 0));
    assert_eq!(world.call(7, [1024, 0, 0]), ERROR);
    let before = world.hosts[0].node.stages.faults[0].count();
    let fault =
        Exit::PageFault { gpa: Gfn(5).start(), access: Access::Write, fetch: false, walk: false };
    assert_eq!(world.exit(fault), Step::Ran);
    world.settle();
    assert_eq!(world.hosts[0].node.stages.faults[0].count(), before + 1);
    assert_eq!(world.call(8, NONE), 0);
    assert_eq!(world.hosts[0].node.stages.faults[0].count(), 0);
}

/// Every node prints and clears its measurements once for each mark, and only
/// so many in its life.
#[test]
fn a_mark_is_printed_by_every_node() {
    let mut world = World::with_guest(3);
    let marks = |world: &World| [0, 1, 2].map(|n| world.hosts[n].node.mark());
    for tag in 1..=64 {
        assert_eq!(marks(&world), [None; 3]);
        world.hosts.iter_mut().for_each(|h| h.node.stages.serve.record(1));
        assert_eq!(world.call(12, [tag, 0, 0]), 0, "{tag}");
        world.pass(MS);
        assert_eq!((marks(&world), world.call(4, NONE)), ([Some(tag); 3], 2));
        // The leader comes last or first.
        let order = if tag % 2 == 0 { [1, 2, 0] } else { [0, 1, 2] };
        for (i, n) in order.into_iter().enumerate() {
            assert_eq!(world.call(12, [99, 0, 0]), ERROR, "one at a time");
            world.hosts[n].node.marked();
            world.pass(MS);
            let others = order[i + 1..].iter().filter(|&&n| n != 0).count();
            assert_eq!((world.hosts[n].node.mark(), world.call(4, NONE)), (None, others as u64));
            assert_eq!(world.hosts[n].node.stages.serve.count(), 0);
        }
    }
    assert_eq!(world.call(12, [99, 0, 0]), ERROR);
    assert_eq!(world.exit(Exit::Shutdown), Step::Ended(End::Dead(machine::Death::TripleFault)));
}
