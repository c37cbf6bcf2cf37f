//! The voice of one node: reads its ports and passes on what it says.

use crate::emulator;
use crate::event::{self, Parsed};
use crate::logs::{Lines, LogFile, Tail};
use crate::{Kind, Message, Port};
use std::io::{self, Read};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Where bytes come from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Log,
    Guest(Port),
    Emulator,
}

/// What the threads of one node need to pass its words on.
#[derive(Clone)]
pub(crate) struct Voice {
    pub(crate) node: u32,
    pub(crate) started: Instant,
    pub(crate) messages: Sender<Message>,
    pub(crate) tail: Tail,
}

impl Voice {
    /// Passes bytes on until the stream ends.
    pub(crate) fn relay(&self, source: Source, mut stream: impl Read, mut log: LogFile) {
        let mut lines = Lines::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            log.write(&buffer[..len]);
            match source {
                Source::Guest(port) => self.say(Kind::Bytes(port, buffer[..len].to_vec())),
                _ => lines.push(&buffer[..len]).iter().for_each(|l| self.line(source, l)),
            }
        }
        lines.finish().iter().for_each(|l| self.line(source, l));
    }

    /// Passes a line on as what it is.
    fn line(&self, source: Source, line: &str) {
        if matches!(source, Source::Emulator) {
            if !emulator::is_noise(line) {
                self.tail.push(line);
                self.say(Kind::Emulator(line.to_owned()));
            }
            return;
        }
        match event::parse(line) {
            Parsed::Known(event, value) => self.say(Kind::Event(Some(event), value)),
            Parsed::Unknown(value) => self.say(Kind::Event(None, value)),
            Parsed::Text | Parsed::Broken => {
                self.tail.push(line);
                self.say(Kind::Line(line.to_owned()));
            }
        }
    }

    /// Sends a message; nobody listens any more when the cluster is dropped.
    pub(crate) fn say(&self, kind: Kind) {
        let at = self.started.elapsed();
        let _ = self.messages.send(Message { node: self.node, at, kind });
    }
}
