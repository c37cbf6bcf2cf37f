//! The transmit ring: a header slot, then a slice of a page, per frame.
//!
//! A frame takes one descriptor for its header, which is copied to a slot of
//! the driver, one for a page slice, which the device reads from the page
//! itself, and one for what follows, copied to the slot as well. There are four
//! times as many descriptors as slots, so slots run out first and the tail
//! never meets the head.
//!
//! The device reports a descriptor done only where RS is set: for every frame
//! with a page, since somebody waits for that page, and for every
//! [`REPORT_EVERY`]th frame so that slots come back. Frames are done in order,
//! so one report covers all frames before it (317453, 3.3.3.2).
//!
//! A frame can be staged: descriptors and copies lie behind the tail, where the
//! device does not look, until it is launched or another frame takes their place.

use super::registers::{
    DESCRIPTOR_LEN, TDBAH, TDBAL, TDH, TDLEN, TDT, TX_CMD_EOP, TX_CMD_IFCS, TX_CMD_RS, TX_DD,
    TX_STATUS,
};
use crate::{DmaRegion, Environment, HEADER_MAX, PageSlice, Registers, TransmitError};
use core::sync::atomic::{Ordering, fence};

/// Descriptors in the ring.
pub(super) const RING: usize = 512;
/// Header slots.
pub(super) const SLOTS: usize = RING / 4;
/// Frames in flight at most.
pub(super) const FRAMES: usize = SLOTS - 1;
/// A frame without a page asks for a report this often.
pub(super) const REPORT_EVERY: u64 = 16;

/// What is known of the frame in one slot.
#[derive(Clone, Copy, Default)]
struct Sent {
    /// Its last descriptor.
    end: u16,
    /// The last descriptor carries RS.
    reports: bool,
    /// The device reads a page for it.
    page: bool,
}

/// A frame that is written but not started.
struct Staged {
    frame: Sent,
    /// Bytes of the page that goes with it.
    page_len: u16,
    /// What was copied last: its offset and length in the header slots.
    at: usize,
    open: usize,
    /// Bytes in the frame.
    len: usize,
}

/// The ring, its header slots and what is in flight.
pub(super) struct TransmitRing {
    descriptors: DmaRegion,
    headers: DmaRegion,
    sent: [Sent; SLOTS],
    /// The next descriptor to write, the tail register's value.
    tail: usize,
    /// Frames handed to the device since start.
    handed: u64,
    /// Frames known to be done.
    done: u64,
    /// Frames with a page that are known to be done.
    pages_done: u64,
    /// One past the newest frame with a page.
    page_mark: u64,
    staged: Option<Staged>,
}

impl TransmitRing {
    /// Takes the ring's memory; `None` if there is not enough.
    pub(super) fn new(environment: &mut dyn Environment) -> Option<TransmitRing> {
        let descriptors = environment.dma(RING * DESCRIPTOR_LEN)?;
        let headers = environment.dma(SLOTS * HEADER_MAX)?;
        Some(TransmitRing {
            descriptors,
            headers,
            sent: [Sent::default(); SLOTS],
            tail: 0,
            handed: 0,
            done: 0,
            pages_done: 0,
            page_mark: 0,
            staged: None,
        })
    }

    /// Points the device at the empty ring. Transmitting is still off.
    pub(super) fn attach(&mut self, registers: &mut impl Registers) {
        let bus = self.descriptors.bus(0);
        registers.write32(TDBAL, bus as u32);
        registers.write32(TDBAH, (bus >> 32) as u32);
        registers.write32(TDLEN, (RING * DESCRIPTOR_LEN) as u32);
        registers.write32(TDH, 0);
        registers.write32(TDT, 0);
    }

    fn slot(frame: u64) -> usize {
        (frame % SLOTS as u64) as usize
    }

    fn reported(&self, frame: u64) -> bool {
        let end = self.sent[Self::slot(frame)].end;
        self.descriptors.read::<u8>(usize::from(end) * DESCRIPTOR_LEN + TX_STATUS) & TX_DD != 0
    }

    /// Takes note of the frames that the device reported done.
    pub(super) fn clean(&mut self) {
        let mut frame = self.done;
        while frame < self.handed {
            if self.sent[Self::slot(frame)].reports {
                if !self.reported(frame) {
                    break;
                }
                for done in self.done..=frame {
                    self.pages_done += u64::from(self.sent[Self::slot(done)].page);
                }
                self.done = frame + 1;
            }
            frame += 1;
        }
        fence(Ordering::Acquire);
    }

    /// Frames that are accepted without another look at the device.
    pub(super) fn room(&self) -> usize {
        FRAMES - (self.handed - self.done) as usize
    }

    /// Frames that are surely accepted; the device is asked only when few are.
    pub(super) fn room_at_least(&mut self) -> usize {
        if self.room() < FRAMES / 2 {
            self.clean();
        }
        self.room()
    }

