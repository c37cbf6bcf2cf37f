//! Events on their way into the guest: EVENTINJ and EXITINTINFO (APM 15.20).

use vcpu::{Event, makes_double_fault};

const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;
const KIND: u64 = 0b111 << 8;
const INTERRUPT: u64 = 0 << 8;
const NMI: u64 = 2 << 8;
const EXCEPTION: u64 = 3 << 8;
const DOUBLE_FAULT: u8 = 8;

/// EVENTINJ and EXITINTINFO share one format: bits 0 to 7 the vector, 8 to 10
/// the kind, 11 and 31 whether there is an error code and an event at all, 32
/// to 63 the error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Injection(u64);

impl Injection {
    /// Nothing to inject.
    pub const NONE: Injection = Injection(0);

    /// Makes an event's injection.
    ///
    /// # Panics
    /// On an exception that is none: vectors above 31, and 2, which is the NMI.
    #[must_use]
    pub fn of(event: Event) -> Injection {
        Injection(match event {
            Event::Interrupt(vector) => VALID | INTERRUPT | u64::from(vector),
            Event::Nmi => VALID | NMI | 2,
            Event::Exception { vector, error } => {
                assert!(vector < 32 && vector != 2, "vector {vector} is no exception");
                let error = error.map_or(0, |e| HAS_ERROR | u64::from(e) << 32);
                VALID | EXCEPTION | u64::from(vector) | error
            }
        })
    }

    /// The vector of an interrupt, which may go as a virtual one (V_IRQ).
    #[must_use]
    pub fn interrupt(self) -> Option<u8> {
        (self.is_some() && self.0 & KIND == INTERRUPT).then(|| self.vector())
    }

    /// The event to inject again after an exit that told `cut_short` in
    /// EXITINTINFO, where `tried` is what had been injected.
    ///
    /// INT n, INT3 and INTO that the guest executed are left out: the guest's
    /// rip still points at them, and it executes them again.
    #[must_use]
    pub fn again(cut_short: u64, tried: Injection) -> Injection {
        if cut_short & VALID == 0 {
            return Injection::NONE;
        }
        let error = if cut_short & HAS_ERROR != 0 { cut_short & 0xFFFF_FFFF_0000_0000 } else { 0 };
        let event = Injection(cut_short & (VALID | HAS_ERROR | KIND | 0xFF) | error);
        let software = matches!(event.vector(), 3 | 4) && event != tried;
        match event.0 & KIND {
            INTERRUPT | NMI => event,
            // No exception has such a vector: what QEMU 7.2 tells of a virtual
            // interrupt.
            EXCEPTION if event.vector() >= 32 => Injection::of(Event::Interrupt(event.vector())),
            EXCEPTION if !software => event,
            _ => Injection::NONE,
        }
    }

    /// What to inject when `self` waits and `event` comes on top of it.
    ///
    /// An exception met while another is delivered takes its place or makes a
    /// double fault of the two (APM 8.2.9); one met while an
    /// interrupt is delivered takes its place, as on a processor. Whoever
    /// injects an interrupt or NMI has to ask first.
    ///
    /// # Panics
    /// On an interrupt or NMI on top of another event.
    #[must_use]
    pub fn followed_by(self, event: Event) -> Injection {
        let next = Injection::of(event);
        if !self.is_some() {
            return next;
        }
        assert!(next.0 & KIND == EXCEPTION, "{event:?} injected before the last was taken");
        if self.0 & KIND == EXCEPTION && makes_double_fault(self.vector(), next.vector()) {
            return Injection::of(Event::Exception { vector: DOUBLE_FAULT, error: Some(0) });
        }
        next
    }

    /// Whether there is an event.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0 & VALID != 0
    }

    /// The value for EVENTINJ.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    fn vector(self) -> u8 {
        self.0 as u8
    }
}

/// Whether the guest can take an NMI. From an NMI to its IRET, no other is
/// taken (APM 8.2.3); the processor does not keep count of injected ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NmiState {
    /// None is in service.
    Open,
    /// One is in service; IRET is intercepted.
    InService,
    /// The IRET at this address was about to be executed. When the guest is
    /// next seen elsewhere, it has been.
    Returning(u64),
}

