//! The guest goes on with a page whose frame is not taken yet.
#![cfg(not(miri))] // Instructions are decoded.

mod common;
use addr::{Access, Frame, Gfn};
use common::{CODE, FAR, FRAMES, MS, World};
use node::{Fatal, Step};
use paging::HostMemory;
use std::collections::VecDeque;
use vcpu::Exit;

/// A page frame of the link's.
const LINK: Frame = Frame(FRAMES + 1);

fn fault(gfn: Gfn, access: Access) -> Exit {
    Exit::PageFault { gpa: gfn.start(), access, fetch: false, walk: false }
}

/// A world whose second node has some pages of the guest's.
fn world() -> World {
    let mut world = World::with_guest(2);
    for i in [0, 100] {
        world.touch(1, FAR.offset_by(i), Access::Write);
    }
    // There is a table of leaves.
    world.touch(0, FAR.offset_by(200), Access::Write);
    (0..2).for_each(|_| world.pass(MS));
    world
}

/// Lets the guest fault on a page, and the frame with that come: its header. The
/// page is in the link's frame, and the guest's next exits are these.
fn page_comes(world: &mut World, gfn: Gfn, access: Access, exits: &[Exit]) -> Vec<u8> {
    assert_eq!(world.exit(fault(gfn, access)), Step::Blocked);
    let frame = answer(world);
    (0..exits.len()).for_each(|i| world.vcpu.exits[i + 1] = Some(exits[i]));
    land(world, &frame)
}

/// The page that comes next; everything else arrives.
fn answer(world: &mut World) -> Vec<u8> {
    for _ in 0..10 {
        (0..2).for_each(|n| world.collect(n));
        let is_page = |(to, bytes): &&(usize, Vec<u8>)| *to == 0 && bytes.len() > 4096;
        if let Some((_, bytes)) = world.flying.iter().find(is_page).cloned() {
            world.flying.retain(|(_, other)| *other != bytes);
            return bytes;
        }
        // The request is taken by the other node alone.
        let mine: VecDeque<_> = std::mem::take(&mut world.flying);
        for (to, bytes) in mine {
            let host = &mut world.hosts[to];
            host.node.frame(common::tsc(), &bytes, &mut host.memory);
        }
    }
    panic!("no page comes")
}

fn land(world: &mut World, frame: &[u8]) -> Vec<u8> {
    let (header, page) = frame.split_at(frame.len() - 4096);
    world.hosts[0].memory.write(LINK, 0, page);
    header.to_vec()
}

fn map(world: &mut World, header: &[u8]) -> bool {
    let Some(access) = world.guest.as_ref().unwrap().awaits() else { return false };
    let host = &mut world.hosts[0];
    host.node.map_early(header, LINK, access, &mut host.memory)
}

/// Takes the frame; the one that the link has in exchange.
fn take(world: &mut World, header: &[u8], page: Frame) -> Frame {
    let host = &mut world.hosts[0];
    host.node.landed(common::tsc(), header, page, &mut host.memory)
}

fn entry(world: &mut World, gfn: Gfn) -> paging::Entry {
    let host = &world.hosts[0];
    host.node.cluster.as_ref().unwrap().coherence().entry(&host.memory, gfn)
}

#[test]
fn the_next_request_leaves_before_the_frame_is_taken() {
    let mut world = world();
    let other = FAR.offset_by(100);
    let header = page_comes(&mut world, FAR, Access::Write, &[fault(other, Access::Write)]);
    assert!(map(&mut world, &header));
    assert_eq!(entry(&mut world, FAR).frame, Some(LINK));
    let before = world.foreseen;
    assert_eq!(world.step(), Step::Blocked);
    assert_eq!((world.foreseen - before, world.hosts[0].node.is_early()), (1, true));
    // What the guest has written meanwhile stays.
    world.hosts[0].memory.write(LINK, 8, &[7]);
    let landed = world.cluster(0).coherence().counters().pages_landed;
    let other_frame = take(&mut world, &header, LINK);
    assert!(!world.hosts[0].node.is_early() && other_frame != LINK);
    assert_eq!(world.cluster(0).coherence().counters().pages_landed - landed, 1);
    world.vcpu.exits[2] = Some(Exit::HostInterrupt);
    world.settle();
    assert!(entry(&mut world, other).writable());
    let mut byte = [0];
    let frame = entry(&mut world, FAR).frame.unwrap();
    world.hosts[0].memory.read(frame, 8, &mut byte);
    assert_eq!(byte, [7]);
    assert_eq!(world.cluster(0).fatal(), None);
    // Nothing is left open, and the pages can go back.
    (0..3).for_each(|_| world.pass(MS));
    assert!(world.cluster(0).coherence().is_quiet() && world.cluster(1).coherence().is_quiet());
    world.touch(1, FAR, Access::Write);
    assert!(!entry(&mut world, FAR).is_held());
}

