//! A received frame, checked.

use crate::{
    Accept, Data, Header, Hello, Kind, Link, Probe, ProbeReply, Refuse, Roster, Stop, WireError,
};

/// What the kind says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Body<'a> {
    /// See [`Kind::Hello`].
    Hello(Hello),
    /// See [`Kind::Propose`].
    Propose(Roster<'a>),
    /// See [`Kind::Commit`].
    Commit(Roster<'a>),
    /// See [`Kind::Accept`].
    Accept(Accept),
    /// See [`Kind::Refuse`].
    Refuse(Refuse),
    /// See [`Kind::Data`].
    Data(Data<'a>),
    /// See [`Kind::Ack`].
    Ack(Link),
    /// See [`Kind::Heartbeat`].
    Heartbeat(Link),
    /// See [`Kind::Stop`].
    Stop(Stop),
    /// See [`Kind::StopAck`].
    StopAck,
    /// See [`Kind::Probe`].
    Probe(Probe),
    /// See [`Kind::ProbeReply`].
    ProbeReply(ProbeReply<'a>),
}

/// A received frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Packet<'a> {
    /// The common header.
    pub header: Header,
    /// The rest.
    pub body: Body<'a>,
}

impl<'a> Packet<'a> {
    /// Checks and reads a frame that starts with its Ethernet header. Bytes
    /// after its end (Ethernet's padding) are ignored.
    ///
    /// # Errors
    /// Says what is wrong; no input panics.
    pub fn parse(frame: &'a [u8]) -> Result<Packet<'a>, WireError> {
        Packet::parse_body(frame, Header::parse(frame)?, None)
    }

    /// Checks and reads a frame of which `frame` is all but the payload, which
    /// is `payload` bytes somewhere else.
    ///
    /// # Errors
    /// As [`Packet::parse`]; also for kinds that have no payload.
    pub fn parse_apart(frame: &'a [u8], payload: usize) -> Result<Packet<'a>, WireError> {
        Packet::parse_body(frame, Header::parse(frame)?, Some(payload))
    }

    /// Checks and reads what follows a frame's `header`; the payload is `apart`
    /// where that is given.
    ///
    /// # Errors
    /// As [`Packet::parse_apart`].
    pub fn parse_body(
        frame: &'a [u8],
        header: Header,
        apart: Option<usize>,
    ) -> Result<Packet<'a>, WireError> {
        if apart.is_some() && !matches!(header.kind, Kind::Data | Kind::ProbeReply) {
            return Err(WireError::Malformed);
        }
        let body = match header.kind {
            Kind::Data => Body::Data(Data::parse(frame, header.payload, apart)?),
            Kind::Hello => Body::Hello(Hello::parse(frame, &header)?),
            Kind::Propose => Body::Propose(Roster::parse(frame, &header)?),
            Kind::Commit => Body::Commit(Roster::parse(frame, &header)?),
            Kind::Accept => Body::Accept(Accept::parse(frame, &header)?),
            Kind::Refuse => Body::Refuse(Refuse::parse(frame, &header)?),
            Kind::Ack => Body::Ack(Link::parse_frame(frame, &header)?),
            Kind::Heartbeat => Body::Heartbeat(Link::parse_frame(frame, &header)?),
            Kind::Stop => Body::Stop(Stop::parse(frame, &header)?),
            Kind::StopAck => {
                Stop::parse_ack(frame, &header)?;
                Body::StopAck
            }
            Kind::Probe => Body::Probe(Probe::parse(frame, &header)?),
            Kind::ProbeReply => Body::ProbeReply(ProbeReply::parse(frame, &header, apart)?),
        };
        Ok(Packet { header, body })
    }
}
