//! A queue that grows a chunk at a time.
//!
//! A ring that doubles copies everything in it and touches twice its memory for the first time, in one turn;
//! and mailboxes that fill at the same rate all double at about the same moment. This queue never moves what
//! it holds to grow: a push costs at most one chunk. Taking from the front hands the chunk to the back, so
//! that a queue of about the same length allocates nothing.
//!
//! Reached by position in constant time. Inserting and removing in the middle move what is on the shorter
//! side: that is for rare cases.

use std::collections::VecDeque;

/// Items per chunk. A queue that never holds more is one vector, no larger than it needs.
const CHUNK: usize = 128;
/// Emptied chunks kept: a queue whose length swings by less than this many does not allocate.
const SPARES: usize = 2;

/// A queue of small values.
///
/// Invariants: every chunk but the last is full; the first item is at `head` of the first chunk; items before
/// it are leftovers.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: VecDeque<Vec<T>>,
    head: usize,
    len: usize,
    /// Chunks that were emptied, for the next ones that are needed; at most [`SPARES`].
    spares: Vec<Vec<T>>,
}

impl<T: Copy> Chunks<T> {
    /// Empty; allocates nothing.
    pub const fn new() -> Self {
        Self { chunks: VecDeque::new(), head: 0, len: 0, spares: Vec::new() }
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item at a position, counted from the front.
    pub fn get(&self, at: usize) -> Option<&T> {
        let place = self.head + at;
        (at < self.len).then(|| &self.chunks[place / CHUNK][place % CHUNK])
    }

    /// The item at a position, counted from the front.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let place = self.head + at;
        (at < self.len).then(|| &mut self.chunks[place / CHUNK][place % CHUNK])
    }

    /// The first.
    pub fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// The last.
    pub fn back(&self) -> Option<&T> {
        self.get(self.len.checked_sub(1)?)
    }

    /// All from position `start` on.
    pub fn iter_from(&self, start: usize) -> impl Iterator<Item = &T> {
        let place = self.head + start.min(self.len);
        let first = (place / CHUNK).min(self.chunks.len());
        self.chunks.range(first..).flatten().skip(place - first * CHUNK)
    }

    /// All, from the front.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.iter_from(0)
    }

    /// How many at the front satisfy `is_before`, of a queue in which those that do come first.
    pub fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&is_before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Adds an item at the end.
    pub fn push_back(&mut self, item: T) {
        if self.chunks.back().is_none_or(|last| last.len() == CHUNK) {
            let first = self.chunks.is_empty();
            let make = || if first { Vec::new() } else { Vec::with_capacity(CHUNK) };
            self.chunks.push_back(self.spares.pop().unwrap_or_else(make));
        }
        if let Some(last) = self.chunks.back_mut() {
            last.push(item);
            self.len += 1;
        }
    }

    /// Takes the first.
    pub fn pop_front(&mut self) -> Option<T> {
        let item = *self.front()?;
        self.head += 1;
        self.len -= 1;
        if self.len == 0 {
            // Its one chunk; what is in there are leftovers.
            self.chunks.iter_mut().for_each(Vec::clear);
            self.head = 0;
        } else if self.head == CHUNK {
            let emptied = self.chunks.pop_front();
            self.spare(emptied);
            self.head = 0;
        }
        Some(item)
    }

    fn pop_back(&mut self) {
        self.len -= 1;
        if let Some(last) = self.chunks.back_mut() {
            last.pop();
        }
        if self.chunks.len() > 1 && self.chunks.back().is_some_and(Vec::is_empty) {
            let emptied = self.chunks.pop_back();
            self.spare(emptied);
        }
    }

    fn spare(&mut self, emptied: Option<Vec<T>>) {
        if let Some(mut chunk) = emptied.filter(|_| self.spares.len() < SPARES) {
            chunk.clear();
            self.spares.push(chunk);
        }
    }

    fn push_front(&mut self, item: T) {
        if self.chunks.is_empty() {
            return self.push_back(item);
        }
        if self.head == 0 {
            self.chunks.push_front(vec![item; CHUNK]);
            self.head = CHUNK;
        }
        self.head -= 1;
        self.chunks[0][self.head] = item;
        self.len += 1;
    }

    /// Puts `item` at position `at`, which is at most the length.
    pub fn insert(&mut self, at: usize, item: T) {
        let mut moved = item;
        if at < self.len / 2 {
            for at in (0..at).rev() {
                std::mem::swap(self.at_mut(at), &mut moved);
            }
            self.push_front(moved);
        } else {
            for at in at..self.len {
                std::mem::swap(self.at_mut(at), &mut moved);
            }
            self.push_back(moved);
        }
    }

    /// Takes the item at position `at` out.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let mut moved = *self.get(at)?;
        if at < self.len / 2 {
            for at in 0..=at {
                std::mem::swap(self.at_mut(at), &mut moved);
            }
            self.pop_front();
        } else {
            for at in (at..self.len).rev() {
                std::mem::swap(self.at_mut(at), &mut moved);
            }
            self.pop_back();
        }
        Some(moved)
    }

    /// Keeps those that `keep` wants, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            let item = *self.at_mut(at);
            if keep(&item) {
                *self.at_mut(kept) = item;
                kept += 1;
            }
        }
        (kept..self.len).for_each(|_| self.pop_back());
    }

    /// Gives back the memory of a queue that is empty.
    pub fn trim(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        }
    }

    fn at_mut(&mut self, at: usize) -> &mut T {
        let place = self.head + at;
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }
}

