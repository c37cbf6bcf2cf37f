//! `cargo pangaea top`: a view of a running cluster, like htop's.
//!
//! The figures are the nodes' own (see [`crate::live`]); the guest is not
//! asked. [`view`] makes rates and shares of two samples, [`screen`] draws.

mod screen;
mod view;

use crate::cli::TopArgs;
use crate::live::{self, Published};
use crate::signals;
use anyhow::{Result, bail};
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};
use view::View;

/// How often the cluster's file is looked at.
const TICK: Duration = Duration::from_millis(250);

/// Shows the cluster until the user leaves or it ends.
pub(crate) fn top(args: &TopArgs) -> Result<u8> {
    let first = wait(args)?;
    if args.json {
        let text = serde_json::to_string_pretty(&View::new(&first))?;
        return match writeln!(std::io::stdout(), "{text}") {
            // Nobody reads on, as in `top --json | head`.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(0),
            other => Ok(other.map(|()| 0)?),
        };
    }
    if !std::io::stdout().is_terminal() {
        bail!("the view needs a terminal; --json prints one sample");
    }
    screen::show(first)?;
    Ok(0)
}

/// Waits until there is a cluster of which every node has said enough.
fn wait(args: &TopArgs) -> Result<Published> {
    let begun = Instant::now();
    loop {
        let found = match args.process {
            Some(process) => live::of(process),
            None => live::running().into_iter().next(),
        };
        let is_whole = |p: &Published| {
            p.samples.len() == p.nodes as usize && p.samples.values().all(|s| s.before.is_some())
        };
        match found {
            Some(published) if is_whole(&published) => return Ok(published),
            Some(published) if begun.elapsed().as_secs() >= args.wait => {
                let said = published.samples.len();
                bail!("only {said} of {} nodes have said anything yet", published.nodes);
            }
            None if begun.elapsed().as_secs() >= args.wait => bail!("{}", nothing(args.process)),
            _ => {}
        }
        signals::wait_if_quitting();
        std::thread::sleep(TICK);
    }
}

/// Why there is nothing to see.
fn nothing(process: Option<u32>) -> String {
    match process {
        Some(process) => format!("the process {process} runs no cluster that can be watched"),
        None => "no cluster runs here; start one with: cargo pangaea run".to_owned(),
    }
}
