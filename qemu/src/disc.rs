//! Bootable discs: an ISO that also works on a USB stick, by BIOS and UEFI.
//!
//! GRUB loads the node's image by Multiboot2 and what else a menu entry names
//! as modules. The same for real machines (`cargo pangaea image`) and for
//! emulators that boot nothing else.

use crate::{RunnerError, process};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

/// GRUB's program that makes such discs.
const MAKER: &str = "grub-mkrescue";

/// What a disc holds.
#[derive(Clone, Debug)]
pub struct Disc<'a> {
    /// The node's image.
    pub node: &'a Path,
    /// Files beside it, by the names that entries use.
    pub files: Vec<(&'a str, Content<'a>)>,
    /// The boot menu.
    pub entries: Vec<Entry<'a>>,
    /// The entry that boots by itself.
    pub default: usize,
    /// How many seconds the menu waits for a choice.
    pub wait_s: u32,
}

/// A file's content.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// That of another file.
    File(&'a Path),
    /// This text.
    Text(&'a str),
}

/// An entry of the boot menu.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// What the menu shows.
    pub title: String,
    /// What GRUB does first, a command a line.
    pub commands: &'a str,
    /// The node's command line.
    pub command_line: String,
    /// The names of the files that it gets as modules.
    pub modules: &'a [&'a str],
}

impl Disc<'_> {
    /// Writes the disc to a file.
    ///
    /// # Errors
    /// [`RunnerError::File`] for what cannot be read or written,
    /// [`RunnerError::Disc`] with GRUB's words.
    pub fn write(&self, output: &Path) -> Result<(), RunnerError> {
        let staging = Staging::make()?;
        let folder = &staging.0;
        staging.put("pangaea/node", Content::File(self.node))?;
        for (name, content) in &self.files {
            staging.put(&format!("pangaea/{name}"), *content)?;
        }
        staging.put("boot/grub/grub.cfg", Content::Text(&self.menu()))?;
        let mut command = process::guarded(MAKER);
        command.arg("-o").arg(output).arg(folder).stdin(Stdio::null());
        let made = command.output().map_err(RunnerError::system("starting grub-mkrescue"))?;
        if made.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&made.stderr);
        let last = words.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no reason given");
        Err(RunnerError::Disc(last.trim().to_owned()))
    }

    /// GRUB's configuration.
    fn menu(&self) -> String {
        let mut text = format!("set timeout={}\nset default={}\n", self.wait_s, self.default);
        for Entry { title, commands, command_line, modules } in &self.entries {
            let words: String =
                command_line.split_ascii_whitespace().map(|w| format!(" {}", quoted(w))).collect();
            let _ = writeln!(text, "menuentry {} {{", quoted(title));
            commands.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
            let _ = writeln!(text, "    multiboot2 /pangaea/node{words}");
            for name in *modules {
                let _ = writeln!(text, "    module2 /pangaea/{name} {name}");
            }
            text.push_str("}\n");
        }
        text
    }
}

/// A word for GRUB's shell as it is (GRUB manual, "Quoting"); plain ones need
/// nothing.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "=_-./:,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A folder that is removed when this is dropped.
struct Staging(PathBuf);

impl Staging {
    fn make() -> Result<Self, RunnerError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pangaea-disc-{}-{count}", std::process::id());
        let staging = Self(std::env::temp_dir().join(name));
        for folder in ["boot/grub", "pangaea"] {
            let folder = staging.0.join(folder);
            std::fs::create_dir_all(&folder)
                .map_err(|e| RunnerError::file(&folder, "written", e))?;
        }
        Ok(staging)
    }

    /// Puts a file where GRUB will look for it.
    fn put(&self, name: &str, content: Content<'_>) -> Result<(), RunnerError> {
        let to = self.0.join(name);
        match content {
            Content::Text(text) => {
                std::fs::write(&to, text).map_err(|e| RunnerError::file(&to, "written", e))
            }
            Content::File(from) => {
                std::fs::copy(from, &to).map(drop).map_err(|e| RunnerError::file(from, "copied", e))
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Leftovers in the folder of temporary files harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc(wait_s: u32) -> Disc<'static> {
        let entry = |command_line: &str, modules| Entry {
            title: "Pangaea: it's one".to_owned(),
            commands: "insmod wrmsr",
            command_line: command_line.to_owned(),
            modules,
        };
        Disc {
            node: Path::new("/node"),
            files: vec![("kernel", Content::Text("k"))],
            entries: vec![entry("nodes=3 lead", &["kernel"]), entry("nodes=3 x=$y;z", &[])],
            default: 1,
            wait_s,
        }
    }

    #[test]
    fn the_menu_has_each_entrys_words_and_modules() {
        let menu = disc(10).menu();
        assert!(menu.starts_with("set timeout=10\nset default=1\n"), "{menu}");
        let (first, second) = menu.split_once("}\n").unwrap();
        assert!(first.contains(r"menuentry 'Pangaea: it'\''s one' {"), "{first}");
        let boot = "    insmod wrmsr\n    multiboot2 /pangaea/node nodes=3 lead\n";
        assert!(first.contains(boot), "{first}");
        assert!(first.ends_with("    module2 /pangaea/kernel kernel\n"), "{first}");
        assert!(second.contains("/pangaea/node nodes=3 'x=$y;z'\n"), "{second}");
        assert!(!second.contains("module2"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = disc(0).write(Path::new("/tmp/never-written")).unwrap_err().to_string();
        assert!(error.contains("/node cannot be copied"), "{error}");
    }
}
