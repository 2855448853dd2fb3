//! The cache: one fetch for any number of simultaneous requests, and whole answers kept as long as
//! HTTP and the limits allow.
//!
//! A plain data structure of one thread. It sends nothing, reads no file and no clock: requests
//! and events go in, answers and jobs to cancel come out.
//!
//! - [`Cache::request`] for each request for a link, with its answer: serve, wait, or fetch.
//! - [`Cache::handle_granted`] and the other `handle_*` for what broker and fetcher say.
//! - [`Cache::poll_cancel`] until `None` after each of these, and after each end of a transfer.
//! - [`Cache::handle_timeout`] at [`Cache::deadline`].
//!
//! Transfers hold a [`Reader`], an [`Entry`] or a [`File`], never the cache.
//!
//! **What counts as simultaneous**: all that is asked from the moment the fetch is until the body
//! is whole, also when its lifetime is over by then. `no-store`, `private` and `Vary` are seen
//! with the headers: who waited for an answer that is not for everybody fetches alone.
//!
//! **Credentials** in a link are part of its key, and every client that may ask for the link gets
//! what they open: they make no answer private.

mod books;
mod download;
mod entry;
mod events;
mod policy;
mod store;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use books::{Books, Charge};
use download::Download;
use policy::{Asked, Standing};
use store::{Key, Negatives, Store};

pub use books::File;
pub use download::{Reader, State};
pub use entry::Entry;
pub use terms::{About, Extent, Failure, Head, LinkInfo, MAX_VALIDATOR, Now, Validators};

/// What the cache may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files, those of running downloads and of transfers included.
    pub bytes: u64,
    /// Bytes of one body; a larger one is refused, kept or not.
    pub object: u64,
    /// Entries kept.
    pub entries: usize,
    /// Fetches at a time. Together with `entries` it bounds the descriptors.
    pub downloads: usize,
    /// An entry that is not asked for goes after this time.
    pub idle: Duration,
    /// For how long a stale entry can stand in for an origin that fails; whole seconds count.
    pub stale_if_error: Duration,
}

impl Default for Limits {
    /// 1024 entries, where version 0.4.0 had 50: one client that boots by GRUB asks for up to 40
    /// files, so two systems side by side displaced each other. An entry costs a descriptor and
    /// a few KiB of memory; the disk is bounded by the bytes.
    fn default() -> Self {
        Self {
            bytes: 2 * 1024 * 1024 * 1024,
            object: 1024 * 1024 * 1024,
            entries: 1024,
            downloads: 256,
            idle: Duration::from_secs(3600),
            stale_if_error: Duration::from_secs(3600),
        }
    }
}

/// The cache's answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// A whole answer.
    Serve(Rc<Entry>),
    /// The origin said this HTTP status, 404 or 410, a moment ago.
    Refused(u16),
    /// It is being fetched.
    Join(Reader),
    /// To be fetched by this request's id: tell the broker, which answers by
    /// [`Cache::handle_granted`] or [`Cache::handle_denied`]. If the transfer ends before that,
    /// the id must stay valid until then, for those who have joined.
    Fetch {
        /// What makes the fetch conditional.
        validators: Validators,
        /// For the transfer that asked.
        reader: Reader,
    },
    /// As many fetches are running, or files in use, as the limits allow.
    Busy,
}

