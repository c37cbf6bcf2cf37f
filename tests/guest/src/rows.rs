//! Several rows of pages that are touched as one.

use crate::memory::{Memory, Region};

/// Most rows.
const ROWS_MAX: usize = 8;

/// Rows of pages, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    rows: [Option<Region>; ROWS_MAX],
    pages: u64,
}

impl Rows {
    /// The first `pages` pages of all memory, or all if there are fewer.
    #[must_use]
    pub fn of(memory: &Memory, pages: u64) -> Rows {
        Rows::new(memory.regions(), pages)
    }

    /// The first `pages` pages of regions that do not overlap, or all if
    /// there are fewer.
    #[must_use]
    pub fn new(regions: impl Iterator<Item = Region>, pages: u64) -> Rows {
        let mut rows = [None; ROWS_MAX];
        let mut left = pages;
        for (place, region) in rows.iter_mut().zip(regions) {
            let part = region.part(0, left);
            *place = Some(part);
            left -= part.pages();
        }
        Rows { rows, pages: pages - left }
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The row and place of page `index`.
    ///
    /// # Panics
    /// If there are not so many pages.
    #[must_use]
    pub fn find(&self, index: u64) -> (Region, u64) {
        let mut index = index;
        for row in self.rows.iter().flatten() {
            if index < row.pages() {
                return (*row, index);
            }
            index -= row.pages();
        }
        panic!("page {index} beyond the last row");
    }

    /// The rows, cut at the first `pages` pages.
    pub fn parts(&self, pages: u64) -> impl Iterator<Item = Region> + '_ {
        let mut left = pages;
        self.rows.iter().flatten().map_while(move |row| {
            let part = row.part(0, left);
            left -= part.pages();
            (part.pages() > 0).then_some(part)
        })
    }
}
