//! The guest's faults and exits, step by step.
#![cfg(not(miri))] // Instructions are decoded.

mod common;
use addr::{Access, Gfn};
use common::{CODE, FAR, MS, World};
use node::Step;
use node::stages::FaultKind;
use vcpu::{Exit, IoExit, RAX, RCX, RDX};

fn fault(gfn: Gfn, access: Access) -> Exit {
    Exit::PageFault { gpa: gfn.start(), access, fetch: false, walk: false }
}

/// Runs the guest to these exits, of which the first is dealt with at once.
fn play(world: &mut World, exits: &[Exit]) -> Step {
    world.vcpu.exits = [None; 16];
    (0..exits.len()).for_each(|i| world.vcpu.exits[i] = Some(exits[i]));
    world.vcpu.next = 0;
    world.step()
}

fn is_ready(world: &World, n: usize, gfn: Gfn, access: Access) -> bool {
    let host = &world.hosts[n];
    host.node.cluster.as_ref().unwrap().coherence().is_ready(&host.memory, gfn, access)
}

/// The other node has these pages, and none of the run is still to be granted.
fn elsewhere(world: &mut World, pages: u64) {
    for i in 0..pages {
        world.touch(1, FAR.offset_by(i), Access::Write);
    }
}

#[test]
fn every_fault_is_counted_as_what_it_was() {
    let mut world = World::with_guest(2);
    let counts =
        |world: &World| [0, 1, 2, 3, 4].map(|k| world.hosts[0].node.stages.faults[k].count());
    let mut expected = counts(&world);
    elsewhere(&mut world, 2);
    for (gfn, access, kind) in [
        (FAR, Access::Read, FaultKind::Read),
        (FAR.offset_by(1), Access::Write, FaultKind::Write),
        (FAR, Access::Write, FaultKind::Upgrade),
        (FAR, Access::Write, FaultKind::Local),
    ] {
        let before = world.hosts[0].node.stages.stages[2].count();
        let step = world.exit(fault(gfn, access));
        assert_eq!(step, if kind == FaultKind::Local { Step::Ran } else { Step::Blocked });
        let exited = world.guest.as_ref().unwrap().exited_at();
        assert!(exited > 1 && exited <= common::tsc());
        world.settle();
        expected[kind as usize] += 1;
        assert_eq!(counts(&world), expected, "{kind:?}");
        // Read and write faults have stages: on the wire for two frames.
        let staged = matches!(kind, FaultKind::Read | FaultKind::Write);
        let wire = &world.hosts[0].node.stages.stages[2];
        assert_eq!(wire.count() - before, u64::from(staged), "{kind:?}");
    }
    let wire = world.hosts[0].node.stages.stages[2].summary();
    assert!((1000..10 * MS).contains(&wire.min), "{wire:?}");
}

/// Zero pages are granted, by this node itself or by another.
#[test]
fn a_first_touch_is_no_fetch() {
    let mut world = World::with_guest(2);
    let touches = |world: &World| world.hosts[0].node.stages.faults[4].count();
    assert_eq!(world.exit(fault(FAR.offset_by(9), Access::Write)), Step::Blocked);
    world.settle();
    assert_eq!((touches(&world), world.hosts[0].node.stages.faults[2].count()), (1, 0));
}

/// Pages are kept for the instruction that faults again, not for the next one.
#[test]
fn an_instruction_keeps_its_pages_and_no_other_does() {
    for same in [true, false] {
        let mut world = World::with_guest(2);
        world.cluster(0).fix_hold_ns(100 * MS);
        elsewhere(&mut world, 2);
        assert_eq!(play(&mut world, &[fault(FAR, Access::Write)]), Step::Blocked);
        world.exchange();
        (0..3).for_each(|_| world.pass(MS)); // its Done as well
        let host = &mut world.hosts[1];
        host.node.cluster.as_mut().unwrap().access(&mut host.memory, FAR, Access::Write, 0);
        // It runs with the first page, which then the other node asks for.
        world.vcpu.exits[1] = Some(fault(FAR.offset_by(1), Access::Write));
        world.vcpu.exits[2] = Some(Exit::HostInterrupt);
        world.vcpu.registers.rip += u64::from(!same);
        assert_eq!(world.step(), Step::Blocked);
        world.exchange();
        assert_eq!(is_ready(&world, 0, FAR, Access::Write), same);
        world.settle();
        world.exchange();
        assert!(!is_ready(&world, 0, FAR, Access::Write), "the instruction has ended");
    }
}

