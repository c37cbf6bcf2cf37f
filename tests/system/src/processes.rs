//! Which processes belong to a run.
//!
//! Every process that the door starts inherits a variable with a value of
//! its own from the door's environment. That tells them from all others on
//! the machine, also when their parent is gone.

use std::fs;
use std::path::Path;

/// The variable's name.
const VARIABLE: &str = "PANGAEA_SYSTEM_TEST";

/// The value that marks one run's processes.
#[derive(Clone, Debug)]
pub struct Mark(String);

impl Default for Mark {
    fn default() -> Mark {
        Mark::new()
    }
}

impl Mark {
    /// A new one.
    #[must_use]
    pub fn new() -> Mark {
        Mark(format!("{:016x}", fastrand::u64(..)))
    }

    /// Name and value for a command's environment.
    #[must_use]
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.0)
    }

    /// The processes that carry the mark: their ids and command lines.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        let wanted = format!("{VARIABLE}={}", self.0);
        processes(|folder| {
            let environment = fs::read(folder.join("environ")).unwrap_or_default();
            environment.split(|&b| b == 0).any(|entry| entry == wanted.as_bytes())
        })
    }

    /// The process of a node's emulator: it has the node's network address
    /// on its command line.
    #[must_use]
    pub fn emulator(&self, node: u8) -> Option<u32> {
        let address = format!("mac=52:54:00:50:00:{node:02x}");
        self.processes().into_iter().find(|(_, line)| line.contains(&address)).map(|(id, _)| id)
    }
}

/// The emulators among this process's own children.
#[must_use]
pub fn emulators() -> Vec<(u32, String)> {
    let parent = format!("PPid:\t{}", std::process::id());
    processes(|folder| {
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        status.lines().any(|line| line == parent)
    })
    .into_iter()
    .filter(|(_, line)| ["qemu-system", "bochs"].iter().any(|name| line.contains(name)))
    .collect()
}

/// Ids and command lines of the processes that `wanted` picks by their
/// folder in /proc.
fn processes(wanted: impl Fn(&Path) -> bool) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            // A process that has ended but was not yet waited for has none.
            let alive = !line.is_empty();
            (alive && wanted(&entry.path()))
                .then(|| (id, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn marked_processes_are_found_while_they_run() {
        let mark = Mark::new();
        let (name, value) = mark.variable();
        let mut child = Command::new("sleep").arg("600").env(name, value).spawn().unwrap();
        // The variable is there once the child has become `sleep`.
        let found = || mark.processes().iter().any(|(_, line)| line.starts_with("sleep 600"));
        while !found() {
            std::thread::yield_now();
        }
        assert!(Mark::new().processes().is_empty());
        assert_eq!(mark.emulator(0), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(mark.processes().is_empty());
    }
}
