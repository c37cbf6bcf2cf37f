//! What every node printed: its last lines in memory, all of it in files.

use crate::RunnerError;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Lines of each node that are kept for a report.
const TAIL_LINES: usize = 12;
/// Longest line; a longer one is cut in pieces.
pub(crate) const LINE_LEN_MAX: usize = 16 << 10;

/// The last lines of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Adds a line and forgets the oldest.
    pub(crate) fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// A log file, if logs are kept.
#[derive(Debug)]
pub(crate) struct LogFile(Option<File>);

impl LogFile {
    /// Creates `name` in the folder of logs.
    pub(crate) fn create(folder: Option<&Path>, name: &str) -> Result<Self, RunnerError> {
        let Some(folder) = folder else { return Ok(Self(None)) };
        let path = folder.join(name);
        let file = std::fs::create_dir_all(folder).and_then(|()| File::create(&path));
        Ok(Self(Some(file.map_err(|e| RunnerError::file(&path, "written", e))?)))
    }

    /// Writes bytes; a full disk ends the log, not the run.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.0
            && file.write_all(bytes).is_err()
        {
            self.0 = None;
        }
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes and returns the lines that are complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' || self.0.len() == LINE_LEN_MAX {
                lines.extend(self.take());
            }
            if byte != b'\n' {
                self.0.push(byte);
            }
        }
        lines
    }

    /// Ends the stream: returns the line that was begun.
    pub(crate) fn finish(&mut self) -> Option<String> {
        if self.0.is_empty() { None } else { self.take() }
    }

    /// Takes the line so far, without carriage returns at its end.
    fn take(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.0);
        Some(String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\r\ntw"), ["one"]);
        assert_eq!(lines.push(b"o\n\nthree"), ["two", ""]);
        assert_eq!(lines.finish().as_deref(), Some("three"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut lines = Lines::default();
        let out = lines.push(&vec![b'x'; 3 * LINE_LEN_MAX]);
        assert_eq!(out.len(), 2);
        assert!(out.iter().all(|l| l.len() == LINE_LEN_MAX));
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let tail = Tail::default();
        (0..100).for_each(|i| tail.push(&i.to_string()));
        assert_eq!(tail.lines().len(), TAIL_LINES);
        assert_eq!(tail.lines().last().unwrap(), "99");
    }
}
