//! Follows the guest's misses to fetch ahead of them.
//!
//! A stream is a row of misses near each other: a copy or a comparison walks
//! two or three areas in turn. The step of a stream is what the majority of
//! its last misses say (Boyer and Moore's vote, over a window that grows until
//! there is a majority), as Leap does it (Al Maruf and Chowdhury, USENIX ATC
//! 2020), so that a few stray misses end nothing and steps other than one page,
//! backwards too, are found.
//!
//! A page that was asked for and has been touched does not fault. So what is
//! known of the guest's progress are its misses: on the first page that was not
//! asked for, or on one that is still on its way. Either doubles how far ahead
//! is fetched; when half of that is used up, the rest is asked for, while the
//! other half still arrives.

use addr::Gfn;

/// Streams followed at once.
const STREAMS: usize = 4;
/// Steps that a stream remembers.
const WINDOW: usize = 8;
/// A miss within so many pages of a stream's last one belongs to it.
const NEAR: i64 = 256;
/// Most pages fetched ahead of a stream.
const DEPTH_MAX: u16 = 31;
/// Least number of pages worth a request of their own.
const REQUEST_MIN: u16 = 4;

/// Pages to fetch ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// The first of them.
    pub from: Gfn,
    /// From one to the next; not 0 where there are any.
    pub step: i64,
    /// How many.
    pub count: u16,
    /// The stream writes what it has read.
    pub writes: bool,
}

impl Run {
    /// How many of them the request for the page missed can take along: all if
    /// they follow it, else none.
    #[must_use]
    pub fn along_with(&self, missed: Gfn) -> u16 {
        if self.step == 1 && self.from == missed.offset_by(1) { self.count } else { 0 }
    }
}

/// All streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Streams {
    streams: [Stream; STREAMS],
    /// Misses so far.
    clock: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Stream {
    last: Gfn,
    /// When the last miss was; 0 for an unused row.
    used: u32,
    steps: [i16; WINDOW],
    /// Steps that count.
    known: u8,
    step: i64,
    /// The first page, in steps, that was not asked for.
    frontier: Gfn,
    /// How many pages to be ahead.
    depth: u16,
    writes: bool,
}

/// How a miss belongs to a stream.
enum Found {
    Expected,
    Near,
    Oldest,
}

const fn distance(from: Gfn, to: Gfn) -> i64 {
    to.0.wrapping_sub(from.0) as i64
}

const fn walk(from: Gfn, pages: i64) -> Gfn {
    Gfn(from.0.wrapping_add(pages as u64))
}

impl Stream {
    /// Whether the stream comes by `pages` pages after the last miss, and has
    /// asked for all that lies before.
    fn comes_by(&self, pages: i64) -> bool {
        if self.step == 0 || self.depth == 0 {
            return false;
        }
        let asked = distance(self.last, self.frontier);
        // A miss at random ends here: two divisions less.
        if pages.unsigned_abs() > asked.unsigned_abs() {
            return false;
        }
        let (steps, end) = (pages / self.step, asked / self.step);
        pages % self.step == 0 && steps > 0 && steps <= end
    }

    fn remember(&mut self, step: i64) {
        self.steps.rotate_right(1);
        self.steps[0] = step as i16;
        self.known = (self.known + 1).min(WINDOW as u8);
    }

    /// The step of more than half of the last misses; 0 if there is none.
    fn majority(&self) -> i64 {
        // More than half of a row are never without two side by side: at random
        // there are none.
        if self.steps.windows(2).all(|pair| pair[0] != pair[1]) {
            return 0;
        }
        let known = usize::from(self.known);
        let mut window = WINDOW / 2;
        while window <= known {
            let steps = &self.steps[..window];
            let (mut candidate, mut votes) = (0, 0);
            for &step in steps {
                if votes == 0 {
                    candidate = step;
                }
                votes += if step == candidate { 1 } else { -1 };
            }
            if steps.iter().filter(|&&s| s == candidate).count() * 2 > window {
                return i64::from(candidate);
            }
            window *= 2;
        }
        0
    }

    /// A miss where the stream was expected. `open`: the page is on its way.
    fn goes_on(&mut self, gfn: Gfn, open: bool) {
        self.remember(self.step);
        self.depth = (self.depth * 2 + 1).min(DEPTH_MAX);
        if !open {
            // Either the end of what was asked for, or one that was refused.
            self.frontier = walk(gfn, self.step);
        }
    }