impl<T: Copy> FromIterator<T> for Chunks<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut queue = Self::new();
        items.into_iter().for_each(|item| queue.push_back(item));
        queue
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        PushBack(u16),
        PopFront(u16),
        Insert(u32),
        Remove(u32),
        RetainNot(u32),
        Trim,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..400u16).prop_map(Step::PushBack),
            (1..400u16).prop_map(Step::PopFront),
            any::<u32>().prop_map(Step::Insert),
            any::<u32>().prop_map(Step::Remove),
            (2..9u32).prop_map(Step::RetainNot),
            Just(Step::Trim),
        ]
    }

    fn assert_same(queue: &Chunks<u32>, model: &VecDeque<u32>) {
        assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
        assert!(queue.iter().eq(model));
        assert_eq!((queue.front(), queue.back()), (model.front(), model.back()));
        for start in [0, 1, CHUNK - 1, CHUNK, model.len() / 2, model.len(), model.len() + 1] {
            assert_eq!(queue.get(start), model.get(start));
            assert!(queue.iter_from(start).eq(model.iter().skip(start)));
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_ring_would_hold_after_any_steps(steps in prop::collection::vec(step(), 0..40)) {
            let (mut queue, mut model, mut next) = (Chunks::new(), VecDeque::new(), 0);
            for step in steps {
                match step {
                    Step::PushBack(count) => for _ in 0..count {
                        next += 1;
                        queue.push_back(next);
                        model.push_back(next);
                    },
                    Step::PopFront(count) => for _ in 0..count {
                        assert_eq!(queue.pop_front(), model.pop_front());
                    },
                    Step::Insert(at) => {
                        next += 1;
                        let at = at as usize % (model.len() + 1);
                        queue.insert(at, next);
                        model.insert(at, next);
                    }
                    Step::Remove(at) => {
                        let at = at as usize % (model.len() + 1);
                        assert_eq!(queue.remove(at), model.remove(at));
                    }
                    Step::RetainNot(divisor) => {
                        queue.retain(|item| item % divisor != 0);
                        model.retain(|item| item % divisor != 0);
                    }
                    Step::Trim => queue.trim(),
                }
                assert_same(&queue, &model);
            }
        }
    }

    #[test]
    fn the_partition_point_is_found_across_chunks() {
        let mut queue: Chunks<u32> = (0..1_000).collect();
        (0..300).for_each(|_| assert!(queue.pop_front().is_some()));
        for bound in 0..1_100 {
            let expected = bound.clamp(300, 1_000) - 300;
            assert_eq!(queue.partition_point(|item| *item < bound), expected as usize);
        }
    }

    #[test]
    fn a_queue_of_steady_length_reuses_its_chunks() {
        let mut queue: Chunks<u32> = (0..3 * CHUNK as u32).collect();
        let memory = |queue: &Chunks<u32>| queue.chunks.iter().map(Vec::capacity).sum::<usize>();
        for item in 0..10 * CHUNK as u32 {
            assert!(queue.pop_front().is_some());
            queue.push_back(item);
            assert!(memory(&queue) <= 4 * CHUNK, "{}", memory(&queue));
        }
    }
}
