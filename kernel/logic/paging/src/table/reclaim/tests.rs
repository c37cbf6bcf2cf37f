use super::super::super::memory::fake::VecMemory;
use super::super::super::{Entry, PageState};
use super::*;
use addr::Frame;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

const END: Gfn = Gfn(1 << 36);

fn setup() -> (PageTable, FramePool, VecMemory) {
    let mut memory = VecMemory::new(1024);
    let mut pool = FramePool::new();
    pool.add(Frame(1), Frame(1024));
    let table = PageTable::new(Format::NPT, &mut pool, &mut memory).unwrap();
    (table, pool, memory)
}

fn shared() -> Entry {
    Entry::held(PageState::Shared, Frame(3))
}

/// All tables of leaves, their runs and pages.
fn all(t: &PageTable, m: &VecMemory) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut at = Some(Gfn(0));
    while let Some(from) = at {
        let (leaves, next) = t.next_leaves(m, from, END, 600);
        found.extend(leaves.map(|l| (l.run.0, l.used)));
        at = next;
    }
    found
}

#[test]
fn only_a_table_without_a_page_is_taken_out() {
    let (mut t, mut p, mut m) = setup();
    let free = p.free_frames();
    let g = Gfn(0x3_4567_89ab);
    assert_eq!(t.take_out(&mut m, &mut p, g), Flush::None, "there is none");
    for at in [g, g.offset_by(1)] {
        let _ = t.set(&mut m, &mut p, at, shared()).unwrap();
    }
    assert!(t.has_leaves(&m, g) && !t.has_leaves(&m, Gfn(9)));
    // A page that changes its state is counted once.
    let owned = Entry::zero(PageState::Owned);
    assert_eq!(t.set(&mut m, &mut p, g, owned), Ok(Flush::Owed));
    assert_eq!(all(&t, &m), [(g.run_start().0, 2)]);
    for (at, left) in [(g, 1), (g.offset_by(1), 0)] {
        assert_eq!(t.take_out(&mut m, &mut p, g), Flush::None, "it is in use");
        let _ = t.set(&mut m, &mut p, at, Entry::default()).unwrap();
        assert_eq!(all(&t, &m), [(g.run_start().0, left)]);
    }
    t.set_history(&mut m, g, 77);
    // The tables above it go with it, all but the root.
    assert_eq!((t.take_out(&mut m, &mut p, g), t.tables()), (Flush::Owed, 1));
    assert_eq!((p.free_frames(), t.history(&m, g)), (free, 0));
    assert_eq!(t.take_out(&mut m, &mut p, g), Flush::None, "it is gone");
    assert_eq!((all(&t, &m), t.root()), (Vec::new(), Frame(1)));
}

#[test]
fn what_was_approached_is_forgotten_with_its_table() {
    let (mut t, mut p, mut m) = setup();
    let (g, other) = (Gfn(512), Gfn(1024));
    for at in [g, other] {
        let _ = t.set(&mut m, &mut p, at, shared()).unwrap();
    }
    t.approach(&m, g);
    let _ = t.set(&mut m, &mut p, g, Entry::default()).unwrap();
    assert_eq!(t.take_out(&mut m, &mut p, g), Flush::Owed);
    // Its frame is used again, for a page.
    let frame = p.allocate().unwrap();
    m.zero(frame);
    assert_eq!(t.get(&m, g), Entry::default());
    assert_eq!(t.set(&mut m, &mut p, g, shared()), Ok(Flush::None));
    assert!(m.is_zero(frame));
    assert_eq!(all(&t, &m), [(512, 1), (1024, 1)]);
    // Another's table goes; this one stays near.
    t.approach(&m, g);
    let _ = t.set(&mut m, &mut p, other, Entry::default()).unwrap();
    assert_eq!(t.take_out(&mut m, &mut p, other), Flush::Owed);
    assert_eq!((t.get(&m, g), t.tables()), (shared(), 4));
}

/// The table above is found again without a walk, until it goes.
#[test]
fn what_lies_around_is_forgotten_with_its_table() {
    let (mut t, mut p, mut m) = setup();
    let (g, far) = (Gfn(512), Gfn(1024));
    let owned = Entry { state: PageState::Owned, ..shared() };
    for (at, entry) in [(g, shared()), (far, owned)] {
        let _ = t.set(&mut m, &mut p, at, entry).unwrap();
    }
    t.approach(&m, g);
    assert_eq!((t.master(&m, g), t.master(&m, far)), (None, owned.frame));
    assert_eq!((t.get(&m, far), t.is_large(&m, far)), (owned, false));
    for at in [far, g] {
        let _ = t.set(&mut m, &mut p, at, Entry::default()).unwrap();
        assert_eq!(t.take_out(&mut m, &mut p, at), Flush::Owed);
    }
    assert_eq!(t.tables(), 1);
    // Their frames are used again.
    for _ in 0..4 {
        let frame = p.allocate().unwrap();
        (0..512).for_each(|i| m.write_entry(frame, i, u64::MAX));
    }
    for at in [g, far, Gfn(3)] {
        assert_eq!((t.get(&m, at), t.master(&m, at)), (Entry::default(), None));
    }
}

