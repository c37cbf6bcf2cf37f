//! The page server's memory.

use crate::link::PAGE;
use crate::memory::Mapping;
use anyhow::{Context, Result};

/// Pages in memory, all zero at first.
pub(crate) struct Store {
    memory: Mapping,
    pages: usize,
}

impl Store {
    /// Makes room for `pages` pages in ordinary memory.
    pub(crate) fn new(pages: usize) -> Result<Store> {
        Ok(Store { memory: Mapping::resident(pages * PAGE)?, pages })
    }

    /// The same in huge pages, from which a device can read.
    pub(crate) fn huge(pages: usize) -> Result<Store> {
        Ok(Store { memory: Mapping::huge(pages * PAGE)?, pages })
    }

    /// The bytes of a page.
    pub(crate) fn page_mut(&mut self, page: u32) -> Result<&mut [u8; PAGE]> {
        let at = page as usize;
        (at < self.pages)
            .then(|| self.memory.bytes_mut(at * PAGE, PAGE))
            .and_then(|bytes| bytes.try_into().ok())
            .with_context(|| format!("the pager asks for page {page} of {}", self.pages))
    }

    /// The memory itself.
    pub(crate) fn memory(&self) -> &Mapping {
        &self.memory
    }
}
