//! Ends everything when the user or the system says so.

use crate::{temporary, terminal};
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::time::Duration;

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
    terminal::restore();
    runner::process::kill_all(END_LIMIT);
    temporary::remove_all();
    std::process::exit(status)
}
