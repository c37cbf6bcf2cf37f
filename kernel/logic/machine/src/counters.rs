//! What happened, for reports: exits by kind, and which unknown registers
//! and addresses the guest asked for.

use vcpu::Exit;

/// Keys kept by a [`Tally`].
const KEYS: usize = 16;

/// Counts by key, for the first few keys seen; later ones share one count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally<K> {
    entries: [Option<(K, u64)>; KEYS],
    others: u64,
}

impl<K: Copy + PartialEq> Tally<K> {
    const fn new() -> Self {
        Tally { entries: [None; KEYS], others: 0 }
    }

    /// Counts one event.
    pub(crate) fn count(&mut self, key: K) {
        for entry in &mut self.entries {
            match entry {
                Some((k, n)) if *k == key => {
                    *n = n.saturating_add(1);
                    return;
                }
                Some(_) => {}
                None => {
                    *entry = Some((key, 1));
                    return;
                }
            }
        }
        self.others = self.others.saturating_add(1);
    }

    /// The keys seen first, with their counts.
    pub fn entries(&self) -> impl Iterator<Item = (K, u64)> + '_ {
        self.entries.iter().flatten().copied()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries[0].is_none()
    }

    /// Events with keys that found no place.
    #[must_use]
    pub fn others(&self) -> u64 {
        self.others
    }
}

macro_rules! kinds {
    ($($name:ident $index:literal $text:literal)*) => {
        /// Kinds of exits.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Kind {
            $(#[doc = $text] $name = $index),*
        }
        impl Kind {
            /// All kinds, in the order of [`Counters::exits`].
            pub const ALL: [Kind; 17] = [$(Kind::$name),*];
            /// Short name for reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $text),* }
            }
        }
    };
}

kinds! {
    PageFault 0 "device memory"
    Cpuid 1 "cpuid"
    Rdmsr 2 "rdmsr"
    Wrmsr 3 "wrmsr"
    Io 4 "port"
    IoString 5 "port string"
    Hlt 6 "hlt"
    HostInterrupt 7 "host interrupt"
    InterruptWindow 8 "interrupt window"
    Shutdown 9 "shutdown"
    Xsetbv 10 "xsetbv"
    Hypercall 11 "hypercall"
    CacheControl 12 "cache control"
    Undefined 13 "undefined"
    Ignore 14 "ignored"
    Invalid 15 "invalid state"
    WriteCr8 16 "mov cr8"
}

impl Kind {
    pub(crate) fn of(exit: &Exit) -> Kind {
        match exit {
            Exit::PageFault { .. } => Kind::PageFault,
            Exit::Cpuid => Kind::Cpuid,
            Exit::Rdmsr => Kind::Rdmsr,
            Exit::Wrmsr => Kind::Wrmsr,
            Exit::Io(io) if io.string => Kind::IoString,
            Exit::Io(_) => Kind::Io,
            Exit::Hlt => Kind::Hlt,
            Exit::HostInterrupt => Kind::HostInterrupt,
            Exit::InterruptWindow => Kind::InterruptWindow,
            Exit::Shutdown => Kind::Shutdown,
            Exit::Xsetbv => Kind::Xsetbv,
            Exit::WriteCr8 => Kind::WriteCr8,
            Exit::Hypercall => Kind::Hypercall,
            Exit::CacheControl => Kind::CacheControl,
            Exit::Undefined => Kind::Undefined,
            Exit::Ignore => Kind::Ignore,
            Exit::Invalid { .. } => Kind::Invalid,
        }
    }
}

/// The machine's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Exits by [`Kind`]; an exit that is handled again after Pending counts
    /// again.
    pub exits: [u64; 17],
    /// Exits that ended in Pending.
    pub pending: u64,
    /// Instructions emulated for device memory.
    pub emulated: u64,
    /// Events injected.
    pub injected: u64,
    /// MSRs that are not there, by number.
    pub unknown_msrs: Tally<u32>,
    /// Ports without a device, by number.
    pub unknown_ports: Tally<u16>,
    /// Device addresses without a device, by page address.
    pub unknown_mmio: Tally<u64>,
    /// Instructions that touched device memory and are not emulated, by
    /// address.
    pub unemulatable: Tally<u64>,
}

impl Counters {
    pub(crate) const fn new() -> Counters {
        Counters {
            exits: [0; 17],
            pending: 0,
            emulated: 0,
            injected: 0,
            unknown_msrs: Tally::new(),
            unknown_ports: Tally::new(),
            unknown_mmio: Tally::new(),
            unemulatable: Tally::new(),
        }
    }
}

impl<K: Copy + PartialEq + core::fmt::LowerHex> core::fmt::Display for Tally<K> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (key, count) in self.entries() {
            write!(f, " {key:#x}: {count}")?;
        }
        if self.others != 0 { write!(f, " others: {}", self.others) } else { Ok(()) }
    }
}

/// A line for each thing that happened at all.
impl core::fmt::Display for Counters {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (kind, &count) in Kind::ALL.iter().zip(&self.exits).filter(|(_, n)| **n != 0) {
            writeln!(f, "{} exits: {count}", kind.name())?;
        }
        writeln!(f, "given up as pending: {}", self.pending)?;
        writeln!(f, "device accesses emulated: {}", self.emulated)?;
        writeln!(f, "events injected: {}", self.injected)?;
        let line =
            |f: &mut core::fmt::Formatter<'_>, name, tally: &dyn core::fmt::Display, some| {
                if some { writeln!(f, "{name}:{tally}") } else { Ok(()) }
            };
        line(f, "unknown MSRs", &self.unknown_msrs, !self.unknown_msrs.is_empty())?;
        line(f, "unknown ports", &self.unknown_ports, !self.unknown_ports.is_empty())?;
        line(f, "unknown device pages", &self.unknown_mmio, !self.unknown_mmio.is_empty())?;
        line(f, "not emulated at", &self.unemulatable, !self.unemulatable.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_overflows_into_others() {
        let mut t = Tally::new();
        for key in 0..100u32 {
            t.count(key);
        }
        t.count(3);
        assert_eq!(t.entries().count(), KEYS);
        assert!(t.entries().any(|e| e == (3, 2)));
        assert_eq!(t.others(), 100 - KEYS as u64);
    }

    #[test]
    fn a_report_names_what_happened() {
        let mut c = Counters::new();
        c.exits[Kind::Hlt as usize] = 3;
        c.unknown_msrs.count(0xC001_0299);
        let text = std::format!("{c}");
        assert!(text.starts_with("hlt exits: 3\n"), "{text}");
        assert!(text.ends_with("unknown MSRs: 0xc0010299: 1\n"), "{text}");
    }

    #[test]
    fn kinds_are_in_order() {
        for (i, k) in Kind::ALL.iter().enumerate() {
            assert_eq!(*k as usize, i);
        }
    }
}
