use super::*;

/// 1 GiB of frames.
const GIB: u64 = 1 << 18;

#[test]
fn limits_grow_with_what_may_be_touched() {
    // Tables for its own pages, for the other GiB, for the directory, and
    // 16 and two for the levels above.
    let leader = Limits::new(GIB, 2 * GIB, true);
    assert_eq!((leader.table_frames, leader.reserve), (512 + 512 + 512 + 18, 1024));
    assert_eq!(leader.contribution(GIB), 506 * RUN_PAGES);
    let lender = Limits::new(GIB, 2 * GIB, false);
    assert_eq!((lender.table_frames, lender.reserve), (512 + 32 + 512 + 18, 1024));
    assert_eq!(lender.contribution(GIB), 507 * RUN_PAGES);
    // 64 GiB in a cluster of 1 TiB, and in one of 16 TiB.
    let tables = |cluster| Limits::new(64 * GIB, cluster, false).table_frames;
    assert_eq!(tables(1024 * GIB), 32_768 + 30_720 + 32_768 + 16 + 64 + 960);
    assert_eq!(tables(16_384 * GIB), 3 * 32_768 + 16 + 64 + 4096);
}

#[test]
fn the_reserve_has_bounds() {
    let reserve = |frames| Limits::new(frames, frames, true).reserve;
    assert_eq!((reserve(1000), reserve(GIB / 2), reserve(64 * GIB)), (192, 512, 4096));
}

#[test]
fn too_few_frames_add_nothing() {
    let limits = Limits::new(512, 512, true);
    assert_eq!((limits.contribution(512), limits.contribution(0)), (0, 0));
    let least = limits.table_frames + limits.reserve + RUN_PAGES;
    assert_eq!(limits.contribution(least), RUN_PAGES);
    assert_eq!(limits.contribution(least - 1), 0);
}

/// One root, a table for each 512 GiB and for each GiB begun, one for each
/// 2 MiB that there is and one for each that the node is home to.
#[test]
fn tables_are_covered_to_the_last_one() {
    for (pages, needed) in [
        ([2, 2], 3 + 4 + 2),
        ([600, 600], 1 + 3 + 1 + 1200 + 600),
        // 3 GiB below the window, and 512 GiB above 4 GiB.
        ([1536, 512 * 512], 1 + 516 + 2 + 1536 + 512 * 512 + 1536),
    ] {
        let layout = Layout::new(&pages.map(|runs| runs * RUN_PAGES)).unwrap();
        let limits = |table_frames| Limits { table_frames, ..Limits::new(GIB, GIB, true) };
        assert!(limits(needed).cover_tables(&layout, NodeId(0)), "{pages:?}");
        assert!(!limits(needed - 1).cover_tables(&layout, NodeId(0)), "{pages:?}");
    }
}
