//! The rare frames: Hello, Accept, Refuse, Stop, Probe and ProbeReply.

use crate::bytes::{put, u16_at, u64_at};
use crate::{Entry, HEADER_BYTES, Header, PAGE_OFFSET, Payload, WireError, header};
use addr::PAGE_SIZE;

/// Zeroes and heads a frame of `N` bytes, lets `fill` write it, seals it.
fn emit<const N: usize>(header: &Header, buf: &mut [u8], fill: impl FnOnce(&mut [u8; N])) -> usize {
    let buf: &mut [u8; N] = buf.first_chunk_mut().expect("buffer holds the frame");
    buf.fill(0);
    header.emit(buf);
    fill(buf);
    header::seal(buf);
    N
}

/// A frame of `N` bytes without payload.
fn plain<'a, const N: usize>(frame: &'a [u8], header: &Header) -> Result<&'a [u8; N], WireError> {
    let b = header::checked::<N>(frame)?;
    if header.payload == 0 { Ok(b) } else { Err(WireError::Malformed) }
}

/// "I am here": what a node is and has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hello {
    /// Hash of the build; all nodes must run the same.
    pub build: u64,
    /// Nodes the sender expects.
    pub nodes: u16,
    /// Nodes it knows, itself included.
    pub known: u16,
    /// Its own entry. `entry.mac` is the frame's source.
    pub entry: Entry,
}

impl Hello {
    const BYTES: usize = HEADER_BYTES + 40;

    /// Writes the frame; returns its length.
    pub fn emit(&self, header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |b: &mut [u8; Self::BYTES]| {
            put(b, 48, self.build.to_le_bytes());
            put(b, 56, self.entry.incarnation.to_le_bytes());
            put(b, 64, self.entry.pages.to_le_bytes());
            put(b, 72, self.nodes.to_le_bytes());
            put(b, 74, self.known.to_le_bytes());
            put(b, 76, self.entry.cpus.to_le_bytes());
            put(b, 78, self.entry.mtu.to_le_bytes());
            b[80] = self.entry.window;
            b[81] = Entry::flags(self.entry.has_payload, self.entry.lead);
        })
    }

    pub(crate) fn parse(frame: &[u8], header: &Header) -> Result<Hello, WireError> {
        let b = plain::<{ Self::BYTES }>(frame, header)?;
        let (has_payload, lead) = Entry::read_flags(b[81])?;
        let entry = Entry {
            mac: header.src,
            window: b[80],
            has_payload,
            lead,
            incarnation: u64_at(b, 56),
            pages: u64_at(b, 64),
            cpus: u16_at(b, 76),
            mtu: u16_at(b, 78),
        };
        Ok(Hello { build: u64_at(b, 48), nodes: u16_at(b, 72), known: u16_at(b, 74), entry })
    }
}

/// Consent to the proposal of the header's epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Accept {
    /// Number of this life of the sender.
    pub incarnation: u64,
}

impl Accept {
    const BYTES: usize = HEADER_BYTES + 8;

    /// Writes the frame; returns its length.
    pub fn emit(&self, header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |b: &mut [u8; Self::BYTES]| put(b, 48, self.incarnation.to_le_bytes()))
    }

    pub(crate) fn parse(frame: &[u8], header: &Header) -> Result<Accept, WireError> {
        let b = plain::<{ Self::BYTES }>(frame, header)?;
        Ok(Accept { incarnation: u64_at(b, 48) })
    }
}

/// "You cannot join."
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Refuse {
    /// Incarnation of the node that is meant.
    pub incarnation: u64,
    /// Number of the reason; the fabric gives it meaning.
    pub reason: u16,
    /// What the refusing node has in the disputed place.
    pub detail: u64,
}

impl Refuse {
    const BYTES: usize = HEADER_BYTES + 24;

