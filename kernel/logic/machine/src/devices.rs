//! The devices of the machine besides its local APICs.

use chipset::{ioapic::IoApic, pci::PciHost, pic::Pic, reset::ResetControl};
use chipset::{pit, pm, rtc, uart};

#[derive(Clone, Debug)]
pub(crate) struct Devices {
    pub(crate) ioapic: IoApic,
    pub(crate) pic: Pic,
    pub(crate) pit: pit::Pit,
    pub(crate) rtc: rtc::Rtc,
    pub(crate) pm: pm::Pm,
    pub(crate) uarts: [uart::Uart; 3],
    pub(crate) pci: PciHost,
    pub(crate) reset: ResetControl,
    /// Last byte written to the diagnostic port.
    pub(crate) post: u8,
    /// Sampled interrupt lines, by ISA number.
    pub(crate) lines: u16,
}

/// The earlier of two times, of which either may never come.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

impl Devices {
    /// Devices after a cold start at a time of day.
    pub(crate) fn new(tsc_hz: u64, start_unix: u64) -> Devices {
        let uart = uart::Uart::new(uart::Config { tsc_hz });
        Devices {
            ioapic: IoApic::default(),
            pic: Pic::default(),
            pit: pit::Pit::new(pit::Config { tsc_hz }),
            rtc: rtc::Rtc::new(rtc::Config { tsc_hz, start_unix, start_tsc: 0 }),
            pm: pm::Pm::new(pm::Config { tsc_hz }),
            uarts: [uart.clone(), uart.clone(), uart],
            pci: PciHost::default(),
            reset: ResetControl::default(),
            post: 0,
            lines: 0,
        }
    }

    /// When one of them next acts by itself.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let mut first = earlier(self.pit.deadline(), self.rtc.deadline());
        first = earlier(first, self.pm.deadline());
        for uart in &self.uarts {
            first = earlier(first, uart.deadline());
        }
        first
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, time: u64) {
        let due = |deadline: Option<u64>| deadline.is_some_and(|at| at <= time);
        if due(self.pit.deadline()) {
            self.pit.tick(time);
        }
        if due(self.rtc.deadline()) {
            self.rtc.tick(time);
        }
        if due(self.pm.deadline()) {
            self.pm.tick(time);
        }
        for uart in &mut self.uarts {
            if due(uart.deadline()) {
                uart.tick(time);
            }
        }
    }
}
