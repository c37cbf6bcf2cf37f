//! The receive ring: page frames as buffers. A frame of up to a page lies in
//! one of them, a longer one in two, of which the first may be exchanged for
//! another page frame.
//!
//! Fixed cost: [`RING`] x 4 KiB of buffers and 8 KiB of descriptors. The
//! driver owns the descriptors from `next` up to the tail register; the device
//! owns the others. The tail is written for [`RETURN_BATCH`] descriptors at a
//! time, because each register write is an exit on an emulator and a posted
//! bus cycle on hardware.

use super::registers::{
    DESCRIPTOR_FIELDS, DESCRIPTOR_LEN, RDBAH, RDBAL, RDH, RDLEN, RDT, RX_DD, RX_EOP, RX_ERRORS,
};
use crate::{Arrival, DmaRegion, Environment, LandingPage, Registers};
use addr::{Frame, PAGE_SIZE};
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

/// Descriptors in the ring.
pub(super) const RING: usize = 512;
/// Descriptors given back with one register write.
pub(super) const RETURN_BATCH: usize = 32;

/// The ring and its buffers.
pub(super) struct ReceiveRing {
    descriptors: DmaRegion,
    pages: Vec<LandingPage>,
    /// The page frames that were the buffers at first.
    landing: (Frame, Frame),
    /// The descriptor that the device fills next.
    next: usize,
    /// Consumed descriptors the device was not yet told of.
    unreturned: usize,
    /// Inside a frame that did not fit one buffer: drop up to its end.
    skipping: bool,
}

/// What lay in one descriptor.
enum Slot {
    Empty,
    /// A frame of so many bytes.
    Frame(usize),
    /// A frame that fills this buffer and goes on in the next one, with so
    /// many bytes.
    Long(usize),
    Dropped,
}

impl ReceiveRing {
    /// Takes the ring's memory; `None` if there is not enough.
    pub(super) fn new(environment: &mut dyn Environment) -> Option<ReceiveRing> {
        let descriptors = environment.dma(RING * DESCRIPTOR_LEN)?;
        let pages = environment.dma(RING * PAGE_SIZE)?.into_pages();
        let first = pages.first()?.frame();
        let landing = (first, first.offset_by(RING as u64));
        Some(ReceiveRing { descriptors, pages, landing, next: 0, unreturned: 0, skipping: false })
    }

    pub(super) fn landing_frames(&self) -> (Frame, Frame) {
        self.landing
    }

    /// Points the device at the ring and gives it all descriptors but one (a
    /// head equal to the tail means an empty ring). Receiving is still off.
    pub(super) fn attach(&mut self, registers: &mut impl Registers) {
        for index in 0..RING {
            let place = index * DESCRIPTOR_LEN;
            self.descriptors.write(place, self.pages[index].frame().start().0);
            self.descriptors.write(place + DESCRIPTOR_FIELDS, 0u64);
        }
        let bus = self.descriptors.bus(0);
        registers.write32(RDBAL, bus as u32);
        registers.write32(RDBAH, (bus >> 32) as u32);
        registers.write32(RDLEN, (RING * DESCRIPTOR_LEN) as u32);
        registers.write32(RDH, 0);
        fence(Ordering::Release);
        registers.write32(RDT, (RING - 1) as u32);
    }

    /// Whether the device has filled the next descriptor.
    pub(super) fn ready(&self) -> bool {
        self.fields(self.next) & RX_DD != 0
    }

    fn fields(&self, index: usize) -> u64 {
        self.descriptors.read(index * DESCRIPTOR_LEN + DESCRIPTOR_FIELDS)
    }

    fn after(index: usize) -> usize {
        (index + 1) % RING
    }

    /// The length of what lies in one descriptor, if it came undamaged: the
    /// device's word, checked against the buffer.
    fn good(fields: u64) -> Option<usize> {
        let len = (fields & 0xFFFF) as usize;
        (fields & RX_ERRORS == 0 && (1..=PAGE_SIZE).contains(&len)).then_some(len)
    }

