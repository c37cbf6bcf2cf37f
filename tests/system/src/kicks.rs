//! Stops a node's emulator and has it go on, over and over.
//!
//! Each `stop` of the QEMU Machine Protocol (QEMU, docs/interop/qmp-spec)
//! kicks the thread of the emulated processor out of whatever it runs, as
//! other threads of the emulator do too, but seldom.

use serde_json::Value;
use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

/// Arguments of an emulator that listens at `socket`.
pub(crate) fn arguments(socket: &Path) -> [String; 2] {
    ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// Kicks without pause until the emulator ends.
pub(crate) struct Kicks(JoinHandle<u64>);

impl Kicks {
    /// Begins with the emulator that listens at `socket`.
    ///
    /// # Panics
    /// If nothing does.
    pub(crate) fn begin(socket: &Path) -> Kicks {
        let stream = UnixStream::connect(socket).expect("the emulator listens");
        let mut monitor = Monitor(BufReader::new(stream));
        Kicks(std::thread::spawn(move || {
            let mut kicks = 0;
            // An error is the emulator's end.
            let _: Result<()> = (|| {
                monitor.execute("qmp_capabilities")?;
                loop {
                    monitor.execute("stop")?;
                    monitor.execute("cont")?;
                    kicks += 1;
                }
            })();
            kicks
        }))
    }

    /// Waits for the emulator's end: how often it was kicked.
    pub(crate) fn end(self) -> u64 {
        self.0.join().expect("the emulator obeys")
    }
}

/// A connection: lines of JSON in both directions.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    /// Has a command done, and passes over the events that come before its
    /// answer.
    fn execute(&mut self, command: &str) -> Result<()> {
        writeln!(self.0.get_mut(), "{{\"execute\": \"{command}\"}}")?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(Error::from(ErrorKind::UnexpectedEof));
            }
            let answer: Value = serde_json::from_str(&line)?;
            assert!(answer.get("error").is_none(), "{command}: {line}");
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }
}
