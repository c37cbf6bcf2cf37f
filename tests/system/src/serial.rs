//! One cluster at a time, and how long each test took.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Held by the test that may boot clusters.
static TURN: Mutex<()> = Mutex::new(());

/// A test's turn: no other test of this program boots anything meanwhile.
/// Its end prints how long it lasted.
pub struct Turn {
    name: &'static str,
    begun: Instant,
    _guard: MutexGuard<'static, ()>,
}

/// Waits for this test's turn.
#[must_use]
pub fn serial(name: &'static str) -> Turn {
    // The lock guards no data that a failed test could have harmed.
    let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { name, begun: Instant::now(), _guard: guard }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let word = if std::thread::panicking() { "failed after" } else { "took" };
        // Not through the test harness's capture: a table of times is wanted
        // from a run that passes.
        let line =
            format!("[time] {} {word} {:.1} s\n", self.name, self.begun.elapsed().as_secs_f64());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
}
