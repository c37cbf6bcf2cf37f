//! The serial ports of a guest with an operating system. What it sends goes to
//! standard output in whole lines; nothing can be read from them.

use chipset::uart::{Config, Uart};
use kvm_ioctls::VmFd;
use std::io::Write;

/// I/O base and interrupt of `ttyS0` to `ttyS2`.
const PLACES: [(u16, u32); 3] = [(0x3F8, 4), (0x2F8, 3), (0x3E8, 4)];
/// Registers of a port.
const REGISTERS: u16 = 8;
/// Interrupts that ports have.
const INTERRUPTS: [u32; 2] = [3, 4];
/// The ports' unit of time. It counts for what is received only.
const HZ: u64 = 1_000_000_000;
const NOW: u64 = 0;

/// A port and the line that it has begun.
struct Port {
    uart: Uart,
    line: Vec<u8>,
}

/// All ports.
pub(crate) struct Ports {
    ports: [Port; 3],
    /// Levels of [`INTERRUPTS`] as the guest sees them.
    levels: [bool; 2],
}

/// The port at an I/O address, and the register in it.
fn place(at: u16) -> Option<(usize, u16)> {
    let register = |(base, _): (u16, u32)| at.checked_sub(base).filter(|r| *r < REGISTERS);
    (0..).zip(PLACES).find_map(|(index, place)| Some((index, register(place)?)))
}

impl Ports {
    pub(crate) fn new() -> Ports {
        let port = |_| Port { uart: Uart::new(Config { tsc_hz: HZ }), line: Vec::new() };
        Ports { ports: PLACES.map(port), levels: [false; 2] }
    }

    /// The guest reads; false if there is no port.
    pub(crate) fn read(&mut self, at: u16, data: &mut [u8]) -> bool {
        let Some((port, register)) = place(at) else { return false };
        data.fill(self.ports[port].uart.read(register, NOW));
        true
    }

    /// The guest writes; returns whole lines that are ready.
    pub(crate) fn write(&mut self, at: u16, data: &[u8]) -> Option<Vec<u8>> {
        let (port, register) = place(at)?;
        let Port { uart, line } = &mut self.ports[port];
        data.iter().for_each(|&byte| uart.write(register, byte, NOW));
        while let Some(byte) = uart.take_output() {
            line.extend((byte != b'\r').then_some(byte));
        }
        (line.last() == Some(&b'\n')).then(|| std::mem::take(line))
    }

    /// Interrupts whose level has changed.
    fn changed(&mut self) -> Vec<(u32, bool)> {
        let mut changed = Vec::new();
        for (interrupt, level) in INTERRUPTS.into_iter().zip(&mut self.levels) {
            let lines = PLACES.iter().zip(&self.ports);
            let now = lines.filter(|((_, i), _)| *i == interrupt).any(|(_, p)| p.uart.line());
            if std::mem::replace(level, now) != now {
                changed.push((interrupt, now));
            }
        }
        changed
    }

    /// Tells the guest's interrupt controllers what has changed.
    pub(crate) fn interrupt(&mut self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        self.changed().into_iter().try_for_each(|(number, level)| vm.set_irq_line(number, level))
    }
}

/// Passes lines on.
pub(crate) fn print(lines: &[u8]) {
    let mut out = std::io::stdout();
    // Without a reader there is nobody to tell.
    let _ = out.write_all(lines).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_where_a_pc_has_them() {
        assert_eq!(place(0x3F8), Some((0, 0)));
        assert_eq!(place(0x2FF), Some((1, 7)));
        assert_eq!(place(0x3E9), Some((2, 1)));
        assert_eq!([0x2F7, 0x300, 0x400, 0].map(place), [None; 4]);
    }

    #[test]
    fn each_port_has_its_own_lines() {
        let mut ports = Ports::new();
        assert_eq!(ports.write(0x3F8, b"a\r"), None);
        assert_eq!(ports.write(0x2F8, b"b\n"), Some(b"b\n".to_vec()));
        assert_eq!(ports.write(0x3F8, b"\n"), Some(b"a\n".to_vec()));
        assert!(!ports.read(0x60, &mut [0]));
    }

    #[test]
    fn an_empty_transmitter_interrupts_who_asked() {
        let mut ports = Ports::new();
        assert_eq!(ports.changed(), []);
        // OUT2 and the transmitter's interrupt.
        ports.write(0x2F8 + 4, &[8]);
        ports.write(0x2F8 + 1, &[2]);
        assert_eq!(ports.changed(), [(3, true)]);
        assert_eq!(ports.changed(), []);
        let mut cause = [0];
        assert!(ports.read(0x2F8 + 2, &mut cause));
        assert_eq!((cause[0] & 0xF, ports.changed()), (2, vec![(3, false)]));
        ports.write(0x2F8, b"x");
        assert_eq!(ports.changed(), [(3, true)]);
    }
}
