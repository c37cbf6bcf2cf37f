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
    end: usize,
    /// The last descriptor carries RS.
    reports: bool,
    /// The device reads a page for it.
    page: bool,
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
        self.descriptors.read::<u8>(end * DESCRIPTOR_LEN + TX_STATUS) & TX_DD != 0
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

    fn put(&mut self, address: u64, len: usize, command: u64) {
        let descriptor = [address, len as u64 | TX_CMD_IFCS | command];
        self.descriptors.write(self.tail * DESCRIPTOR_LEN, descriptor);
        self.tail = (self.tail + 1) % RING;
    }

    /// Where the tail lies in a slot: behind the header, where whole words begin if
    /// there is room.
    fn tail_at(header: usize, tail: usize) -> usize {
        let aligned = header.next_multiple_of(size_of::<u64>());
        if aligned + tail <= HEADER_MAX { aligned } else { header }
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
        let slot = Self::slot(self.handed);
        let reports = page.is_some() || (self.handed + 1).is_multiple_of(REPORT_EVERY);
        let end_command = TX_CMD_EOP | if reports { TX_CMD_RS } else { 0 };
        self.headers.copy_in(slot * HEADER_MAX, header);
        let address = self.headers.bus(slot * HEADER_MAX);
        match page {
            None => self.put(address, header.len(), end_command),
            Some(page) => {
                let (page_end, tail_end) = match tail.is_empty() {
                    true => (end_command, None),
                    false => (0, Some(end_command)),
                };
                self.put(address, header.len(), 0);
                self.put(page.address(), usize::from(page.len), page_end);
                if let Some(command) = tail_end {
                    let at = Self::tail_at(header.len(), tail.len());
                    self.headers.copy_in(slot * HEADER_MAX + at, tail);
                    self.put(address + at as u64, tail.len(), command);
                }
            }
        }
        let end = (self.tail + RING - 1) % RING;
        self.sent[slot] = Sent { end, reports, page: page.is_some() };
        self.handed += 1;
        if page.is_some() {
            self.page_mark = self.handed;
        }
        fence(Ordering::Release);
        registers.write32(TDT, self.tail as u32);
        Ok(())
    }
}
