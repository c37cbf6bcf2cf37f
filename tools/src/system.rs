//! Other programs and Debian's packages on this machine.

use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail};
use runner::process::in_path;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a program to its end and returns what it printed. Its standard error
/// is shown only as the reason of a failure.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("the program {name} cannot be started"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no reason given");
        return Err(anyhow!("{name} failed: {}", last.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes a command that ends when this program does, also if it is killed.
pub(crate) fn child(program: &str) -> Command {
    if !in_path("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", program]);
    command
}

/// Whether Debian's packages can be installed here and now.
fn may_install() -> bool {
    nix::unistd::geteuid().is_root() && in_path("apt-get")
}

/// Something that a verb needs from a Debian package.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// What it is called.
    pub(crate) name: &'static str,
    /// How to see whether it is there.
    pub(crate) probe: Probe,
    /// The package that brings it.
    pub(crate) package: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
}

/// How to see whether something is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Probe {
    /// A program in `PATH`.
    Program(&'static str),
    /// A file or folder.
    File(&'static str),
}

impl Need {
    /// Whether it is there.
    pub(crate) fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(program) => in_path(program),
            Probe::File(path) => Path::new(path).exists(),
        }
    }
}

/// The packages of what is missing, each once.
pub(crate) fn missing_packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().filter(|n| !n.is_met()).map(|n| n.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The command that installs packages.
pub(crate) fn install_command(packages: &[&str]) -> String {
    format!("apt-get install --no-install-recommends -y {}", packages.join(" "))
}

/// Sees that everything needed is there: on Debian as root what is missing
/// is installed, otherwise the error says the command.
pub(crate) fn ensure(needs: &[Need], progress: &Progress) -> Result<()> {
    let packages = missing_packages(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = needs.iter().filter(|n| !n.is_met()).map(|n| n.name).collect();
    let command = install_command(&packages);
    if !may_install() {
        bail!("this machine lacks {}; mend it with: sudo {command}", names.join(", "));
    }
    progress.note(&format!("this machine lacks {}; running: {command}", names.join(", ")));
    install(&packages, progress)?;
    match missing_packages(needs).first() {
        None => Ok(()),
        Some(package) => {
            bail!("the package {package} was installed but brought not what is needed")
        }
    }
}

/// Installs packages, with fresh lists if the old ones do not do.
fn install(packages: &[&str], progress: &Progress) -> Result<()> {
    ensure_apt_lists(progress)?;
    progress.stage(&format!("installing {}", packages.join(" ")));
    let install = || {
        let mut command = child("apt-get");
        command.args(["-qq", "install", "--no-install-recommends", "-y"]).args(packages);
        run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    if install().is_err() {
        update(progress)?;
        install().context("the missing packages could not be installed")?;
    }
    progress.clear();
    Ok(())
}

/// Fetches apt's lists where there are none.
pub(crate) fn ensure_apt_lists(progress: &Progress) -> Result<()> {
    let is_list = |name: &str| name.contains("_Packages");
    let has_lists = std::fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|d| d.flatten().any(|e| e.file_name().to_str().is_some_and(is_list)));
    if has_lists {
        return Ok(());
    }
    if !may_install() {
        bail!("apt has no package lists yet; fetch them with: sudo apt-get update");
    }
    progress.note("apt has no package lists yet; running: apt-get update");
    update(progress)
}

/// Fetches apt's lists again if they are older than a day and this user may:
/// whether it did.
pub(crate) fn renew_apt_lists(progress: &Progress) -> Result<bool> {
    const DAY: Duration = Duration::from_secs(86_400);
    let modified = std::fs::metadata("/var/lib/apt/lists").and_then(|m| m.modified());
    let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > DAY));
    if !is_old || !may_install() {
        return Ok(false);
    }
    progress.note("apt's package lists are older than a day; running: apt-get update");
    update(progress)?;
    Ok(true)
}

/// Fetches apt's lists.
fn update(progress: &Progress) -> Result<()> {
    progress.stage("fetching apt's package lists");
    run(child("apt-get").args(["-qq", "update"])).context("apt-get update failed")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: Need =
        Need { name: "a shell", probe: Probe::Program("sh"), package: "dash", purpose: "tests" };

    #[test]
    fn what_is_missing_is_named_once() {
        let lost = Need { probe: Probe::File("/no/such/file"), package: "lost", ..SHELL };
        assert_eq!(missing_packages(&[SHELL]), Vec::<&str>::new());
        assert_eq!(missing_packages(&[lost, SHELL, lost]), ["lost"]);
        assert!(install_command(&["a", "b"]).ends_with(" a b"));
    }

    #[test]
    fn a_failure_gives_the_last_word_of_the_program() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; echo the reason >&2; exit 3"]);
        assert_eq!(run(&mut command).unwrap_err().to_string(), "sh failed: the reason");
        assert!(run(&mut Command::new("no-such-program")).is_err());
        assert_eq!(run(Command::new("echo").arg("x")).unwrap(), "x\n");
    }
}
