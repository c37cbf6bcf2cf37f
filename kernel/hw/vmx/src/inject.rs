//! Events on their way into the guest: VM-entry interruption information
//! (SDM 25.8.3) and IDT-vectoring information (SDM 25.9.3).

use vcpu::{Event, makes_double_fault};

const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;
const KIND: u64 = 0b111 << 8;
const INTERRUPT: u64 = 0 << 8;
const NMI: u64 = 2 << 8;
const EXCEPTION: u64 = 3 << 8;
const DOUBLE_FAULT: u8 = 8;

/// An event to inject: bits 0 to 7 the vector, 8 to 10 the kind, 11 and 31
/// whether there is an error code and an event at all; and the error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    info: u64,
    error: u64,
}

impl Injection {
    /// Nothing to inject.
    pub const NONE: Injection = Injection { info: 0, error: 0 };

    /// Makes an event's injection.
    ///
    /// # Panics
    /// On an exception that is none: vectors above 31, and 2, which is the NMI.
    #[must_use]
    pub fn of(event: Event) -> Injection {
        match event {
            Event::Interrupt(vector) => {
                Injection { info: VALID | INTERRUPT | u64::from(vector), error: 0 }
            }
            Event::Nmi => Injection { info: VALID | NMI | 2, error: 0 },
            Event::Exception { vector, error } => {
                assert!(vector < 32 && vector != 2, "vector {vector} is no exception");
                let flag = if error.is_some() { HAS_ERROR } else { 0 };
                Injection {
                    info: VALID | EXCEPTION | flag | u64::from(vector),
                    error: u64::from(error.unwrap_or(0)),
                }
            }
        }
    }

    /// The event to inject again after an exit that told `info` and `error`
    /// as IDT-vectoring information.
    ///
    /// INT n, INT3, INTO and INT1 that the guest executed are left out: the
    /// guest's rip still points at them, and it executes them again.
    #[must_use]
    pub fn again(info: u64, error: u64) -> Injection {
        let kind = info & KIND;
        if info & VALID == 0 || !matches!(kind, INTERRUPT | NMI | EXCEPTION) {
            return Injection::NONE;
        }
        let error = if info & HAS_ERROR != 0 { error & 0xFFFF_FFFF } else { 0 };
        Injection { info: info & (VALID | HAS_ERROR | KIND | 0xFF), error }
    }

    /// What to inject when `self` waits and `event` comes on top of it.
    ///
    /// An exception met while another is delivered takes its place or makes a
    /// double fault of the two; one met while an interrupt is delivered takes
    /// its place, as on a processor. Whoever injects an interrupt or NMI has
    /// to ask first.
    ///
    /// # Panics
    /// On an interrupt or NMI on top of another event.
    #[must_use]
    pub fn followed_by(self, event: Event) -> Injection {
        let next = Injection::of(event);
        if !self.is_some() {
            return next;
        }
        assert!(next.is_exception(), "{event:?} injected before the last was taken");
        if self.is_exception() && makes_double_fault(self.vector(), next.vector()) {
            return Injection::of(Event::Exception { vector: DOUBLE_FAULT, error: Some(0) });
        }
        next
    }

    /// Whether there is an event.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.info & VALID != 0
    }

    /// Whether it is an exception.
    #[must_use]
    pub fn is_exception(self) -> bool {
        self.is_some() && self.info & KIND == EXCEPTION
    }

    /// Whether it is an NMI.
    #[must_use]
    pub fn is_nmi(self) -> bool {
        self.is_some() && self.info & KIND == NMI
    }

    /// The interruption information.
    #[must_use]
    pub fn info(self) -> u64 {
        self.info
    }

    /// Its error code. A processor in real mode pushes none, and refuses to
    /// be asked to (SDM 27.2.1.3).
    #[must_use]
    pub fn error(self) -> u64 {
        self.error
    }

    /// The same without an error code, for a processor in real mode.
    #[must_use]
    pub fn without_error(self) -> Injection {
        Injection { info: self.info & !HAS_ERROR, error: 0 }
    }

    fn vector(self) -> u8 {
        self.info as u8
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
        assert_eq!(Injection::of(Event::Interrupt(0xEC)).info(), 0x8000_00EC);
        assert_eq!(Injection::of(Event::Nmi).info(), 0x8000_0202);
        assert_eq!(Injection::of(Event::UNDEFINED).info(), 0x8000_0306);
        let fault = exception(14, Some(0x15));
        assert_eq!((fault.info(), fault.error()), (0x8000_0B0E, 0x15));
        assert_eq!(fault.without_error().info(), 0x8000_030E);
        assert!(!Injection::NONE.is_some());
    }

    #[test]
    #[should_panic(expected = "no exception")]
    fn an_nmi_is_no_exception() {
        let _ = exception(2, None);
    }

    #[test]
    fn what_was_cut_short_comes_again() {
        for event in [Event::Interrupt(0x20), Event::Nmi, Event::GENERAL_PROTECTION] {
            let event = Injection::of(event);
            assert_eq!(Injection::again(event.info(), event.error()), event);
        }
        // Without an error code, the other field means nothing; nor do the
        // undefined bits 12 to 30.
        assert_eq!(Injection::again(0x8000_1306, 0xDEAD), exception(6, None));
        assert_eq!(Injection::again(0x0000_0B0D, 0), Injection::NONE);
    }

    #[test]
    fn software_interrupts_execute_again() {
        for kind in [4u64, 5, 6] {
            assert_eq!(Injection::again(VALID | kind << 8 | 3, 0), Injection::NONE);
        }
    }

    #[test]
    fn faults_within_faults() {
        let on = |first: Injection, second| {
            first.followed_by(Event::Exception { vector: second, error: Some(0) }).vector()
        };
        assert_eq!(on(exception(13, Some(0)), 13), 8);
        assert_eq!(on(exception(13, Some(0)), 14), 14);
        assert_eq!(on(exception(14, Some(0)), 14), 8);
        assert_eq!(on(exception(6, None), 13), 13);
        assert_eq!(on(Injection::of(Event::Interrupt(0x30)), 14), 14);
        assert_eq!(on(Injection::NONE, 14), 14);
    }

    #[test]
    #[should_panic(expected = "injected before")]
    fn an_interrupt_waits_its_turn() {
        let _ = exception(6, None).followed_by(Event::Interrupt(0x20));
    }
}
