//! The steps of a test run: each runs, is timed, and stands in the summary.
//!
//! Steps follow each other, or some run aside: in lanes of their own, with what
//! is left of the processors, while those in front go on.

use crate::compile::workspace;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// One line of the summary.
#[derive(Debug)]
struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Steps that run one after the other.
#[derive(Debug, Default)]
pub(super) struct Steps {
    list: Vec<Step>,
    /// These run aside: at the lowest priority, and what they print is shown when
    /// they are over.
    aside: bool,
}

/// Steps that run aside.
pub(super) type Lane<'a> = Box<dyn FnOnce(&mut Steps) + Send + 'a>;

impl Steps {
    /// Runs a step that is one command.
    pub(super) fn command(&mut self, name: &'static str, command: &mut Command) {
        self.step(name, |way| way.execute(command));
    }

    /// Runs a step, which is told how to run its commands.
    pub(super) fn step(&mut self, name: &'static str, body: impl FnOnce(&Way) -> Result<Outcome>) {
        let way = Way::new(name, self.aside);
        if !self.aside {
            eprintln!("\n== {name}");
        }
        let start = Instant::now();
        let outcome = body(&way).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        way.show();
        self.add(name, outcome, start.elapsed());
    }

    /// Runs lanes of steps aside while those of `front` go on.
    pub(super) fn beside(&mut self, lanes: Vec<Lane<'_>>, front: impl FnOnce(&mut Steps)) {
        let run = |lane: Lane<'_>| {
            let mut steps = Steps { list: Vec::new(), aside: true };
            lane(&mut steps);
            steps.list
        };
        std::thread::scope(|scope| {
            let lanes: Vec<_> =
                lanes.into_iter().map(|lane| scope.spawn(move || run(lane))).collect();
            front(self);
            for lane in lanes {
                match lane.join() {
                    Ok(steps) => self.list.extend(steps),
                    Err(_) => {
                        let why = Outcome::Failed("they panicked".to_owned());
                        self.add("steps aside", why, Duration::ZERO);
                    }
                }
            }
        });
    }

    /// Adds a step that is over.
    pub(super) fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        self.list.push(Step { name, outcome, took });
    }

    /// Prints the summary and returns the exit status.
    pub(super) fn conclude(&self) -> u8 {
        // A closed pipe takes nothing from the exit status.
        let _ = crate::terminal::print(&format!("\n{}\n", self.summary()));
        let failed = self.list.iter().any(|s| matches!(s.outcome, Outcome::Failed(_)));
        u8::from(failed)
    }

    /// The table of all steps, and the line that counts them.
    fn summary(&self) -> String {
        let mut text = String::new();
        let mut counts = [0; 3];
        for Step { name, outcome, took } in &self.list {
            let (index, word) = match outcome {
                Outcome::Passed => (0, "passed".to_owned()),
                Outcome::Failed(why) => (1, format!("FAILED: {why}")),
                Outcome::Skipped(why) => (2, format!("skipped: {why}")),
            };
            counts[index] += 1;
            text.push_str(&format!("{name:<24}{:>8.1} s  {word}\n", took.as_secs_f64()));
        }
        let [passed, failed, skipped] = counts;
        text + &format!("steps: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// How a step runs its commands.
pub(super) struct Way {
    name: &'static str,
    /// Where the output of a step goes that runs aside.
    log: Option<PathBuf>,
}

impl Way {
    fn new(name: &'static str, aside: bool) -> Way {
        let file = name.replace([' ', ','], "-") + ".log";
        let log = aside.then(|| workspace().join("target").join(file));
        if let Some(path) = &log {
            // That of an earlier run, should this one print nothing.
            let _ = std::fs::remove_file(path);
        }
        Way { name, log }
    }

    /// Runs a command. What it prints is the user's, at once or later.
    pub(super) fn execute(&self, command: &mut Command) -> Result<Outcome> {
        let status = match &self.log {
            None => command.status(),
            Some(path) => {
                let file = File::create(path)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
                let copy = file.try_clone().context("sharing a file")?;
                behind(command).stdout(copy).stderr(file).status()
            }
        };
        Ok(match status {
            Ok(status) if status.success() => Outcome::Passed,
            Ok(status) => Outcome::Failed(status.to_string()),
            Err(error) => Outcome::Failed(format!("it cannot be started: {error}")),
        })
    }

    /// Shows what a step has printed that ran aside.
    fn show(&self) {
        if let Some(path) = &self.log {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            eprintln!("\n== {}, which ran aside\n{text}", self.name);
        }
    }
}

/// The same command at the lowest priority: it gets what others leave.
fn behind(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        nice.current_dir(folder);
    }
    nice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_run_and_the_others_go_on() {
        let mut steps = Steps::default();
        steps.command("bad", &mut Command::new("false"));
        steps.command("good", &mut Command::new("true"));
        steps.step("broken", |_| anyhow::bail!("no reason"));
        steps.add("left out", Outcome::Skipped("a wish".into()), Duration::ZERO);
        let lane: Lane<'_> = Box::new(|steps| {
            let mut command = Command::new("sh");
            command.args(["-c", "nice; echo $WORD $HOME; pwd; exit 3"]).current_dir("/");
            steps.command("a test aside", command.env("WORD", "said").env_remove("HOME"));
            let told = std::fs::read_to_string(workspace().join("target/a-test-aside.log"));
            assert_eq!(told.unwrap(), "19\nsaid\n/\n");
        });
        let broken: Lane<'_> = Box::new(|_| panic!("a lane that panics, as it is to"));
        steps.beside(vec![lane, broken], |steps| {
            steps.command("meanwhile", &mut Command::new("true"));
        });
        let summary = steps.summary();
        assert!(summary.ends_with("steps: 2 passed, 4 failed, 1 skipped"), "{summary}");
        let words = ["FAILED: no reason", "a wish", "FAILED: exit status: 3", "they panicked"];
        for word in words {
            assert!(summary.contains(word), "{summary}");
        }
        assert_eq!(steps.conclude(), 1);
    }
}