impl NmiState {
    /// The state once the guest has stopped at `rip`; `iret` says that it
    /// stopped for an intercepted IRET.
    #[must_use]
    pub fn after_exit(self, rip: u64, iret: bool) -> NmiState {
        match self {
            NmiState::InService if iret => NmiState::Returning(rip),
            NmiState::Returning(at) if at != rip => NmiState::Open,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(vector: u8, error: Option<u32>) -> Injection {
        Injection::of(Event::Exception { vector, error })
    }

    #[test]
    fn events_are_packed_as_the_manual_says() {
        assert_eq!(Injection::of(Event::Interrupt(0xEC)).bits(), 0x8000_00EC);
        assert_eq!(Injection::of(Event::Nmi).bits(), 0x8000_0202);
        assert_eq!(Injection::of(Event::UNDEFINED).bits(), 0x8000_0306);
        assert_eq!(exception(14, Some(0x15)).bits(), 0x0000_0015_8000_0B0E);
        assert!(!Injection::NONE.is_some());
    }

    #[test]
    #[should_panic(expected = "no exception")]
    fn an_nmi_is_no_exception() {
        let _ = exception(2, None);
    }

    #[test]
    fn what_was_cut_short_comes_again() {
        for event in [Injection::of(Event::Interrupt(0x20)), Injection::of(Event::Nmi)] {
            assert_eq!(Injection::again(event.bits(), Injection::NONE), event);
        }
        let fault = exception(13, Some(0x10));
        assert_eq!(Injection::again(fault.bits(), Injection::NONE), fault);
        // Without an error code, the upper half means nothing.
        let stale = exception(6, None).bits() | 0xDEAD << 32;
        assert_eq!(Injection::again(stale, Injection::NONE), exception(6, None));
        assert_eq!(Injection::again(fault.bits() & !VALID, fault), Injection::NONE);
    }

    #[test]
    fn a_virtual_interrupt_cut_short_is_an_interrupt() {
        let tried = Injection::of(Event::Interrupt(0xEC));
        assert_eq!(tried.interrupt(), Some(0xEC));
        assert_eq!(Injection::again(0x8000_03EC, tried), tried);
        for other in [Injection::NONE, Injection::of(Event::Nmi), exception(8, Some(0))] {
            assert_eq!(other.interrupt(), None);
        }
    }

    #[test]
    fn software_interrupts_execute_again() {
        let int_80 = 0x8000_0480;
        assert_eq!(Injection::again(int_80, Injection::NONE), Injection::NONE);
        let int3 = exception(3, None);
        assert_eq!(Injection::again(int3.bits(), Injection::NONE), Injection::NONE);
        assert_eq!(Injection::again(int3.bits(), int3), int3);
    }

    #[test]
    fn faults_within_faults() {
        let on = |first: Injection, second| {
            first.followed_by(Event::Exception { vector: second, error: Some(0) }).vector()
        };
        assert_eq!(on(exception(13, Some(0)), 13), 8);
        assert_eq!(on(exception(13, Some(0)), 14), 14);
        assert_eq!(on(exception(14, Some(0)), 14), 8);
        assert_eq!(on(exception(14, Some(0)), 13), 8);
        assert_eq!(on(exception(6, None), 13), 13);
        assert_eq!(on(exception(8, Some(0)), 14), 8);
        assert_eq!(on(Injection::of(Event::Interrupt(0x30)), 14), 14);
        assert_eq!(on(Injection::NONE, 14), 14);
    }

    #[test]
    #[should_panic(expected = "injected before")]
    fn an_interrupt_waits_its_turn() {
        let _ = exception(6, None).followed_by(Event::Interrupt(0x20));
    }

    #[test]
    fn an_nmi_is_over_when_its_iret_is_past() {
        let serving = NmiState::InService;
        assert_eq!(serving.after_exit(0x1000, false), serving);
        let returning = serving.after_exit(0x1000, true);
        assert_eq!(returning, NmiState::Returning(0x1000));
        assert_eq!(returning.after_exit(0x1000, false), returning);
        assert_eq!(returning.after_exit(0x2000, false), NmiState::Open);
        assert_eq!(NmiState::Open.after_exit(5, false), NmiState::Open);
    }
}
