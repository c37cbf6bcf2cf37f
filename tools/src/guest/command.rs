//! The archive that carries one run's command into the guest.

use runner::cpio::Writer;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Builds an archive that follows the guest's own: the command as a script
/// that runs exactly these arguments, and the nonce of its end record.
pub(crate) fn command_archive(command: &[OsString], nonce: &str) -> std::io::Result<Vec<u8>> {
    let mut cpio = Writer::new(Vec::new());
    cpio.directory("pangaea", 0o755)?;
    if command.is_empty() {
        cpio.file("pangaea/terminal", terminal().as_bytes(), 0o644)?;
    } else {
        cpio.file("pangaea/command.sh", &script(command), 0o755)?;
        cpio.file("pangaea/nonce", nonce.as_bytes(), 0o644)?;
    }
    cpio.finish()
}

/// The script that becomes the command.
fn script(command: &[OsString]) -> Vec<u8> {
    let mut script = b"exec".to_vec();
    for word in command {
        script.push(b' ');
        script.extend(quote(word));
    }
    script.push(b'\n');
    script
}

/// Quotes a word for a POSIX shell, whatever bytes it holds (POSIX.1-2017,
/// Shell Command Language, section 2.2.2).
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            other => quoted.push(other),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// What the guest's shell should know about the terminal.
fn terminal() -> String {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let term = std::env::var("TERM").ok().filter(|t| !t.is_empty() && t.chars().all(known));
    let mut text = format!("TERM={}\n", term.as_deref().unwrap_or("vt102"));
    if let Some((rows, columns)) = crate::terminal::size() {
        text.push_str(&format!("ROWS={rows}\nCOLUMNS={columns}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_script_runs_exactly_these_arguments() {
        let words: [&[u8]; 7] =
            [b"printf", b"%s|", b"a b", b"it's $HOME `x` \"q\" \\", b"", b"\xff\n*", b"-n"];
        let command: Vec<OsString> =
            words.iter().map(|w| OsStr::from_bytes(w).to_owned()).collect();
        let script = OsString::from(OsStr::from_bytes(&script(&command)));
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"a b|it's $HOME `x` \"q\" \\||\xff\n*|-n|");
    }

    #[test]
    fn an_archive_has_the_command_or_the_terminal() {
        let holds =
            |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|w| w == name.as_bytes());
        let with = command_archive(&["true".into()], "abc").unwrap();
        assert!(holds(&with, "pangaea/command.sh") && holds(&with, "abc"));
        let without = command_archive(&[], "abc").unwrap();
        assert!(holds(&without, "pangaea/terminal") && !holds(&without, "command.sh"));
    }
}
