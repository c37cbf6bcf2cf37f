//! A writer of packet captures.
//!
//! The format is the classic pcap file with nanosecond time stamps
//! (draft-ietf-opsawg-pcap, section 4): a 24-byte header and a 16-byte header
//! for each frame, little-endian here.

use std::io::{self, Write};
use std::time::Duration;

/// Magic number of a file with nanosecond time stamps.
const MAGIC_NS: u32 = 0xA1B2_3C4D;
/// Longest frame kept.
const SNAP_LEN: u32 = 65_535;
/// LINKTYPE_ETHERNET.
const LINK_ETHERNET: u32 = 1;

/// Writes frames to a capture. Each frame is one `write`, so that a capture
/// is whole up to its last frame however the process ends.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Writes the file's header.
    ///
    /// # Errors
    /// What the output says.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NS.to_le_bytes());
        header.extend(2u16.to_le_bytes());
        header.extend(4u16.to_le_bytes());
        header.extend([0; 8]); // two reserved fields
        header.extend(SNAP_LEN.to_le_bytes());
        header.extend(LINK_ETHERNET.to_le_bytes());
        out.write_all(&header)?;
        Ok(Self { out })
    }

    /// Adds a frame seen at `since_epoch` (time since 1970).
    ///
    /// # Errors
    /// What the output says.
    pub fn frame(&mut self, since_epoch: Duration, frame: &[u8]) -> io::Result<()> {
        let kept = &frame[..frame.len().min(SNAP_LEN as usize)];
        let seconds = since_epoch.as_secs() as u32;
        let lengths = [kept.len() as u32, u32::try_from(frame.len()).unwrap_or(u32::MAX)];
        let mut record = Vec::with_capacity(16 + kept.len());
        for field in [seconds, since_epoch.subsec_nanos(), lengths[0], lengths[1]] {
            record.extend(field.to_le_bytes());
        }
        record.extend(kept);
        self.out.write_all(&record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_has_the_right_headers() {
        let mut out = Vec::new();
        let mut pcap = Writer::new(&mut out).unwrap();
        pcap.frame(Duration::new(7, 9), &[0xAB; 60]).unwrap();
        assert_eq!(out.len(), 24 + 16 + 60);
        assert_eq!(out[..4], [0x4D, 0x3C, 0xB2, 0xA1]);
        assert_eq!(out[4..8], [2, 0, 4, 0]);
        assert_eq!(out[20..24], [1, 0, 0, 0]);
        let field = |i: usize| u32::from_le_bytes(out[24 + 4 * i..28 + 4 * i].try_into().unwrap());
        assert_eq!([field(0), field(1), field(2), field(3)], [7, 9, 60, 60]);
        assert!(out[40..].iter().all(|&b| b == 0xAB));
    }
}
