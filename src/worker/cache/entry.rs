//! A whole answer that is kept.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::books::File;
use super::policy::{Asked, Policy, Standing};
use super::terms::{Extent, Now, Validators};

/// A whole answer. It can be read as long as somebody holds it, also after it left the cache.
#[derive(Debug)]
pub struct Entry {
    display: String,
    file: Rc<File>,
    policy: RefCell<Policy>,
    hits: Cell<u64>,
    held: Cell<Option<Instant>>,
    useless_validators: Cell<bool>,
}

impl Entry {
    pub(super) fn new(display: String, file: Rc<File>, policy: Policy, hits: u64) -> Self {
        Self {
            display,
            file,
            policy: RefCell::new(policy),
            hits: Cell::new(hits),
            held: Cell::new(None),
            useless_validators: Cell::new(false),
        }
    }

    /// The body.
    #[must_use]
    pub fn file(&self) -> &Rc<File> {
        &self.file
    }

    /// All of the body.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            len: self.file.charge().bytes(),
            complete: true,
        }
    }

    /// The URL without credentials.
    #[must_use]
    pub fn display(&self) -> &str {
        &self.display
    }

    /// What it is to `asked`.
    pub(super) fn standing(&self, asked: &Asked, now: Instant) -> Standing {
        match self.policy.borrow().standing(asked, now) {
            Standing::Stale(_) if self.useless_validators.get() => {
                Standing::Stale(Validators::default())
            }
            standing => standing,
        }
    }

    /// Whether it may answer `asked` though the origin should be asked and can not be.
    pub(super) fn allows_stale(&self, asked: &Asked, window: Duration, now: Instant) -> bool {
        self.policy.borrow().allows_stale(asked, window, now)
    }

    /// Whether it may answer `asked` when it was confirmed, or is stale, for another request.
    pub(super) fn is_for(&self, asked: &Asked) -> bool {
        let policy = self.policy.borrow();
        policy.is_shareable() && policy.answers(asked)
    }

    pub(super) fn is_shareable(&self) -> bool {
        self.policy.borrow().is_shareable()
    }

    /// Takes over what a 304 says. False when it speaks of another answer: then the origin is
    /// asked without validators next time, or it would say the same again.
    pub(super) fn confirm(&self, asked: &Asked, headers: &[(String, Vec<u8>)], now: Now) -> bool {
        let confirmed = self.policy.borrow().confirmed(asked, headers, now);
        self.useless_validators.set(confirmed.is_none());
        self.held.set(None);
        match confirmed {
            Some(policy) => {
                self.policy.replace(policy);
                true
            }
            None => false,
        }
    }

    /// The origin is not asked again until `until`.
    pub(super) fn hold(&self, until: Instant) {
        self.held.set(Some(until));
    }

    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held.get().is_some_and(|until| now < until)
    }

    pub(super) fn count_hits(&self, more: u64) {
        self.hits.set(self.hits.get().saturating_add(more));
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.get()
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        self.policy.borrow().age(now)
    }

    /// Whether it is served for its own sake; a stale one only stands in for an origin that fails.
    #[must_use]
    pub fn is_fresh(&self, now: Instant) -> bool {
        !self.fresh_for(now).is_zero()
    }

    pub(super) fn fresh_for(&self, now: Instant) -> Duration {
        self.policy.borrow().fresh_for(now)
    }

    /// Whether nobody but the cache holds it or its file.
    pub(super) fn is_idle(entry: &Rc<Self>) -> bool {
        Rc::strong_count(entry) == 1 && Rc::strong_count(&entry.file) == 1
    }
}
