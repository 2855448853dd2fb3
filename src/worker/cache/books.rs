//! The books: what the files of the cache cost, counted until the last reader is gone.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

/// A body, whole or growing. The file is closed, and its bytes and its descriptor leave the books,
/// when neither the cache nor a transfer holds it.
#[derive(Debug)]
pub struct File {
    fd: Arc<OwnedFd>,
    in_memory: bool,
    charge: Charge,
}

impl File {
    pub(super) fn new(fd: OwnedFd, in_memory: bool, charge: Charge) -> Self {
        Self {
            fd: Arc::new(fd),
            in_memory,
            charge,
        }
    }

    /// The descriptor; every reader has an offset of its own. It can be sent to a thread that
    /// does a slow read.
    #[must_use]
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Whether reads never wait for a disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    pub(super) fn charge(&self) -> &Charge {
        &self.charge
    }
}

/// What is in use: the cache's entries, running downloads, and files that only transfers hold.
#[derive(Debug, Default)]
pub(super) struct Books {
    bytes: Cell<u64>,
    descriptors: Cell<usize>,
    /// Set when the last reader of a download has left.
    pub(super) left: Cell<bool>,
}

impl Books {
    /// Bytes of all files; of a growing one what is reserved for it, if that is more.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Descriptors held or expected.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors.get()
    }
}

/// The costs of one file: one descriptor from the moment a fetch is asked, and its bytes.
#[derive(Debug)]
pub(super) struct Charge {
    books: Rc<Books>,
    bytes: Cell<u64>,
}

impl Charge {
    pub(super) fn new(books: &Rc<Books>) -> Self {
        books
            .descriptors
            .set(books.descriptors.get().saturating_add(1));
        Self {
            books: Rc::clone(books),
            bytes: Cell::new(0),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Sets the bytes of this file.
    pub(super) fn set(&self, bytes: u64) {
        let others = self
            .books
            .bytes
            .get()
            .saturating_sub(self.bytes.replace(bytes));
        self.books.bytes.set(others.saturating_add(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
        self.books
            .descriptors
            .set(self.books.descriptors.get().saturating_sub(1));
    }
}
