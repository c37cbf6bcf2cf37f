//! `cargo pangaea`: the door to everything in this project.
//!
//! Each verb is one module and thin; what boots and links emulated nodes is
//! in the crate `runner`. The verbs share [`compile`] (the node's image),
//! [`guest`] and [`payload`] (what the cluster runs), [`system`] (other
//! programs and packages) and [`progress`].
#![forbid(unsafe_code)]

mod bench;
mod check;
mod cli;
mod compile;
mod console;
mod doctor;
mod explore;
mod fuzz;
mod guest;
mod iso;
mod live;
mod payload;
mod progress;
mod report;
mod run;
mod signals;
mod simulate;
mod system;
mod temporary;
mod terminal;
mod top;

use anyhow::Result;
use clap::Parser;
use cli::{Bench, Cli, Verb};
use progress::Progress;
use std::process::ExitCode;

/// Reads the command line and runs its verb.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = signals::install().and_then(|()| dispatch(cli.verb));
    signals::wait_if_quitting();
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("pangaea: {}.", format!("{error:#}").trim_end_matches('.'));
            ExitCode::FAILURE
        }
    }
}

/// Runs a verb and returns the exit status.
fn dispatch(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Run(args) => run::run(&args),
        Verb::Build(args) => {
            let progress = Progress::new();
            let built = match args.guests {
                true => compile::build("pangaea-guests", &progress)?,
                false => compile::node_image(&progress)?,
            };
            terminal::print(&format!("{}\n", built.display()))?;
            Ok(0)
        }
        Verb::Image(args) => iso::image(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Test(args) => check::test(&args),
        Verb::Fuzz(args) => fuzz::fuzz(&args),
        Verb::Sim(args) => simulate::run("pangaea-sim", &args),
        Verb::Scale(args) => simulate::run("scale", &args),
        Verb::Model(args) => explore::model(&args),
        Verb::Top(args) => top::top(&args),
        Verb::Bench(args) => match args.what {
            Bench::RemoteFault(args) => bench::remote_fault(&args),
            Bench::Peers(args) => bench::peers(&args),
        },
    }
}
