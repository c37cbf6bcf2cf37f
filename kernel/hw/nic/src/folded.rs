//! Frames whose page lands in a page frame of its own.
//!
//! A NIC fills its receive buffers one after the other, and the first bytes of
//! every frame are its Ethernet header. So that a page still lands where it can
//! stay, a frame with a whole page travels folded:
//!
//! ```text
//!     0  Ethernet header, EtherType 0x88B6 (IEEE Std 802, local experimental 2)
//!    14  the page from its byte 14 on
//!  4096  the page's first 14 bytes
//!  4110  the frame's header from its byte 14 on
//! ```
//!
//! With buffers of a page the first one holds the page but for 14 bytes, which
//! change places with the Ethernet header: then the second one holds the whole
//! header. No byte of the page is moved but those, on either side. A NIC that
//! hands over a frame in one piece costs a copy of the page, which is counted.

use crate::{Arrival, ETHERNET_HEADER_LEN as LEAD, LandingPage, Nic, PageSlice, TransmitError};
use addr::{Frame, PAGE_SIZE};
use paging::HostMemory;

/// EtherType of a folded frame, as it stands on the wire.
const FOLDED: [u8; 2] = [0x88, 0xB6];
/// EtherType of the same frame before and after.
const PLAIN: [u8; 2] = [0x88, 0xB5];
/// Where the EtherType is.
const TYPE: core::ops::Range<usize> = 12..14;
/// Longest header of a folded frame.
const HEADER_MAX: usize = 256;

/// Sends a frame: `header`, then a page or a part of one. A whole page goes
/// folded, which leaves `header` changed.
///
/// # Errors
/// As [`Nic::transmit`].
pub fn transmit(
    nic: &mut impl Nic,
    memory: &impl HostMemory,
    header: &mut [u8],
    page: Option<PageSlice>,
) -> Result<(), TransmitError> {
    let whole = |p: &PageSlice| usize::from(p.len) == PAGE_SIZE && header.len() <= HEADER_MAX;
    let Some(page) = page.filter(whole) else { return nic.transmit(header, page, &[]) };
    let first = first_of(header);
    nic.transmit(&first, Some(fold(memory, page, header)), header)
}

/// What a folded frame begins with.
fn first_of(header: &[u8]) -> [u8; LEAD] {
    let mut first = *header.first_chunk().expect("an Ethernet header");
    first[TYPE].copy_from_slice(&FOLDED);
    first
}

/// Puts the first bytes of a page where those of the header were; the rest of it.
#[inline(always)]
fn fold(memory: &impl HostMemory, page: PageSlice, header: &mut [u8]) -> PageSlice {
    let lead: &mut [u8; LEAD] = header.first_chunk_mut().expect("an Ethernet header");
    let words = [0, 1].map(|n| memory.read_entry(page.frame, n).to_le_bytes());
    *lead = *words.as_flattened().first_chunk().expect("two words are longer");
    PageSlice { offset: LEAD as u16, len: page.len - LEAD as u16, ..page }
}

/// Gets a frame ready in the device's memory ([`Nic::stage`]), which is to be sent
/// with a whole page if `with_page`, else with none.
pub fn stage(nic: &mut impl Nic, header: &[u8], with_page: bool) -> bool {
    if with_page {
        nic.stage(&first_of(header), (PAGE_SIZE - LEAD) as u16, header)
    } else {
        nic.stage(header, 0, &[])
    }
}

/// Sends the staged frame, which was completed where it lies ([`Nic::staged`]).
/// False if there is none that goes with this page.
#[inline(always)]
pub fn launch(nic: &mut impl Nic, memory: &impl HostMemory, page: Option<PageSlice>) -> bool {
    let Some(page) = page else { return nic.launch(None) };
    let Some(header) = nic.staged() else { return false };
    let rest = fold(memory, page, header);
    nic.launch(Some(rest))
}

/// A received frame as it was before it was folded.
#[derive(Debug)]
pub enum Unfolded<'a> {
    /// One that was not.
    Plain(&'a [u8]),
    /// All but the page, and the page frame in which that has landed. Another
    /// may be put in its place.
    Landed(&'a [u8], &'a mut LandingPage),
    /// Not a frame of ours.
    Foreign,
}

/// Puts the first bytes of a page and of its frame's header back where they were.
fn unfold(page: &mut LandingPage, rest: &mut [u8]) -> bool {
    let Some(lead) = rest.first_chunk_mut::<LEAD>() else { return false };
    let first = page.lead();
    let is_folded = first[TYPE] == FOLDED;
    if is_folded {
        core::mem::swap(first, lead);
        lead[TYPE].copy_from_slice(&PLAIN);
    }
    is_folded
}

/// Pages that came in one piece, and the places they are copied to.
#[derive(Debug)]
pub struct Unfolder {
    spare: Option<LandingPage>,
    header: [u8; HEADER_MAX],
    /// The next frame was unfolded where it lies.
    ahead: bool,
    /// Pages copied because the NIC handed over a folded frame in one piece.
    pub copied: u64,
}

impl Unfolder {
    /// `spare` is where pages are copied to; without it such frames are lost.
    #[must_use]
    pub fn new(spare: Option<LandingPage>) -> Unfolder {
        Unfolder { spare, header: [0; HEADER_MAX], ahead: false, copied: 0 }
    }

    /// The page frame that pages are copied to now.
    #[must_use]
    pub fn spare(&self) -> Option<Frame> {
        self.spare.as_ref().map(LandingPage::frame)
    }

    /// Undoes the folding of a received frame.
    pub fn unfold<'a>(
        &'a mut self,
        memory: &mut impl HostMemory,
        arrival: Arrival<'a>,
    ) -> Unfolded<'a> {
        match arrival {
            Arrival::Whole(bytes) if bytes.get(TYPE) == Some(&FOLDED) => {
                self.copy_apart(memory, bytes)
            }
            Arrival::Whole(bytes) => Unfolded::Plain(bytes),
            Arrival::Long(page, rest) => {
                let is_unfolded = core::mem::take(&mut self.ahead) || unfold(page, rest);
                if is_unfolded { Unfolded::Landed(rest, page) } else { Unfolded::Foreign }
            }
        }
    }

    /// Unfolds a frame where it lies, before [`Nic::receive`] hands on the same one
    /// (see [`Nic::peek_long`]); `false` if it is none of ours.
    pub fn unfold_ahead(&mut self, page: &mut LandingPage, rest: &mut [u8]) -> bool {
        self.ahead = self.ahead || unfold(page, rest);
        self.ahead
    }

    fn copy_apart<'a>(&'a mut self, memory: &mut impl HostMemory, bytes: &[u8]) -> Unfolded<'a> {
        let Some(page) = &mut self.spare else { return Unfolded::Foreign };
        let Some((body, rest)) = bytes.split_at_checked(PAGE_SIZE) else {
            return Unfolded::Foreign;
        };
        let Some(header) = self.header.get_mut(..rest.len()) else { return Unfolded::Foreign };
        let Some((first, later)) = rest.split_at_checked(LEAD) else { return Unfolded::Foreign };
        memory.write(page.frame(), 0, first);
        memory.write(page.frame(), LEAD, &body[LEAD..]);
        header[..LEAD].copy_from_slice(&body[..LEAD]);
        header[TYPE].copy_from_slice(&PLAIN);
        header[LEAD..].copy_from_slice(later);
        self.copied += 1;
        Unfolded::Landed(header, page)
    }
}

#[cfg(test)]
#[path = "folded_tests.rs"]
mod tests;
