//! A leaf entry: what the node holds of one page, and how the hardware sees it.
//!
//! Common to both vendors: bits 12 to 51 are the frame (AMD APM vol. 2, 5.4
//! and 15.25.5; Intel SDM vol. 3, 29.3.2), bits 52 to 62 are ignored by both as
//! they are set up here and keep the coherence state and the page's rank. What differs (permission, large-page, accessed
//! and memory-type bits) is a [`Format`], a value chosen once at boot.

use addr::Frame;

/// What a node holds of a page (`coherence.md`, "States").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum PageState {
    /// Nothing.
    #[default]
    Invalid = 0,
    /// A read-only replica; the master is elsewhere.
    Shared = 1,
    /// The master, read-only because replicas may exist.
    Owned = 2,
    /// The master and only copy, writable.
    Exclusive = 3,
}

impl PageState {
    const fn from_bits(bits: u64) -> PageState {
        match bits & 3 {
            0 => PageState::Invalid,
            1 => PageState::Shared,
            2 => PageState::Owned,
            _ => PageState::Exclusive,
        }
    }

    /// Whether this copy is the master.
    #[must_use]
    pub const fn is_master(self) -> bool {
        matches!(self, PageState::Owned | PageState::Exclusive)
    }
}

/// A decoded leaf entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Entry {
    /// The page's state at this node.
    pub state: PageState,
    /// Where it lies. `None` in a state other than Invalid means a page of
    /// zeroes that has not been given a frame yet.
    pub frame: Option<Frame>,
    /// The page is on its way out: still readable, no longer writable.
    pub leaving: bool,
    /// The hardware has used the entry since the bit was cleared.
    pub accessed: bool,
    /// What the choice of pages to evict keeps with a page held; 0 at first.
    pub rank: u8,
}

impl Entry {
    /// A page that lies in `frame`.
    #[must_use]
    pub const fn held(state: PageState, frame: Frame) -> Entry {
        Entry { state, frame: Some(frame), leaving: false, accessed: false, rank: 0 }
    }

    /// A page of zeroes without a frame.
    #[must_use]
    pub const fn zero(state: PageState) -> Entry {
        Entry { state, frame: None, leaving: false, accessed: false, rank: 0 }
    }

    /// Whether this node has anything of the page.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state != PageState::Invalid
    }

    /// Whether the guest may write through this entry.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.state == PageState::Exclusive && self.frame.is_some() && !self.leaving
    }

    /// Whether the guest may read through this entry.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.state != PageState::Invalid && self.frame.is_some()
    }
}

/// The vendor's bits of a nested page table entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Format {
    /// Set in an entry that points to a table.
    pub table: u64,
    /// Set in a leaf that may be read and executed.
    pub read: u64,
    /// Set besides in a leaf that may be written.
    pub write: u64,
    /// Marks a leaf at the 2 MiB level.
    pub large: u64,
    /// Set by the hardware on use; 0 where it does not.
    pub accessed: u64,
}

impl Format {
    /// AMD nested paging: present, writable, user (nested walks count as user
    /// accesses: APM vol. 2, 15.25.5), accessed, page size.
    pub const NPT: Format =
        Format { table: 0x07, read: 0x05, write: 0x02, large: 0x80, accessed: 0x20 };

    /// Intel EPT with accessed and dirty flags off, so that a walk of the
    /// guest's page tables is a read of them: read, write, execute; in a leaf
    /// the memory type write-back in bits 3 to 5, and in bit 6 that the guest's
    /// PAT changes nothing about it, since it has no device that does not snoop
    /// (SDM vol. 3, 29.3.2, 29.3.7).
    pub const EPT: Format =
        Format { table: 0x07, read: 0x75, write: 0x02, large: 0x80, accessed: 0 };
}

const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;
const STATE_SHIFT: u32 = 52;
const LEAVING: u64 = 1 << 54;
const RANK_SHIFT: u32 = 55;
/// Up to 512, in ten of the eleven bits from [`STATE_SHIFT`] on.
const USED_MASK: u64 = 0x3ff;
/// In a pointer to a table of leaves: see [`Format::mark`].
const MARK: u64 = 1 << 62;
/// Where an entry that is not present keeps its history.
const HISTORY_SHIFT: u32 = 12;

