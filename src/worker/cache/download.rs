//! An answer on its way, and the transfers that wait for it.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::sync::watch;

use super::books::{Books, Charge, File};
use super::entry::Entry;
use super::policy::{Asked, Policy};
use super::store::Key;
use super::terms::{Extent, Failure, describe};

/// What a fetch has brought so far, to one reader.
#[derive(Clone, Debug)]
pub enum State {
    /// Nothing yet.
    Waiting,
    /// The answer is not for this reader: see [`super::Cache::fetch_alone`]. Never said to the
    /// reader whose request is fetched.
    Alone,
    /// The body, as it grows. After this only [`State::Failed`] can come.
    Body {
        /// Where it is written.
        file: Rc<File>,
        /// How much of it is there.
        extent: Extent,
        /// Its final length, when known before the end.
        length: Option<u64>,
    },
    /// A whole answer from the cache: confirmed by the origin, or stale because of its failure.
    Entry(Rc<Entry>),
    /// The origin refuses with this HTTP status; its body is not for clients.
    Refused(u16),
    /// There is no answer. If there was a body so far, it is worthless.
    Failed(Failure),
}

/// A fetch as the cache sees it.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) display: String,
    /// The request that is fetched.
    pub(super) asked: Rc<Asked>,
    /// The entry it is for; `None`: its answer is neither shared nor kept.
    pub(super) key: Option<Key>,
    /// The stale entry that the answer confirms or replaces.
    pub(super) stale: Option<Rc<Entry>>,
    /// Whether the origin got validators of `stale`.
    pub(super) conditional: bool,
    /// Whether its end is of use without any reader.
    pub(super) keep: Cell<bool>,
    pub(super) job: Cell<Option<u64>>,
    /// Requests that joined it.
    pub(super) joined: Cell<u64>,
    /// The answer's headers; set before the state says that there are any.
    pub(super) policy: RefCell<Option<Policy>>,
    /// What went wrong with the origin, for the log; set before the state says so.
    pub(super) trouble: RefCell<Option<Rc<str>>>,
    /// Paid from the beginning, so that a descriptor that comes has its place.
    charge: RefCell<Option<Charge>>,
    file: RefCell<Option<Rc<File>>>,
    progress: watch::Sender<Progress>,
    readers: Cell<usize>,
    books: Rc<Books>,
}

/// What has happened, before it is known to whom it is told.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Waiting,
    Body { extent: Extent, length: Option<u64> },
    Entry(Rc<Entry>),
    Refused(u16),
    Failed(Failure),
}

impl Download {
    pub(super) fn new(
        display: String,
        asked: Rc<Asked>,
        key: Option<Key>,
        stale: Option<Rc<Entry>>,
        conditional: bool,
        books: &Rc<Books>,
    ) -> Self {
        Self {
            display,
            asked,
            key,
            stale,
            conditional,
            keep: Cell::new(key.is_some()),
            job: Cell::new(None),
            joined: Cell::new(0),
            policy: RefCell::new(None),
            trouble: RefCell::new(None),
            charge: RefCell::new(Some(Charge::new(books))),
            file: RefCell::new(None),
            progress: watch::Sender::new(Progress::Waiting),
            readers: Cell::new(0),
            books: Rc::clone(books),
        }
    }

    /// Takes the descriptor of the file.
    pub(super) fn grant(&self, job: u64, fd: OwnedFd, in_memory: bool) {
        self.job.set(Some(job));
        if let Some(charge) = self.charge.take() {
            self.file
                .replace(Some(Rc::new(File::new(fd, in_memory, charge))));
        }
    }

    /// Keeps what went wrong, unless it is known better.
    pub(super) fn note_trouble(&self, failure: Failure, detail: &str) {
        let mut trouble = self.trouble.borrow_mut();
        if trouble.is_none() {
            let words = describe(failure);
            let text = if detail.is_empty() {
                words.to_owned()
            } else {
                format!("{words}: {detail}")
            };
            *trouble = Some(text.into());
        }
    }

