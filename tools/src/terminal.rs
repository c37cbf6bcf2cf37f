//! The user's terminal: its size, and raw mode while the guest has it.

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{ErrorKind, IsTerminal, Write, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The settings to go back to.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A view has the whole screen.
static SCREEN: AtomicBool = AtomicBool::new(false);

/// Gives a view the whole screen, until [`restore`].
pub(crate) fn take_screen() -> std::io::Result<ratatui::DefaultTerminal> {
    SCREEN.store(true, Ordering::SeqCst);
    ratatui::try_init()
}

/// Prints a result. Who has closed the pipe has read enough of it.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Rows and columns, if there is a terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    console::Term::stdout().size_checked()
}

/// Gives every key to the guest; does nothing if standard input is no
/// terminal or raw already.
pub(crate) fn make_raw() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if before.is_some() || !stdin().is_terminal() {
        return;
    }
    let Ok(settings) = tcgetattr(stdin()) else { return };
    let mut raw = settings.clone();
    cfmakeraw(&mut raw);
    if tcsetattr(stdin(), SetArg::TCSANOW, &raw).is_ok() {
        *before = Some(settings);
    }
}

/// Puts the terminal back as it was.
pub(crate) fn restore() {
    if SCREEN.swap(false, Ordering::SeqCst) {
        let _ = ratatui::try_restore();
    }
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(settings) = before {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &settings);
    }
}

/// Restores the terminal when a run is over, however it ends.
pub(crate) struct Restorer;

impl Drop for Restorer {
    fn drop(&mut self) {
        restore();
    }
}

/// What a key press means to the console.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Bytes for the guest.
    Send(Vec<u8>),
    /// Ctrl-A x: end everything.
    Quit,
}

/// Looks for Ctrl-A, the escape key that QEMU has too.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    seen: bool,
}

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

impl Escape {
    /// Reads what was typed.
    pub(crate) fn read(&mut self, typed: &[u8]) -> Keys {
        let mut send = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (std::mem::take(&mut self.seen), byte) {
                (true, b'x' | b'X') => return Keys::Quit,
                // Ctrl-A twice sends one.
                (true, other) => send.push(other),
                (false, ESCAPE) => self.seen = true,
                (false, other) => send.push(other),
            }
        }
        Keys::Send(send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_key_quits_and_can_be_sent() {
        let mut escape = Escape::default();
        assert_eq!(escape.read(b"ls\r"), Keys::Send(b"ls\r".to_vec()));
        assert_eq!(escape.read(b"a\x01"), Keys::Send(b"a".to_vec()));
        assert_eq!(escape.read(b"\x01b"), Keys::Send(b"\x01b".to_vec()));
        assert_eq!(escape.read(b"\x01"), Keys::Send(Vec::new()));
        assert_eq!(escape.read(b"x"), Keys::Quit);
    }
}