/// A page of a large leaf has its own frame.
#[test]
fn masters_are_told_in_large_leaves_too() {
    let (mut t, mut p, mut m) = setup();
    let run = Entry { frame: Some(Frame(512)), ..Entry::zero(PageState::Exclusive) };
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(1024), run), Ok(true));
    for at in [Gfn(1024), Gfn(1024 + 7)] {
        t.approach(&m, at);
        assert_eq!(t.master(&m, at), t.get(&m, at).frame);
        assert_eq!(t.master(&m, at), Some(Frame(512 + at.run_index() as u64)));
    }
    assert_eq!(t.master(&m, Gfn(0)), None);
}

#[test]
fn large_leaves_keep_the_tables_above_them() {
    let (mut t, mut p, mut m) = setup();
    let zero = Entry::zero(PageState::Exclusive);
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(0), zero), Ok(true));
    let _ = t.set(&mut m, &mut p, Gfn(512), shared()).unwrap();
    let _ = t.set(&mut m, &mut p, Gfn(512), Entry::default()).unwrap();
    assert_eq!(t.take_out(&mut m, &mut p, Gfn(0)), Flush::None, "it is no table");
    assert_eq!(t.take_out(&mut m, &mut p, Gfn(512)), Flush::Owed);
    assert_eq!((t.tables(), t.get(&m, Gfn(9))), (3, zero));
    assert!(!t.has_leaves(&m, Gfn(9)));
    // It comes apart and empties page by page.
    assert_eq!(t.split(&mut m, &mut p, Gfn(0)), Ok(()));
    assert_eq!(all(&t, &m), [(0, RUN_PAGES)]);
    for i in 0..RUN_PAGES {
        let _ = t.set(&mut m, &mut p, Gfn(i), Entry::default()).unwrap();
    }
    assert_eq!((t.take_out(&mut m, &mut p, Gfn(0)), t.tables()), (Flush::Owed, 1));
    // Where a run has no table of leaves any more it may be one leaf again.
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(512), zero), Ok(true));
}

#[test]
fn tables_are_found_with_few_looks() {
    let (mut t, mut p, mut m) = setup();
    let zero = Entry::zero(PageState::Exclusive);
    for g in [512, 1 << 18, (1 << 27) + 1024] {
        let _ = t.set(&mut m, &mut p, Gfn(g), shared()).unwrap();
    }
    // A large leaf counts where its pages have no frames.
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(1024), zero), Ok(true));
    assert_eq!(t.set_run(&mut m, &mut p, Gfn(1536), shared()), Ok(true));
    assert_eq!(all(&t, &m), [(512, 1), (1024, 512), (1 << 18, 1), ((1 << 27) + 1024, 1)]);
    let next = |from, budget| t.next_leaves(&m, Gfn(from), END, budget);
    // From within a run that has a table.
    let found = Leaves { run: Gfn(512), used: 1 };
    assert_eq!(next(600, 1), (Some(found), Some(Gfn(1024))));
    assert_eq!(next(0, 1), (None, Some(Gfn(512))));
    assert_eq!(next(END.0, 5), (None, None));
    // An empty entry of the root is passed at once.
    assert_eq!(next(2 << 27, 3), (None, Some(Gfn(5 << 27))));
}

/// Whatever is set and taken out: counts, frames and entries are those of a
/// map of pages.
#[test]
#[cfg_attr(miri, ignore = "thousands of steps")]
fn counts_are_those_of_a_plain_map() {
    let (mut t, mut p, mut m) = setup();
    let total = p.free_frames() + 1;
    let mut plain: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut seed = 1u64;
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut taken = 0;
    for _ in 0..20_000 {
        let run = draw(6) << 9 | draw(3) << 18 | draw(2) << 27;
        let gfn = run + draw(3);
        match draw(4) {
            0 => {
                let _ = t.set(&mut m, &mut p, Gfn(gfn), shared()).unwrap();
                plain.insert(gfn, shared());
            }
            1 => {
                let in_use = plain.range(run..run + RUN_PAGES).next().is_some();
                let flush = t.take_out(&mut m, &mut p, Gfn(gfn));
                assert!(!in_use || flush == Flush::None);
                taken += u64::from(flush == Flush::Owed);
            }
            2 => t.approach(&m, Gfn(gfn)),
            _ => {
                let _ = t.set(&mut m, &mut p, Gfn(gfn), Entry::default()).unwrap();
                plain.remove(&gfn);
            }
        }
        let expected = plain.get(&gfn).copied().unwrap_or_default();
        assert_eq!((t.get(&m, Gfn(gfn)), p.free_frames()), (expected, total - t.tables()));
    }
    assert_eq!(all(&t, &m).iter().filter(|l| l.1 == 0).count() as u64, t.empty_leaves());
    for (run, used) in all(&t, &m) {
        assert_eq!(plain.range(run..run + RUN_PAGES).count() as u64, used);
        plain.retain(|&gfn, _| gfn < run || gfn >= run + RUN_PAGES);
    }
    assert!(plain.is_empty() && taken > 200, "{taken}");
}