    /// The next frame, if it has come and lies in one buffer.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        let fields = self.fields(self.next);
        if self.skipping || fields & RX_DD == 0 || fields & RX_EOP == 0 {
            return None;
        }
        fence(Ordering::Acquire);
        Self::good(fields).map(|len| self.pages[self.next].bytes(len))
    }

    /// The next frame, if it has come and lies in two buffers: the page frame that
    /// it fills, and the rest.
    pub(super) fn peek_long(&mut self) -> Option<(&mut LandingPage, &mut [u8])> {
        let fields = self.fields(self.next);
        if self.skipping || fields & RX_DD == 0 || fields & RX_EOP != 0 {
            return None;
        }
        let rest = self.long_rest(fields)?;
        Some(self.long_buffers(rest))
    }

    /// Bytes in the second buffer of a frame that fills the next one, whose
    /// `fields` these are, and ends in the one after.
    fn long_rest(&self, fields: u64) -> Option<usize> {
        let rest = self.fields(Self::after(self.next));
        if rest & RX_DD == 0 || rest & RX_EOP == 0 {
            return None;
        }
        fence(Ordering::Acquire);
        Self::good(rest).filter(|_| Self::good(fields) == Some(PAGE_SIZE))
    }

    fn long_buffers(&mut self, rest: usize) -> (&mut LandingPage, &mut [u8]) {
        let after = Self::after(self.next);
        let Ok([page, tail]) = self.pages.get_disjoint_mut([self.next, after]) else {
            unreachable!("two places of one ring")
        };
        (page, tail.bytes_mut(rest))
    }

    /// Judges the next descriptor.
    fn look(&mut self) -> Slot {
        let fields = self.fields(self.next);
        if fields & RX_DD == 0 {
            return Slot::Empty;
        }
        fence(Ordering::Acquire);
        let last = fields & RX_EOP != 0;
        if !last && !self.skipping {
            if self.fields(Self::after(self.next)) & RX_DD == 0 {
                return Slot::Empty; // it is still coming
            }
            if let Some(len) = self.long_rest(fields) {
                return Slot::Long(len);
            }
        }
        let whole = last && !self.skipping;
        self.skipping = !last;
        Self::good(fields).filter(|_| whole).map_or(Slot::Dropped, Slot::Frame)
    }

    /// Gives the current descriptor back to the device.
    fn advance(&mut self, registers: &mut impl Registers) {
        self.descriptors.write(self.next * DESCRIPTOR_LEN + DESCRIPTOR_FIELDS, 0u64);
        let returned = self.next;
        self.next = Self::after(self.next);
        self.unreturned += 1;
        if self.unreturned == RETURN_BATCH {
            self.unreturned = 0;
            fence(Ordering::Release);
            registers.write32(RDT, returned as u32);
        }
    }

    /// Hands on a frame in two buffers, and takes note of a new page frame.
    fn long(&mut self, rest: usize, f: impl FnOnce(Arrival<'_>)) {
        let (page, tail) = self.long_buffers(rest);
        f(Arrival::Long(page, tail));
        let address = page.frame().start().0;
        self.descriptors.write(self.next * DESCRIPTOR_LEN, address);
    }

    /// Hands the next good frame to `f`. Returns its length, and how many
    /// descriptors with damaged or oversized frames were passed over; bounded
    /// by one turn of the ring.
    pub(super) fn receive(
        &mut self,
        registers: &mut impl Registers,
        f: impl FnOnce(Arrival<'_>),
    ) -> (Option<usize>, u64) {
        let mut dropped = 0;
        for _ in 0..RING {
            match self.look() {
                Slot::Empty => return (None, dropped),
                Slot::Frame(len) => {
                    f(Arrival::Whole(self.pages[self.next].bytes(len)));
                    self.advance(registers);
                    return (Some(len), dropped);
                }
                Slot::Long(rest) => {
                    self.long(rest, f);
                    self.advance(registers);
                    self.advance(registers);
                    return (Some(PAGE_SIZE + rest), dropped);
                }
                Slot::Dropped => {
                    dropped += 1;
                    self.advance(registers);
                }
            }
        }
        (None, dropped)
    }
}
