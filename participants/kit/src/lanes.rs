//! Work by stream: one task at a time per stream, in order; different streams at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// What waits, by stream. A stream that is being worked on has a lane, maybe an empty one.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: HashMap<Arc<str>, VecDeque<T>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new() }
    }
}

impl<T> Lanes<T> {
    /// Queues an item. True: nobody works on the stream, so a task must be started with [`Lanes::take`].
    pub(crate) fn push(&mut self, stream: &str, item: T) -> bool {
        if let Some(lane) = self.lanes.get_mut(stream) {
            lane.push_back(item);
            return false;
        }
        self.lanes.insert(stream.into(), VecDeque::from([item]));
        true
    }

    /// What waits on a stream, for the task that works on it; nothing ends its turn.
    pub(crate) fn take(&mut self, stream: &str) -> Vec<T> {
        let Some(lane) = self.lanes.get_mut(stream) else { return Vec::new() };
        if lane.is_empty() {
            self.lanes.remove(stream);
            return Vec::new();
        }
        std::mem::take(lane).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_one_task_and_keeps_its_order() {
        let mut lanes = Lanes::default();
        assert!(lanes.push("a", 1));
        assert!(!lanes.push("a", 2));
        assert!(lanes.push("b", 9));
        assert_eq!(lanes.take("a"), [1, 2]);
        assert!(!lanes.push("a", 3), "the task that took 1 and 2 is at it");
        assert_eq!(lanes.take("a"), [3]);
        assert!(lanes.take("a").is_empty());
        assert!(lanes.push("a", 4), "the turn was over");
        assert_eq!(lanes.lanes.len(), 2);
    }
}
