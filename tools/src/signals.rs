//! Ends everything when the user or the system says so.

use crate::{temporary, terminal};
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set once the program is ending by [`quit`].
static QUITTING: AtomicBool = AtomicBool::new(false);

/// How long the emulators have to be gone.
const END_LIMIT: Duration = Duration::from_secs(5);

/// From now on a signal to end kills every emulator, puts the terminal back
/// and ends the program with the status 128 and the signal's number.
pub(crate) fn install() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be caught")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            quit(128 + signal);
        }
    });
    Ok(())
}

/// Ends everything and the program.
pub(crate) fn quit(status: i32) -> ! {
    QUITTING.store(true, Ordering::SeqCst);
    terminal::restore();
    runner::process::kill_all(END_LIMIT);
    temporary::remove_all();
    std::process::exit(status)
}

/// Waits for the end if [`quit`] is at work. The rest of the program sees its
/// emulators die then, which must not be taken for their own doing.
pub(crate) fn wait_if_quitting() {
    while QUITTING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
