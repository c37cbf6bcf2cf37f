//! What is going on, on standard error.
//!
//! On a terminal a spinner; elsewhere one line for each stage that takes more
//! than two seconds, so that a log of quick runs stays empty.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A stage shorter than this is not worth a line.
const QUIET: Duration = Duration::from_secs(2);
/// A stage that goes on is mentioned again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Shows stages. Dropping it takes the spinner away.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: Option<Lines>,
}

/// The line printer where there is no terminal.
struct Lines {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// What the printer is to say and when.
struct State {
    stage: Option<Stage>,
    stop: bool,
}

/// A stage and when to mention it next.
struct Stage {
    text: String,
    since: Instant,
    due: Instant,
}

impl Progress {
    /// Starts without a stage.
    pub(crate) fn new() -> Self {
        if stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            bar.set_style(style.expect("the template is well-formed"));
            return Self { bar: Some(bar), lines: None };
        }
        let shared = Arc::new((Mutex::new(State { stage: None, stop: false }), Condvar::new()));
        let printer = shared.clone();
        let thread = std::thread::spawn(move || print_lines(&printer));
        Self { bar: None, lines: Some(Lines { shared, thread: Some(thread) }) }
    }

    /// Begins a stage; the one before is over.
    pub(crate) fn stage(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            bar.reset_elapsed();
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        let since = Instant::now();
        let stage = Stage { text: text.to_owned(), since, due: since + QUIET };
        self.set(|state| state.stage = Some(stage));
    }

    /// Ends the stage; nothing is shown until the next.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.set_message("");
            bar.finish_and_clear();
        }
        self.set(|state| state.stage = None);
    }

    /// Prints a line that stays.
    pub(crate) fn note(&self, text: &str) {
        self.suspend(|| eprintln!("pangaea: {text}"));
    }

    /// Runs something that prints, with the spinner out of the way.
    pub(crate) fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }

    /// Changes the printer's state.
    fn set(&self, change: impl FnOnce(&mut State)) {
        if let Some(lines) = &self.lines {
            change(&mut lock(&lines.shared.0));
            lines.shared.1.notify_one();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
        self.set(|state| state.stop = true);
        if let Some(thread) = self.lines.as_mut().and_then(|l| l.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Prints stages when they are due, until told to stop.
fn print_lines(shared: &(Mutex<State>, Condvar)) {
    let (state, changed) = shared;
    let mut state = lock(state);
    while !state.stop {
        let now = Instant::now();
        let wait = match &mut state.stage {
            Some(stage) if stage.due <= now => {
                let seconds = (now - stage.since).as_secs();
                if stage.due == stage.since + QUIET {
                    eprintln!("pangaea: {}", stage.text);
                } else {
                    eprintln!("pangaea: {} ({seconds} s)", stage.text);
                }
                stage.due = now + AGAIN;
                AGAIN
            }
            Some(stage) => stage.due - now,
            None => AGAIN,
        };
        state = changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Locks; the state is whole at every moment.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