impl Format {
    /// Encodes a leaf. `large` for the 2 MiB level.
    #[inline(always)]
    #[must_use]
    pub fn encode(&self, entry: &Entry, large: bool) -> u64 {
        let mut bits = (entry.state as u64) << STATE_SHIFT | u64::from(entry.rank) << RANK_SHIFT;
        if entry.leaving {
            bits |= LEAVING;
        }
        if let Some(frame) = entry.frame {
            bits |= frame.start().0 & FRAME_MASK;
            if entry.readable() {
                bits |= self.read;
            }
            if entry.writable() {
                bits |= self.write;
            }
        }
        if entry.accessed {
            bits |= self.accessed;
        }
        if large {
            bits |= self.large;
        }
        bits
    }

    /// Decodes a leaf.
    #[inline(always)]
    #[must_use]
    pub fn decode(&self, bits: u64) -> Entry {
        let state = PageState::from_bits(bits >> STATE_SHIFT);
        let present = bits & self.read == self.read;
        Entry {
            state,
            frame: present.then_some(Frame((bits & FRAME_MASK) >> addr::PAGE_SHIFT)),
            leaving: bits & LEAVING != 0,
            accessed: self.accessed != 0 && bits & self.accessed != 0,
            rank: (bits >> RANK_SHIFT) as u8,
        }
    }

    /// Whether a processor may still use a leaf `before` for what the leaf
    /// `after` in its place does not allow, or in another frame.
    #[must_use]
    pub fn takes_away(&self, before: u64, after: u64) -> bool {
        let rights = before & (self.read | self.write) & !after;
        let moved = (before ^ after) & FRAME_MASK;
        before & self.read == self.read && rights | moved != 0
    }

    /// Encodes an entry of a page that is not here, with a word about its past;
    /// it decodes as [`Entry::default`].
    #[must_use]
    pub fn encode_history(history: u32) -> u64 {
        u64::from(history) << HISTORY_SHIFT
    }

    /// The word that [`Format::encode_history`] left; 0 if there is none or the
    /// page is here.
    #[must_use]
    pub fn decode_history(bits: u64) -> u32 {
        let here = bits & !(u64::from(u32::MAX) << HISTORY_SHIFT) != 0;
        if here { 0 } else { (bits >> HISTORY_SHIFT) as u32 }
    }

    /// Whether the hardware sets accessed flags.
    #[must_use]
    pub const fn has_accessed(&self) -> bool {
        self.accessed != 0
    }

    /// Encodes a pointer to a table of which so many entries say something: the
    /// number stands in the bits that are the state in a leaf.
    #[must_use]
    pub fn encode_table(&self, table: Frame, used: u64) -> u64 {
        used << STATE_SHIFT | (table.start().0 & FRAME_MASK) | self.table
    }

    /// A pointer to a table of which more entries say something, or fewer. What
    /// the hardware has set in it stays.
    #[must_use]
    pub const fn count(bits: u64, change: i64) -> u64 {
        bits.wrapping_add_signed(change << STATE_SHIFT)
    }

    /// How many entries say something of the table that an entry points to.
    #[must_use]
    pub const fn used(bits: u64) -> u64 {
        bits >> STATE_SHIFT & USED_MASK
    }

    /// A pointer to a table with a mark: what it means is up to who sets it.
    #[must_use]
    pub const fn mark(bits: u64) -> u64 {
        bits | MARK
    }

    /// The same without one.
    #[must_use]
    pub const fn unmark(bits: u64) -> u64 {
        bits & !MARK
    }

    /// Whether a pointer to a table has a mark.
    #[must_use]
    pub const fn is_marked(bits: u64) -> bool {
        bits & MARK != 0
    }

    /// The table that an upper-level entry points to; `None` if it is empty
    /// or a large leaf.
    #[must_use]
    pub fn decode_table(&self, bits: u64) -> Option<Frame> {
        (bits & (self.large | self.table) == self.table)
            .then_some(Frame((bits & FRAME_MASK) >> addr::PAGE_SHIFT))
    }

