//! The guest's serial ports and the node's.
//!
//! The guest's COM1 to COM3 are the node's COM2 to COM4; the node's COM1 is
//! its log. On a machine with fewer ports the guest's first console shares
//! the log, line by line.

use chipset::uart::Uart;
use machine::Machine;
use platform::serial::{self, SerialPort};
use platform::{clock, interrupts};

/// Bytes of a guest's console line kept for a shared log.
const LINE: usize = 256;

/// The node's ends of the guest's serial ports.
pub(crate) struct Consoles {
    ports: [Option<SerialPort>; 3],
    line: [u8; LINE],
    len: usize,
    /// TSC at which the guest's machine started: the devices' time.
    start_tsc: u64,
    /// Input may be there: an interrupt came, or not all of it had room.
    look: bool,
}

impl Consoles {
    /// Opens COM2 to COM4.
    pub(crate) fn open(start_tsc: u64) -> Consoles {
        let ports = [2, 3, 4].map(|number| {
            // SAFETY: the log uses COM1; nothing else opens the others.
            let mut port = unsafe { SerialPort::open(number) }?;
            port.enable_receive_interrupt();
            interrupts::enable_line(port.line());
            Some(port)
        });
        let found = ports.iter().flatten().count();
        log::info!("{found} serial ports for the guest");
        Consoles { ports, line: [0; LINE], len: 0, start_tsc, look: true }
    }

    /// Says that an interrupt has come.
    pub(crate) fn interrupted(&mut self) {
        self.look = true;
    }

    /// Carries bytes both ways as far as both sides have room.
    pub(crate) fn pump(&mut self, machine: &mut Machine) {
        let look = core::mem::take(&mut self.look);
        if !look && !machine.has_serial_output() {
            return;
        }
        for i in 0..self.ports.len() {
            let uart = machine.uart(i);
            if uart.output_len() > 0 {
                self.output(i, uart);
            }
            if look {
                self.input(i, machine);
            }
        }
    }

    /// Whether output waits for a port that was not ready.
    pub(crate) fn backlog(&self, machine: &Machine) -> bool {
        machine.has_serial_output()
    }

    fn output(&mut self, i: usize, uart: &mut Uart) {
        match &mut self.ports[i] {
            Some(port) => {
                while let Some(byte) = uart.peek_output() {
                    if !port.try_write(byte) {
                        break;
                    }
                    uart.take_output();
                }
            }
            None => {
                while let Some(byte) = uart.take_output() {
                    if i == 0 {
                        self.share(byte);
                    }
                }
            }
        }
    }

    /// Puts the guest's console on the node's log.
    fn share(&mut self, byte: u8) {
        if byte == b'\n' || self.len == LINE {
            let text = core::str::from_utf8(&self.line[..self.len]).unwrap_or("?");
            serial::print_line(format_args!("guest: {text}"));
            self.len = 0;
        }
        if byte != b'\n' && byte != b'\r' {
            self.line[self.len] = byte;
            self.len += 1;
        }
    }

    fn input(&mut self, i: usize, machine: &mut Machine) {
        let Some(port) = &mut self.ports[i] else { return };
        let now = clock::now_tsc().saturating_sub(self.start_tsc);
        while machine.uart(i).input_room() > 0 {
            let Some(byte) = port.try_read() else { return };
            machine.uart(i).input(byte, now);
        }
        // No room now: look again at the next turn.
        self.look = true;
    }
}
