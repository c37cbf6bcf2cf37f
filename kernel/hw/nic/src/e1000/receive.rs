//! The receive ring: fixed buffers of 8192 bytes, one frame in each.
//!
//! Fixed cost: [`RING`] x 8 KiB of buffers and 4 KiB of descriptors. The
//! driver owns the descriptors from `next` up to the tail register; the device
//! owns the others. The tail is written for [`RETURN_BATCH`] descriptors at a
//! time, because each register write is an exit on an emulator and a posted
//! bus cycle on hardware.

use super::registers::{
    DESCRIPTOR_FIELDS, DESCRIPTOR_LEN, RDBAH, RDBAL, RDH, RDLEN, RDT, RX_DD, RX_EOP, RX_ERRORS,
};
use crate::{BUFFER_LEN, DmaRegion, Environment, Registers};
use core::sync::atomic::{Ordering, fence};

/// Descriptors in the ring.
pub(super) const RING: usize = 256;
/// Descriptors given back with one register write.
pub(super) const RETURN_BATCH: usize = 16;

/// The ring and its buffers.
pub(super) struct ReceiveRing {
    descriptors: DmaRegion,
    buffers: DmaRegion,
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
    Frame(usize),
    Dropped,
}

impl ReceiveRing {
    /// Takes the ring's memory; `None` if there is not enough.
    pub(super) fn new(environment: &mut dyn Environment) -> Option<ReceiveRing> {
        let descriptors = environment.dma(RING * DESCRIPTOR_LEN)?;
        let buffers = environment.dma(RING * BUFFER_LEN)?;
        Some(ReceiveRing { descriptors, buffers, next: 0, unreturned: 0, skipping: false })
    }

    /// Points the device at the ring and gives it all descriptors but one (a
    /// head equal to the tail means an empty ring). Receiving is still off.
    pub(super) fn attach(&mut self, registers: &mut impl Registers) {
        for index in 0..RING {
            let place = index * DESCRIPTOR_LEN;
            self.descriptors.write(place, self.buffers.bus(index * BUFFER_LEN));
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
        let place = self.next * DESCRIPTOR_LEN + DESCRIPTOR_FIELDS;
        self.descriptors.read::<u64>(place) & RX_DD != 0
    }

    /// Judges the next descriptor. Its length is the device's word and is
    /// checked against the buffer.
    fn look(&mut self) -> Slot {
        let place = self.next * DESCRIPTOR_LEN + DESCRIPTOR_FIELDS;
        let fields: u64 = self.descriptors.read(place);
        if fields & RX_DD == 0 {
            return Slot::Empty;
        }
        fence(Ordering::Acquire);
        let last = fields & RX_EOP != 0;
        let whole = last && !self.skipping;
        self.skipping = !last;
        let len = (fields & 0xFFFF) as usize;
        if whole && fields & RX_ERRORS == 0 && (1..=BUFFER_LEN).contains(&len) {
            Slot::Frame(len)
        } else {
            Slot::Dropped
        }
    }

    /// Gives the current descriptor back to the device.
    fn advance(&mut self, registers: &mut impl Registers) {
        self.descriptors.write(self.next * DESCRIPTOR_LEN + DESCRIPTOR_FIELDS, 0u64);
        let returned = self.next;
        self.next = (self.next + 1) % RING;
        self.unreturned += 1;
        if self.unreturned == RETURN_BATCH {
            self.unreturned = 0;
            fence(Ordering::Release);
            registers.write32(RDT, returned as u32);
        }
    }

    /// Hands the next good frame to `f`. Returns its length, and how many
    /// descriptors with damaged or oversized frames were passed over; bounded
    /// by one turn of the ring.
    pub(super) fn receive(
        &mut self,
        registers: &mut impl Registers,
        f: impl FnOnce(&[u8]),
    ) -> (Option<usize>, u64) {
        let mut dropped = 0;
        for _ in 0..RING {
            match self.look() {
                Slot::Empty => return (None, dropped),
                Slot::Frame(len) => {
                    f(self.buffers.bytes(self.next * BUFFER_LEN, len));
                    self.advance(registers);
                    return (Some(len), dropped);
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
