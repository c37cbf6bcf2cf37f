use super::*;

/// Counts fetched ahead of misses that all were on no page on its way.
fn counts(s: &mut Streams, misses: &[u64]) -> Vec<u16> {
    misses.iter().map(|&g| s.miss(Gfn(g), false).count).collect()
}
use alloc::vec::Vec;

#[test]
fn only_misses_that_follow_on_fetch_ahead() {
    let mut s = Streams::default();
    assert_eq!(counts(&mut s, &[100, 101, 103, 107, 115, 131]), [0, 1, 3, 7, 15, 31]);
    assert_eq!(counts(&mut s, &[5000, 90000, 7700]), [0; 3]);
    assert_eq!(counts(&mut s, &[163, 227]), [63, 120]);
}

#[test]
fn a_stream_is_followed_while_it_fetches_ahead() {
    let mut s = Streams::default();
    assert!(!s.are_followed());
    counts(&mut s, &[100, 5000, 90000]);
    assert!(!s.are_followed(), "at random there is none");
    counts(&mut s, &[101]);
    assert!(s.are_followed());
}

#[test]
fn two_areas_walked_in_turn_are_two_streams() {
    let mut s = Streams::default();
    let both = counts(&mut s, &[10, 5000, 11, 5001, 13, 5003]);
    assert_eq!(both, [0, 0, 1, 1, 3, 3]);
}

/// Walks areas in turn, each from where it has asked on; what the last round
/// asked for.
fn walk(s: &mut Streams, areas: &[u64], rounds: usize) -> Vec<u16> {
    let mut next = areas.to_vec();
    let mut round = || {
        let step = |at: &mut u64| {
            let count = s.miss(Gfn(*at), false).count;
            *at += 1 + u64::from(count);
            count
        };
        next.iter_mut().map(step).collect()
    };
    (1..rounds).for_each(|_| drop::<Vec<u16>>(round()));
    round()
}

/// However many there are, what is missed next finds a fetch to open.
#[test]
fn streams_share_what_may_be_under_way() {
    let open_max = coherence::Limits::new(1 << 20, 1 << 21, true).open_max;
    assert!(usize::from(DEPTH_MAX) < open_max, "{open_max}");
    for (areas, share) in [(1, 120), (2, 60), (3, 40), (4, 30)] {
        let areas: Vec<u64> = (1..=areas).map(|i| i * 100_000).collect();
        let asked = walk(&mut Streams::default(), &areas, 12);
        assert!(asked.iter().all(|&count| count == share), "{asked:?}");
    }
    // When the others are over, one has all.
    let mut s = Streams::default();
    walk(&mut s, &[100_000, 200_000], 12);
    assert_eq!(walk(&mut s, &[300_000], 12), [40]);
    assert_eq!(walk(&mut s, &[400_000], 40), [120]);
}

#[test]
fn the_next_run_is_asked_for_while_the_last_one_arrives() {
    let mut s = Streams::default();
    counts(&mut s, &[100, 101, 103, 107, 115]);
    // 116 to 130 are on their way. The guest waits for one after the other.
    let late: Vec<Run> = (116..=160).map(|g| s.miss(Gfn(g), true)).collect();
    let first = Run { from: Gfn(131), step: 1, count: 17, writes: false };
    assert_eq!(late[0], first, "the window doubles");
    let asked: Vec<(usize, u16)> =
        late.iter().enumerate().filter(|(_, r)| r.count > 0).map(|(i, r)| (i, r.count)).collect();
    assert_eq!(asked, [(0, 17), (1, 33), (2, 58), (17, 15), (32, 15)], "not one by one");
    assert_eq!(late[32].from, Gfn(254));
}

#[test]
fn strides_and_backward_walks_are_found() {
    for step in [-1i64, 3, -7, 64] {
        let mut s = Streams::default();
        let mut at = 1_000_000i64;
        let (mut asked, mut misses) = (alloc::collections::BTreeSet::new(), 0);
        for _ in 0..200 {
            if !asked.contains(&at) {
                misses += 1;
                let run = s.miss(Gfn(at as u64), false);
                assert!(run.count == 0 || run.step == step, "{step}: {run:?}");
                asked.extend((0..i64::from(run.count)).map(|i| run.from.0 as i64 + i * step));
            }
            at += step;
        }
        assert!(misses < 20, "{step}: {misses} misses");
    }
}

#[test]
fn stray_misses_do_not_end_a_trend() {
    let mut s = Streams::default();
    counts(&mut s, &[1000, 1005, 1010, 1015, 1020]);
    let strayed = s.miss(Gfn(1033), false);
    assert_eq!(strayed.step, 5, "{strayed:?}");
}

#[test]
fn random_misses_fetch_next_to_nothing() {
    let mut s = Streams::default();
    let mut x = 1u64;
    let mut fetched = 0u32;
    let misses = if cfg!(miri) { 1_000 } else { 100_000 };
    for _ in 0..misses {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        fetched += u32::from(s.miss(Gfn((x >> 33) % 65536), false).count);
    }
    // At most 3 pages in a hundred faults.
    assert!(fetched < misses / 100 * 3, "{fetched}");
}

