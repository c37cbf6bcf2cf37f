//! A run that is over.

use crate::{Folder, Record};
use std::time::Duration;

/// What a run of the door left. Should the test fail while it lives, it
/// prints all that helps to see why.
pub struct Finished {
    /// The command line.
    pub line: String,
    /// The exit status; `None` if the time limit or a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// How long it lasted.
    pub took: Duration,
    /// The logs of the nodes.
    pub logs: Folder,
}

impl Finished {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The record of a run with `--json`.
    ///
    /// # Panics
    /// If the run printed none.
    #[must_use]
    pub fn record(&self) -> Record {
        let parsed = serde_json::from_slice(&self.stdout);
        Record(parsed.unwrap_or_else(|error| panic!("the run printed no record: {error}")))
    }

    /// Makes sure of the exit status.
    ///
    /// # Panics
    /// If it is another.
    pub fn expect(&self, status: i32) -> &Finished {
        let said = self.stderr.lines().last().unwrap_or("nothing");
        assert_eq!(self.status, Some(status), "exit status of {}, which says: {said}", self.line);
        self
    }

    /// Makes sure that the run was refused with `status` and one plain
    /// sentence that holds all of `words`.
    ///
    /// # Panics
    /// If it was not.
    pub fn refused(&self, status: i32, words: &[&str]) -> &Finished {
        self.expect(status);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in:\n{}", self.stderr);
        }
        for bad in ["panicked at", "stack backtrace", "Node 0 panicked"] {
            assert!(!self.stderr.contains(bad), "{bad:?} in:\n{}", self.stderr);
        }
        assert!(self.stdout.is_empty(), "output of a refused run: {}", self.text());
        self
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("=== {}", self.line);
            eprintln!("ended with {:?} after {:.1} s", self.status, self.took.as_secs_f64());
            // What tells most comes first: the rest may be cut off.
            eprintln!("--- standard error\n{}", clipped(&self.stderr));
            eprint!("{}", self.logs.tails());
            eprintln!("--- standard output\n{}", clipped(&self.text()));
        }
    }
}

/// A text without its middle, should it be long.
fn clipped(text: &str) -> String {
    const ENDS: usize = 3000;
    if text.len() <= 2 * ENDS {
        return text.to_owned();
    }
    let head: String = text.chars().take(ENDS).collect();
    let mut tail: Vec<char> = text.chars().rev().take(ENDS).collect();
    tail.reverse();
    format!("{head}\n[...]\n{}", tail.into_iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(status: i32, stderr: &str) -> Finished {
        Finished {
            line: "test".to_owned(),
            status: Some(status),
            stdout: Vec::new(),
            stderr: stderr.to_owned(),
            took: Duration::ZERO,
            logs: Folder::new(),
        }
    }

    #[test]
    fn a_refusal_has_status_and_words() {
        finished(2, "pangaea: no such thing.").refused(2, &["no such"]);
        let fails = |f: &Finished| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                f.refused(2, &["no such"]);
            }))
            .is_err()
        };
        assert!(fails(&finished(1, "pangaea: no such thing.")));
        assert!(fails(&finished(2, "pangaea: another thing.")));
        assert!(fails(&finished(2, "no such: thread panicked at")));
    }

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(clipped("short"), "short");
        let long = format!("a{}z", "ä".repeat(9000));
        let text = clipped(&long);
        assert!(text.starts_with('a') && text.ends_with('z') && text.contains("[...]"));
    }
}
