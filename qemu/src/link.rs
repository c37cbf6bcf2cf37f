//! The links between nodes, as sockets that the emulators inherit.
//!
//! Two nodes hold the two ends of one pair of connected UDP sockets, with
//! nothing between them: every further process costs a scheduling hop for
//! each frame. More nodes, faults or a capture put a [`Switch`] between them.
//! As the sockets are made here and inherited, there are no ports to agree
//! on and none to clash over.

use crate::switch::Switch;
use crate::{Faults, RunnerError, pcap};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
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

/// The nodes' ends of the links, and the switch between them if there is one.
pub(crate) struct Links {
    /// One socket a node; taken when its emulator starts.
    pub(crate) ends: Vec<UdpSocket>,
    /// Lives as long as the cluster.
    pub(crate) switch: Option<Switch>,
}

/// Links `nodes` nodes.
pub(crate) fn connect(nodes: u32, options: &LinkOptions) -> Result<Links, RunnerError> {
    options.faults.check()?;
    let socket = || pair().map_err(RunnerError::system("making a link between nodes"));
    let direct = nodes <= 2 && !options.faults.any() && options.pcap.is_none();
    if direct {
        let (a, b) = socket()?;
        // A single node's cable ends nowhere: its frames are lost.
        let ends = if nodes == 2 { vec![a, b] } else { vec![a] };
        return Ok(Links { ends, switch: None });
    }
    let capture = match &options.pcap {
        Some(path) => {
            let written = File::create(path).and_then(pcap::Writer::new);
            Some(written.map_err(|e| RunnerError::file(path, "written", e))?)
        }
        None => None,
    };
    let pairs = (0..nodes).map(|_| socket()).collect::<Result<Vec<_>, _>>()?;
    let (ours, ends) = pairs.into_iter().unzip();
    let switch = Switch::start(ours, options.faults, capture)
        .map_err(RunnerError::system("starting the switch"))?;
    Ok(Links { ends, switch: Some(switch) })
}

/// Makes two UDP sockets on the loopback that are connected to each other.
pub(crate) fn pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let b = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    a.connect(b.local_addr()?)?;
    b.connect(a.local_addr()?)?;
    for socket in [&a, &b] {
        // Root may exceed the system's limit; others get what it allows.
        if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
            setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES)?;
        }
        setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES)?;
    }
    Ok((a, b))
}
