//! Where guest memory lies and which node is home to it.
//!
//! The guest's RAM is the nodes' contributions one after the other, in node
//! order. It starts at 0, leaves out two holes, the PC's legacy area
//! (640 KiB to 1 MiB is RAM to the coherence protocol but not offered to the
//! guest as usable) and the 32-bit device window (3 GiB to 4 GiB), and goes on
//! above 4 GiB. Each node's contribution is one NUMA node of the guest, and
//! the node is home to it. Every node computes the same layout from the same
//! membership.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use addr::{Gfn, NodeId, RUN_PAGES};
use alloc::vec::Vec;

/// First page of the 32-bit device window (3 GiB).
pub const HOLE_START: Gfn = Gfn(0xC_0000);
/// First page above the device window (4 GiB).
pub const HOLE_END: Gfn = Gfn(0x10_0000);

/// A half-open range of guest RAM that has one home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HomeRange {
    /// First page.
    pub start: Gfn,
    /// One past the last page.
    pub end: Gfn,
    /// The node that keeps the directory entries of these pages.
    pub home: NodeId,
}

/// A contribution that no layout can be made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// No node, or more than [`addr::MAX_NODES`].
    NodeCount,
    /// A contribution that is not a multiple of 2 MiB or is zero.
    Unaligned(NodeId),
}

/// The guest's RAM and its homes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    ranges: Vec<HomeRange>,
    /// Linear start of each node's contribution, in pages; one more at the end.
    starts: Vec<u64>,
    /// Nodes a page, times 2^64: where a page's home is if all contributions
    /// are of about one size.
    nodes_per_page: u64,
}

/// Turns a page's place in the row of all contributions into its gfn.
const fn gfn_of(linear: u64) -> Gfn {
    if linear < HOLE_START.0 { Gfn(linear) } else { Gfn(linear - HOLE_START.0 + HOLE_END.0) }
}

impl Layout {
    /// Lays out contributions of `pages[n]` pages by node n, each a multiple
    /// of 2 MiB.
    ///
    /// # Errors
    /// [`LayoutError`] names the node whose contribution cannot be laid out.
    pub fn new(pages: &[u64]) -> Result<Layout, LayoutError> {
        if pages.is_empty() || pages.len() > addr::MAX_NODES {
            return Err(LayoutError::NodeCount);
        }
        let mut ranges = Vec::new();
        let mut starts = alloc::vec![0];
        let mut linear = 0u64;
        for (n, &count) in pages.iter().enumerate() {
            let home = NodeId(n as u16);
            if count == 0 || count % RUN_PAGES != 0 {
                return Err(LayoutError::Unaligned(home));
            }
            let end = linear + count;
            if linear < HOLE_START.0 && end > HOLE_START.0 {
                ranges.push(HomeRange { start: gfn_of(linear), end: HOLE_START, home });
                let end = Gfn(end - HOLE_START.0 + HOLE_END.0);
                ranges.push(HomeRange { start: HOLE_END, end, home });
            } else {
                let start = gfn_of(linear);
                ranges.push(HomeRange { start, end: start.offset_by(count), home });
            }
            linear = end;
            starts.push(linear);
        }
        // A contribution has 512 pages at least, so this is below 2^64.
        let nodes_per_page = (((pages.len() as u128) << 64) / u128::from(linear)) as u64;
        Ok(Layout { ranges, starts, nodes_per_page })
    }

    /// RAM ranges in ascending order, each with one home.
    #[must_use]
    pub fn ranges(&self) -> &[HomeRange] {
        &self.ranges
    }

    /// Number of nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    /// All RAM, in pages.
    #[must_use]
    pub fn total_pages(&self) -> u64 {
        self.starts[self.nodes()]
    }

    /// One past the highest page of RAM.
    #[must_use]
    pub fn end(&self) -> Gfn {
        gfn_of(self.total_pages() - 1).offset_by(1)
    }