    /// Writes the frame; returns its length.
    pub fn emit(&self, header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |b: &mut [u8; Self::BYTES]| {
            put(b, 48, self.incarnation.to_le_bytes());
            put(b, 56, self.reason.to_le_bytes());
            put(b, 64, self.detail.to_le_bytes());
        })
    }

    pub(crate) fn parse(frame: &[u8], header: &Header) -> Result<Refuse, WireError> {
        let b = plain::<{ Self::BYTES }>(frame, header)?;
        Ok(Refuse { incarnation: u64_at(b, 48), reason: u16_at(b, 56), detail: u64_at(b, 64) })
    }
}

/// The cluster stops.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stop {
    /// Number of the reason; the fabric gives it meaning.
    pub reason: u16,
    /// More about it.
    pub code: u64,
}

impl Stop {
    const BYTES: usize = HEADER_BYTES + 16;

    /// Writes the frame; returns its length.
    pub fn emit(&self, header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |b: &mut [u8; Self::BYTES]| {
            put(b, 48, self.reason.to_le_bytes());
            put(b, 56, self.code.to_le_bytes());
        })
    }

    /// Writes a StopAck frame, which is a bare header; returns its length.
    pub fn emit_ack(header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |_: &mut [u8; HEADER_BYTES]| {})
    }

    pub(crate) fn parse(frame: &[u8], header: &Header) -> Result<Stop, WireError> {
        let b = plain::<{ Self::BYTES }>(frame, header)?;
        Ok(Stop { reason: u16_at(b, 48), code: u64_at(b, 56) })
    }

    pub(crate) fn parse_ack(frame: &[u8], header: &Header) -> Result<(), WireError> {
        plain::<HEADER_BYTES>(frame, header).map(drop)
    }
}

/// Raw request of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Probe {
    /// Comes back in the answer.
    pub token: u64,
    /// Bytes wanted back, at most one page.
    pub bytes: u16,
}

impl Probe {
    const BYTES: usize = HEADER_BYTES + 16;

    /// Writes the frame; returns its length.
    pub fn emit(&self, header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |b: &mut [u8; Self::BYTES]| {
            put(b, 48, self.token.to_le_bytes());
            put(b, 56, self.bytes.to_le_bytes());
        })
    }

    pub(crate) fn parse(frame: &[u8], header: &Header) -> Result<Probe, WireError> {
        let b = plain::<{ Self::BYTES }>(frame, header)?;
        let bytes = u16_at(b, 56);
        if usize::from(bytes) > PAGE_SIZE {
            return Err(WireError::Malformed);
        }
        Ok(Probe { token: u64_at(b, 48), bytes })
    }
}

/// Raw answer of the benchmark, or a part of it; the payload starts at
/// [`PAGE_OFFSET`] like that of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProbeReply<'a> {
    /// From the request.
    pub token: u64,
    /// Bytes of the whole answer.
    pub total: u16,
    /// Where this part starts in the answer.
    pub offset: u16,
    /// This part.
    pub payload: Payload<'a>,
}

impl<'a> ProbeReply<'a> {
    /// Writes the header part; returns its length. The payload's length is
    /// the header's; `self.payload` is not looked at.
    pub fn emit(&self, header: &Header, buf: &mut [u8]) -> usize {
        emit(header, buf, |b: &mut [u8; PAGE_OFFSET]| {
            put(b, 48, self.token.to_le_bytes());
            put(b, 56, self.total.to_le_bytes());
            put(b, 58, self.offset.to_le_bytes());
        })
    }

    pub(crate) fn parse(
        frame: &'a [u8],
        header: &Header,
        apart: Option<usize>,
    ) -> Result<ProbeReply<'a>, WireError> {
        let b = header::checked::<PAGE_OFFSET>(frame)?;
        let payload = Payload::find(frame, PAGE_OFFSET, header.payload, apart)?;
        let (total, offset) = (u16_at(b, 56), u16_at(b, 58));
        let end = usize::from(offset) + payload.len();
        if usize::from(total) > PAGE_SIZE || end > usize::from(total) {
            return Err(WireError::Malformed);
        }
        Ok(ProbeReply { token: u64_at(b, 48), total, offset, payload })
    }
}
