//! The user's terminal as the guest's console.

use crate::signals;
use crate::terminal::{self, Escape, Keys};
use anyhow::{Context, Result};
use runner::{Cluster, Port};
use std::io::{Read, Write, stdin};

/// An attached console.
pub(crate) struct Console;

impl Console {
    /// Gives the guest what is typed from now on.
    pub(crate) fn attach(cluster: &Cluster) -> Result<Self> {
        let mut guest =
            cluster.input(Port::Console).context("the guest's console cannot be reached")?;
        terminal::make_raw();
        // The thread waits for keys and so ends with the program only.
        std::thread::spawn(move || {
            let mut escape = Escape::default();
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = stdin().read(&mut buffer) {
                match escape.read(&buffer[..len]) {
                    Keys::Quit => signals::quit(0),
                    Keys::Send(bytes) if guest.write_all(&bytes).is_err() => return,
                    Keys::Send(_) => {}
                }
            }
        });
        Ok(Self)
    }
}
