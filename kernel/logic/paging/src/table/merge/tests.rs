use super::super::super::PageState;
use super::super::super::memory::fake::VecMemory;
use super::*;

fn setup() -> (PageTable, FramePool, VecMemory) {
    let mut memory = VecMemory::new(2048);
    let mut pool = FramePool::new();
    pool.add(Frame(1), Frame(2048));
    let table = PageTable::new(Format::EPT, &mut pool, &mut memory).unwrap();
    (table, pool, memory)
}

const RUN: Gfn = Gfn(512);

fn page(i: u64) -> Entry {
    // Backwards, so that no two frames follow each other.
    Entry::held(PageState::Exclusive, Frame(1024 + 511 - i))
}

fn fill(t: &mut PageTable, p: &mut FramePool, m: &mut VecMemory) {
    for i in 0..RUN_PAGES {
        let _ = t.set(m, p, RUN.offset_by(i), page(i)).unwrap();
    }
}

#[test]
fn only_a_run_that_is_all_held_is_full() {
    let (mut t, mut p, mut m) = setup();
    assert!(t.full_run(&m, RUN).is_none(), "there is no table");
    fill(&mut t, &mut p, &mut m);
    assert!(t.full_run(&m, RUN.offset_by(7)).unwrap().eq((0..RUN_PAGES).map(page)));
    let _ = t.set(&mut m, &mut p, RUN.offset_by(511), Entry::default()).unwrap();
    assert!(t.full_run(&m, RUN).is_none());
    let zero = Entry::zero(PageState::Exclusive);
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(0), zero), Ok(true));
    assert!(t.full_run(&m, Gfn(0)).is_none(), "it is one leaf already");
    assert!(!t.mark(&mut m, Gfn(0)) && !t.mark(&mut m, Gfn(0)), "which takes no mark");
    assert_eq!(t.get(&m, Gfn(9)), zero);
}

#[test]
fn a_mark_goes_with_a_right_to_any_page() {
    let (mut t, mut p, mut m) = setup();
    fill(&mut t, &mut p, &mut m);
    let at = RUN.offset_by(5);
    let changes: [(Entry, bool); 6] = [
        (page(5), true),
        (Entry { rank: 3, ..page(5) }, true),
        (Entry { state: PageState::Owned, ..page(5) }, false),
        (page(5), true),
        (Entry { leaving: true, ..page(5) }, false),
        (Entry::default(), false),
    ];
    assert!(!t.mark(&mut m, RUN));
    for (entry, stays) in changes {
        let _ = t.set(&mut m, &mut p, at, entry).unwrap();
        assert_eq!(t.mark(&mut m, RUN), stays, "{entry:?}");
        assert_eq!(t.full_run(&m, RUN).is_some(), entry.is_held(), "{entry:?}");
    }
    // Another run's pages have no part in it.
    let _ = t.set(&mut m, &mut p, Gfn(0), page(5)).unwrap();
    let _ = t.set(&mut m, &mut p, Gfn(0), Entry::default()).unwrap();
    assert!(t.mark(&mut m, RUN));
}

#[test]
fn a_run_is_one_leaf_again_and_comes_apart_again() {
    let (mut t, mut p, mut m) = setup();
    fill(&mut t, &mut p, &mut m);
    let (free, tables) = (p.free_frames(), t.tables());
    t.approach(&m, RUN.offset_by(3));
    t.mark(&mut m, RUN);
    let base = Entry { rank: 0x81, ..Entry::held(PageState::Exclusive, Frame(512)) };
    assert_eq!(t.merge(&mut m, &mut p, RUN.offset_by(9), base), Flush::Owed);
    assert_eq!((p.free_frames(), t.tables(), t.large_leaves()), (free + 1, tables - 1, 1));
    for i in [0, 3, 511] {
        let lies = Entry { frame: Some(Frame(512 + i)), ..base };
        assert_eq!(t.get(&m, RUN.offset_by(i)), lies);
        assert!(t.is_large(&m, RUN.offset_by(i)));
    }
    // The table's frame is used again: nothing may be written to it as one.
    let again = p.allocate().unwrap();
    m.zero(again);
    let owned = Entry::held(PageState::Owned, Frame(512 + 3));
    assert_eq!(t.set(&mut m, &mut p, RUN.offset_by(3), owned), Ok(Flush::Owed));
    assert!(m.is_zero(again));
    assert_eq!((t.splits(), t.large_leaves(), t.tables()), (1, 0, tables));
    assert_eq!(t.get(&m, RUN.offset_by(4)), Entry { frame: Some(Frame(516)), ..base });
    assert!(t.full_run(&m, RUN).is_some());
    assert!(!t.mark(&mut m, RUN), "a new table has no mark");
}

#[test]
#[should_panic(expected = "a run of frames is aligned")]
fn frames_that_are_no_run_are_refused() {
    let (mut t, mut p, mut m) = setup();
    fill(&mut t, &mut p, &mut m);
    let _ = t.merge(&mut m, &mut p, RUN, page(0));
}