    /// Whether the device may still read a page.
    pub(super) fn page_pending(&self) -> bool {
        self.page_mark > self.done && !self.reported(self.page_mark - 1)
    }

    /// Frames with a page that are done, since start.
    pub(super) fn pages_done(&self) -> u64 {
        self.pages_done
    }

    /// Writes the descriptor `n` places behind the tail.
    fn put(&mut self, n: usize, address: u64, len: usize, command: u64) {
        let descriptor = [address, len as u64 | TX_CMD_IFCS | command];
        let place = self.behind_tail(n) * DESCRIPTOR_LEN;
        self.descriptors.write(place, descriptor);
    }

    fn behind_tail(&self, n: usize) -> usize {
        (self.tail + n) % RING
    }

    /// Where the tail lies in a slot: behind the header, where whole words begin if
    /// there is room.
    fn tail_at(header: usize, tail: usize) -> usize {
        let aligned = header.next_multiple_of(size_of::<u64>());
        if aligned + tail <= HEADER_MAX { aligned } else { header }
    }

    /// Writes one frame behind the tail; `page` is the address and the length of
    /// what is sent of a page. There is room.
    #[inline(always)]
    fn write(&mut self, header: &[u8], page: Option<(u64, usize)>, tail: &[u8]) -> Sent {
        let slot = Self::slot(self.handed) * HEADER_MAX;
        let reports = page.is_some() || (self.handed + 1).is_multiple_of(REPORT_EVERY);
        let last = TX_CMD_EOP | if reports { TX_CMD_RS } else { 0 };
        self.headers.copy_in(slot, header);
        let address = self.headers.bus(slot);
        let end = match page {
            None => {
                self.put(0, address, header.len(), last);
                0
            }
            Some((page, len)) => {
                self.put(0, address, header.len(), 0);
                if tail.is_empty() {
                    self.put(1, page, len, last);
                    1
                } else {
                    self.put(1, page, len, 0);
                    let at = Self::tail_at(header.len(), tail.len());
                    self.headers.copy_in(slot + at, tail);
                    self.put(2, address + at as u64, tail.len(), last);
                    2
                }
            }
        };
        Sent { end: self.behind_tail(end) as u16, reports, page: page.is_some() }
    }

    /// Starts the frame that was written behind the tail.
    #[inline(always)]
    fn start(&mut self, registers: &mut impl Registers, frame: Sent) {
        self.sent[Self::slot(self.handed)] = frame;
        self.staged = None;
        self.tail = (usize::from(frame.end) + 1) % RING;
        self.handed += 1;
        if frame.page {
            self.page_mark = self.handed;
        }
        fence(Ordering::Release);
        registers.write32(TDT, self.tail as u32);
    }

    /// Queues one frame and starts it. Lengths were checked by the caller.
    #[inline(always)]
    pub(super) fn transmit(
        &mut self,
        registers: &mut impl Registers,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        if self.room_at_least() == 0 {
            return Err(TransmitError::Full);
        }
        let page = page.map(|page| (page.address(), usize::from(page.len)));
        let frame = self.write(header, page, tail);
        self.start(registers, frame);
        Ok(())
    }

    /// Writes one frame of `len` bytes behind the tail, with so many bytes of a page
    /// that is not known yet. Lengths were checked by the caller: `None` is one that
    /// cannot be sent.
    pub(super) fn stage(
        &mut self,
        header: &[u8],
        page_len: u16,
        tail: &[u8],
        len: Option<usize>,
    ) -> bool {
        self.staged = None;
        let Some(len) = len.filter(|_| self.room_at_least() > 0) else { return false };
        let page = (page_len > 0).then_some((0, usize::from(page_len)));
        let frame = self.write(header, page, tail);
        let slot = Self::slot(self.handed) * HEADER_MAX;
        let (at, open) = match tail.len() {
            0 => (slot, header.len()),
            tail => (slot + Self::tail_at(header.len(), tail), tail),
        };
        self.staged = Some(Staged { frame, page_len, at, open, len });
        true
    }

    /// What of the staged frame was copied last, to be changed.
    #[inline(always)]
    pub(super) fn staged(&mut self) -> Option<&mut [u8]> {
        let Staged { at, open, .. } = *self.staged.as_ref()?;
        Some(self.headers.bytes_mut(at, open))
    }

    /// Starts the staged frame, if there is one, with that of a page; its length.
    #[inline(always)]
    pub(super) fn launch(
        &mut self,
        registers: &mut impl Registers,
        page: Option<PageSlice>,
    ) -> Option<usize> {
        let Staged { frame, page_len, len, .. } = *self.staged.as_ref()?;
        if page.map_or(0, |page| page.len) != page_len {
            return None;
        }
        if let Some(page) = page {
            let place = self.behind_tail(1) * DESCRIPTOR_LEN;
            self.descriptors.write(place, page.address());
        }
        self.start(registers, frame);
        Some(len)
    }
}
