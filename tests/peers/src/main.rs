//! What people use instead of Pangaea, as one program for Linux machines.
//!
//! `cargo pangaea bench peers` puts it into the initial RAM disk of two
//! emulated machines, whose roles are the scripts in `machine/roles`:
//!
//! - `peer swap`: a process that touches more memory than its control group
//!   may have, so that Linux swaps (to nbd, which the script has set up);
//! - `peer guest`: a small virtual machine monitor on KVM, whose guest's
//!   memory a pager keeps within a limit: what does not fit is fetched from a
//!   page server through userfaultfd;
//! - `peer linux`: the same with Linux for a guest;
//! - `peer serve`: that page server;
//! - `peer alone`: the same guest without a pager, for the price of an exit.
//!
//! Pager and server talk by TCP ([`tcp`]) or by a polled e1000 driver in user
//! space ([`polled`]), which is Pangaea's own ([`nic`]). The touches are
//! `guests::workloads`, the same for all and for Pangaea.

mod dma;
mod link;
mod linux;
mod memory;
mod pager;
mod polled;
mod ports;
mod serial;
mod store;
mod swap;
mod tcp;
mod uffd;
mod vcpu;
mod vmm;
mod words;

use anyhow::{Result, bail};
use words::Words;

fn main() {
    if let Err(error) = run() {
        let reason = format!("{error:#}").replace('"', "'");
        println!(r#"@bench {{"name":"error","reason":"{reason}"}}"#);
        std::process::exit(1);
    }
}

/// Does what the command line says.
fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let words = Words::new(arguments)?;
    let pages = || words.number("pages");
    match (verb.as_str(), words.text("link").unwrap_or_default()) {
        ("swap", _) => swap::run(&words),
        ("serve", "tcp") => tcp::serve(pages()?),
        ("serve", "polled") => polled::serve(pages()?),
        ("alone", _) => vmm::run_alone(&words),
        ("guest", "tcp") => vmm::run(&words, tcp::Client::connect(words.required("server")?)?),
        ("linux", "tcp") => linux::run(&words, tcp::Client::connect(words.required("server")?)?),
        ("linux", "polled") => linux::run(&words, polled::Client::start()?),
        ("guest", "polled") => vmm::run(&words, polled::Client::start()?),
        _ => bail!("usage: peer swap|serve|guest|linux|alone [link=tcp|polled] [NAME=VALUE...]"),
    }
}