    /// A miss near the last one, but elsewhere.
    fn turns(&mut self, gfn: Gfn) {
        let step = distance(self.last, gfn);
        self.remember(step);
        let trend = match self.majority() {
            // A neighbour is a good guess at once.
            0 if step.abs() == 1 => step,
            trend => trend,
        };
        self.depth = if trend == 0 || trend != self.step {
            trend.signum().unsigned_abs() as u16
        } else {
            self.depth.div_ceil(2)
        };
        self.writes &= trend == self.step;
        self.step = trend;
        self.frontier = walk(gfn, trend);
    }

    /// What is to be fetched now; taken as fetched.
    fn ask(&mut self, gfn: Gfn) -> Run {
        self.last = gfn;
        if self.depth == 0 {
            return Run::default();
        }
        let ahead = (distance(gfn, self.frontier) / self.step - 1).max(0) as u16;
        let count = self.depth.saturating_sub(ahead);
        // Not one by one, but in runs.
        if ahead > 0 && (count < self.depth / 2 || count < REQUEST_MIN) {
            return Run::default();
        }
        let run = Run { from: self.frontier, step: self.step, count, writes: self.writes };
        self.frontier = walk(self.frontier, self.step * i64::from(count));
        run
    }
}

impl Streams {
    /// Notes a miss at `gfn`, which is on its way if `open`; what to fetch
    /// ahead of it. At random that is nothing.
    pub fn miss(&mut self, gfn: Gfn, open: bool) -> Run {
        self.clock = self.clock.wrapping_add(1).max(1);
        let (at, how) = self.find(gfn);
        let stream = &mut self.streams[at];
        match how {
            Found::Expected => stream.goes_on(gfn, open),
            Found::Near => stream.turns(gfn),
            Found::Oldest => *stream = Stream { last: gfn, ..Stream::default() },
        }
        stream.used = self.clock;
        stream.ask(gfn)
    }

    /// The stream that a miss belongs to: one that comes by there, else the
    /// nearest, else one to be forgotten for a new one.
    fn find(&self, gfn: Gfn) -> (usize, Found) {
        let (mut nearest, mut oldest) = ((NEAR as u64 + 1, 0), (u32::MAX, 0));
        for (at, stream) in self.streams.iter().enumerate() {
            if stream.used < oldest.0 {
                oldest = (stream.used, at);
            }
            if stream.used == 0 {
                continue;
            }
            let pages = distance(stream.last, gfn);
            if stream.comes_by(pages) {
                return (at, Found::Expected);
            }
            let away = pages.unsigned_abs();
            if away != 0 && away < nearest.0 {
                nearest = (away, at);
            }
        }
        match nearest {
            (away, at) if away <= NEAR as u64 => (at, Found::Near),
            _ => (oldest.1, Found::Oldest),
        }
    }

    /// Notes that the guest writes to a page that it could only read.
    pub fn upgrade(&mut self, gfn: Gfn) {
        let passed = |s: &&mut Stream| {
            s.used != 0
                && s.depth > 0
                && distance(s.last, gfn).abs() <= i64::from(DEPTH_MAX) * s.step.abs()
        };
        if let Some(stream) = self.streams.iter_mut().find(passed) {
            stream.writes = true;
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(counts(&mut s, &[163]), [31]);
    }

    #[test]
    fn two_areas_walked_in_turn_are_two_streams() {
        let mut s = Streams::default();
        let both = counts(&mut s, &[10, 5000, 11, 5001, 13, 5003]);
        assert_eq!(both, [0, 0, 1, 1, 3, 3]);
    }

    #[test]
    fn the_next_run_is_asked_for_while_the_last_one_arrives() {
        let mut s = Streams::default();
        counts(&mut s, &[100, 101, 103, 107, 115]);
        // 116 to 130 are on their way. The guest waits for one after the other.
        let late: Vec<Run> = (116..=131).map(|g| s.miss(Gfn(g), true)).collect();
        let first = Run { from: Gfn(131), step: 1, count: 17, writes: false };
        assert_eq!(late[0], first, "the window doubles");
        let asked: Vec<(usize, u16)> = late
            .iter()
            .enumerate()
            .filter(|(_, r)| r.count > 0)
            .map(|(i, r)| (i, r.count))
            .collect();
        assert_eq!(asked, [(0, 17), (15, 15)], "not one by one");
        assert_eq!(late[15].from, Gfn(148));
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
        for (step, away, writes) in [(1, 31, true), (1, 32, false), (5, 100, true), (5, 160, false)]
        {
            let mut s = Streams::default();
            counts(&mut s, &[0, 1, 2, 3, 4].map(|i| 10_000 + i * step));
            let last = s.streams[0].last;
            s.upgrade(last.offset_by(away));
            let marked = s.streams.iter().filter(|stream| stream.writes).count();
            assert_eq!(marked, usize::from(writes), "{away} pages from a step of {step}");
        }
    }
}
