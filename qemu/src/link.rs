//! The links between nodes.
//!
//! Two nodes hold the two ends of one pair of connected UDP sockets, with
//! nothing between them: every further process costs a scheduling hop for
//! each frame. More nodes, faults or a capture put a [`Switch`] between them.
//! As the sockets are made here and inherited, there are no ports to agree
//! on and none to clash over. An emulator that makes its socket itself gets a
//! port instead, and always a switch. Nodes linked by shared memory get a file
//! without a name, and nothing can come between them.

use crate::switch::Switch;
use crate::{Faults, RunnerError, pcap};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// How the nodes are linked.
#[derive(Clone, Debug, Default)]
pub struct LinkOptions {
    /// Faults on purpose.
    pub faults: Faults,
    /// Where to write a capture of every frame.
    pub pcap: Option<PathBuf>,
}

/// Bytes that a socket may hold: a few hundred pages, so that a burst waits
/// in the kernel and is not lost.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Where the ports for emulators are looked for: below those that the system
/// gives to sockets which ask for none (Linux, `ip_local_port_range`).
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// How many of them are tried.
const PORT_TRIES: u32 = 200;

/// How an emulator's network card reaches the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// By a socket that it inherits.
    Socket,
    /// By a UDP port that it receives on; it sends to the next one.
    Port,
    /// By memory that all nodes share.
    Memory,
}

/// A node's end of its link.
pub(crate) enum End {
    /// A socket to inherit.
    Socket(UdpSocket),
    /// A port to receive on.
    Port(ReservedPort),
    /// Memory to inherit.
    Memory(SharedMemory),
}

/// Memory that all nodes share.
pub(crate) struct SharedMemory {
    pub(crate) file: OwnedFd,
    pub(crate) bytes: u64,
}

/// Bytes of shared memory from each node to each other, as the driver divides
/// it (`kernel/hw/nic/src/shm`).
const RING_BYTES: u64 = 512 << 10;

/// A UDP port of the loopback that is kept free until this is dropped.
pub(crate) struct ReservedPort {
    number: u16,
    _socket: UdpSocket,
}

impl ReservedPort {
    /// The port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// The nodes' ends of the links, and the switch between them if there is one.
pub(crate) struct Links {
    /// One a node; taken when its emulator starts.
    pub(crate) ends: Vec<End>,
    /// Lives as long as the cluster.
    pub(crate) switch: Option<Switch>,
}

/// Links `nodes` nodes.
pub(crate) fn connect(
    nodes: u32,
    wiring: Wiring,
    options: &LinkOptions,
) -> Result<Links, RunnerError> {
    options.faults.check()?;
    if wiring == Wiring::Memory {
        return memory(nodes, options);
    }
    let failed = |error| RunnerError::system("making a link between nodes")(error);
    let plain = !options.faults.any() && options.pcap.is_none();
    if wiring == Wiring::Socket && nodes <= 2 && plain {
        let (a, b) = pair().map_err(failed)?;
        // A single node's cable ends nowhere: its frames are lost.
        let ends = if nodes == 2 { vec![a, b] } else { vec![a] };
        return Ok(Links { ends: ends.into_iter().map(End::Socket).collect(), switch: None });
    }
    let capture = match &options.pcap {
        Some(path) => {
            let written = File::create(path).and_then(pcap::Writer::new);
            Some(written.map_err(|e| RunnerError::file(path, "written", e))?)
        }
        None => None,
    };
    let cable = || match wiring {
        Wiring::Socket => pair().map(|(ours, theirs)| (ours, End::Socket(theirs))),
        Wiring::Port => ports().map(|(ours, theirs)| (ours, End::Port(theirs))),
        Wiring::Memory => unreachable!("it has no cables"),
    };
    let cables = (0..nodes).map(|_| cable()).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let (ours, ends) = cables.into_iter().unzip();
    let switch = Switch::start(ours, options.faults, capture)
        .map_err(RunnerError::system("starting the switch"))?;
    Ok(Links { ends, switch: Some(switch) })
}

/// Makes the memory of `nodes` nodes; what is not touched costs nothing.
fn memory(nodes: u32, options: &LinkOptions) -> Result<Links, RunnerError> {
    if options.faults.any() || options.pcap.is_some() {
        return Err(RunnerError::NothingBetween);
    }
    let places = u64::from(nodes.max(2)).next_power_of_two();
    let bytes = places * places * RING_BYTES;
    let ends = || -> io::Result<Vec<End>> {
        let file = File::from(memfd_create("pangaea-link", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(bytes)?;
        let end = || Ok(End::Memory(SharedMemory { file: file.try_clone()?.into(), bytes }));
        (0..nodes).map(|_| end()).collect()
    };
    let ends = ends().map_err(RunnerError::system("making the nodes' shared memory"))?;
    Ok(Links { ends, switch: None })
}

/// Makes two UDP sockets on the loopback that are connected to each other.
pub(crate) fn pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let b = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    a.connect(b.local_addr()?)?;
    b.connect(a.local_addr()?)?;
    enlarge(&a)?;
    enlarge(&b)?;
    Ok((a, b))
}

/// Finds two neighbouring UDP ports on the loopback: a socket on the upper
/// one that is connected to the lower one, and the lower one.
fn ports() -> io::Result<(UdpSocket, ReservedPort)> {
    let mut failure = None;
    for _ in 0..PORT_TRIES {
        let lower = fastrand::u16(PORTS);
        match neighbours(lower) {
            Ok(found) => return Ok(found),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("some were tried"))
}

fn neighbours(lower: u16) -> io::Result<(UdpSocket, ReservedPort)> {
    // On all addresses, as the emulator will have it.
    let theirs = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, lower))?;
    let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, lower + 1))?;
    ours.connect((Ipv4Addr::LOCALHOST, lower))?;
    enlarge(&ours)?;
    Ok((ours, ReservedPort { number: lower, _socket: theirs }))
}

/// Gives a socket large buffers.
fn enlarge(socket: &UdpSocket) -> io::Result<()> {
    // Root may exceed the system's limit; others get what it allows.
    if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES)?;
    }
    setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn shared_memory_has_room_for_every_pair_and_no_faults() {
        let links = connect(3, Wiring::Memory, &LinkOptions::default()).unwrap();
        assert_eq!(links.ends.len(), 3);
        for end in &links.ends {
            let End::Memory(memory) = end else { panic!("no memory") };
            assert_eq!(memory.bytes, 16 * RING_BYTES);
        }
        let faults = Faults { loss: 1.0, ..Faults::default() };
        let lossy = LinkOptions { faults, pcap: None };
        assert!(matches!(connect(2, Wiring::Memory, &lossy), Err(RunnerError::NothingBetween)));
    }

    #[test]
    fn nodes_with_ports_reach_each_other_through_the_switch() {
        let links = connect(2, Wiring::Port, &LinkOptions::default()).unwrap();
        let node = |end: &End| {
            let End::Port(port) = end else { panic!("no port") };
            port.number()
        };
        let numbers: Vec<u16> = links.ends.iter().map(node).collect();
        drop(links.ends);
        let sockets: Vec<_> = numbers
            .iter()
            .map(|&n| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, n)).expect("it was kept free"))
            .collect();
        let mut frame = [0xFF; 60];
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        sockets[0].send_to(&frame, (Ipv4Addr::LOCALHOST, numbers[0] + 1)).unwrap();
        sockets[1].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut got = [0; 100];
        assert_eq!(sockets[1].recv(&mut got).unwrap(), frame.len());
        assert_eq!(got[..60], frame);
    }
}
