//! Serial ports: COM1 is the node's log, COM2 to COM4 are raw byte ports for
//! the guest's consoles.
//!
//! Source: National Semiconductor PC16550D datasheet; the register accesses
//! are the uart_16550 crate's. The log is polled, so it works before
//! interrupts and during a panic, and bounded, so a port that nobody drains
//! slows a node but never stops it.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

/// I/O bases of COM1 to COM4.
pub const COM_BASES: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];
/// Interrupt lines of COM1 to COM4.
pub const COM_LINES: [u8; 4] = [4, 3, 4, 3];

/// Polls of the line status before a byte of the log is given up: seconds, as
/// whoever reads the log of an emulated node may have to wait for a processor.
const SEND_POLLS_MAX: u32 = 4_000_000;

/// One serial port.
pub struct SerialPort {
    uart: Uart16550<PioBackend>,
    line: u8,
}

impl SerialPort {
    /// Finds and initialises COM`number` (1 to 4) at 115200 8N1; `None` where
    /// no UART answers (scratch register test).
    ///
    /// # Safety
    /// No one else may use the same port.
    #[must_use]
    pub unsafe fn open(number: u8) -> Option<SerialPort> {
        let index = usize::from(number.checked_sub(1)?);
        let base = *COM_BASES.get(index)?;
        // SAFETY: the COM ports' I/O ranges belong to UARTs on every PC, or
        // to nothing; the caller promises to be the only user.
        let mut uart = unsafe { Uart16550::new_port(base) }.ok()?;
        // What stands at the other end may not drive the modem lines.
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            check_cts_before_sending: false,
            ..Config::DEFAULT
        };
        uart.init(config).ok()?;
        Some(SerialPort { uart, line: COM_LINES[index] })
    }

    /// Takes a received byte, if there is one.
    pub fn try_read(&mut self) -> Option<u8> {
        self.uart.try_receive_byte().ok()
    }

    /// Sends a byte if the transmitter has room for it; never waits.
    pub fn try_write(&mut self, byte: u8) -> bool {
        self.uart.try_send_byte(byte).is_ok()
    }

    /// Raises [`SerialPort::line`] whenever a byte is received, so that a
    /// halted node wakes up. The line has to be enabled in the PIC as well.
    pub fn enable_receive_interrupt(&mut self) {
        self.uart.enable_interrupts(uart_16550::spec::registers::IER::DATA_READY);
    }

    /// The port's interrupt line (ISA IRQ). COM1 shares it with COM3, and COM2
    /// with COM4: such ports can swallow each other's edges, so a node that
    /// uses both of a pair looks at them on a timer as well.
    #[must_use]
    pub fn line(&self) -> u8 {
        self.line
    }
}

/// The log's end of COM1.
struct LogPort {
    port: Option<SerialPort>,
    /// The last byte was given up: do not wait as long for the next one.
    stuck: bool,
}

impl LogPort {
    fn send(&mut self, byte: u8) {
        let Some(port) = &mut self.port else { return };
        let polls = if self.stuck { 1 } else { SEND_POLLS_MAX };
        self.stuck = !(0..polls).any(|_| port.try_write(byte));
    }
}

impl Write for LogPort {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for b in s.bytes() {
            if b == b'\n' {
                self.send(b'\r');
            }
            self.send(b);
        }
        Ok(())
    }
}

static LOG_PORT: Mutex<LogPort> = Mutex::new(LogPort { port: None, stuck: false });
static PANICKING: AtomicBool = AtomicBool::new(false);

/// Prints one line to the node's log as it is. Records for programs to read
/// (`@pangaea {..}`) and panic reports go this way, everything else through
/// the `log` crate.
pub fn print_line(line: fmt::Arguments<'_>) {
    if PANICKING.load(Ordering::Relaxed) {
        // SAFETY: after a panic nothing else runs, and whoever held the lock
        // never goes on; the worst is a torn line.
        unsafe { LOG_PORT.force_unlock() };
    }
    let mut port = LOG_PORT.lock();
    // `LogPort` never returns an error; one from a `Display` loses its text.
    let _ = port.write_fmt(line);
    let _ = port.write_str("\n");
}

/// Breaks a lock that is held, for an exception's report: whoever holds it
/// was interrupted by the exception and never goes on.
#[cfg(target_os = "none")]
pub(crate) fn unlock_for_report() {
    // SAFETY: as above; there is one processor, and it is here.
    unsafe { LOG_PORT.force_unlock() };
}

/// Lets [`print_line`] go past a lock that is held: the node is going down.
pub fn enter_panic() -> bool {
    PANICKING.swap(true, Ordering::Relaxed)
}

/// The `log` crate's sink: `[ sec.usec] LEVEL target: message`.
struct LogSink;

impl log::Log for LogSink {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // The AML interpreter's own messages are of no use to a node's owner.
        metadata.level() <= log::Level::Warn || !metadata.target().starts_with("acpi")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let us = crate::clock::uptime_us();
            print_line(format_args!(
                "[{:5}.{:06}] {:5} {}: {}",
                us / 1_000_000,
                us % 1_000_000,
                record.level(),
                record.target(),
                record.args()
            ));
        }
    }

    fn flush(&self) {}
}

/// Opens COM1 and installs the log sink.
///
/// # Safety
/// To be called once, before anything else uses COM1.
pub unsafe fn start_log(level: log::LevelFilter) {
    // SAFETY: the caller promises that nobody else uses COM1.
    LOG_PORT.lock().port = unsafe { SerialPort::open(1) };
    // Fails only if a logger is set already, which is then as good.
    let _ = log::set_logger(&LogSink);
    log::set_max_level(level);
}
