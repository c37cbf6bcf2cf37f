//! A folder for the logs of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes at the end of each log that a failed test prints.
const TAIL_BYTES: usize = 4096;

/// A folder of its own for each run; removed unless the test fails.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new one.
    ///
    /// # Panics
    /// If the system's folder for temporary files cannot be written.
    #[must_use]
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "pangaea-system-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for logs");
        Folder(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A log's text as far as it is written; empty if there is none yet.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.0.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The ends of all logs, by name.
    #[must_use]
    pub fn tails(&self) -> String {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".log"))
            .collect();
        names.sort();
        let tails = names.iter().map(|name| {
            let text = self.text(name);
            format!("--- {name}, its end\n{}\n", tail(&text))
        });
        tails.collect()
    }
}

impl Default for Folder {
    fn default() -> Folder {
        Folder::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The logs are kept in {}.", self.0.display());
        } else {
            // What cannot be removed is the system's to clean.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The end of a text, from the start of a line.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    match text[start..].find('\n') {
        Some(end) if start > 0 => &text[start + end + 1..],
        _ => &text[start..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_with_a_line() {
        assert_eq!(tail("short\ntext"), "short\ntext");
        let long = format!("{}\nlast line", "ä".repeat(TAIL_BYTES));
        assert_eq!(tail(&long), "last line");
    }

    #[test]
    fn a_folder_goes_with_its_owner() {
        let folder = Folder::new();
        fs::write(folder.path().join("node-0-log.log"), "hello\n").unwrap();
        fs::write(folder.path().join("other"), "no log\n").unwrap();
        assert!(folder.tails().contains("node-0-log.log") && !folder.tails().contains("no log"));
        assert_eq!(folder.text("absent"), "");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