/// A walk with a step is fetched ahead by requests of its own.
#[test]
fn a_walk_is_fetched_ahead() {
    let mut world = World::with_guest(2);
    elsewhere(&mut world, 64);
    for i in 0..5 {
        assert_eq!(world.exit(fault(FAR.offset_by(5 * i), Access::Read)), Step::Blocked, "{i}");
        world.settle();
    }
    let prefetched = world.cluster(0).coherence().counters().prefetches;
    assert_eq!(prefetched, 1);
    for (next, here) in [(21, false), (24, false), (25, true), (26, false), (30, false)] {
        assert_eq!(is_ready(&world, 0, FAR.offset_by(next), Access::Read), here, "{next}");
    }
    // What the guest writes after it has read it is fetched to be written.
    let mut world = World::with_guest(2);
    elsewhere(&mut world, 64);
    for i in [0, 1] {
        world.exit(fault(FAR.offset_by(i), Access::Read));
        world.settle();
    }
    world.exit(fault(FAR.offset_by(1), Access::Write));
    world.settle();
    world.exit(fault(FAR.offset_by(3), Access::Read));
    world.settle();
    assert_eq!(world.cluster(0).coherence().counters().upgrades, 1);
}

/// The page of the instruction is on the other node: it is fetched, and the
/// exit or its result comes to its end then.
#[test]
fn an_exit_waits_for_the_page_of_its_instruction() {
    let mut world = World::with_guest(2);
    let take_away = |world: &mut World| {
        world.pass(MS);
        world.touch(1, CODE.gfn(), Access::Write);
        assert!(!is_ready(world, 0, CODE.gfn(), Access::Read));
    };
    take_away(&mut world);
    assert_eq!(world.call(1, [0; 3]), 2);
    world.put(CODE, &[0x0F, 0xA2]); // CPUID
    take_away(&mut world);
    world.vcpu.registers.rip = CODE.0;
    assert_eq!(world.exit(Exit::Cpuid), Step::Ran);
    assert_eq!(world.step(), Step::Blocked);
    assert_eq!(world.vcpu.registers.rip, CODE.0);
    world.settle();
    assert_eq!(world.vcpu.registers.rip, CODE.0 + 2);
    // Where all is here nothing but the vCPU changes.
    world.vcpu.registers.rip = CODE.0;
    assert_eq!(world.exit(Exit::Cpuid), Step::Again);
    assert_eq!(play(&mut world, &[Exit::Ignore]), Step::Ran);
}

/// A halted guest runs when a device has something for it, and says when that is.
#[test]
fn a_halted_guest_says_when_it_wants_to_run() {
    let mut world = World::with_guest(1);
    world.put(CODE, &[0xF4]); // HLT
    for (port, value) in [(0x43, 0x34), (0x40, 0x00), (0x40, 0x10)] {
        world.vcpu.registers.gpr[RAX] = value;
        let next_rip = Some(CODE.0);
        let out = IoExit { port, size: 1, input: false, string: false, rep: false, next_rip };
        assert_eq!(world.exit(Exit::Io(out)), Step::Ran);
    }
    let now = common::tsc();
    let deadline = world.guest.as_ref().unwrap().deadline().expect("the timer runs");
    assert!((now..now + 20 * MS).contains(&deadline), "{deadline}");
    world.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    assert_eq!(world.exit(Exit::Hlt), Step::Ran);
    assert_eq!((world.step(), world.step()), (Step::Halted, Step::Halted));
}

