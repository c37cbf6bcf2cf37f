//! A small map from pages or frames to what is open on them.
//!
//! The path of a remote fault looks into several such maps; a general hash map
//! costs about a hundred instructions a time. Open addressing with linear
//! probing and deletion by backward shift (Knuth, TAOCP volume 3, 6.4,
//! algorithm R): at most half full, so a key is found after a place or two.

use alloc::vec::Vec;

/// A map that grows only beyond what it was made for.
#[derive(Clone, Debug)]
pub(crate) struct Slots<V> {
    /// A power of two, at least twice `len`.
    slots: Vec<Option<(u64, V)>>,
    len: usize,
}

impl<V> Slots<V> {
    /// A map that takes `count` values before it allocates.
    pub(crate) fn with_room_for(count: usize) -> Slots<V> {
        Slots { slots: empty((count * 2).next_power_of_two().max(2)), len: 0 }
    }

    /// Where a key belongs (Fibonacci hashing: the high bits are the good ones).
    #[inline]
    fn home(&self, key: u64) -> usize {
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// Where a key is, or the empty place where it would be.
    #[inline]
    fn find(&self, key: u64) -> usize {
        let mut at = self.home(key);
        while self.slots[at].as_ref().is_some_and(|(k, _)| *k != key) {
            at = self.after(at);
        }
        at
    }

    #[inline]
    pub(crate) fn get(&self, key: &u64) -> Option<&V> {
        self.slots[self.find(*key)].as_ref().map(|(_, v)| v)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: &u64) -> Option<&mut V> {
        let at = self.find(*key);
        self.slots[at].as_mut().map(|(_, v)| v)
    }

    #[inline]
    pub(crate) fn contains_key(&self, key: &u64) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value in; returns the one that had its key before.
    #[inline]
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let at = self.find(key);
        let old = self.slots[at].replace((key, value));
        if old.is_none() {
            self.len += 1;
            if self.len * 2 > self.slots.len() {
                self.grow();
            }
        }
        old.map(|(_, value)| value)
    }

    #[cold]
    fn grow(&mut self) {
        let more = empty(self.slots.len() * 2);
        for (key, value) in core::mem::replace(&mut self.slots, more).into_iter().flatten() {
            let at = self.find(key);
            self.slots[at] = Some((key, value));
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, key: &u64) -> Option<V> {
        let mut gap = self.find(*key);
        let (_, value) = self.slots[gap].take()?;
        self.len -= 1;
        // What stands behind and belongs at or before the gap moves into it.
        let mut at = self.after(gap);
        while let Some((k, _)) = &self.slots[at] {
            let mask = self.slots.len() - 1;
            let from_home = at.wrapping_sub(self.home(*k)) & mask;
            if from_home >= (at.wrapping_sub(gap) & mask) {
                self.slots.swap(gap, at);
                gap = at;
            }
            at = self.after(at);
        }
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everything, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&u64, &V)> {
        self.slots.iter().flatten().map(|(k, v)| (k, v))
    }

    /// All values, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }
}

fn empty<T>(count: usize) -> Vec<Option<T>> {
    core::iter::repeat_with(|| None).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let mut slots = Slots::with_room_for(3);
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for round in 0..if cfg!(miri) { 40 } else { 20_000u64 } {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (key, what) = (random >> 33 & 63, random >> 60);
            if what < 7 {
                slots.insert(key, round);
                model.insert(key, round);
            } else {
                assert_eq!(slots.remove(&key), model.remove(&key));
            }
            assert_eq!((slots.len(), slots.is_empty()), (model.len(), model.is_empty()));
            for key in 0..64 {
                assert_eq!(slots.get(&key), model.get(&key));
                assert_eq!(slots.contains_key(&key), model.contains_key(&key));
            }
        }
        if let (Some(a), Some(b)) = (slots.get_mut(&5), model.get_mut(&5)) {
            (*a, *b) = (1, 1);
        }
        let all: BTreeMap<u64, u64> = slots.iter().map(|(k, v)| (*k, *v)).collect();
        assert_eq!(all, model);
        assert_eq!(slots.values().sum::<u64>(), model.values().sum::<u64>());
    }
}
