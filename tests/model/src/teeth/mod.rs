//! Teeth: bugs put into the protocol on purpose, and who catches them.
//!
//! A proof that cannot fail proves nothing. The bugs ([`list`]) go into a copy
//! of the sources below `target/teeth`, all at once: each sleeps behind a
//! condition until the environment names it, so that one build has them all.
//! Then model and simulator are run with one bug awake at a time.

pub mod list;

use anyhow::{Context, Result, bail, ensure};
use list::{By, Place, Tooth};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Names the bug that is awake.
const VARIABLE: &str = "PANGAEA_TOOTH";
/// Seeds that the simulator gets for a bug.
const SEEDS: &str = "300";
/// Longest time that a bug is looked for.
const PATIENCE: Duration = Duration::from_secs(600);
/// What the hunt prints before what it caught.
pub const CAUGHT: &str = "caught: ";

/// What the copy asks whether a bug is awake; it goes into the crate that all
/// others use.
const BITES: &str = r#"
extern crate std;

/// Whether the bug of this name is awake.
#[must_use]
pub fn bites(name: &str) -> bool {
    static AWAKE: std::sync::OnceLock<std::string::String> = std::sync::OnceLock::new();
    AWAKE.get_or_init(|| std::env::var("PANGAEA_TOOTH").unwrap_or_default()) == name
}
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Puts the bugs that belong to a source file into its text.
///
/// # Errors
/// The bug whose piece does not stand there exactly once.
pub fn bitten(file: &str, text: &str) -> Result<String> {
    let mut text = text.to_owned();
    for tooth in list::ALL {
        let Place::Source { file: place, find, replace } = tooth.place else { continue };
        if place != file {
            continue;
        }
        let times = text.matches(find).count();
        ensure!(
            times == 1,
            "the piece of {file} that bug {} changes stands there {times} times; \
             change tests/model/src/teeth/list.rs with it",
            tooth.name
        );
        let asks = format!("addr::bites({:?})", tooth.name);
        text = text.replace(find, &replace.replace("BITES", &asks));
    }
    if file == "addr/src/lib.rs" {
        text.push_str(BITES);
    }
    Ok(text)
}

/// Copies a folder's sources; files that stay as they are keep their time.
fn copy(from: &Path, to: &Path, change: &dyn Fn(&Path, &str) -> Result<String>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target, change)?;
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        write(&target, &change(&path, &text)?)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("{}", path.display()))
}

/// The workspace's manifest with what the copy has of it.
fn manifest(text: &str) -> Result<String> {
    let list = |text: &str, key: &str, value: &str| -> Result<String> {
        let start = text.find(key).with_context(|| format!("the manifest has no {key}"))?;
        let end = start + text[start..].find(']').context("a list ends")? + 1;
        Ok(format!("{}{key}{value}]{}", &text[..start], &text[end..]))
    };
    let members = "\"kernel/logic/*\", \"tests/model\", \"tests/sim\"";
    let text = list(text, "\nmembers = [", members)?;
    list(&text, "\ndefault-members = [", members)
}

/// Copies the sources, puts the bugs in, and builds; the folder of programs.
fn build() -> Result<PathBuf> {
    let (root, to) = (root(), root().join("target/teeth"));
    let logic = root.join("kernel/logic");
    let change = |path: &Path, text: &str| match path.strip_prefix(&logic) {
        Ok(file) => bitten(&file.to_string_lossy(), text),
        Err(_) => Ok(text.to_owned()),
    };
    for folder in ["kernel/logic", "tests/model", "tests/sim"] {
        copy(&root.join(folder), &to.join(folder), &change)?;
    }
    write(&to.join("Cargo.toml"), &manifest(&fs::read_to_string(root.join("Cargo.toml"))?)?)?;
    write(&to.join("Cargo.lock"), &fs::read_to_string(root.join("Cargo.lock"))?)?;
    let target = to.join("target");
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--profile", "sim", "-p", "pangaea-model"]);
    command.args(["-p", "pangaea-sim"]).arg("--target-dir").arg(&target).current_dir(&to);
    // Warnings about what the bugs leave unused say nothing.
    command.env("RUSTFLAGS", "-Awarnings");
    ensure!(command.status()?.success(), "the sources with bugs do not build");
    Ok(target.join("sim"))
}

/// Runs a program until it prints a line that `catches` likes; what that says.
fn run(command: &mut Command, catches: fn(&str) -> Option<String>) -> Result<Option<String>> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let output = child.stdout.take().expect("it is piped");
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let caught = lines.filter_map(|line| catches(&line)).next();
        let _ = tell.send(caught);
    });
    let caught = told.recv_timeout(PATIENCE).unwrap_or(Some("it does not end".to_owned()));
    let _ = child.kill();
    child.wait()?;
    let _ = reader.join();
    Ok(caught)
}

