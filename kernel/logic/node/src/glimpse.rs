//! Where pages lie that the machine has read lately.
//!
//! To find out where an instruction ends, the machine walks the guest's page
//! tables: five reads, and each would walk the nested table. What is known
//! here is true until this node loses a right or moves a page, which owes a
//! flush: then all of it is forgotten, as a processor's own translations are.

use addr::{Frame, Gfn};

/// Pages remembered: a walk takes five.
const ROWS: usize = 16;

/// Pages and their frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Glimpses([Option<(Gfn, Frame)>; ROWS]);

impl Glimpses {
    const fn row(gfn: Gfn) -> usize {
        (gfn.0 ^ gfn.0 >> 9) as usize % ROWS
    }

    /// Where a page lies that this node may read, if that is known.
    pub(crate) fn find(&self, gfn: Gfn) -> Option<Frame> {
        match self.0[Glimpses::row(gfn)] {
            Some((page, frame)) if page == gfn => Some(frame),
            _ => None,
        }
    }

    /// Remembers where a readable page lies.
    pub(crate) fn remember(&mut self, gfn: Gfn, frame: Frame) {
        self.0[Glimpses::row(gfn)] = Some((gfn, frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_until_another_takes_its_row() {
        let mut g = Glimpses::default();
        assert_eq!(g.find(Gfn(0)), None);
        g.remember(Gfn(0), Frame(7));
        g.remember(Gfn(5), Frame(8));
        assert_eq!((g.find(Gfn(0)), g.find(Gfn(5))), (Some(Frame(7)), Some(Frame(8))));
        g.remember(Gfn(ROWS as u64), Frame(9));
        assert_eq!((g.find(Gfn(0)), g.find(Gfn(16))), (None, Some(Frame(9))));
    }
}
