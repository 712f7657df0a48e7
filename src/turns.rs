//! Lets everyone who shares something use at most a part of it, and wait in line for that part.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// A semaphore for each of those who share something. It exists only while it is in use, so those who
/// do not use it cost no memory.
#[derive(Debug)]
pub(crate) struct Turns<K> {
    permits: usize,
    in_use: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Each has this number of permits.
    pub(crate) fn new(permits: usize) -> Self {
        Self {
            permits,
            in_use: Mutex::default(),
        }
    }

    /// The semaphore of `key`. It serves those who wait in the order in which they came.
    pub(crate) fn of(&self, key: &K) -> Arc<Semaphore> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = in_use.get(key).and_then(Weak::upgrade) {
            return semaphore;
        }
        in_use.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(self.permits));
        in_use.insert(key.clone(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_semaphore_while_it_is_in_use() {
        let turns = Turns::new(16);
        let alice = turns.of(&"alice");
        assert_eq!(alice.available_permits(), 16);
        assert!(Arc::ptr_eq(&alice, &turns.of(&"alice")));
        assert!(!Arc::ptr_eq(&alice, &turns.of(&"bob")));
        // Bob is gone, and so is the memory for him.
        turns.of(&"carol");
        assert_eq!(turns.in_use.lock().unwrap().len(), 2);
    }
}
