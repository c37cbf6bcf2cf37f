//! The guest's memory as the machine sees it, page by page and across pages.
#![cfg(not(miri))] // Whole nodes over virtual time: too long for an interpreter.

mod common;
use addr::{Access, Gfn, GuestPhys, PAGE_SIZE};
use common::{FAR, World};
use machine::{GuestMemory, MemoryError};

/// Bytes that name their place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251 + 1) as u8).collect()
}

#[test]
fn what_is_written_is_read_at_every_offset() {
    let mut world = World::new(1);
    (0..4).for_each(|gfn| world.touch(0, Gfn(gfn), Access::Write));
    // A page that was only ever granted has no frame and reads as zeroes.
    world.touch(0, Gfn(4), Access::Read);
    let mut view = world.view(0);
    let page = PAGE_SIZE as u64;
    for (start, len) in [
        (0, 8),
        (5, 100),
        (page - 8, 8),
        (page - 8, 9),
        (page - 3, 2 * PAGE_SIZE + 5),
        (page, 3 * PAGE_SIZE),
        (1, 3 * PAGE_SIZE),
    ] {
        let all = bytes(len);
        view.write(GuestPhys(start), &all).expect("it is here");
        let mut read = vec![0; len];
        view.read(GuestPhys(start), &mut read).expect("it is here");
        assert!(read == all, "{len} bytes at {start:#x}");
        // One by one, as one page serves each.
        for (i, &byte) in all.iter().enumerate().step_by(61) {
            let mut one = [0];
            view.read(GuestPhys(start + i as u64), &mut one).expect("it is here");
            assert_eq!(one[0], byte, "byte {i} of {len} at {start:#x}");
        }
    }
    let mut across = vec![1; 2 * PAGE_SIZE];
    view.read(GuestPhys(3 * page), &mut across).expect("it is here");
    assert!(across[PAGE_SIZE..].iter().all(|&b| b == 0));
    assert_eq!(view.write(GuestPhys(0), &[]), Ok(()));
}

#[test]
fn what_is_not_here_is_named_before_anything_is_touched() {
    let mut world = World::new(2);
    let end = GuestPhys(1024 * PAGE_SIZE as u64);
    let last = GuestPhys(end.0 - PAGE_SIZE as u64);
    // All of the other node's pages are there; this one may read the first and
    // has the last.
    world.touch(1, FAR, Access::Write);
    world.touch(0, FAR, Access::Read);
    world.touch(0, last.gfn(), Access::Write);
    let mut view = world.view(0);
    let mut page = vec![0; PAGE_SIZE];
    let missing = |gfn, access| Err(MemoryError::Pending { gfn, access });
    assert_eq!(view.read(last, &mut page), Ok(()));
    assert_eq!(view.write(last, &page), Ok(()));
    assert_eq!(view.read(FAR.start(), &mut page), Ok(()));
    assert_eq!(view.write(FAR.start(), &page), missing(FAR, Access::Write));
    let far = FAR.offset_by(400);
    assert_eq!(view.read(far.start(), &mut page), missing(far, Access::Read));
    for (gpa, len) in [(end, 1), (GuestPhys(end.0 - 1), 2), (GuestPhys(u64::MAX), 2)] {
        assert_eq!(view.read(gpa, &mut page[..len]), Err(MemoryError::NotMemory), "{gpa:?}");
        assert_eq!(view.write(gpa, &page[..len]), Err(MemoryError::NotMemory), "{gpa:?}");
    }
    // Nothing of what is here was written when the rest is not.
    let before = Gfn(FAR.0 - 1);
    world.touch(0, before, Access::Write);
    let mut view = world.view(0);
    let across = GuestPhys(FAR.start().0 - 4);
    assert_eq!(view.write(across, &[9; 8]), missing(FAR, Access::Write));
    let mut read = [1; 4];
    view.read(across, &mut read).expect("it is here");
    assert_eq!(read, [0; 4]);
}
