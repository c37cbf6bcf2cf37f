//! Intel 8254x and 82574L, with legacy descriptors.
//!
//! The 82540EM is QEMU's, VMware's and Bochs's `e1000`; the 82574L is QEMU's
//! `e1000e` and a common card. Writing the transmit tail starts a frame at
//! once, in the processor's own thread on QEMU, which is why this NIC has the
//! lowest latency there.
//!
//! `registers` has the numbers, `setup` brings the device up, `receive`
//! and `transmit` are the two rings.

mod receive;
mod registers;
mod setup;
#[cfg(test)]
mod tests;
mod transmit;

use crate::{
    Arrival, BUFFER_LEN, Environment, LandingPage, MTU_MAX, Nic, NicCounters, NicError, PageSlice,
    Peek, Registers, TransmitError,
};
use addr::Frame;
use receive::ReceiveRing;
use registers::{
    BLOCK_LEN, ICR, ICS, IMC, IMS, INTERRUPT_LSC, INTERRUPT_RXDMT0, INTERRUPT_RXO, INTERRUPT_RXT0,
    MPC, STATUS, STATUS_LU,
};
use transmit::TransmitRing;

/// Why a processor in HLT should look at this NIC.
const WAKE: u32 = INTERRUPT_RXT0 | INTERRUPT_RXDMT0 | INTERRUPT_RXO | INTERRUPT_LSC;

/// Which register set a device has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// 82540, 82543, 82545, 82546.
    I8254x,
    /// 82574L.
    I82574,
}

impl Family {
    /// The family of an Intel device id, if this driver knows it. The I217 and
    /// its successors share the registers but need care of their PHY that is
    /// not given here.
    #[must_use]
    pub fn of(device: u16) -> Option<Family> {
        match device {
            // 82540EM, EM LOM, EP variants; 82543GC copper; 82545EM and GM copper; 82546EB.
            0x100E | 0x1015 | 0x1016 | 0x1017 | 0x101E | 0x1004 | 0x100F | 0x1026 | 0x1010 => {
                Some(Family::I8254x)
            }
            // 82574L, 82574LA.
            0x10D3 | 0x10F6 => Some(Family::I82574),
            _ => None,
        }
    }
}

/// Bytes of registers that the driver reaches in BAR 0.
pub const REGISTERS_LEN: usize = BLOCK_LEN;

/// A running e1000 or e1000e.
pub struct E1000<R> {
    registers: R,
    receive: ReceiveRing,
    transmit: TransmitRing,
    mac: [u8; 6],
    mtu: u16,
    counters: NicCounters,
}

impl<R: Registers> E1000<R> {
    /// Resets and starts the device. It receives from now on; the link may
    /// take seconds to come up (see [`Nic::link_up`]).
    ///
    /// # Errors
    /// [`NicError`] if there is not enough memory or the device does not
    /// answer.
    pub fn start(
        mut registers: R,
        family: Family,
        mtu_limit: Option<u16>,
        environment: &mut dyn Environment,
    ) -> Result<E1000<R>, NicError> {
        setup::reset(&mut registers, environment, family)?;
        let mac = setup::station_address(&mut registers, environment, family)?;
        let mut receive = ReceiveRing::new(environment).ok_or(NicError::NoMemory)?;
        let mut transmit = TransmitRing::new(environment).ok_or(NicError::NoMemory)?;
        setup::start(&mut registers, family, mac, &mut receive, &mut transmit);
        let mtu = mtu_limit.map_or(MTU_MAX, |limit| limit.min(MTU_MAX));
        let counters = NicCounters::default();
        Ok(E1000 { registers, receive, transmit, mac, mtu, counters })
    }
}

const _: () = assert!(MTU_MAX as usize + 18 <= BUFFER_LEN);

impl<R: Registers> Nic for E1000<R> {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn link_up(&mut self) -> bool {
        self.registers.read32(STATUS) & STATUS_LU != 0
    }

    #[inline(always)]
    fn transmit(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        let len = crate::check_frame(self.mtu, header, page, tail)?;
        let result = self.transmit.transmit(&mut self.registers, header, page, tail);
        self.counters.count_transmit(len, result);
        result
    }

    fn stage(&mut self, header: &[u8], page_len: u16, tail: &[u8]) -> bool {
        let page = PageSlice { frame: Frame(0), offset: 0, len: page_len };
        let page = Some(page).filter(|page| page.len > 0);
        let len = crate::check_frame(self.mtu, header, page, tail).ok();
        self.transmit.stage(header, page_len, tail, len)
    }

    #[inline(always)]
    fn staged(&mut self) -> Option<&mut [u8]> {
        self.transmit.staged()
    }

    #[inline(always)]
    fn launch(&mut self, page: Option<PageSlice>) -> bool {
        if let Some(page) = page {
            page.check();
        }
        let launched = self.transmit.launch(&mut self.registers, page);
        if let Some(len) = launched {
            self.counters.count_transmit(len, Ok(()));
        }
        launched.is_some()
    }

    #[inline(always)]
    fn peek(&mut self) -> Option<Peek<'_>> {
        let frame = self.receive.peek()?;
        Some(Peek { frame, staged: self.transmit.staged() })
    }

    fn peek_long<T>(&mut self, f: impl FnOnce(&mut LandingPage, &mut [u8]) -> T) -> Option<T> {
        self.receive.peek_long().map(|(page, rest)| f(page, rest))
    }

    fn receive(&mut self, f: impl FnOnce(Arrival<'_>)) -> bool {
        let (received, dropped) = self.receive.receive(&mut self.registers, f);
        self.counters.count_receive(received, dropped)
    }

    fn landing_frames(&self) -> Option<(Frame, Frame)> {
        Some(self.receive.landing_frames())
    }

    fn receive_ready(&self) -> bool {
        self.receive.ready()
    }

    fn transmit_pending(&mut self) -> bool {
        self.transmit.page_pending()
    }

    fn pages_sent(&mut self) -> u64 {
        self.transmit.clean();
        self.transmit.pages_done()
    }

    fn room(&mut self) -> usize {
        self.transmit.room_at_least()
    }

    fn enable_interrupts(&mut self) {
        // Causes gathered while the driver polled would raise it at once.
        self.registers.read32(ICR);
        self.registers.write32(IMS, WAKE);
    }

    fn acknowledge_interrupt(&mut self) -> bool {
        // Reading clears the causes (13.4.17).
        let ours = self.registers.read32(ICR) & WAKE != 0;
        self.counters.interrupts += u64::from(ours);
        ours
    }

    fn disable_interrupts(&mut self) {
        self.registers.write32(IMC, u32::MAX);
    }

    fn raise_interrupt(&mut self) -> bool {
        self.registers.write32(ICS, INTERRUPT_RXT0);
        true
    }

    fn counters(&mut self) -> NicCounters {
        // The device's own count of frames it had no descriptor for clears
        // when read (13.7.4).
        self.counters.missed += u64::from(self.registers.read32(MPC));
        self.counters
    }
}