    /// Pages that `node` is home to.
    #[must_use]
    pub fn pages_of(&self, node: NodeId) -> u64 {
        self.starts[node.index() + 1] - self.starts[node.index()]
    }

    /// The page's place in the row of all contributions, if it is RAM.
    #[inline(always)]
    #[must_use]
    pub fn linear(&self, gfn: Gfn) -> Option<u64> {
        let linear = if gfn.0 < HOLE_START.0 {
            gfn.0
        } else if gfn.0 >= HOLE_END.0 {
            gfn.0 - HOLE_END.0 + HOLE_START.0
        } else {
            return None;
        };
        (linear < self.total_pages()).then_some(linear)
    }

    /// Home of a page, and its index among the pages of that home; `None`
    /// where there is no RAM. Bounded by log2 of the node count.
    #[inline(always)]
    #[must_use]
    pub fn home(&self, gfn: Gfn) -> Option<(NodeId, u64)> {
        let linear = self.linear(gfn)?;
        let guess = ((u128::from(linear) * u128::from(self.nodes_per_page)) >> 64) as usize;
        match self.starts.get(guess..guess + 2) {
            Some(&[start, end]) if (start..end).contains(&linear) => {
                Some((NodeId(guess as u16), linear - start))
            }
            _ => Some(self.search(linear)),
        }
    }

    #[cold]
    fn search(&self, linear: u64) -> (NodeId, u64) {
        let node = self.starts.partition_point(|&s| s <= linear) - 1;
        (NodeId(node as u16), linear - self.starts[node])
    }

    /// The page at `index` among the pages `node` is home to.
    #[must_use]
    pub fn gfn_at(&self, node: NodeId, index: u64) -> Gfn {
        gfn_of(self.starts[node.index()] + index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 256;
    const GIB: u64 = 1024 * MIB;

    #[test]
    fn small_cluster_is_one_row() {
        let l = Layout::new(&[512 * MIB, 512 * MIB]).unwrap();
        assert_eq!(l.home(Gfn(0)), Some((NodeId(0), 0)));
        assert_eq!(l.home(Gfn(512 * MIB)), Some((NodeId(1), 0)));
        assert_eq!(l.home(Gfn(1024 * MIB)), None);
        assert_eq!(l.end(), Gfn(1024 * MIB));
    }

    #[test]
    fn the_window_splits_a_contribution() {
        let l = Layout::new(&[2 * GIB, 2 * GIB]).unwrap();
        assert_eq!(l.ranges().len(), 3);
        assert_eq!(l.home(HOLE_START), None);
        assert_eq!(l.home(HOLE_END), Some((NodeId(1), GIB)));
        assert_eq!(l.gfn_at(NodeId(1), GIB), HOLE_END);
        assert_eq!(l.end(), Gfn(5 * GIB));
        let covered: u64 = l.ranges().iter().map(|r| r.end.0 - r.start.0).sum();
        assert_eq!(covered, l.total_pages());
    }

    #[test]
    fn every_page_round_trips() {
        let l = Layout::new(&[512, 1024, 512]).unwrap();
        assert_eq!(l.home(Gfn(511)), Some((NodeId(0), 511)));
        assert_eq!(l.home(Gfn(1535)), Some((NodeId(1), 1023)));
        assert_eq!([0, 1, 2].map(|n| l.pages_of(NodeId(n))), [512, 1024, 512]);
        for g in 0..2048 {
            let (home, index) = l.home(Gfn(g)).unwrap();
            assert!(index < l.pages_of(home), "{g} is page {index} of {home:?}");
            assert_eq!(l.gfn_at(home, index), Gfn(g));
        }
    }

    #[test]
    fn contributions_that_are_refused() {
        assert_eq!(Layout::new(&[]), Err(LayoutError::NodeCount));
        assert_eq!(Layout::new(&[512, 5]), Err(LayoutError::Unaligned(NodeId(1))));
        assert_eq!(Layout::new(&[0]), Err(LayoutError::Unaligned(NodeId(0))));
    }
}
