//! The cache in its surroundings: what the broker says of fetches goes in, what the cache wants of
//! the broker goes out.
//!
//! The cache is borrowed for the length of one call and never while anything waits.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use r_tftpd_broker::fetch::MAX_ABOUT;
use r_tftpd_broker::settings::CacheStart;
use r_tftpd_broker::wire::{ToBroker, ToWorker};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tracing::info;

use super::cache::{About, Answer, Cache, Limits, LinkInfo, Listed, Now};
use super::link::{Error, Link};
use super::record::escape;
use super::ticket::Ticket;
use crate::tftp::packet::Mode;

/// The cache of a thread, and the fetches that it waits for.
#[derive(Debug)]
pub(crate) struct Proxy {
    cache: RefCell<Cache>,
    /// Requests for which the broker has yet to grant a fetch or not; of those that have ended
    /// meanwhile, how. Their ids live until the broker has answered, as others may have joined
    /// them.
    asked: RefCell<BTreeMap<u64, Option<Ended>>>,
    /// Origins are told of clients.
    about: bool,
    /// When the cache's timer goes off.
    armed: Cell<Option<Instant>>,
    rearm: Notify,
}

/// What the broker is told of a request that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Its peer had answered.
    pub(crate) proven: bool,
    /// Its reply socket is kept.
    pub(crate) kept: bool,
}

impl Ended {
    fn done(self, id: u64) -> ToBroker {
        let Self { proven, kept } = self;
        ToBroker::Done { id, proven, kept }
    }
}

impl Proxy {
    /// An empty cache.
    pub(crate) fn new(settings: &CacheStart) -> Self {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = Limits {
            bytes: settings.bytes,
            object: settings.object,
            entries: count(settings.entries),
            downloads: count(settings.fetches),
            stale_if_error: Duration::from_millis(settings.stale_if_error_ms),
            ..Limits::default()
        };
        Self {
            cache: RefCell::new(Cache::new(limits)),
            asked: RefCell::default(),
            about: settings.about,
            armed: Cell::default(),
            rearm: Notify::new(),
        }
    }

    /// What the cache has for a request for `link`; it is fetched where nothing is there.
    pub(crate) fn request(&self, broker: &Link, ticket: &Ticket, link: &LinkInfo) -> Answer {
        let about = self.about(ticket);
        let mut cache = self.cache.borrow_mut();
        let answer = cache.request(ticket.id, link, about.as_ref(), Instant::now());
        drop(cache);
        self.ask(broker, ticket, &answer);
        answer
    }

    /// The same for a request that has joined one whose answer is not for it.
    pub(crate) fn fetch_alone(&self, broker: &Link, ticket: &Ticket, link: &LinkInfo) -> Answer {
        let about = self.about(ticket);
        let mut cache = self.cache.borrow_mut();
        let answer = cache.fetch_alone(ticket.id, link, about.as_ref());
        drop(cache);
        self.ask(broker, ticket, &answer);
        answer
    }

    fn about(&self, ticket: &Ticket) -> Option<About> {
        let request = ticket.request.as_ref().filter(|_| self.about)?;
        let file = request.name.get(..MAX_ABOUT).unwrap_or(&request.name);
        Some(About {
            client: ticket.peer.ip,
            file: file.to_vec(),
            mode: match request.mode {
                Mode::Octet => "octet",
                Mode::Netascii => "netascii",
            }
            .to_owned(),
        })
    }

    fn ask(&self, broker: &Link, ticket: &Ticket, answer: &Answer) {
        if let Answer::Fetch { validators, .. } = answer {
            self.asked.borrow_mut().insert(ticket.id, None);
            broker.send(&ToBroker::Fetch {
                id: ticket.id,
                validators: validators.clone(),
                netascii: ticket.is_netascii(),
            });
        }
        self.settle(broker);
    }

    /// A fetch was granted. `file` is where its body goes.
    ///
    /// # Errors
    /// [`Error::Violation`] if it was not asked.
    pub(crate) fn handle_granted(
        &self,
        broker: &Link,
        id: u64,
        job: u64,
        file: OwnedFd,
        in_memory: bool,
    ) -> Result<(), Error> {
        self.handle_answered(broker, id)?;
        let mut cache = self.cache.borrow_mut();
        cache.handle_granted(id, job, file, in_memory);
        drop(cache);
        self.settle(broker);
        Ok(())
    }

