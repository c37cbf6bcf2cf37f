//! Frames: the parser, and that what it takes is well-formed.

use addr::PAGE_SIZE;
use wire::{Body, Packet, WireError};

/// Longest header part that is tried.
const SEALED_MAX: usize = 512;

/// Parses the bytes as a frame. The first byte says whether the check is made
/// right first: few frames would get further by chance.
pub fn run(bytes: &[u8]) {
    let Some((&choice, frame)) = bytes.split_first() else { return };
    let mut frame = frame.to_vec();
    if choice & 1 != 0 {
        repair(&mut frame);
    }
    let Ok(packet) = Packet::parse(&frame) else { return };
    match packet.body {
        Body::Data(data) => {
            assert!(data.payload.len() <= PAGE_SIZE);
            for message in data.messages() {
                assert!(message.part <= message.parts);
            }
        }
        Body::Propose(roster) | Body::Commit(roster) => {
            assert!(roster.entries().count() <= usize::from(roster.total));
        }
        Body::ProbeReply(reply) => assert!(reply.payload.len() <= frame.len()),
        Body::Hello(_)
        | Body::Accept(_)
        | Body::Refuse(_)
        | Body::Ack(_)
        | Body::Heartbeat(_)
        | Body::Stop(_)
        | Body::StopAck
        | Body::Probe(_) => {}
    }
}

/// Gives a frame the check that its header needs. How far the check reaches
/// depends on the kind and its counts; the parser knows.
pub(super) fn repair(frame: &mut [u8]) {
    for len in (wire::HEADER_BYTES..=frame.len().min(SEALED_MAX)).step_by(8) {
        if let Some(header) = frame.get_mut(..len) {
            wire::seal(header);
        }
        if Packet::parse(frame) != Err(WireError::Check) {
            return;
        }
    }
}