fn ask_model(programs: &Path, tooth: &Tooth, only: Option<&str>) -> Result<Option<String>> {
    let mut command = Command::new(programs.join("pangaea-model"));
    command.arg("--hunt").env(VARIABLE, tooth.name);
    if let Some(only) = only {
        command.args(["--only", only]);
    }
    if let Place::Network(fault) = tooth.place {
        command.args(["--fault", fault]);
    }
    run(&mut command, |line| line.strip_prefix(CAUGHT).map(str::to_owned))
}

fn ask_simulator(programs: &Path, tooth: &Tooth, seeds: &str) -> Result<Option<String>> {
    if matches!(tooth.place, Place::Network(_)) {
        return Ok(None);
    }
    let mut command = Command::new(programs.join("pangaea-sim"));
    command.args(["--seeds", seeds, "--threads", "1"]).env(VARIABLE, tooth.name);
    run(&mut command, |line| {
        let what = line.strip_prefix("seed ")?;
        Some(format!("seed {}", what.chars().take(120).collect::<String>()))
    })
}

/// Asks of each bug the one that is known to catch it.
///
/// # Errors
/// The bugs that were not caught.
pub fn short() -> Result<()> {
    let begun = Instant::now();
    let programs = build()?;
    sound(&programs)?;
    let mut missed = Vec::new();
    for tooth in list::ALL {
        let caught = match tooth.by {
            By::Model(name) => ask_model(&programs, tooth, Some(name))?,
            By::Simulator => ask_simulator(&programs, tooth, SEEDS)?,
        };
        match caught {
            Some(how) => println!("{:<26} {how}", tooth.name),
            None => missed.push(tooth.name),
        }
    }
    let (all, took) = (list::ALL.len(), begun.elapsed().as_secs());
    println!("teeth: {} of {all} bugs caught, {took} s", all - missed.len());
    if !missed.is_empty() {
        bail!("nobody caught: {}", missed.join(", "));
    }
    Ok(())
}

/// Without a bug nothing is caught.
fn sound(programs: &Path) -> Result<()> {
    let nothing = Tooth { name: "none", ..list::ALL[0] };
    if let Some(caught) = ask_model(programs, &nothing, Some("2-nodes"))? {
        bail!("the model catches something where no bug is awake: {caught}");
    }
    if let Some(caught) = ask_simulator(programs, &nothing, "20")? {
        bail!("the simulator catches something where no bug is awake: {caught}");
    }
    Ok(())
}

/// Has model and simulator look for every bug, or for `only` one of them, and
/// writes who caught what.
///
/// # Errors
/// The bugs that nobody caught.
pub fn all(only: Option<&str>) -> Result<()> {
    let readme = root().join("tests/model/README.md");
    let old = fs::read_to_string(&readme)?;
    let known = |name: &str| {
        let start = format!("| {name} | ");
        old.lines().find(|line| line.starts_with(&start)).map(str::to_owned)
    };
    if let Some(only) = only {
        ensure!(list::ALL.iter().any(|t| t.name == only), "there is no bug {only}");
    }
    let programs = build()?;
    sound(&programs)?;
    let mut table =
        "| bug | what is wrong | the model | the simulator |\n|---|---|---|---|\n".to_owned();
    let mut missed = Vec::new();
    for tooth in list::ALL {
        if only.is_some_and(|only| only != tooth.name) {
            let line = known(tooth.name).context("the table lacks bugs: write all of it anew")?;
            let _ = writeln!(table, "{line}");
            continue;
        }
        let model = ask_model(&programs, tooth, None)?;
        let simulator = ask_simulator(&programs, tooth, SEEDS)?;
        if model.is_none() && simulator.is_none() {
            missed.push(tooth.name);
        }
        let cell = |caught: Option<String>| caught.map_or("-".to_owned(), |c| c.replace('|', "/"));
        let (model, simulator) = (cell(model), cell(simulator));
        println!("{}\n  model:     {model}\n  simulator: {simulator}", tooth.name);
        let _ = writeln!(table, "| {} | {} | {model} | {simulator} |", tooth.name, tooth.what);
    }
    let all = list::ALL.len();
    let _ = writeln!(table, "\n{all} bugs.");
    crate::table::renew(&readme, "teeth", &table)?;
    println!("teeth: {} of {all} bugs missed", missed.len());
    if !missed.is_empty() {
        bail!("nobody caught: {}", missed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_fits_its_source() {
        for tooth in list::ALL {
            if let Place::Source { file, .. } = tooth.place {
                let text = fs::read_to_string(root().join("kernel/logic").join(file)).unwrap();
                assert!(bitten(file, &text).unwrap().contains(tooth.name));
            }
        }
        let names: std::collections::BTreeSet<_> = list::ALL.iter().map(|t| t.name).collect();
        assert_eq!(names.len(), list::ALL.len(), "a name stands twice");
        assert!(list::ALL.len() >= 20);
    }

    #[test]
    fn the_short_form_asks_models_that_there_are() {
        for tooth in list::ALL {
            if let By::Model(name) = tooth.by {
                assert!(crate::configs::ALL.iter().any(|c| c.name == name), "{name}");
            }
        }
    }
}
