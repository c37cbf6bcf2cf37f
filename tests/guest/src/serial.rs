//! The guest's console: COM1, written by polling.

use core::fmt::{self, Write};
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

/// I/O base of COM1.
const COM1: u16 = 0x3F8;

/// COM1, opened anew by each [`print!`]: a guest has one processor and no
/// interrupts, and keeps no state of it.
struct Console(Uart16550<PioBackend>);

impl Console {
    fn open() -> Option<Console> {
        // SAFETY: COM1's ports belong to the guest's serial port, and only
        // one value of this type lives at a time.
        Some(Console(unsafe { Uart16550::new_port(COM1) }.ok()?))
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}

impl Console {
    fn send(&mut self, byte: u8) {
        while self.0.try_send_byte(byte).is_err() {
            core::hint::spin_loop();
        }
    }
}

/// Sets the port to 115200 8N1. [`entry!`](crate::entry!) has done it before
/// a guest's main function runs.
pub fn init() {
    let config = Config {
        baud_rate: BaudRate::Baud115200,
        check_cts_before_sending: false,
        ..Config::DEFAULT
    };
    if let Some(mut console) = Console::open() {
        // A port that cannot be set up prints nothing; there is no one to
        // tell.
        let _ = console.0.init(config);
    }
}

/// Prints formatted text; see [`println!`](crate::println!).
pub fn print(text: fmt::Arguments<'_>) {
    if let Some(mut console) = Console::open() {
        let _ = console.write_fmt(text);
    }
}

/// Prints on the guest's console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::serial::print(format_args!($($argument)*)) };
}

/// Prints a line on the guest's console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::serial::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
