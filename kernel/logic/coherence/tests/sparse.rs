//! A leading node whose guest is far larger than what it could hold tables for:
//! nested tables come and go with what it holds.

mod pair;

use addr::{Access, Gfn, RUN_PAGES};
use coherence::{Limits, Progress};
use paging::HostMemory;
use pair::Pair;

/// Frames of the leader, and of a lender with so many that a table for each run
/// of the guest would be more than the leader has.
const FRAMES: [u64; 2] = [4 * RUN_PAGES, 3000 * RUN_PAGES];

impl Pair {
    /// The leader reads a page in which its own number was written.
    fn reads_own_number(&mut self, gfn: Gfn) {
        for _ in 0..2000 {
            let progress = self.with(0, |c, env| c.access(env, gfn, Access::Read, 0)).unwrap();
            if progress == Progress::Ready {
                let (coherence, memory) = &self.nodes[0];
                let frame = coherence.look(memory, gfn, Access::Read).unwrap().unwrap();
                assert_eq!(memory.read_entry(frame, 0), gfn.0 + 1);
                self.with(0, |c, env| c.release_held(env)).unwrap();
                return;
            }
            self.deliver_all();
        }
        panic!("the leader never gets page {:#x}", gfn.0);
    }

    /// Frames that the leader has are as many as it was given.
    fn check_frames(&self) {
        let (c, memory) = &self.nodes[0];
        let (nested, directory) = c.table_frames();
        let end = c.layout().end().0;
        let held = (0..end).filter(|&g| c.entry(memory, Gfn(g)).frame.is_some()).count() as u64;
        let away = c.frames_in_transactions();
        assert_eq!(held + nested + directory + away + c.free_frames(), FRAMES[0]);
        // A table for each page, what is kept back, and the levels above.
        let kept = Limits::new(FRAMES[0], FRAMES.iter().sum(), true).table_frames;
        let above = 16 + end / RUN_PAGES / RUN_PAGES;
        assert!(nested <= held + kept + above, "{nested} tables for {held} pages");
    }
}

/// One page of each 2 MiB, three times over, each time another one: more tables
/// than the leader has frames for pages.
#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn a_guest_with_a_page_in_every_run_goes_on() {
    let mut pair = Pair::new(FRAMES);
    let layout = pair.nodes[0].0.layout().clone();
    let runs = layout.end().0 / RUN_PAGES;
    let in_ram = |gfn: &Gfn| layout.home(*gfn).is_some();
    let pages = |round: u64| (0..runs).map(move |run| Gfn(run * RUN_PAGES + round * 7));
    for round in 0..3 {
        pages(round).filter(in_ram).for_each(|gfn| pair.write(0, gfn));
        pair.check_frames();
    }
    let out = pair.nodes[0].0.counters().tables_out;
    assert!(out > runs, "{out} tables were taken out");
    // Nothing that was written is lost, whoever looks.
    for round in 0..3 {
        pages(round).filter(in_ram).for_each(|gfn| pair.reads_own_number(gfn));
    }
    pair.check_frames();
}

/// Runs of zeroes that were asked for while there were plenty of frames go when
/// there are not, and the frames of their tables are for pages.
#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn pages_get_the_frames_of_tables_that_are_not_worth_them() {
    let mut pair = Pair::new(FRAMES);
    for run in 0..700 {
        pair.write(0, Gfn(run * RUN_PAGES));
    }
    let (sparse, _) = pair.nodes[0].0.table_frames();
    assert!(sparse > 600, "{sparse} tables");
    let mut came = 0;
    for _ in 0..10 {
        let before = *pair.nodes[0].0.counters();
        (0..1730).for_each(|page| pair.write(0, Gfn(800 * RUN_PAGES + page)));
        let after = *pair.nodes[0].0.counters();
        came = after.pages_in + after.zero_pages - before.pages_in - before.zero_pages;
    }
    pair.check_frames();
    assert_eq!(came, 0, "all that is used is here");
    let (dense, _) = pair.nodes[0].0.table_frames();
    assert!(dense < 200, "{dense} tables");
    (0..700).for_each(|run| pair.reads_own_number(Gfn(run * RUN_PAGES)));
}

/// What was given to the guest fits: as many pages as all nodes have promised,
/// written in an order that puts each into another run than the last.
#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn all_that_was_promised_can_be_filled() {
    let mut pair = Pair::new([3 * RUN_PAGES, 90 * RUN_PAGES]);
    let layout = pair.nodes[0].0.layout().clone();
    let runs = layout.end().0 / RUN_PAGES;
    for page in 0..RUN_PAGES {
        for run in 0..runs {
            pair.write(0, Gfn(run * RUN_PAGES + page));
        }
    }
    for (i, page) in (0..RUN_PAGES).rev().enumerate() {
        let run = i as u64 * 7 % runs;
        pair.reads_own_number(Gfn(run * RUN_PAGES + page));
    }
    pair.deliver_all();
    let masters: u64 = pair.nodes.iter().map(|(c, _)| c.masters()).sum();
    assert_eq!(masters, layout.total_pages());
}
