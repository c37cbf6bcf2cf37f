//! Messages as they stand on the wire, in 32 bytes.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | [`Kind`] |
//! | 1 | flags: bit 0 exclusive, bit 1 zero, bit 2 the requester has a copy, bit 3 prefetch, bit 4 alone, bit 5 an end |
//! | 2..4 | `party`: the node this is done for (requester) or sent to (target) |
//! | 4..6 | `count`: pages of a run, or acknowledgements to wait for |
//! | 6..8 | `lead`: pages of a grant before `gfn` |
//! | 8..16 | `gfn` |
//! | 16..20 | `txn`: the home's number of the transaction |
//! | 20..28 | with an end: the page of another transaction; else zero |
//! | 28..32 | with an end: that one's `txn`; else zero |
//!
//! Who asks for one page after the other has the end of the last transaction to
//! tell the home of it, mostly the node it writes to anyway. Nobody waits for that,
//! so it travels in the message about another page: no message more is written,
//! numbered and read while somebody waits for the next page. The two are two
//! messages to the protocol all the same, the end before the other.

use super::{Kind, Message};
use addr::{Gfn, NodeId};

/// Length of a message without its page.
pub const MESSAGE_LEN: usize = 32;
/// The flag of a message with an end.
const ENDS: u8 = 0x20;
/// Flags that a message may have.
const FLAGS: u8 = 0x1f;
/// Where an end is.
const END: usize = 20;

/// The end of a transaction, as it travels in the message about another page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The page.
    pub gfn: Gfn,
    /// The home's number of the transaction.
    pub txn: u32,
}

impl End {
    /// What a [`Kind::Done`] of one transaction says.
    #[inline]
    #[must_use]
    pub fn of(message: &Message) -> End {
        debug_assert!(message.kind == Kind::Done && message.count == 0);
        End { gfn: message.gfn, txn: message.txn }
    }

    /// The message that it stands for, of the node that sent it.
    #[inline]
    #[must_use]
    pub fn message(self, from: NodeId) -> Message {
        Message { txn: self.txn, ..Message::new(Kind::Done, self.gfn, from) }
    }
}

impl Message {
    /// As it stands on the wire.
    #[inline(always)]
    #[must_use]
    pub fn to_bytes(&self) -> [u8; MESSAGE_LEN] {
        let mut b = [0; MESSAGE_LEN];
        let flags = u8::from(self.exclusive)
            | u8::from(self.zero) << 1
            | u8::from(self.has_copy) << 2
            | u8::from(self.prefetch) << 3
            | u8::from(self.alone) << 4;
        // As one word, which stays in a register.
        let first = u64::from(self.kind as u8)
            | u64::from(flags) << 8
            | u64::from(self.party.0) << 16
            | u64::from(self.count) << 32
            | u64::from(self.lead) << 48;
        b[..8].copy_from_slice(&first.to_le_bytes());
        b[8..16].copy_from_slice(&self.gfn.0.to_le_bytes());
        b[16..20].copy_from_slice(&self.txn.to_le_bytes());
        b
    }

    /// As it stands on the wire, with the end of another transaction in it.
    #[inline(always)]
    #[must_use]
    pub fn to_bytes_with(&self, end: Option<End>) -> [u8; MESSAGE_LEN] {
        let mut b = self.to_bytes();
        if let Some(End { gfn, txn }) = end {
            b[1] |= ENDS;
            b[END..END + 8].copy_from_slice(&gfn.0.to_le_bytes());
            b[END + 8..].copy_from_slice(&txn.to_le_bytes());
        }
        b
    }

    /// Reads a message in which there is no end; `None` if it is not one.
    #[inline(always)]
    #[must_use]
    pub fn from_bytes(b: &[u8; MESSAGE_LEN]) -> Option<Message> {
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        if b[1] & !FLAGS != 0 || b[END..] != [0; MESSAGE_LEN - END] {
            return None;
        }
        Some(Message {
            kind: Kind::from_byte(b[0])?,
            gfn: Gfn(u64::from_le_bytes(b[8..16].try_into().ok()?)),
            party: NodeId(u16_at(2)),
            count: u16_at(4),
            lead: u16_at(6),
            txn: u32::from_le_bytes(b[16..20].try_into().ok()?),
            exclusive: b[1] & 1 != 0,
            zero: b[1] & 2 != 0,
            has_copy: b[1] & 4 != 0,
            prefetch: b[1] & 8 != 0,
            alone: b[1] & 16 != 0,
        })
    }

    /// Reads a message and the end in it, if there is one; `None` if it is not one.
    #[inline(always)]
    #[must_use]
    pub fn from_bytes_with(b: &[u8; MESSAGE_LEN]) -> Option<(Message, Option<End>)> {
        let (mut plain, mut end) = (*b, None);
        if b[1] & ENDS != 0 {
            let (gfn, txn) = b[END..].split_first_chunk()?;
            let gfn = Gfn(u64::from_le_bytes(*gfn));
            end = Some(End { gfn, txn: u32::from_le_bytes(txn.try_into().ok()?) });
            plain[1] ^= ENDS;
            plain[END..].fill(0);
        }
        Message::from_bytes(&plain).map(|message| (message, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: End = End { gfn: Gfn(0xfedc_ba98_7654), txn: 0xffff_0001 };

    #[test]
    fn messages_round_trip() {
        for &kind in Kind::ALL {
            let mut m = Message::new(kind, Gfn(0x12_3456_789a), NodeId(4095));
            m.count = 512;
            m.lead = 77;
            m.txn = 0xdead_beef;
            let flags: [fn(&mut Message) -> &mut bool; 5] = [
                |m| &mut m.exclusive,
                |m| &mut m.zero,
                |m| &mut m.has_copy,
                |m| &mut m.prefetch,
                |m| &mut m.alone,
            ];
            for flag in flags {
                let mut m = m;
                assert_eq!(Message::from_bytes(&m.to_bytes()), Some(m));
                *flag(&mut m) = true;
                assert_eq!(Message::from_bytes(&m.to_bytes()), Some(m));
                for end in [None, Some(ALL), Some(End { gfn: Gfn(0), txn: 0 })] {
                    let bytes = m.to_bytes_with(end);
                    assert_eq!(Message::from_bytes_with(&bytes), Some((m, end)));
                    assert_eq!(Message::from_bytes(&bytes), end.is_none().then_some(m));
                }
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = Message::new(Kind::Done, Gfn(1), NodeId(1)).to_bytes();
        for (at, value) in [(0, 0), (0, 99), (1, 0x40), (1, 0x80), (20, 1), (31, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Message::from_bytes(&bad), None);
            assert_eq!(Message::from_bytes_with(&bad), None);
        }
        let mut bad = Message::new(Kind::GetShared, Gfn(1), NodeId(1)).to_bytes_with(Some(ALL));
        assert!(Message::from_bytes_with(&bad).is_some());
        bad[1] |= 0x40;
        assert_eq!(Message::from_bytes_with(&bad), None);
    }

    #[test]
    fn an_end_is_the_message_that_it_stands_for() {
        let done = Message { txn: 7, ..Message::new(Kind::Done, Gfn(3), NodeId(2)) };
        assert_eq!(End::of(&done).message(NodeId(2)), done);
    }
}