    pub(super) fn file(&self) -> Option<Rc<File>> {
        self.file.borrow().clone()
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Tells the readers.
    pub(super) fn set(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Gives up the file, for those who do not read it yet.
    pub(super) fn release(&self) {
        self.charge.take();
        self.file.take();
    }

    pub(super) fn readers(&self) -> usize {
        self.readers.get()
    }

    /// Whether there is anything still to come that somebody wants.
    pub(super) fn is_wanted(&self) -> bool {
        let ended = match *self.progress.borrow() {
            Progress::Waiting => false,
            Progress::Body { extent, .. } => extent.complete,
            Progress::Entry(_) | Progress::Refused(_) | Progress::Failed(_) => true,
        };
        !ended && (self.keep.get() || self.readers.get() > 0)
    }

    /// Whether what has come so far answers `asked` as well.
    pub(super) fn admits(&self, asked: &Asked) -> bool {
        let headers_admit = || {
            let policy = self.policy.borrow();
            policy
                .as_ref()
                .is_none_or(|policy| policy.is_shareable() && policy.answers(asked))
        };
        match &*self.progress.borrow() {
            Progress::Entry(entry) => entry.is_for(asked),
            // A server in trouble says so to everybody, often with no-store; what it says is not
            // passed on, and asking it once more for each reader would not help it.
            Progress::Refused(status) if is_trouble(*status) => true,
            // A failure before the headers is everybody's.
            Progress::Waiting | Progress::Body { .. } => headers_admit(),
            Progress::Refused(_) | Progress::Failed(_) => headers_admit(),
        }
    }
}

/// Whether a status says that the origin has trouble, and nothing of what was asked: 5xx, and
/// those that ask to come back later.
pub(super) fn is_trouble(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// A transfer's hold on a fetch. Ask [`Reader::state`], act on it, wait for [`Reader::changed`],
/// and so on. Once the last one is dropped a fetch that is not for the cache is cancelled.
#[derive(Debug)]
pub struct Reader {
    download: Rc<Download>,
    asked: Rc<Asked>,
    leads: bool,
    progress: watch::Receiver<Progress>,
}

impl Reader {
    pub(super) fn new(download: &Rc<Download>, asked: Rc<Asked>, leads: bool) -> Self {
        download.readers.set(download.readers.get() + 1);
        let progress = download.progress.subscribe();
        Self {
            download: Rc::clone(download),
            asked,
            leads,
            progress,
        }
    }

    /// What there is now.
    pub fn state(&mut self) -> State {
        let progress = self.progress.borrow_and_update().clone();
        if !self.leads && !self.download.admits(&self.asked) {
            return State::Alone;
        }
        match progress {
            Progress::Waiting => State::Waiting,
            Progress::Body { extent, length } => match self.download.file() {
                Some(file) => State::Body {
                    file,
                    extent,
                    length,
                },
                None => State::Failed(Failure::Internal),
            },
            Progress::Entry(entry) => State::Entry(entry),
            Progress::Refused(status) => State::Refused(status),
            Progress::Failed(failure) => State::Failed(failure),
        }
    }

    /// What went wrong with the origin, for the log, when the state says that something did: a
    /// failure, or an entry in place of an answer.
    #[must_use]
    pub fn trouble(&self) -> Option<Rc<str>> {
        self.download.trouble.borrow().clone()
    }

    /// Returns once there is more than the last [`Reader::state`] told; never after the end of the
    /// fetch. Nothing is locked or borrowed while it waits. It can be dropped and called again.
    pub async fn changed(&mut self) {
        // The sender is in the download, which this reader holds.
        if self.progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let readers = self.download.readers.get().saturating_sub(1);
        self.download.readers.set(readers);
        if readers == 0 {
            self.download.books.left.set(true);
        }
    }
}
