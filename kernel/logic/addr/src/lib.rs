//! Addresses, frame numbers and node identities as newtypes.
//!
//! Two address spaces meet in the hypervisor and must never be mixed: the
//! guest's physical addresses ([`GuestPhys`], [`Gfn`]), which are the same on
//! every node, and each node's own host physical addresses ([`HostPhys`],
//! [`Frame`]), which mean nothing on any other node.
#![no_std]
#![forbid(unsafe_code)]

/// Bytes in a page, guest or host.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Pages in a 2 MiB run, the unit of large mappings and of zero grants.
pub const RUN_PAGES: u64 = 512;
/// Most nodes in a cluster (the width of a node field in a directory entry).
pub const MAX_NODES: usize = 4096;

/// A 4 KiB page's content.
pub type PageBytes = [u8; PAGE_SIZE];

/// A page that has come from another node.
#[derive(PartialEq, Eq, Debug)]
pub enum Arrived<'a> {
    /// Its bytes lie in a buffer: who wants them copies them.
    Bytes(&'a PageBytes),
    /// It lies in a page frame of the link's. Who keeps the frame puts one of
    /// its own in its place.
    Landed(&'a mut Frame),
}

macro_rules! address {
    ($(#[$doc:meta])* $address:ident, $(#[$fdoc:meta])* $number:ident, $make:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $address(pub u64);

        impl $address {
            /// The page that holds this address.
            #[must_use]
            pub const fn $make(self) -> $number {
                $number(self.0 >> PAGE_SHIFT)
            }
            /// Offset in its page, in bytes.
            #[must_use]
            pub const fn offset(self) -> usize {
                (self.0 & (PAGE_SIZE as u64 - 1)) as usize
            }
        }

        $(#[$fdoc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $number(pub u64);

        impl $number {
            /// Address of the page's first byte.
            #[must_use]
            pub const fn start(self) -> $address {
                $address(self.0 << PAGE_SHIFT)
            }
            /// First page of the aligned 2 MiB run that holds this page.
            #[must_use]
            pub const fn run_start(self) -> $number {
                $number(self.0 & !(RUN_PAGES - 1))
            }
            /// Index in its aligned 2 MiB run, 0 to 511.
            #[must_use]
            pub const fn run_index(self) -> usize {
                (self.0 & (RUN_PAGES - 1)) as usize
            }
            /// The page `pages` further on.
            #[must_use]
            pub const fn offset_by(self, pages: u64) -> $number {
                $number(self.0 + pages)
            }
        }

        impl core::fmt::LowerHex for $number {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
        impl core::fmt::LowerHex for $address {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A guest physical address in bytes, the same on every node.
    GuestPhys,
    /// A guest frame number: the guest physical address in pages.
    Gfn,
    gfn
);
address!(
    /// A host physical address in bytes, on one node.
    HostPhys,
    /// A host page frame of one node: the host physical address in pages.
    Frame,
    frame
);

/// A node's place in the membership: 0 is the leader, then by rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The leading node.
    pub const LEADER: NodeId = NodeId(0);

    /// As an index into per-node arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl core::fmt::Display for NodeId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// What an access to a page wants to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// A load or an instruction fetch: a read-only copy is enough.
    Read,
    /// A store, an atomic, or a hardware walk that sets flags.
    Write,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_arithmetic() {
        let a = GuestPhys(0x40_3123);
        assert_eq!(a.gfn(), Gfn(0x403));
        assert_eq!(a.offset(), 0x123);
        assert_eq!(Gfn(0x403).run_start(), Gfn(0x400));
        assert_eq!(Gfn(0x403).run_index(), 3);
        assert_eq!(Frame(2).start(), HostPhys(0x2000));
    }
}
