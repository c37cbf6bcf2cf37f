//! Files that go when the program does, also by a signal.

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The files that are there.
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Tells the files of one process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct TemporaryFile(PathBuf);

impl TemporaryFile {
    /// Writes a new file.
    pub(crate) fn write(name: &str, data: &[u8]) -> Result<Self> {
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pangaea-{}-{count}-{name}", std::process::id());
        Self::at(std::env::temp_dir().join(name), data)
    }

    /// Writes a new file at a path of the caller's.
    pub(crate) fn at(path: PathBuf, data: &[u8]) -> Result<Self> {
        FILES.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        let file = Self(path);
        file.replace(data)?;
        Ok(file)
    }

    /// Replaces what is in it, at once for everyone who reads it.
    pub(crate) fn replace(&self, data: &[u8]) -> Result<()> {
        let new = self.0.with_extension("new");
        std::fs::write(&new, data)
            .and_then(|()| std::fs::rename(&new, &self.0))
            .with_context(|| format!("{} cannot be written", self.0.display()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|f| *f != self.0);
        // It may be gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes all that is left, before the process ends by a signal.
pub(crate) fn remove_all() {
    for file in FILES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = std::fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lives_as_long_as_its_owner() {
        let file = TemporaryFile::write("test", b"x").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        file.replace(b"yz").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"yz");
        drop(file);
        assert!(!path.exists());
    }
}
