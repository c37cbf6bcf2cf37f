//! The protocol's table in the documentation: written from the rows that the
//! models were seen to take.

use crate::configs;
use crate::explore::Explored;
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

/// The first lines of the table of what was explored.
const EXPLORED: &str = "| model | states | steps between them | depth | rows | to its end |\n\
                        |---|---:|---:|---:|---:|---|\n";

/// Writes a model's line in the table of what was explored, on the model's own
/// page. Lines of other models stay as they are.
///
/// # Errors
/// As [`renew`].
pub fn record(model: &str, explored: &Explored, rows: usize) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let file = std::fs::read_to_string(&path)?;
    let (_, inside, _) = split(&file, "explored")?;
    let Explored { states, steps, depth, complete, .. } = explored;
    let end = if *complete { "yes" } else { "no" };
    let new = format!("| {model} | {states} | {steps} | {depth} | {rows} | {end} |");
    let line = |name: &str| {
        let start = format!("| {name} |");
        let old = inside.lines().find(|line| line.starts_with(&start));
        if name == model { Some(new.as_str()) } else { old }
    };
    let lines = configs::ALL.iter().filter_map(|config| line(config.name));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    renew(&path, "explored", &format!("{EXPLORED}{text}"))
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

/// Checks that the documentation's table has all of these rows; it may have
/// more.
///
/// # Errors
/// The rows that it lacks.
pub fn check_known(rows: &BTreeSet<Row>) -> Result<()> {
    let file = std::fs::read_to_string(readme())?;
    let (_, inside, _) = split(&file, "table")?;
    let known: BTreeSet<&str> = inside.lines().collect();
    let new: Vec<String> =
        rows.iter().map(Row::to_string).filter(|row| !known.contains(row.as_str())).collect();
    match new.is_empty() {
        true => Ok(()),
        false => bail!("rows that the table lacks:\n{}", new.join("\n")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_of_every_model_how_far_it_was_explored() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let file = std::fs::read_to_string(path).expect("the page");
        let (_, inside, _) = split(&file, "explored").expect("a table");
        for config in configs::ALL {
            let line = inside.lines().find(|l| l.starts_with(&format!("| {} |", config.name)));
            let line = line.unwrap_or_else(|| panic!("no line for {}", config.name));
            let whole = config.most == usize::MAX;
            assert_eq!(line.ends_with("| yes |"), whole, "{line}");
        }
    }
}
