//! What a run of the model explores: nodes, pages, frames, and what may
//! happen.

use addr::{Frame, Gfn, NodeId, RUN_PAGES};

/// Nodes at most.
pub const NODES_MAX: usize = 3;
/// Pages at most, those that stand for all others of their run included.
pub const PAGES_MAX: usize = 6;

/// What may happen besides loads, stores and messages in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct May {
    /// Stores of zero, so that written pages are dormant again.
    pub store_zero: bool,
    /// Any page leaves at any time, and any node may seem to have room.
    pub evict: bool,
    /// The engine picks the pages to leave, and nodes know each other's room.
    /// What its choice rests on is no part of a state: one choice is explored
    /// of those that a state may lead to. Every choice is where `evict` is.
    pub balance: bool,
    /// Faults ask for the page after theirs as well.
    pub ahead: bool,
    /// Pages are asked for that nobody waits for.
    pub prefetch: bool,
    /// The fabric lets go of frames some time after their message arrived.
    pub late_release: bool,
    /// Tables of leaves that say nothing are taken out at any time, and pages
    /// of zeroes without frames leave.
    pub take_out: bool,
    /// Runs that are a node's alone are merged at any time.
    pub merge: bool,
    /// A node dies.
    pub die: bool,
}

/// One model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name on the command line.
    pub name: &'static str,
    /// Frames for pages of each node, besides the reserve.
    pub frames: &'static [u64],
    /// Frames kept back for tables, fewer than there can be of them; else all.
    pub tables: Option<u64>,
    /// Frames kept back for pages on their way, at each node.
    pub reserve: u64,
    /// The pages that are accessed, by home and place among those at its end.
    pub pages: &'static [(u16, u64)],
    /// Fetches that a node may have open.
    pub open_max: usize,
    /// Evictions that a node may have open.
    pub puts_max: usize,
    /// Sharers that a home asks to take a master over before it is moved.
    pub asks_max: u16,
    /// What may happen.
    pub may: May,
    /// Every access must succeed in the end. Not where frames are too few
    /// for that, as they never are in a cluster of [`coherence::Limits::new`].
    pub live: bool,
    /// Whether the short form explores it as well, and how many states of it
    /// at most.
    pub short: Option<usize>,
    /// States that are explored at most if nobody says otherwise.
    pub most: usize,
}

impl Config {
    /// How many nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.frames.len()
    }

    /// Frames that each node keeps back for tables.
    #[must_use]
    pub fn table_frames(&self) -> u64 {
        // The root, two upper tables, one of leaves for each run, and the
        // directory's: all that there can be.
        self.tables.unwrap_or(3 + self.nodes() as u64 + 1)
    }

    /// The frame of a node's link in which a page may land, behind all others.
    #[must_use]
    pub fn link_frame(&self, node: usize) -> Frame {
        Frame(1 + self.table_frames() + self.reserve + self.frames[node])
    }

    /// Nodes that are home to a page, and so have a table in the directory.
    pub fn homes(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..self.nodes() as u16).filter(|n| self.pages.iter().any(|(h, _)| h == n)).map(NodeId)
    }

    /// The gfn of a page that is accessed. These are the last of their home's
    /// only run: then a grant of single pages never covers a page that is not
    /// among them.
    #[must_use]
    pub fn gfn(&self, page: usize) -> Gfn {
        let (home, at) = self.pages[page];
        let most = self.pages.iter().filter(|(h, _)| *h == home).count() as u64;
        assert!(at < most, "{}: pages of a home are numbered from 0", self.name);
        Gfn((u64::from(home) + 1) * RUN_PAGES - most + at)
    }

    /// The same, and for each home one page that stands for all that are only
    /// granted with the whole run.
    #[must_use]
    pub fn all_gfns(&self) -> Vec<Gfn> {
        let first = self.homes().map(|home| Gfn(u64::from(home.0) * RUN_PAGES));
        let accessed = (0..self.pages.len()).map(|page| self.gfn(page));
        accessed.chain(first).collect()
    }
}
