//! The header that every frame begins with, and its check.

use crate::bytes::{put, take, u16_at, u32_at, u64_at};
use crate::{
    ETHERTYPE, HEADER_BYTES, Kind, LINK_END, MESSAGE_BYTES, Mac, PAGE_OFFSET, VERSION, WireError,
};

/// Offset of the check.
const CHECK: usize = 20;

/// The first 48 bytes of every frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// What follows.
    pub kind: Kind,
    /// Sender's node, [`crate::NO_NODE`] before the membership is formed.
    pub from: u16,
    /// Bytes of page after the header; only Data and ProbeReply have any.
    pub payload: u16,
    /// Which cluster is meant.
    pub cluster: u64,
    /// Which membership is meant; 0 while there is none.
    pub epoch: u64,
    /// Free page frames of the sender.
    pub free_frames: u32,
    /// Master pages the sender holds.
    pub masters: u32,
}

/// What a header says but for its check and what its sender says of itself: frames
/// of one kind from one sender of one membership have it in common, if they have
/// as much payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeaderKey([u64; 5]);

impl HeaderKey {
    /// That of a frame; `None` if it is too short.
    #[inline(always)]
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<HeaderKey> {
        let b = frame.first_chunk::<HEADER_BYTES>()?;
        let told = u64::from(u32_at(b, 16));
        Some(HeaderKey([u64_at(b, 0), u64_at(b, 8), told, u64_at(b, 24), u64_at(b, 32)]))
    }

    /// [`Header::from`].
    #[inline(always)]
    #[must_use]
    pub fn from(&self) -> u16 {
        self.0[2] as u16
    }

    /// [`Header::payload`].
    #[inline(always)]
    #[must_use]
    pub fn payload(&self) -> u16 {
        (self.0[2] >> 16) as u16
    }

    /// Whether both are the same: `==` where a call would cost more.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, other: &HeaderKey) -> bool {
        let differ = |i: usize| self.0[i] ^ other.0[i];
        differ(0) | differ(1) | differ(2) | differ(3) | differ(4) == 0
    }
}

impl Header {
    /// Writes all but the check (see [`seal`]).
    ///
    /// # Panics
    /// If `buf` is shorter than [`HEADER_BYTES`].
    #[inline]
    pub fn emit(&self, buf: &mut [u8]) {
        let buf: &mut [u8; HEADER_BYTES] =
            buf.first_chunk_mut().expect("buffer holds a frame header");
        put(buf, 0, self.dst);
        put(buf, 6, self.src);
        put(buf, 12, ETHERTYPE.to_be_bytes());
        buf[14] = VERSION;
        buf[15] = self.kind as u8;
        put(buf, 16, self.from.to_le_bytes());
        put(buf, 18, self.payload.to_le_bytes());
        put(buf, CHECK, [0; 4]);
        put(buf, 24, self.cluster.to_le_bytes());
        put(buf, 32, self.epoch.to_le_bytes());
        put(buf, 40, self.free_frames.to_le_bytes());
        put(buf, 44, self.masters.to_le_bytes());
    }

    /// Reads the header; the check, which covers more, is not looked at yet.
    ///
    /// # Errors
    /// Says what is wrong; no input panics.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Header, WireError> {
        let Some(b) = frame.first_chunk::<HEADER_BYTES>() else {
            let foreign = frame.get(12..14) != Some(&ETHERTYPE.to_be_bytes()[..]);
            return Err(if foreign { WireError::Foreign } else { WireError::Short });
        };
        if take::<2, _>(b, 12) != ETHERTYPE.to_be_bytes() {
            return Err(WireError::Foreign);
        }
        if b[14] != VERSION {
            return Err(WireError::Version);
        }
        Ok(Header {
            dst: take(b, 0),
            src: take(b, 6),
            kind: Kind::from_wire(b[15]).ok_or(WireError::Kind)?,
            from: u16_at(b, 16),
            payload: u16_at(b, 18),
            cluster: u64_at(b, 24),
            epoch: u64_at(b, 32),
            free_frames: u32_at(b, 40),
            masters: u32_at(b, 44),
        })
    }
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Takes words into a hash, each by a bijection of the state: so one changed bit
/// always changes the 64-bit result, and the 32 bits kept with a probability of
/// about 1 - 2^-32.
#[inline(always)]
fn take_in(state: u64, words: &[[u8; 8]]) -> u64 {
    // The rotation brings the high bits, which a multiplication moves
    // nowhere, down to where the next one spreads them.
    let step = |state: u64, word: &[u8; 8]| {
        (state ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER).rotate_left(29)
    };
    words.iter().fold(state, step)
}

