//! The runner's ends of a node's serial ports.

use crate::{RunnerError, process};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long an emulator has to open its serial ports; it does so before
/// anything else.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How often the runner looks whether it has.
const CONNECT_POLL: Duration = Duration::from_millis(5);

/// Bytes that a line may hold. The kernel counts each write of an emulator,
/// one character, with hundreds of bytes of its own.
const BUFFER_BYTES: usize = 8 << 20;

/// Serial lines of one node, COM1 first.
pub(crate) enum SerialLines {
    /// Open already: the emulator inherits the other ends.
    Open(Vec<File>),
    /// The emulator connects to these once it runs.
    Awaited(Vec<TcpListener>),
}

impl SerialLines {
    /// Makes `count` lines whose other ends are inherited.
    pub(crate) fn inherited(count: usize) -> io::Result<(Self, Vec<OwnedFd>)> {
        let pairs = (0..count).map(|_| pair()).collect::<io::Result<Vec<_>>>()?;
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let ours = ours.into_iter().map(|stream| File::from(OwnedFd::from(stream))).collect();
        Ok((Self::Open(ours), theirs.into_iter().map(OwnedFd::from).collect()))
    }

    /// Makes `count` lines that the emulator connects to, and their addresses.
    pub(crate) fn awaited(count: usize) -> io::Result<(Self, Vec<SocketAddr>)> {
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners = (0..count).map(|_| listen()).collect::<io::Result<Vec<_>>>()?;
        let addresses =
            listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        Ok((Self::Awaited(listeners), addresses))
    }

    /// The lines as streams; waits until `child` has connected to all.
    pub(crate) fn open(self, child: &Child) -> Result<Vec<File>, RunnerError> {
        match self {
            Self::Open(lines) => Ok(lines),
            Self::Awaited(listeners) => {
                let deadline = Instant::now() + CONNECT_LIMIT;
                let accept = |listener: &TcpListener| accept(listener, child, deadline);
                listeners.iter().map(accept).collect()
            }
        }
    }
}

/// Makes the two ends of a line; the emulator gets the second.
fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    // Root may exceed the system's limit; others get what it allows.
    if setsockopt(&theirs, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&theirs, sockopt::SndBuf, &BUFFER_BYTES)?;
    }
    Ok((ours, theirs))
}

/// Waits for the emulator's call. One that has ended calls no more: its line
/// is then an empty one, and its end is reported like any other.
fn accept(listener: &TcpListener, child: &Child, deadline: Instant) -> Result<File, RunnerError> {
    let system = |error| RunnerError::system("waiting for a node's serial line")(error);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(system)?;
                return Ok(File::from(OwnedFd::from(stream)));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(system(e)),
        }
        if process::has_ended(child) {
            return File::open("/dev/null").map_err(system);
        }
        if Instant::now() >= deadline {
            return Err(system(io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(CONNECT_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::Command;

    #[test]
    fn a_call_becomes_a_line_both_ways() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let (lines, addresses) = SerialLines::awaited(1).unwrap();
        let mut theirs = TcpStream::connect(addresses[0]).unwrap();
        let mut ours = lines.open(&child).unwrap().remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut byte = [0];
        ours.write_all(b"x").unwrap();
        theirs.read_exact(&mut byte).unwrap();
        theirs.write_all(b"y").unwrap();
        ours.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
    }

    #[test]
    fn an_emulator_that_has_ended_leaves_an_empty_line() {
        let mut child = Command::new("true").spawn().unwrap();
        let (lines, _) = SerialLines::awaited(2).unwrap();
        let mut text = String::new();
        for mut line in lines.open(&child).unwrap() {
            line.read_to_string(&mut text).unwrap();
        }
        child.wait().unwrap();
        assert!(text.is_empty());
    }
}
