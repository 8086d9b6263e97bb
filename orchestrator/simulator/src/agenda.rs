//! What will happen, in order of virtual time; what is due at the same time happens in the order it was put down.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use skald_core::time::Timestamp;

#[derive(Debug)]
pub struct Agenda<H> {
    entries: BinaryHeap<Reverse<Entry<H>>>,
    count: u64,
}

#[derive(Debug)]
struct Entry<H> {
    at: Timestamp,
    number: u64,
    happening: H,
}

impl<H> Default for Agenda<H> {
    fn default() -> Self {
        Self { entries: BinaryHeap::new(), count: 0 }
    }
}

impl<H> Agenda<H> {
    pub fn put(&mut self, at: Timestamp, happening: H) {
        self.count += 1;
        self.entries.push(Reverse(Entry { at, number: self.count, happening }));
    }

    pub fn pop(&mut self) -> Option<(Timestamp, H)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.happening))
    }
}

impl<H> Ord for Entry<H> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<H> PartialOrd for Entry<H> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<H> PartialEq for Entry<H> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<H> Eq for Entry<H> {}