/// Words before the one with the check.
const BEFORE: usize = CHECK / 8;

/// The state of the hash over `len` bytes after their first words, the last of
/// which holds the check, taken as zero.
#[inline(always)]
fn begin(len: usize, first: &[[u8; 8]; BEFORE], checked: &[u8; 8]) -> u64 {
    let state = take_in(len as u64 ^ MULTIPLIER, first);
    let mut unchecked = *checked;
    unchecked[CHECK % 8..].fill(0);
    take_in(state, &[unchecked])
}

#[inline(always)]
fn end(state: u64) -> u32 {
    (state ^ (state >> 32)) as u32
}

/// Hashes whole 64-bit words with the check field taken as zero.
#[inline]
fn hash(header: &[u8]) -> u32 {
    let (words, odd) = header.as_chunks::<8>();
    debug_assert!(odd.is_empty());
    let Some((first, rest)) = words.split_first_chunk::<BEFORE>() else { return 0 };
    let Some((checked, rest)) = rest.split_first() else { return 0 };
    let mut state = begin(header.len(), first, checked);
    // Most have a message, some two: short loops of a known length need no
    // counting.
    const REST: usize = PAGE_OFFSET / 8 - BEFORE - 1;
    let rest = match rest.split_first_chunk::<REST>() {
        None => rest,
        Some((first, rest)) => {
            state = take_in(state, first);
            let (messages, rest) = rest.as_chunks::<{ MESSAGE_BYTES / 8 }>();
            for message in messages {
                state = take_in(state, message);
            }
            rest
        }
    };
    end(take_in(state, rest))
}

/// What [`hash`] has come to over a frame of `len` bytes when it has taken all before
/// the first message.
#[inline(always)]
pub(crate) fn hash_start(len: usize, start: &[u8; LINK_END]) -> u64 {
    let (words, _) = start.as_chunks::<8>();
    let (first, rest) = words.split_first_chunk().expect("longer than that");
    let (checked, rest) = rest.split_first().expect("longer than that");
    take_in(begin(len, first, checked), rest)
}

/// Whether the check of a frame with one message matches: [`sealed`], for a length
/// that nothing has to count.
#[inline(always)]
pub(crate) fn sealed_one(frame: &[u8; PAGE_OFFSET]) -> bool {
    let start = frame.first_chunk().expect("a frame begins with that");
    u32_at(frame, CHECK) == hash_end(hash_start(PAGE_OFFSET, start), frame)
}

/// What the hash over a frame with one message comes to, of which this is the
/// [`hash_start`].
#[inline(always)]
fn hash_end(state: u64, frame: &[u8; PAGE_OFFSET]) -> u32 {
    let (words, _) = frame.as_chunks::<8>();
    end(take_in(state, &words[LINK_END / 8..]))
}

/// Puts the check into a frame with one message, whose [`hash_start`] this is.
#[inline(always)]
pub(crate) fn seal_from(state: u64, frame: &mut [u8; PAGE_OFFSET]) {
    let check = hash_end(state, frame);
    put(frame, CHECK, check.to_le_bytes());
}

/// Writes the check over the whole of `header`, last of all.
///
/// # Panics
/// If `header` is shorter than [`HEADER_BYTES`].
#[inline(always)]
pub fn seal(header: &mut [u8]) {
    assert!(header.len() >= HEADER_BYTES && header.len().is_multiple_of(8));
    let check = hash(header);
    put(header, CHECK, check.to_le_bytes());
}

/// Whether the check matches; `header` holds at least [`HEADER_BYTES`].
#[inline(always)]
pub(crate) fn sealed(header: &[u8]) -> bool {
    header.first_chunk::<HEADER_BYTES>().is_some_and(|b| u32_at(b, CHECK) == hash(header))
}

/// Takes a frame's first `N` bytes after verifying their check.
pub(crate) fn checked<const N: usize>(frame: &[u8]) -> Result<&[u8; N], WireError> {
    let bytes = frame.first_chunk::<N>().ok_or(WireError::Short)?;
    if sealed(bytes) { Ok(bytes) } else { Err(WireError::Check) }
}
