use super::*;
use crate::memory::fake::VecMemory;
use alloc::vec::Vec;

fn setup() -> (PageTable, FramePool, VecMemory) {
    let mut memory = VecMemory::new(2048);
    let mut pool = FramePool::new();
    pool.add(Frame(1), Frame(if cfg!(miri) { 1024 } else { 2048 }));
    let table = PageTable::new(Format::NPT, &mut pool, &mut memory).unwrap();
    (table, pool, memory)
}

#[test]
fn what_is_set_is_found() {
    let (mut t, mut p, mut m) = setup();
    let e = Entry::held(PageState::Exclusive, Frame(77));
    let far = Gfn(0x3_4567_89ab);
    assert_eq!((t.root(), t.get(&m, far)), (Frame(1), Entry::default()));
    assert_eq!(t.set(&mut m, &mut p, far, e), Ok(Flush::None));
    assert_eq!(t.get(&m, far), e);
    assert_eq!(t.get(&m, far.offset_by(1)), Entry::default());
    assert_eq!(t.tables(), 4);
}

#[test]
fn a_page_that_is_filled_is_as_one_that_was_set() {
    let shared = Entry { rank: 0x81, ..Entry::held(PageState::Shared, Frame(77)) };
    let exclusive = Entry::held(PageState::Exclusive, Frame(78));
    let work = |fills: bool| {
        let (mut t, mut p, mut m) = setup();
        let mut seen = Vec::new();
        for (gfn, entry) in
            [(5, shared), (6, exclusive), (5 + 512, shared)].map(|(g, e)| (Gfn(g), e))
        {
            // Where there is a table for it, a word about its past; it is not kept.
            t.set_history(&mut m, gfn, 3);
            if fills {
                assert_eq!(t.fill(&mut m, &mut p, gfn, entry), Ok(()));
            } else {
                assert_eq!(t.set(&mut m, &mut p, gfn, entry), Ok(Flush::None));
            }
            t.approach(&m, gfn);
            seen.push((t.get(&m, gfn), t.history(&m, gfn), t.tables(), t.empty_leaves()));
        }
        for gfn in [5, 6, 5 + 512].map(Gfn) {
            assert_eq!(t.set(&mut m, &mut p, gfn, Entry::default()), Ok(Flush::Owed));
            seen.push((t.get(&m, gfn), t.history(&m, gfn), t.tables(), t.empty_leaves()));
        }
        seen
    };
    assert_eq!(work(true), work(false));
}

#[test]
fn a_flush_is_owed_when_a_right_goes() {
    let (mut t, mut p, mut m) = setup();
    let g = Gfn(5);
    let rw = Entry::held(PageState::Exclusive, Frame(9));
    let ro = Entry::held(PageState::Owned, Frame(9));
    assert_eq!(t.set(&mut m, &mut p, g, ro), Ok(Flush::None));
    assert_eq!(t.set(&mut m, &mut p, g, ro), Ok(Flush::None));
    assert_eq!(t.set(&mut m, &mut p, g, rw), Ok(Flush::None));
    assert_eq!(t.set(&mut m, &mut p, g, rw), Ok(Flush::None));
    assert_eq!(t.set(&mut m, &mut p, g, ro), Ok(Flush::Owed));
    let moved = Entry::held(PageState::Owned, Frame(10));
    assert_eq!(t.set(&mut m, &mut p, g, moved), Ok(Flush::Owed));
    assert_eq!(t.set(&mut m, &mut p, g, Entry::default()), Ok(Flush::Owed));
    assert_eq!(t.set(&mut m, &mut p, g, Entry::default()), Ok(Flush::None));
}

#[test]
fn a_large_leaf_splits_into_the_same_pages() {
    let (mut t, mut p, mut m) = setup();
    let run = p.allocate_run().unwrap();
    let e = Entry::held(PageState::Exclusive, run);
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(1024), e), Ok(true));
    assert_eq!(t.get(&m, Gfn(1024 + 300)).frame, Some(run.offset_by(300)));
    assert!(t.is_large(&m, Gfn(1024 + 300)) && !t.is_large(&m, Gfn(1023)));
    let tables = t.tables();
    assert_eq!(t.large_leaves(), 1);
    let gone = Entry::default();
    assert_eq!(t.set(&mut m, &mut p, Gfn(1024 + 300), gone), Ok(Flush::Owed));
    assert_eq!((t.tables(), t.large_leaves()), (tables + 1, 0));
    assert!(!t.is_large(&m, Gfn(1024 + 300)));
    assert_eq!(t.get(&m, Gfn(1024 + 300)), gone);
    assert_eq!(t.get(&m, Gfn(1024 + 299)).frame, Some(run.offset_by(299)));
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(1024), e), Ok(false));
}

#[test]
fn a_table_of_leaves_stays_a_table() {
    let (mut t, mut p, mut m) = setup();
    let e = Entry::held(PageState::Shared, Frame(3));
    let _ = t.set(&mut m, &mut p, Gfn(512), e).unwrap();
    let _ = t.set(&mut m, &mut p, Gfn(512), Entry::default()).unwrap();
    let (free, large) = (p.free_frames(), t.large_leaves());
    let zero = Entry::zero(PageState::Exclusive);
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(512), zero), Ok(false));
    assert_eq!((p.free_frames(), t.large_leaves()), (free, large));
    assert_eq!(t.get(&m, Gfn(600)), Entry::default());
}

