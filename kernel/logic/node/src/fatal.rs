//! What keeps a node from going on, or from beginning.

use addr::NodeId;
use coherence::Violation;
use core::fmt;
use fabric::SendError;

/// Why a node cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fatal {
    /// The protocol does not allow what came.
    Violation(Violation),
    /// A message that is no message.
    Unreadable(NodeId),
    /// The fabric refused a message that fits by design.
    Send(NodeId, SendError),
    /// What has left is not what was sent then.
    Unforeseen,
}

impl fmt::Display for Fatal {
    /// A sentence that ends a longer one, and what a report of a bug needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Violation(Violation { from, message, why }) => {
                write!(f, "{from} sent what the protocol does not allow here, {why}: {message:?}")
            }
            Fatal::Unreadable(from) => write!(f, "{from} sent a message that cannot be read"),
            Fatal::Send(to, error) => {
                write!(
                    f,
                    "a message to {to} cannot be sent, for which there is always room: {error:?}"
                )
            }
            Fatal::Unforeseen => {
                f.write_str("this node sent a message early and then came to another one")
            }
        }
    }
}

/// A node whose memory is too small to add any to the guest's, so that there
/// is no cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSmall {
    /// The node.
    pub node: NodeId,
    /// Its frames.
    pub frames: u64,
    /// Of these, frames that its tables may need.
    pub tables: u64,
    /// It is large enough, were it not for the tables of a node that runs the
    /// guest in so large a cluster: 8 bytes for 2 MiB of it, whatever it holds.
    pub would_lend: bool,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |frames: u64| (frames << addr::PAGE_SHIFT).div_ceil(1 << 20);
        let TooSmall { node, frames, tables, would_lend } = *self;
        if !would_lend {
            return write!(f, "{node} has too little memory to add any to the guest's");
        }
        write!(
            f,
            "{node} leads and has {} MiB, but for so large a guest its tables may need {} MiB; \
             start fewer nodes, or let one lead that has more memory",
            mib(frames),
            mib(tables)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr::Gfn;
    use alloc::string::ToString;
    use coherence::{Kind, Message};

    #[test]
    fn each_is_said_in_words() {
        let message = Message::new(Kind::Done, Gfn(7), NodeId(2));
        let violation = Violation { from: NodeId(1), message, why: "no such page" };
        let words = [
            (
                Fatal::Violation(violation),
                "node 1 sent what the protocol does not allow here, no such page: Message { kind: Done, gfn: Gfn(7)",
            ),
            (Fatal::Unreadable(NodeId(3)), "node 3 sent a message that cannot be read"),
            (Fatal::Send(NodeId(3), SendError::Full), "a message to node 3 cannot be sent"),
            (Fatal::Unforeseen, "this node sent a message early"),
        ];
        for (fatal, start) in words {
            assert!(fatal.to_string().starts_with(start), "{fatal}");
        }
    }
}
