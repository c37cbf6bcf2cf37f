//! A frame with one message, written before the message is known.

use crate::{Header, LINK_END, Link, Message, PAGE_OFFSET, header};

/// All of a frame with one message but that.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Draft {
    frame: [u8; PAGE_OFFSET],
    /// What the check comes to over all before the message.
    state: u64,
}

impl Draft {
    /// Writes what is known.
    #[must_use]
    pub fn new(header: &Header, link: &Link) -> Draft {
        let mut frame = [0; PAGE_OFFSET];
        header.emit(&mut frame);
        let start = frame.first_chunk_mut().expect("a frame begins with that");
        link.emit(start, 1);
        Draft { state: header::hash_start(PAGE_OFFSET, start), frame }
    }

    /// The frame without its message.
    #[must_use]
    pub fn frame(&self) -> &[u8; PAGE_OFFSET] {
        &self.frame
    }

    /// Writes the frame, as a [`crate::DataWriter`] with this message alone would;
    /// returns its length.
    #[inline(always)]
    pub fn finish(&self, message: &Message<'_>, frame: &mut [u8; PAGE_OFFSET]) -> usize {
        let start: &mut [u8; LINK_END] = frame.first_chunk_mut().expect("a frame begins with that");
        copy(start, self.frame.first_chunk().expect("a frame begins with that"));
        self.complete(message, frame)
    }

    /// As [`Draft::finish`], where [`Draft::frame`] has been written before.
    #[inline(always)]
    pub fn complete(&self, message: &Message<'_>, frame: &mut [u8; PAGE_OFFSET]) -> usize {
        message.emit(frame.last_chunk_mut().expect("a frame has a message"));
        header::seal_from(self.state, frame);
        PAGE_OFFSET
    }
}

/// Copies in two pieces, each of a length that takes no call.
#[inline(always)]
fn copy(to: &mut [u8; LINK_END], from: &[u8; LINK_END]) {
    const FIRST: usize = 64;
    const REST: usize = LINK_END - FIRST;
    *to.first_chunk_mut::<FIRST>().expect("shorter") = *from.first_chunk().expect("shorter");
    *to.last_chunk_mut::<REST>().expect("shorter") = *from.last_chunk().expect("shorter");
}
