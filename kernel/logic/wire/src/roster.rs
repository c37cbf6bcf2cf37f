//! Propose and Commit frames: the membership, in as many frames as it takes.

use crate::bytes::{put, take, u16_at, u64_at};
use crate::{HEADER_BYTES, Header, Mac, WireError, header};

/// Where the entries start.
const ENTRIES: usize = HEADER_BYTES + 8;
/// Bytes of one entry.
const ENTRY_BYTES: usize = 32;
const FLAG_PAYLOAD: u8 = 1;
const FLAG_LEAD: u8 = 2;

/// One member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// MAC address.
    pub mac: Mac,
    /// Window it grants to each peer on each channel.
    pub window: u8,
    /// Has the guest's kernel.
    pub has_payload: bool,
    /// Was told to lead.
    pub lead: bool,
    /// Number of this life of the node.
    pub incarnation: u64,
    /// Pages it contributes.
    pub pages: u64,
    /// Processors it contributes.
    pub cpus: u16,
    /// Largest Ethernet payload it can take.
    pub mtu: u16,
}

impl Entry {
    pub(crate) fn flags(has_payload: bool, lead: bool) -> u8 {
        (u8::from(has_payload) * FLAG_PAYLOAD) | (u8::from(lead) * FLAG_LEAD)
    }

    /// `(has_payload, lead)`.
    pub(crate) fn read_flags(flags: u8) -> Result<(bool, bool), WireError> {
        if flags & !(FLAG_PAYLOAD | FLAG_LEAD) != 0 {
            return Err(WireError::Malformed);
        }
        Ok((flags & FLAG_PAYLOAD != 0, flags & FLAG_LEAD != 0))
    }

    fn emit(&self, b: &mut [u8; ENTRY_BYTES]) {
        put(b, 0, self.mac);
        b[6] = self.window;
        b[7] = Entry::flags(self.has_payload, self.lead);
        put(b, 8, self.incarnation.to_le_bytes());
        put(b, 16, self.pages.to_le_bytes());
        put(b, 24, self.cpus.to_le_bytes());
        put(b, 26, self.mtu.to_le_bytes());
        put(b, 28, [0; 4]);
    }

    fn parse(b: &[u8; ENTRY_BYTES]) -> Result<Entry, WireError> {
        let (has_payload, lead) = Entry::read_flags(b[7])?;
        Ok(Entry {
            mac: take(b, 0),
            window: b[6],
            has_payload,
            lead,
            incarnation: u64_at(b, 8),
            pages: u64_at(b, 16),
            cpus: u16_at(b, 24),
            mtu: u16_at(b, 26),
        })
    }
}

/// A part of a membership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Roster<'a> {
    /// Members in all.
    pub total: u16,
    /// Node of the first entry here.
    pub first: u16,
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> Roster<'a> {
    /// The members from `first` on.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        self.entries.iter().filter_map(|e| Entry::parse(e).ok())
    }

    pub(crate) fn parse(frame: &'a [u8], header: &Header) -> Result<Roster<'a>, WireError> {
        let b = frame.first_chunk::<ENTRIES>().ok_or(WireError::Short)?;
        let (total, first, count) = (u16_at(b, 48), u16_at(b, 50), u16_at(b, 52));
        let end = ENTRIES + usize::from(count) * ENTRY_BYTES;
        let whole = frame.get(..end).ok_or(WireError::Short)?;
        if !header::sealed(whole) {
            return Err(WireError::Check);
        }
        let (entries, _) = whole[ENTRIES..].as_chunks::<ENTRY_BYTES>();
        let inside = first.checked_add(count).is_some_and(|last| last <= total);
        if count == 0 || !inside || header.epoch == 0 || header.payload != 0 {
            return Err(WireError::Malformed);
        }
        entries.iter().try_for_each(|e| Entry::parse(e).map(drop))?;
        Ok(Roster { total, first, entries })
    }
}

/// How many entries fit in a frame of `bytes` with its Ethernet header.
#[must_use]
pub const fn roster_room(bytes: usize) -> usize {
    bytes.saturating_sub(ENTRIES) / ENTRY_BYTES
}

/// Writes a Propose or Commit frame; returns its length.
///
/// # Panics
/// If `buf` has no room for the entries (see [`roster_room`]).
pub fn emit_roster(
    header: &Header,
    total: u16,
    first: u16,
    entries: impl ExactSizeIterator<Item = Entry>,
    buf: &mut [u8],
) -> usize {
    let count = entries.len();
    let end = ENTRIES + count * ENTRY_BYTES;
    let buf = &mut buf[..end];
    header.emit(buf);
    put(buf, 48, total.to_le_bytes());
    put(buf, 50, first.to_le_bytes());
    put(buf, 52, (count as u16).to_le_bytes());
    put(buf, 54, [0; 2]);
    let (chunks, _) = buf[ENTRIES..].as_chunks_mut::<ENTRY_BYTES>();
    for (chunk, entry) in chunks.iter_mut().zip(entries) {
        entry.emit(chunk);
    }
    header::seal(buf);
    end
}
