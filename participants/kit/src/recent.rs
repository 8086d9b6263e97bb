//! A map with a bound: what was not used for long is forgotten.

use std::{collections::HashMap, hash::Hash};

/// Two generations: when the young one is full it becomes the old one, and the old one is dropped.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Of each generation.
    size_max: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Holds the last `size` entries at least, and twice as many at most.
    pub(crate) fn new(size: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), size_max: size }
    }

    pub(crate) fn take<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.size_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_stay_and_the_number_is_bounded() {
        let mut recent = Recent::new(10);
        for number in 0..100 {
            recent.put(number, number);
            assert_eq!(recent.take(&0), Some(0));
            recent.put(0, 0);
        }
        assert!((90..100).all(|number| recent.take(&number) == Some(number)));
        assert!(recent.young.len() + recent.old.len() <= 20);
        assert_eq!(recent.take(&50), None);
    }
}