/// Every other exit is dealt with when the frame has been taken: those that are no
/// faults, a fault on the same page, and one whose request cannot be foreseen.
#[test]
fn all_else_waits_for_the_frame() {
    let own = Gfn(40);
    for exit in
        [Exit::HostInterrupt, Exit::Cpuid, fault(FAR, Access::Write), fault(own, Access::Write)]
    {
        let mut world = world();
        world.put(CODE, &[0x0F, 0xA2]);
        let header = page_comes(&mut world, FAR, Access::Read, &[exit, Exit::HostInterrupt]);
        assert!(map(&mut world, &header), "{exit:?}");
        let entered = world.vcpu.next;
        assert_eq!(world.step(), Step::Unsettled, "{exit:?}");
        assert_eq!(world.step(), Step::Unsettled, "{exit:?}");
        assert_eq!(world.vcpu.next, entered + 1, "it is not entered meanwhile");
        take(&mut world, &header, LINK);
        if exit != Exit::HostInterrupt {
            world.settle();
        } else {
            assert_eq!(world.step(), Step::Interrupted);
        }
        assert_eq!(entry(&mut world, FAR).writable(), exit == fault(FAR, Access::Write));
        assert_eq!(world.cluster(0).fatal(), None);
    }
}

/// Where pages are fetched ahead one frame follows the other: none is left.
#[test]
fn a_stream_is_not_held_up() {
    let mut world = World::with_guest(2);
    (0..64).for_each(|i| world.touch(1, FAR.offset_by(i), Access::Write));
    for i in [0, 1, 3] {
        world.exit(fault(FAR.offset_by(i), Access::Read));
        if i < 3 {
            world.settle();
        }
    }
    let frame = answer(&mut world);
    let header = land(&mut world, &frame);
    assert!(world.cluster(0).coherence().fetches_open() > 1);
    assert!(!map(&mut world, &header));
}

/// A frame that is not the one whose page was mapped stops the node.
#[test]
fn another_frame_stops_the_node() {
    for damage in [false, true] {
        let mut world = world();
        let mut header = page_comes(&mut world, FAR, Access::Read, &[]);
        assert!(map(&mut world, &header));
        if damage {
            header[30] ^= 1;
        }
        let page = if damage { LINK } else { LINK.offset_by(1) };
        take(&mut world, &header, page);
        let fatal = world.cluster(0).fatal();
        match damage {
            true => assert_eq!(fatal, Some(Fatal::Unforeseen)),
            false => assert!(matches!(fatal, Some(Fatal::Violation(_))), "{fatal:?}"),
        }
    }
}

/// Only the page that the guest waits for, and only whole.
#[test]
fn what_is_not_waited_for_is_not_mapped() {
    let mut world = world();
    let header = page_comes(&mut world, FAR, Access::Read, &[]);
    let host = &mut world.hosts[0];
    let mut map = |header: &[u8], gfn, access| {
        host.node.map_early(header, LINK, (gfn, access), &mut host.memory)
    };
    assert!(!map(&header, FAR.offset_by(1), Access::Read));
    assert!(!map(&header, FAR, Access::Write), "it is a copy to read");
    assert!(!map(&header[..100], FAR, Access::Read));
    assert!(map(&header, FAR, Access::Read));
    assert!(!map(&header, FAR, Access::Read), "once");
    // A node that has not formed has nothing to map.
    let lone = fabric::Config::new([2, 0, 0, 0, 0, 9], 1, 1, 1, 2);
    let mut lone = node::Node::new(lone, node::Clock::new(common::HZ), common::tsc());
    let access = (FAR, Access::Read);
    assert!(!lone.map_early(&header, LINK, access, &mut host.memory) && !lone.is_early());
}
