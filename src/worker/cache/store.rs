//! The entries in the order of their last use, and the negative answers in the order of their end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use super::entry::Entry;
use super::policy::{Asked, Policy};

/// Names an answer: the link's key, and whether the plain form was asked for.
pub(super) type Key = ([u64; 2], bool);

/// The entries.
#[derive(Debug, Default)]
pub(super) struct Store {
    slots: HashMap<Key, Slot>,
    /// By the number of the last use.
    order: BTreeMap<u64, Key>,
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Rc<Entry>,
    used: Instant,
    number: u64,
}

impl Store {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Rc<Entry>> {
        self.slots.get(key).map(|slot| &slot.entry)
    }

    /// Keeps `entry` in place of the one under `key`, as the last used.
    pub(super) fn insert(&mut self, key: Key, entry: Rc<Entry>, now: Instant) {
        self.remove(&key);
        self.slots.insert(
            key,
            Slot {
                entry,
                used: now,
                number: self.uses,
            },
        );
        self.order.insert(self.uses, key);
        self.uses += 1;
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.slots.remove(key) {
            self.order.remove(&slot.number);
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.order.clear();
    }

    /// Makes the entry the last used.
    pub(super) fn touch(&mut self, key: &Key, now: Instant) {
        if let Some(slot) = self.slots.get_mut(key) {
            self.order.remove(&slot.number);
            slot.number = self.uses;
            slot.used = now;
            self.order.insert(self.uses, *key);
            self.uses += 1;
        }
    }

    /// When the entry that was not used for the longest time was used.
    pub(super) fn oldest_use(&self) -> Option<Instant> {
        let (_, key) = self.order.first_key_value()?;
        self.slots.get(key).map(|slot| slot.used)
    }

    /// Removes the least recently used entry; false if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_first() else {
            return false;
        };
        self.slots.remove(&key);
        true
    }

    /// Removes the least recently used entry that nobody reads, so that its file is closed; false
    /// if there is none.
    pub(super) fn evict_idle(&mut self) -> bool {
        let mut keys = self.order.values();
        let idle = keys
            .find(|key| self.get(key).is_some_and(Entry::is_idle))
            .copied();
        idle.inspect(|key| self.remove(key)).is_some()
    }

    /// The entries, the least recently used first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Entry>> {
        self.order.values().filter_map(|key| self.get(key))
    }
}

/// Which answers do not exist, for a short time.
#[derive(Debug, Default)]
pub(super) struct Negatives {
    slots: HashMap<Key, Negative>,
    /// In the order they came; a key can be in it more than once.
    order: VecDeque<(Instant, Key)>,
}

#[derive(Debug)]
struct Negative {
    status: u16,
    until: Instant,
    policy: Policy,
}

impl Negatives {
    /// The status the origin gave, if it is still to be given to `asked`.
    pub(super) fn get(&self, key: &Key, asked: &Asked, now: Instant) -> Option<u16> {
        let negative = self.slots.get(key)?;
        (now < negative.until && negative.policy.answers(asked)).then_some(negative.status)
    }

    /// Keeps `status` until `until`. The oldest one gives way when there are [`MAX_NEGATIVES`].
    pub(super) fn insert(&mut self, key: Key, status: u16, policy: Policy, until: Instant) {
        while self.order.len() >= MAX_NEGATIVES {
            self.pop();
        }
        self.slots.insert(
            key,
            Negative {
                status,
                until,
                policy,
            },
        );
        self.order.push_back((until, key));
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.order.clear();
    }

    /// Forgets what has ended.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|&(until, _)| until <= now) {
            self.pop();
        }
    }

    /// When there is something to forget.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.order.front().map(|&(until, _)| until)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    fn pop(&mut self) {
        let Some((until, key)) = self.order.pop_front() else {
            return;
        };
        if self
            .slots
            .get(&key)
            .is_some_and(|negative| negative.until <= until)
        {
            self.slots.remove(&key);
        }
    }
}

/// The most negative answers kept: a PXELINUX search list has some ten of them per client.
pub(super) const MAX_NEGATIVES: usize = 1024;