    /// Any other message about a fetch.
    ///
    /// # Errors
    /// [`Error::Violation`] for a fetch that was not asked, and for a message about anything else.
    pub(crate) fn handle(&self, broker: &Link, message: ToWorker) -> Result<(), Error> {
        let now = Now {
            clock: Instant::now(),
            date: SystemTime::now(),
        };
        match message {
            ToWorker::NotFetched { id, failure } => {
                self.handle_answered(broker, id)?;
                self.cache.borrow_mut().handle_denied(id, failure, now);
            }
            ToWorker::Head(head) => self.cache.borrow_mut().handle_head(&head, now),
            ToWorker::Extent { job, len } => self.cache.borrow_mut().handle_extent(job, len),
            ToWorker::End { job, len } => self.cache.borrow_mut().handle_end(job, len, now),
            ToWorker::Failed {
                job,
                failure,
                detail,
            } => {
                let mut cache = self.cache.borrow_mut();
                cache.handle_failed(job, failure, &detail, now);
            }
            _ => return Err(Error::Violation("wrong number of descriptors")),
        }
        self.settle(broker);
        Ok(())
    }

    /// The broker has answered a request for a fetch.
    fn handle_answered(&self, broker: &Link, id: u64) -> Result<(), Error> {
        match self.asked.borrow_mut().remove(&id) {
            Some(None) => Ok(()),
            Some(Some(ended)) => {
                broker.send(&ended.done(id));
                Ok(())
            }
            None => Err(Error::Violation("an answer to nothing")),
        }
    }

    /// A request has ended: the broker is told, now or once it has answered.
    pub(crate) fn finish(&self, broker: &Link, id: u64, ended: Ended) {
        match self.asked.borrow_mut().get_mut(&id) {
            Some(waiting) => *waiting = Some(ended),
            None => broker.send(&ended.done(id)),
        }
        self.settle(broker);
    }

    /// Has the broker drop what nobody wants any more, and sets the timer.
    fn settle(&self, broker: &Link) {
        let mut cache = self.cache.borrow_mut();
        while let Some(job) = cache.poll_cancel() {
            broker.send(&ToBroker::Cancel { job });
        }
        let armed = self.armed.get();
        if cache
            .deadline()
            .is_some_and(|deadline| armed.is_none_or(|armed| deadline < armed))
        {
            self.rearm.notify_one();
        }
    }

    /// Lets the cache drop what is too old, for ever.
    pub(crate) async fn expire(&self, broker: &Link) -> std::convert::Infallible {
        loop {
            let deadline = self.cache.borrow().deadline();
            self.armed.set(deadline);
            let Some(deadline) = deadline else {
                self.rearm.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(deadline.into()) => {
                    self.cache.borrow_mut().handle_timeout(Instant::now());
                    self.settle(broker);
                }
                () = self.rearm.notified() => (),
            }
        }
    }

    /// Writes a line for each entry, and for each body that is on its way.
    pub(crate) fn log(&self) {
        let cache = self.cache.borrow();
        let listed = cache.list(Instant::now());
        for Listed {
            display,
            size,
            hits,
            kept,
        } in &listed
        {
            let url = escape(display.as_bytes());
            match kept {
                Some((fresh, age)) => info!(
                    url,
                    size,
                    hits,
                    fresh_s = fresh.as_secs(),
                    age_s = age.as_secs(),
                    "cache entry"
                ),
                None => info!(url, size, hits, "cache download"),
            }
        }
        info!(
            entries = listed.iter().filter(|listed| listed.kept.is_some()).count(),
            bytes = cache.bytes(),
            descriptors = cache.descriptors(),
            "cache"
        );
    }

    /// Forgets all entries.
    pub(crate) fn clear(&self, broker: &Link) {
        self.cache.borrow_mut().clear();
        self.settle(broker);
        info!("cache cleared");
    }
}
