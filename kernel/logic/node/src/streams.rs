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
//! is fetched; when an eighth of that is used up, as much more is asked for, while
//! the rest still arrives. Often the guest misses once for dozens of pages that
//! have come together: who waits until half is used up has nothing on its way
//! after every second of these.

use addr::{Access, Gfn};

/// Streams followed at once.
const STREAMS: usize = 4;
/// Steps that a stream remembers.
const WINDOW: usize = 8;
/// A miss within so many pages of a stream's last one belongs to it.
const NEAR: i64 = 256;
/// Most pages fetched ahead, of all streams together: a little less than the
/// fetches that may be open, since what is missed needs one as well.
const DEPTH_MAX: u16 = 120;
/// A stream this deep takes its share of them,
const SHARES_FROM: u16 = 7;
/// until there have been so many misses elsewhere.
const SHARES_FOR: u32 = 32;
/// Least number of pages worth a request of their own,
const REQUEST_MIN: u16 = 4;
/// and least share of the depth.
const REQUEST_SHARE: u16 = 8;

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

    /// How to ask for them where the miss is an access of that kind.
    #[must_use]
    pub fn access(&self, missed: Access) -> Access {
        if self.writes { Access::Write } else { missed }
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
    fn goes_on(&mut self, gfn: Gfn, open: bool, most: u16) {
        self.remember(self.step);
        self.depth = (self.depth * 2 + 1).min(most);
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
        if ahead > 0 && (count < self.depth / REQUEST_SHARE || count < REQUEST_MIN) {
            return Run::default();
        }
        let run = Run { from: self.frontier, step: self.step, count, writes: self.writes };
        self.frontier = walk(self.frontier, self.step * i64::from(count));
        run
    }
}

impl Streams {
    /// Whether something is fetched ahead of any stream, so that the next miss
    /// may be part of it. At random nothing is.
    #[must_use]
    pub fn are_followed(&self) -> bool {
        self.streams.iter().any(|s| s.depth > 0)
    }

    /// Notes a miss at `gfn`, which is on its way if `open`; what to fetch
    /// ahead of it. At random that is nothing.
    pub fn miss(&mut self, gfn: Gfn, open: bool) -> Run {
        self.clock = self.clock.wrapping_add(1).max(1);
        let (at, how) = self.find(gfn);
        let most = if matches!(how, Found::Expected) { self.share(at) } else { 0 };
        let stream = &mut self.streams[at];
        match how {
            Found::Expected => stream.goes_on(gfn, open, most),
            Found::Near => stream.turns(gfn),
            Found::Oldest => *stream = Stream { last: gfn, ..Stream::default() },
        }
        stream.used = self.clock;
        stream.ask(gfn)
    }

    /// How deep a stream may be beside the others that are followed now.
    fn share(&self, at: usize) -> u16 {
        let deep =
            |s: &Stream| s.depth >= SHARES_FROM && self.clock.wrapping_sub(s.used) <= SHARES_FOR;
        let others = (0..).zip(&self.streams).filter(|&(i, s)| i != at && deep(s)).count();
        DEPTH_MAX / (1 + others as u16)
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
mod tests;
