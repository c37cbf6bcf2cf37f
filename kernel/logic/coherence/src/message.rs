//! The messages of the protocol. `body.rs` has their form on the wire.

use addr::{Gfn, NodeId};

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

            pub(crate) const fn from_byte(byte: u8) -> Option<Kind> {
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
}