    /// Whether an entry of the 2 MiB level is a large leaf.
    #[must_use]
    pub const fn is_large(&self, bits: u64) -> bool {
        bits & self.large != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_takes_away_rights_or_its_frame() {
        let exclusive = Entry::held(PageState::Exclusive, Frame(7));
        let shared = Entry::held(PageState::Shared, Frame(7));
        let leaving = Entry { leaving: true, ..exclusive };
        let (zero, nothing) = (Entry::zero(PageState::Exclusive), Entry::default());
        let all = [exclusive, shared, leaving, zero, nothing];
        for format in [Format::NPT, Format::EPT] {
            let takes = |a: &Entry, b: &Entry| {
                format.takes_away(format.encode(a, false), format.encode(b, false))
            };
            for before in &all {
                for after in &all {
                    let less = before.readable() && !after.readable()
                        || before.writable() && !after.writable();
                    assert_eq!(takes(before, after), less, "{before:?} {after:?}");
                }
                let elsewhere = Entry { frame: Some(Frame(8)), ..*before };
                let moves = before.readable() && elsewhere.readable();
                assert_eq!(takes(before, &elsewhere), moves, "{before:?}");
            }
            let past = Format::encode_history(u32::MAX);
            assert!(!format.takes_away(past, format.encode(&exclusive, false)));
            assert!(format.takes_away(format.encode(&shared, false), past));
        }
    }

    #[test]
    fn entries_round_trip_in_both_formats() {
        for format in [Format::NPT, Format::EPT] {
            for state in [PageState::Shared, PageState::Owned, PageState::Exclusive] {
                for leaving in [false, true] {
                    let rank = if leaving { 0xff } else { 0x81 };
                    let e = Entry { leaving, rank, ..Entry::held(state, Frame(0x1234)) };
                    assert_eq!(format.decode(format.encode(&e, false)), e);
                    assert_eq!(format.decode(format.encode(&e, true)), e);
                    assert_eq!(format.decode_table(format.encode(&e, true)), None);
                }
                assert_eq!(state.is_master(), state != PageState::Shared);
                let z = Entry::zero(state);
                assert_eq!((z.state, z.frame), (state, None));
                assert_eq!(format.decode(format.encode(&z, false)), z);
                assert_eq!(format.decode(format.encode(&z, true)), z);
            }
            assert_eq!(format.decode(0), Entry::default());
            assert!(!PageState::Invalid.is_master());
            // Where the hardware sets no accessed flag, none is made up.
            let used = Entry { accessed: true, ..Entry::held(PageState::Owned, Frame(5)) };
            let bits = format.encode(&used, false);
            assert_eq!(format.decode(bits), Entry { accessed: format.has_accessed(), ..used });
            assert!(!format.decode(bits & !format.accessed).accessed);
            let past = Format::encode_history(u32::MAX);
            assert_eq!(format.decode(past), Entry::default());
            assert_eq!(Format::decode_history(past), u32::MAX);
            let here = Entry::held(PageState::Shared, Frame(9));
            assert_eq!(Format::decode_history(format.encode(&here, false)), 0);
            assert_eq!(format.decode_table(0), None);
            for used in [0, 1, 512] {
                let t = format.encode_table(Frame(7), used);
                assert_eq!((format.decode_table(t), Format::used(t)), (Some(Frame(7)), used));
                assert_eq!(Format::count(t, 1), format.encode_table(Frame(7), used + 1));
                assert_eq!(Format::count(Format::count(t | 0x20, 1), -1), t | 0x20);
                let m = Format::mark(t);
                assert_eq!((format.decode_table(m), Format::used(m)), (Some(Frame(7)), used));
                assert!(Format::is_marked(m) && !Format::is_marked(t));
                assert_eq!(Format::unmark(m), t);
            }
        }
        assert!(Format::NPT.has_accessed() && !Format::EPT.has_accessed());
    }

    #[test]
    fn ept_entries_are_never_misconfigured() {
        // SDM vol. 3, 29.3.3.1: writable and not readable, a memory type that
        // does not exist, bits 3 to 7 set in a pointer to a table.
        let f = Format::EPT;
        for state in [PageState::Shared, PageState::Owned, PageState::Exclusive] {
            for leaving in [false, true] {
                let e = Entry { leaving, rank: 0xff, ..Entry::held(state, Frame(0x1234)) };
                assert_eq!(f.encode(&e, false) & 0xffd, 0x075);
                assert_eq!(f.encode(&e, true) & 0xffd, 0x0f5);
                assert_eq!(f.encode(&Entry::zero(state), true) & 7, 0, "not present");
            }
        }
        assert_eq!(f.encode_table(Frame(7), 0), 0x7007);
        assert_eq!(Format::mark(f.encode_table(Frame(7), 512)) >> 62, 1, "bit 63 stays clear");
    }

    #[test]
    fn only_an_exclusive_page_that_stays_is_writable() {
        let bits = |e: Entry| Format::NPT.encode(&e, false) & Format::NPT.write != 0;
        assert!(bits(Entry::held(PageState::Exclusive, Frame(1))));
        assert!(!bits(Entry { leaving: true, ..Entry::held(PageState::Exclusive, Frame(1)) }));
        assert!(!bits(Entry::held(PageState::Owned, Frame(1))));
        assert!(!bits(Entry::held(PageState::Shared, Frame(1))));
        assert_eq!(Format::NPT.encode(&Entry::zero(PageState::Exclusive), false) & 1, 0);
    }
}
