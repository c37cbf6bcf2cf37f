//! The protocol's table in the documentation: written from the rows that the
//! models were seen to take.

use crate::rows::Row;
use anyhow::{Context, Result, bail};
use coherence::Role;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The file that has the table.
#[must_use]
pub fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel/logic/coherence/README.md")
}

/// The table's text.
#[must_use]
pub fn text(rows: &BTreeSet<Row>) -> String {
    let mut text = String::new();
    for (role, title) in [
        (Role::Requester, "A node that wants the page"),
        (Role::Owner, "A node that has the page, or had it"),
        (Role::Capacity, "A node that gets rid of the page, or takes it in"),
        (Role::Home, "The page's home"),
    ] {
        let _ =
            writeln!(text, "### {title}\n\n| state | event | sends | then |\n|---|---|---|---|");
        for row in rows.iter().filter(|row| row.role == role) {
            let _ = writeln!(text, "{row}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{} rows.", rows.len());
    text
}

/// The part of `file` between the markers of `name`, and what is around it.
fn split<'a>(file: &'a str, name: &str) -> Result<(&'a str, &'a str, &'a str)> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let from = file.find(&begin).with_context(|| format!("there is no line {begin:?}"))?;
    let (before, rest) = file.split_at(from + begin.len());
    let to = rest.find(&end).with_context(|| format!("there is no line {end:?}"))?;
    let (inside, after) = rest.split_at(to);
    Ok((before, inside, after))
}

/// Writes `text` between the markers of `name` in `path`.
///
/// # Errors
/// If the file cannot be read or written, or lacks the markers.
pub fn renew(path: &Path, name: &str, text: &str) -> Result<()> {
    let file = std::fs::read_to_string(path)?;
    let (before, _, after) = split(&file, name)?;
    std::fs::write(path, format!("{before}{text}{after}"))?;
    Ok(())
}

/// Checks that `text` is what stands between the markers of `name` in `path`.
///
/// # Errors
/// The first lines that differ, and the command that renews the file.
pub fn check(path: &Path, name: &str, text: &str, command: &str) -> Result<()> {
    let file = std::fs::read_to_string(path)?;
    let (_, inside, _) = split(&file, name)?;
    if inside == text {
        return Ok(());
    }
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (inside.lines().collect(), text.lines().collect());
    let mut message = format!("{} is out of date:\n", path.display());
    for line in old.difference(&new).take(20) {
        let _ = writeln!(message, "- {line}");
    }
    for line in new.difference(&old).take(20) {
        let _ = writeln!(message, "+ {line}");
    }
    bail!("{message}A row with - was never reached; one with + is new. To renew: {command}")
}
