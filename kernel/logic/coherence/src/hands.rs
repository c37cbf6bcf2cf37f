//! Which pages leave first: a clock with two hands.
//!
//! Both hands go round what the node holds in the order of gfns. The front
//! hand clears accessed flags; the back hand follows a fixed number of pages
//! behind and takes a page that has not been used in between. So a page that
//! was touched once leaves at the first meeting, and no call ever has to
//! sweep the whole memory before it finds something (4.3BSD's two-handed
//! clock).

use super::{Coherence, Env};
use addr::{Gfn, RUN_PAGES};
use paging::HostMemory;
use paging::table::Scanned;

/// Table entries that one step of a hand looks at.
const STRIDE: usize = 128;

/// Where the hands are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hands {
    pub(crate) back: Gfn,
    pub(crate) front: Gfn,
    /// Held pages between them.
    pub(crate) lead: u64,
}

fn weight(page: &Scanned) -> u64 {
    if page.large { RUN_PAGES } else { 1 }
}

impl Coherence {
    /// Moves the back hand on; a page if it met one that may leave. The caller
    /// bounds how often it asks.
    pub(crate) fn next_victim<M: HostMemory, O>(
        &mut self,
        env: &mut Env<'_, M, O>,
    ) -> Option<Scanned> {
        let distance = self.pool.total_frames() / 8;
        let steps = if self.hands.lead < distance { 2 } else { 1 };
        (0..steps).for_each(|_| self.clear_ahead(env));
        let end = self.layout.end();
        let (found, next) = self.table.scan(env.memory, self.hands.back, end, STRIDE);
        self.hands.back = next.unwrap_or(Gfn(0));
        let page = found?;
        self.hands.lead = self.hands.lead.saturating_sub(weight(&page));
        (!page.entry.accessed).then_some(page)
    }

    fn clear_ahead<M: HostMemory, O>(&mut self, env: &mut Env<'_, M, O>) {
        let end = self.layout.end();
        let (found, next) = self.table.scan(env.memory, self.hands.front, end, STRIDE);
        self.hands.front = next.unwrap_or(Gfn(0));
        if let Some(page) = found {
            self.hands.lead += weight(&page);
            if page.entry.accessed {
                self.table.clear_accessed(env.memory, page.gfn);
            }
        }
    }

    /// Lets the back hand meet the pages of a large page that was split.
    pub(crate) fn turn_back(&mut self, to: Gfn) {
        self.hands.back = to;
        self.hands.lead += RUN_PAGES;
    }
}