#[test]
fn a_page_refused_is_asked_for_again() {
    let mut s = Streams::default();
    counts(&mut s, &[100, 101, 103, 107]);
    let run = s.miss(Gfn(110), false);
    assert_eq!((run.from, run.step), (Gfn(111), 1));
}

#[test]
fn a_stream_that_writes_is_remembered() {
    let mut s = Streams::default();
    counts(&mut s, &[100, 101]);
    s.upgrade(Gfn(101));
    assert!(s.miss(Gfn(103), false).writes);
    assert!(!s.miss(Gfn(9000), false).writes);
}

#[test]
fn a_majority_is_more_than_half_of_the_last_misses() {
    let majority = |steps: &[i64]| {
        let mut stream = Stream::default();
        steps.iter().for_each(|&step| stream.remember(step));
        stream.majority()
    };
    for (steps, step) in [
        (&[5, 5, 5][..], 0),
        (&[5, 5, 5, 1], 5),
        (&[1, 5, 5, 5], 5),
        (&[5, 1, 5, 5], 5),
        (&[5, 5, 1, 1], 0),
        (&[5, 5, 5, 5, 1, 1, 1, 1], 1),
        (&[5, 5, 5, 2, 5, 5, 1, 2], 5),
        (&[5, 1, 5, 1, 5, 1, 5, 1], 0),
        (&[4, 3, 5, 5, 2, 1, 5, 5], 0),
        (&[1, 2, 3, 4, 5, 6, 7, 8], 0),
    ] {
        assert_eq!(majority(steps), step, "{steps:?}");
    }
    // By the definition, for all rows of three steps.
    for row in (0..3u32.pow(8)).step_by(if cfg!(miri) { 97 } else { 1 }) {
        let steps =
            core::array::from_fn::<i64, 8, _>(|i| i64::from(row / 3u32.pow(i as u32) % 3) + 1);
        let most = |last: &[i64]| {
            let count = |&step: &i64| last.iter().filter(|&&s| s == step).count();
            last.iter().copied().find(|step| count(step) * 2 > last.len())
        };
        let defined = most(&steps[4..]).or(most(&steps)).unwrap_or(0);
        assert_eq!(majority(&steps), defined, "{steps:?}");
    }
}

#[test]
fn a_stream_comes_by_what_it_has_asked_for() {
    let stream = Stream {
        last: Gfn(100),
        used: 1,
        step: 3,
        depth: 4,
        frontier: Gfn(112),
        ..Stream::default()
    };
    // Its last miss was on page 100.
    for pages in [3, 12] {
        assert!(stream.comes_by(pages), "{pages}");
    }
    for pages in [-3, 0, 1, 4, 15] {
        assert!(!stream.comes_by(pages), "{pages}");
    }
    for none in [Stream { depth: 0, ..stream }, Stream { step: 0, ..stream }] {
        assert!(!none.comes_by(3));
    }
    let backwards = Stream { step: -3, frontier: Gfn(88), ..stream };
    assert!([-3, -12].map(|p| backwards.comes_by(p)) == [true; 2]);
    assert!([3, 12, -1, -15].map(|p| backwards.comes_by(p)) == [false; 4]);
}

#[test]
fn a_stray_miss_halves_and_a_turn_begins_anew() {
    let stream = Stream {
        last: Gfn(1000),
        used: 1,
        steps: [5; WINDOW],
        known: WINDOW as u8,
        step: 5,
        depth: 15,
        writes: true,
        ..Stream::default()
    };
    let turned = |mut stream: Stream, gfn| {
        stream.turns(Gfn(gfn));
        (stream.step, stream.depth, stream.writes)
    };
    assert_eq!(turned(stream, 1013), (5, 8, true));
    assert_eq!(turned(Stream { writes: false, ..stream }, 1013), (5, 8, false));
    let young = Stream { known: 0, ..stream };
    assert_eq!(turned(young, 999), (-1, 1, false));
    assert_eq!(turned(young, 1013), (0, 0, false));
}

#[test]
fn only_what_follows_at_once_goes_along() {
    let run = Run { from: Gfn(11), step: 1, count: 7, writes: false };
    assert_eq!((run.along_with(Gfn(10)), run.along_with(Gfn(11))), (7, 0));
    assert_eq!(Run { step: 2, ..run }.along_with(Gfn(10)), 0);
}

#[test]
fn a_write_belongs_to_the_stream_that_has_passed_there() {
    for (step, away, writes) in [(1, 120, true), (1, 121, false), (5, 600, true), (5, 601, false)] {
        let mut s = Streams::default();
        counts(&mut s, &[0, 1, 2, 3, 4].map(|i| 10_000 + i * step));
        let last = s.streams[0].last;
        s.upgrade(last.offset_by(away));
        let marked = s.streams.iter().filter(|stream| stream.writes).count();
        assert_eq!(marked, usize::from(writes), "{away} pages from a step of {step}");
    }
}