/// An entry or a running download, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The URL without credentials.
    pub display: String,
    /// Bytes; of a download so far.
    pub size: u64,
    /// Requests that were answered without the body being fetched for them.
    pub hits: u64,
    /// For how long it is fresh, zero when stale, and how old it is; `None` for a download.
    pub kept: Option<(Duration, Duration)>,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    books: Rc<Books>,
    entries: Store,
    negatives: Negatives,
    /// The downloads that can be joined.
    running: HashMap<Key, Rc<Download>>,
    /// By request: not yet granted.
    asked: BTreeMap<u64, Rc<Download>>,
    /// By job: granted and not yet at an end.
    jobs: BTreeMap<u64, Rc<Download>>,
    cancels: VecDeque<u64>,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            books: Rc::default(),
            entries: Store::default(),
            negatives: Negatives::default(),
            running: HashMap::new(),
            asked: BTreeMap::new(),
            jobs: BTreeMap::new(),
            cancels: VecDeque::new(),
        }
    }

    /// Answers request `id` for `link`. `about` is what the origin is told of the client, if it is.
    pub fn request(
        &mut self,
        id: u64,
        link: &LinkInfo,
        about: Option<&About>,
        now: Instant,
    ) -> Answer {
        let asked = policy::asked(link, about);
        if !link.cache {
            return self.fetch(id, link, asked, None, None);
        }
        let key = (link.key, link.identity);
        if let Some(status) = self.negatives.get(&key, &asked, now) {
            return Answer::Refused(status);
        }
        if let Some(download) = self.running.get(&key) {
            if !download.admits(&asked) {
                return self.fetch(id, link, asked, None, None);
            }
            download.joined.set(download.joined.get().saturating_add(1));
            return Answer::Join(Reader::new(download, Rc::new(asked), false));
        }
        let mut stale = None;
        if let Some(entry) = self.entries.get(&key).map(Rc::clone) {
            let standing = entry.standing(&asked, now);
            let held = || entry.is_held(now) && self.allows_stale(&entry, &asked, now);
            match standing {
                Standing::Stale(validators) if !held() => stale = Some((entry, validators)),
                Standing::Fresh | Standing::Stale(_) => {
                    self.entries.touch(&key, now);
                    entry.count_hits(1);
                    return Answer::Serve(entry);
                }
            }
        }
        self.fetch(id, link, asked, Some(key), stale)
    }

    /// Answers request `id` again, after its reader has said [`State::Alone`]: always a fetch of
    /// its own, or busy.
    pub fn fetch_alone(&mut self, id: u64, link: &LinkInfo, about: Option<&About>) -> Answer {
        self.fetch(id, link, policy::asked(link, about), None, None)
    }

    /// The next job to be cancelled: nobody wants it any more, or its answer is of no use.
    pub fn poll_cancel(&mut self) -> Option<u64> {
        if self.books.left.take() {
            let unwanted = |download: &&Rc<Download>| !download.is_wanted();
            let unwanted: Vec<_> = self.jobs.values().filter(unwanted).map(Rc::clone).collect();
            for download in unwanted {
                self.abandon(&download);
            }
        }
        self.cancels.pop_front()
    }

    /// When [`Cache::handle_timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let idle = self
            .entries
            .oldest_use()
            .and_then(|used| used.checked_add(self.limits.idle));
        idle.into_iter().chain(self.negatives.deadline()).min()
    }

    /// Drops what has not been asked for in a long time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.negatives.expire(now);
        let idle = |used: Instant| now.saturating_duration_since(used) >= self.limits.idle;
        while self.entries.oldest_use().is_some_and(idle) && self.entries.evict() {}
    }

    /// Forgets everything. Running transfers go on; what they read is not kept.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.negatives.clear();
        for (_, download) in self.running.drain() {
            download.keep.set(false);
        }
        self.books.left.set(true);
    }

    /// The entries, the least recently used first, then the downloads.
    #[must_use]
    pub fn list(&self, now: Instant) -> Vec<Listed> {
        let entries = self.entries.iter().map(|entry| Listed {
            display: entry.display().to_owned(),
            size: entry.extent().len,
            hits: entry.hits(),
            kept: Some((entry.fresh_for(now), entry.age(now))),
        });
        let downloads = self.asked.values().chain(self.jobs.values());
        let downloads = downloads.map(|download| Listed {
            display: download.display.clone(),
            size: match download.progress() {
                download::Progress::Body { extent, .. } => extent.len,
                _ => 0,
            },
            hits: download.joined.get(),
            kept: None,
        });
        entries.chain(downloads).collect()
    }

    /// Bytes of all files in use, or reserved for them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.books.bytes()
    }

    /// Descriptors of files in use, or expected.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.books.descriptors()
    }

    /// Starts a fetch; the download exists before anybody is asked.
    fn fetch(
        &mut self,
        id: u64,
        link: &LinkInfo,
        asked: Asked,
        key: Option<Key>,
        stale: Option<(Rc<Entry>, Validators)>,
    ) -> Answer {
        if !self.make_place() {
            return Answer::Busy;
        }
        let asked = Rc::new(asked);
        let (stale, validators) = stale.unzip();
        let validators = validators.unwrap_or_default();
        let download = Rc::new(Download::new(
            link.display.clone(),
            Rc::clone(&asked),
            key,
            stale,
            validators != Validators::default(),
            &self.books,
        ));
        let reader = Reader::new(&download, asked, true);
        if let Some(key) = key {
            self.running.insert(key, Rc::clone(&download));
        }
        self.asked.insert(id, download);
        Answer::Fetch { validators, reader }
    }

    /// Makes room for one more fetch and its descriptor.
    fn make_place(&mut self) -> bool {
        let limit = self.limits.entries.saturating_add(self.limits.downloads);
        while self.asked.len() + self.jobs.len() >= self.limits.downloads {
            if !self.abandon_oldest(None) {
                return false;
            }
        }
        while self.books.descriptors() >= limit {
            if !self.entries.evict_idle() && !self.abandon_oldest(None) {
                return false;
            }
        }
        true
    }

    /// Makes room for a file of `download` to have `bytes`.
    fn make_room(&mut self, download: &Rc<Download>, charge: &Charge, bytes: u64) -> bool {
        let more = bytes.saturating_sub(charge.bytes());
        while self.books.bytes().saturating_add(more) > self.limits.bytes {
            if !self.entries.evict_idle() && !self.abandon_oldest(Some(download)) {
                return false;
            }
        }
        true
    }

    /// Gives up the oldest download that has no reader, but for `except`; false if there is none.
    fn abandon_oldest(&mut self, except: Option<&Rc<Download>>) -> bool {
        let is_free = |download: &&Rc<Download>| {
            download.readers() == 0 && except.is_none_or(|except| !Rc::ptr_eq(except, download))
        };
        let Some(download) = self.jobs.values().find(is_free).map(Rc::clone) else {
            return false;
        };
        self.abandon(&download);
        true
    }

    fn allows_stale(&self, entry: &Entry, asked: &Asked, now: Instant) -> bool {
        entry.allows_stale(asked, self.limits.stale_if_error, now)
    }
}
