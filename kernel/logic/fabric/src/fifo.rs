//! A queue that never grows beyond what it was made for.

use alloc::collections::VecDeque;

/// A bounded queue; all memory is allocated at once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Fifo<T> {
    items: VecDeque<T>,
    limit: usize,
}

impl<T> Fifo<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Fifo { items: VecDeque::with_capacity(limit), limit }
    }

    /// A queue that takes its memory by [`Fifo::reserve`].
    pub(crate) fn empty(limit: usize) -> Self {
        Fifo { items: VecDeque::new(), limit }
    }

    /// Takes all its memory, if it has not.
    pub(crate) fn reserve(&mut self) {
        if self.items.capacity() < self.limit {
            self.items.reserve_exact(self.limit);
        }
    }

    /// Appends, or says `false` when full.
    #[must_use]
    pub(crate) fn push(&mut self, item: T) -> bool {
        let room = self.items.len() < self.limit;
        if room {
            self.items.push_back(item);
        }
        room
    }

    /// Puts back at the front what was just taken from there.
    pub(crate) fn unpop(&mut self, item: T) {
        assert!(self.items.len() < self.limit);
        self.items.push_front(item);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.items.front()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn free(&self) -> usize {
        self.limit - self.items.len()
    }
}