#[test]
fn a_zero_run_splits_into_zero_pages() {
    let (mut t, mut p, mut m) = setup();
    let zero = Entry::zero(PageState::Exclusive);
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(0), zero), Ok(true));
    let held = Entry::held(PageState::Exclusive, Frame(44));
    assert_eq!(t.set(&mut m, &mut p, Gfn(17), held), Ok(Flush::None));
    assert_eq!(t.get(&m, Gfn(17)), held);
    assert_eq!(t.get(&m, Gfn(18)), zero);
}

#[test]
fn a_scan_meets_every_page_and_skips_empty_space() {
    let (mut t, mut p, mut m) = setup();
    let e = Entry::held(PageState::Shared, Frame(3));
    for g in [0, 7, 511, 0x20_0000, 0x7fff_ffff] {
        let _ = t.set(&mut m, &mut p, Gfn(g), e).unwrap();
    }
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(1024), e), Ok(true));
    let mut seen = alloc::vec::Vec::new();
    let mut at = Some(Gfn(0));
    let mut steps = 0;
    while let Some(from) = at {
        let (found, next) = t.scan(&m, from, Gfn(1 << 36), 100);
        seen.extend(found.map(|s| s.gfn.0));
        at = next;
        steps += 1;
    }
    assert_eq!(seen, [0, 7, 511, 1024, 0x20_0000, 0x7fff_ffff]);
    assert!(steps < 60, "{steps}");
}

#[test]
fn a_leaf_is_split_where_there_is_one() {
    let (mut t, mut p, mut m) = setup();
    let zero = Entry::zero(PageState::Exclusive);
    assert_eq!(t.split(&mut m, &mut p, Gfn(5)), Ok(()));
    assert_eq!(t.tables(), 1, "there is nothing to split");
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(0), zero), Ok(true));
    assert_eq!(t.split(&mut m, &mut p, Gfn(5)), Ok(()));
    assert_eq!((t.tables(), t.large_leaves(), t.get(&m, Gfn(511))), (4, 0, zero));
}

#[test]
fn a_rank_stays_with_a_page_and_its_past_without_it() {
    let (mut t, mut p, mut m) = setup();
    let (g, large) = (Gfn(5), Gfn(1024));
    let e = Entry { accessed: true, ..Entry::held(PageState::Owned, Frame(9)) };
    let _ = t.set(&mut m, &mut p, g, e).unwrap();
    assert_eq!(t.set_run(&mut m, &mut p, large, e), Ok(true));
    for page in [g, large] {
        t.set_rank(&mut m, page, 0x83);
        assert_eq!(t.get(&m, page), Entry { accessed: false, rank: 0x83, ..e });
        // A page that is here has no past, and is not harmed by one.
        t.set_history(&mut m, page, 77);
        assert_eq!((t.history(&m, page), t.get(&m, page).frame), (0, Some(Frame(9))));
    }
    assert!(t.is_large(&m, large));
    let _ = t.set(&mut m, &mut p, g, Entry::default()).unwrap();
    assert_eq!(t.history(&m, g), 0);
    t.set_history(&mut m, g, 77);
    assert_eq!((t.history(&m, g), t.get(&m, g)), (77, Entry::default()));
    // Without a table of leaves there is no place for it.
    t.set_history(&mut m, Gfn(1 << 30), 77);
    assert_eq!((t.history(&m, Gfn(1 << 30)), t.tables()), (0, 4));
    assert_eq!(t.set(&mut m, &mut p, g, e), Ok(Flush::None));
    assert_eq!((t.history(&m, g), t.get(&m, g)), (0, e));
}

#[test]
fn a_scan_looks_at_no_more_than_it_may() {
    let (mut t, mut p, mut m) = setup();
    let end = Gfn(1 << 36);
    // An empty entry of the root is 2^27 pages.
    let empty = |t: &PageTable, m: &VecMemory, budget| t.scan(m, Gfn(0), end, budget).1;
    assert_eq!(empty(&t, &m, 100), Some(Gfn(100 << 27)));
    assert_eq!((empty(&t, &m, 512), empty(&t, &m, 513)), (Some(end), None));
    let e = Entry::held(PageState::Shared, Frame(3));
    let _ = t.set(&mut m, &mut p, Gfn(511), e).unwrap();
    let (found, next) = t.scan(&m, Gfn(0), end, 100);
    assert!(found.is_none() && next.is_some_and(|at| at > Gfn(90) && at <= Gfn(100)), "{next:?}");
}

#[test]
fn what_was_approached_is_what_a_walk_finds() {
    let (mut t, mut p, mut m) = setup();
    let (held, zero) = (Entry::held(PageState::Shared, Frame(9)), Entry::zero(PageState::Owned));
    // No table of leaves yet, then a large leaf, which comes apart.
    t.approach(&m, Gfn(512));
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(512), zero), Ok(true));
    t.approach(&m, Gfn(513));
    assert!(t.is_large(&m, Gfn(513)));
    assert_eq!(t.set(&mut m, &mut p, Gfn(513), held), Ok(Flush::None));
    t.approach(&m, Gfn(513));
    let far = Gfn(1 << 27 | 513);
    assert_eq!(t.set(&mut m, &mut p, far, held), Ok(Flush::None));
    assert_eq!(t.set(&mut m, &mut p, Gfn(514), held), Ok(Flush::None));
    let other = t.clone();
    t.approach(&m, far);
    for t in [&t, &other] {
        let at = |n| t.get(&m, Gfn(n));
        assert_eq!([at(512), at(513), at(514), at(515)], [zero, held, held, zero]);
        assert_eq!((t.get(&m, far), at(1024)), (held, Entry::default()));
    }
}