#[test]
fn a_halted_guest_runs_when_its_timer_fires() {
    let mut world = World::with_guest(1);
    // x2APIC on, software enable, the timer's vector, divisor and count.
    let registers =
        [(0x1B, 0xFEE0_0D00), (0x80F, 0x1FF), (0x832, 0x40), (0x83E, 0xB), (0x838, 9999)];
    world.put(CODE, &[0x0F, 0x30]); // WRMSR
    for (msr, value) in registers {
        world.vcpu.registers.rip = CODE.0;
        (world.vcpu.registers.gpr[RAX], world.vcpu.registers.gpr[RDX]) = (value, 0);
        world.vcpu.registers.gpr[RCX] = msr;
        world.exit(Exit::Wrmsr);
        assert_eq!(world.vcpu.registers.rip, CODE.0 + 2, "{msr:#x}");
    }
    world.put(CODE, &[0xF4]); // HLT
    world.vcpu.registers.rip = CODE.0;
    world.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    assert_eq!(world.exit(Exit::Hlt), Step::Ran);
    assert_eq!(world.step(), Step::Halted);
    common::sleep(10 * MS);
    assert_eq!(play(&mut world, &[Exit::HostInterrupt]), Step::Interrupted);
}

/// What somebody waits for leaves before the steps that send it: the guest's
/// request, the answer of a home that has the page, and that of a third node.
#[test]
fn what_is_waited_for_leaves_first() {
    for (access, frames) in [(Access::Read, 2), (Access::Write, 2)] {
        let mut world = World::with_guest(2);
        elsewhere(&mut world, 1);
        world.pass(MS);
        let before = world.foreseen;
        assert_eq!(world.exit(fault(FAR, access)), Step::Blocked);
        world.settle();
        assert_eq!(world.foreseen - before, frames, "{access:?}");
        // The right alone: the home has the only other copy, and has heard the end
        // of the read.
        (0..3).for_each(|_| world.pass(MS));
        let before = world.foreseen;
        if access == Access::Read {
            world.exit(fault(FAR, Access::Write));
            world.settle();
            assert_eq!(world.foreseen - before, 2);
        }
    }
    // The guest's own node is the home, and passes it on itself; for a right it has
    // the other copy dropped.
    let mut world = World::with_guest(2);
    let own = Gfn(100);
    world.touch(1, own, Access::Write);
    for access in [Access::Read, Access::Write] {
        (0..3).for_each(|_| world.pass(MS));
        let before = world.foreseen;
        assert_eq!(world.exit(fault(own, access)), Step::Blocked);
        world.settle();
        assert_eq!(world.foreseen - before, 2, "{access:?}");
    }
    // The home passes it on to the owner, and that answers.
    let mut world = World::with_guest(3);
    world.touch(2, FAR, Access::Write);
    world.pass(MS);
    let before = world.foreseen;
    world.exit(fault(FAR, Access::Read));
    world.settle();
    assert_eq!(world.foreseen - before, 3);
}

/// A guest that reads each page of a row and then writes it asks for few of them
/// twice: the rest is fetched to be written, together with the page that is missed.
#[test]
fn a_row_that_is_read_and_written_is_fetched_to_be_written() {
    let mut world = World::with_guest(2);
    elsewhere(&mut world, 200);
    (0..2).for_each(|_| world.pass(MS));
    for i in 0..200 {
        for access in [Access::Read, Access::Write] {
            if !is_ready(&world, 0, FAR.offset_by(i), access) {
                world.exit(fault(FAR.offset_by(i), access));
                world.settle();
            }
        }
    }
    let counters = world.cluster(0).coherence().counters();
    assert!(counters.upgrades <= 4, "{}", counters.upgrades);
    assert!(counters.prefetches >= 150, "{}", counters.prefetches);
}
