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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_it_was_made_for_and_no_more() {
        let mut fifo = Fifo::new(2);
        assert_eq!((fifo.push(1), fifo.free()), (true, 1));
        assert_eq!((fifo.push(2), fifo.free()), (true, 0));
        assert_eq!((fifo.push(3), fifo.len()), (false, 2));
        assert_eq!((fifo.pop(), fifo.pop(), fifo.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn takes_its_memory_at_once_and_once() {
        let mut fifo = Fifo::empty(8);
        assert_eq!(fifo.items.capacity(), 0);
        fifo.reserve();
        let taken = fifo.items.capacity();
        assert!(taken >= 8);
        while fifo.push(0) {
            fifo.reserve();
            assert_eq!(fifo.items.capacity(), taken);
        }
    }
}
