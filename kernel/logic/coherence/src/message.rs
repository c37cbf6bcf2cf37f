//! The messages of the protocol and their 32-byte form on the wire.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | [`Kind`] |
//! | 1 | flags: bit 0 exclusive, bit 1 zero, bit 2 the requester has a copy, bit 3 prefetch, bit 4 alone |
//! | 2..4 | `party`: the node this is done for (requester) or sent to (target) |
//! | 4..6 | `count`: pages of a run, or acknowledgements to wait for |
//! | 6..8 | `lead`: pages of a grant before `gfn` |
//! | 8..16 | `gfn` |
//! | 16..20 | `txn`: the home's number of the transaction |
//! | 20..32 | zero |

use addr::{Gfn, NodeId};

/// Length of a message without its page.
pub const MESSAGE_LEN: usize = 32;

/// Virtual channel of a message; one of a later class never waits for one of
/// an earlier class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// To the home: may open a transaction.
    Request,
    /// From the home to owners and sharers.
    Forward,
    /// Ends something; always taken at once.
    Response,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal $class:ident,)*) => {
        /// What a message says.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $value,)* }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The channel it travels on.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Kind::$name => Class::$class,)* }
            }

            const fn from_byte(byte: u8) -> Option<Kind> {
                match byte { $($value => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Requester to home: a read-only copy, please.
    GetShared = 1 Request,
    /// Requester to home: the page with the right to write, please.
    GetExclusive = 2 Request,
    /// Owner to home: take this page off me.
    Put = 3 Request,
    /// Home to owner: send a replica to `party`.
    ForwardShared = 16 Forward,
    /// Home to owner: send the page to `party` and forget it.
    ForwardExclusive = 17 Forward,
    /// Home to sharer: drop the replica, tell `party`.
    Invalidate = 18 Forward,
    /// Home to owner: move the page to `party`.
    PutTo = 19 Forward,
    /// Home to sharer: your replica is the master now.
    Promote = 20 Forward,
    /// Home to requester: a run of zero pages is yours.
    ZeroGrant = 32 Response,
    /// Home to requester: your copy is exclusive after `count` acknowledgements.
    Grant = 33 Response,
    /// Owner to requester: the page.
    Data = 34 Response,
    /// Sharer to requester: the replica is gone.
    InvalidateAck = 35 Response,
    /// Requester to home: installed.
    Done = 36 Response,
    /// Home to former owner: the page is in other hands.
    PutAck = 37 Response,
    /// Home to former owner: it was not yours any more.
    PutStale = 38 Response,
    /// Home to owner: nobody has room, keep it.
    PutKeep = 39 Response,
    /// Owner to target: the page, as master.
    Move = 40 Response,
    /// Target to home: installed.
    MoveDone = 41 Response,
    /// Target to home: no frame.
    MoveRefused = 42 Response,
    /// Sharer to home: I am the master now.
    Promoted = 43 Response,
    /// Sharer to home: I have no replica.
    PromoteRefused = 44 Response,
    /// Home to requester: this page of a run cannot be had at once.
    Skip = 45 Response,
}

/// In which of its parts a node takes a message or another event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Wants a page.
    Requester,
    /// Has a page that another node wants.
    Owner,
    /// Wants to be rid of a page, or takes one in.
    Capacity,
    /// Keeps the directory entry.
    Home,
}

impl Kind {
    /// The part that takes it.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Kind::GetShared
            | Kind::GetExclusive
            | Kind::Put
            | Kind::Done
            | Kind::MoveDone
            | Kind::MoveRefused
            | Kind::Promoted
            | Kind::PromoteRefused => Role::Home,
            Kind::ForwardShared
            | Kind::ForwardExclusive
            | Kind::Invalidate
            | Kind::PutTo
            | Kind::Promote => Role::Owner,
            Kind::ZeroGrant | Kind::Grant | Kind::Data | Kind::InvalidateAck | Kind::Skip => {
                Role::Requester
            }
            Kind::PutAck | Kind::PutStale | Kind::PutKeep | Kind::Move => Role::Capacity,
        }
    }
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// The page it is about.
    pub gfn: Gfn,
    /// The requester it is done for, or the target of a move.
    pub party: NodeId,
    /// Pages of a run or grant; acknowledgements to wait for.
    pub count: u16,
    /// Pages of a grant that lie before `gfn`.
    pub lead: u16,
    /// The home's number of the transaction.
    pub txn: u32,
    /// Data or grant gives the right to write.
    pub exclusive: bool,
    /// The page is all zeroes and not sent along.
    pub zero: bool,
    /// The requester has a copy of its own.
    pub has_copy: bool,
    /// Nobody waits for it.
    pub prefetch: bool,
    /// If the page is dormant, no other is to be granted with it.
    pub alone: bool,
}

impl Message {
    /// A message with every optional field zero.
    #[must_use]
    pub const fn new(kind: Kind, gfn: Gfn, party: NodeId) -> Message {
        Message {
            kind,
            gfn,
            party,
            count: 0,
            lead: 0,
            txn: 0,
            exclusive: false,
            zero: false,
            has_copy: false,
            prefetch: false,
            alone: false,
        }
    }

    /// A request as the home passes it on to the owner, after whom the requester
    /// waits for `acks` others.
    #[inline]
    pub(crate) fn forwarded(self, txn: u32, acks: u16) -> Message {
        let kind = match self.kind {
            Kind::GetExclusive => Kind::ForwardExclusive,
            _ => Kind::ForwardShared,
        };
        Message { kind, txn, count: acks, ..self }
    }

    /// The word to drop a copy, with which the home makes way for a write.
    #[inline]
    pub(crate) fn invalidation(self, txn: u32) -> Message {
        Message { kind: Kind::Invalidate, txn, count: 0, ..self }
    }

    /// The right alone, as the home answers a request with it.
    #[inline]
    pub(crate) fn granted(self, txn: u32, acks: u16) -> Message {
        Message { kind: Kind::Grant, txn, count: acks, exclusive: true, ..self }
    }

    /// Whether a page travels with it.
    #[must_use]
    pub fn carries_page(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Move) && !self.zero
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; MESSAGE_LEN] {
        let mut b = [0; MESSAGE_LEN];
        b[0] = self.kind as u8;
        b[1] = u8::from(self.exclusive)
            | u8::from(self.zero) << 1
            | u8::from(self.has_copy) << 2
            | u8::from(self.prefetch) << 3
            | u8::from(self.alone) << 4;
        b[2..4].copy_from_slice(&self.party.0.to_le_bytes());
        b[4..6].copy_from_slice(&self.count.to_le_bytes());
        b[6..8].copy_from_slice(&self.lead.to_le_bytes());
        b[8..16].copy_from_slice(&self.gfn.0.to_le_bytes());
        b[16..20].copy_from_slice(&self.txn.to_le_bytes());
        b
    }

    /// Reads a message; `None` if it is not one.
    #[inline(always)]
    #[must_use]
    pub fn from_bytes(b: &[u8; MESSAGE_LEN]) -> Option<Message> {
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        if b[1] & !0x1f != 0 || b[20..] != [0; MESSAGE_LEN - 20] {
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = Message::new(Kind::Done, Gfn(1), NodeId(1)).to_bytes();
        for (at, value) in [(0, 0), (0, 99), (1, 0x20), (31, 1)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Message::from_bytes(&bad), None);
        }
    }
}
