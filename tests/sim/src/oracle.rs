//! What every page must hold, and how a write marks a page.

use crate::failure::{Class, Failure};
use addr::{Frame, Gfn};
use paging::HostMemory;
use std::collections::BTreeMap;

/// Where in a page its value stands: in each part of a page that travels in
/// parts.
const PLACES: [usize; 3] = [8, 2048, 4080];

/// The last write of every page.
#[derive(Default, Debug)]
pub struct Oracle {
    written: BTreeMap<Gfn, u64>,
    count: u64,
}

impl Oracle {
    /// A value that no write has had before; it tells the writer.
    pub fn fresh(&mut self, writer: usize) -> u64 {
        self.count += 1;
        (writer as u64 + 1) << 48 | self.count
    }

    /// Writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.count
    }

    /// Notes a write.
    pub fn wrote(&mut self, gfn: Gfn, value: u64) {
        self.written.insert(gfn, value);
    }

    /// What the page must hold.
    #[must_use]
    pub fn expected(&self, gfn: Gfn) -> u64 {
        self.written.get(&gfn).copied().unwrap_or(0)
    }

    /// Pages written at least once.
    pub fn pages(&self) -> impl Iterator<Item = Gfn> + '_ {
        self.written.keys().copied()
    }

    /// Checks what was found in a page.
    ///
    /// # Errors
    /// A correctness failure if it is not the last write.
    pub fn check(&self, gfn: Gfn, found: [u64; 3], who: &str) -> Result<(), Failure> {
        let expected = self.expected(gfn);
        if found == [expected; 3] {
            return Ok(());
        }
        Err(Failure::about(
            Class::Correctness,
            gfn,
            format!("{who} finds {found:x?} in page {:#x}, written was {expected:#x}", gfn.0),
        ))
    }
}

/// Writes a value to a page's places.
pub fn mark(memory: &mut impl HostMemory, frame: Frame, value: u64) {
    PLACES.iter().for_each(|&at| memory.write(frame, at, &value.to_le_bytes()));
}

/// Reads a page's places; a page without a frame reads as zero.
pub fn marks(memory: &impl HostMemory, frame: Option<Frame>) -> [u64; 3] {
    let Some(frame) = frame else { return [0; 3] };
    PLACES.map(|at| {
        let mut bytes = [0; 8];
        memory.read(frame, at, &mut bytes);
        u64::from_le_bytes(bytes)
    })
}

/// The places as guest-physical addresses.
#[must_use]
pub fn addresses(gfn: Gfn) -> [addr::GuestPhys; 3] {
    PLACES.map(|at| addr::GuestPhys(gfn.start().0 + at as u64))
}
