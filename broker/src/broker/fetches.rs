//! The jobs of the fetcher and the way to and from it. It is trusted as little as the worker.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::outbox;
use crate::channel::{Channel, ReceiveError};
use crate::fetch::{Failure, Fetch, FromFetcher, Head, MAX_DETAIL, ToFetcher};
use crate::wire::{self, Hello, MAX_MESSAGE, ToWorker};

/// What the worker is told of jobs whose fetcher has ended.
const LOST: &str = "the fetcher has ended";

/// All jobs, and the fetcher if there is one.
#[derive(Debug)]
pub(super) struct Fetches {
    fetcher: Option<Fetcher>,
    jobs: HashMap<u64, Job>,
    /// Jobs of a fetcher that is gone; the worker has still to be told.
    lost: VecDeque<u64>,
    last_job: u64,
    max_fetches: usize,
    max_object: u64,
}

#[derive(Debug)]
struct Fetcher {
    channel: Channel,
    /// What waits for place in the channel. No more than two for each job: its order and its end.
    queue: VecDeque<(ToFetcher, Option<OwnedFd>)>,
    is_greeted: bool,
}

/// How far a job has come.
#[derive(Debug, Default)]
struct Job {
    /// Status of the origin's answer.
    status: Option<u16>,
    /// Bytes in the file.
    len: u64,
}

/// What came of reading the channel once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is nothing more now.
    Nothing,
    /// Something that concerns nobody.
    Handled,
    /// To be passed on.
    Relay(ToWorker),
}

/// Why a fetcher is not listened to any more.
#[derive(Debug)]
pub(super) enum Fault {
    /// It has ended.
    Gone,
    /// The channel failed, or what came was no datagram of ours.
    Receive(ReceiveError),
    /// Sending failed.
    Send(io::Error),
    /// The first message was no greeting of this build, or a later one was.
    Greeting,
    /// It does not decode.
    Message(wire::Error),
    /// It means nothing.
    Violation(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it has ended"),
            Self::Receive(error) => error.fmt(f),
            Self::Send(error) => write!(f, "sendmsg: {error}"),
            Self::Greeting => f.write_str(
                "it broke the protocol: it greets at the wrong time, or is of another build",
            ),
            Self::Message(error) => write!(f, "it broke the protocol: {error}"),
            Self::Violation(what) => write!(f, "it broke the protocol: {what}"),
        }
    }
}

impl Fetches {
    pub(super) fn new(max_fetches: u32, max_object: u64) -> Self {
        Self {
            fetcher: None,
            jobs: HashMap::new(),
            lost: VecDeque::new(),
            last_job: 0,
            max_fetches: usize::try_from(max_fetches).unwrap_or(usize::MAX),
            max_object,
        }
    }

    /// Uses a new fetcher, by its channel; the jobs of the last one are lost.
    pub(super) fn replace(&mut self, channel: Channel) {
        self.give_up();
        self.fetcher = Some(Fetcher {
            channel,
            queue: VecDeque::from([(ToFetcher::Hello(Hello::OURS), None)]),
            is_greeted: false,
        });
    }

    /// Listens to the fetcher no more; how many jobs are lost by that.
    pub(super) fn give_up(&mut self) -> usize {
        self.fetcher = None;
        let before = self.lost.len();
        self.lost.extend(self.jobs.drain().map(|(job, _)| job));
        self.lost.len().saturating_sub(before)
    }

    /// The channel, and whether something waits to be sent.
    pub(super) fn channel(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let fetcher = self.fetcher.as_ref()?;
        Some((fetcher.channel.as_fd(), !fetcher.queue.is_empty()))
    }

    /// Number of a new job; none if there is no fetcher or no place. To be followed by
    /// [`Self::order`].
    pub(super) fn admit(&mut self) -> Option<u64> {
        let running = self.jobs.len().saturating_add(self.lost.len());
        if self.fetcher.is_none() || running >= self.max_fetches {
            return None;
        }
        self.last_job += 1;
        self.jobs.insert(self.last_job, Job::default());
        Some(self.last_job)
    }

    /// Has the fetcher do a job that was admitted; [`Self::flush`] sends it.
    pub(super) fn order(&mut self, fetch: Fetch, file: OwnedFd) {
        if let Some(fetcher) = &mut self.fetcher {
            fetcher
                .queue
                .push_back((ToFetcher::Fetch(fetch), Some(file)));
        }
    }

    /// Has the fetcher drop a job. False if there never was such a job.
    pub(super) fn cancel(&mut self, job: u64) -> bool {
        self.lost.retain(|lost| *lost != job);
        if let (Some(_), Some(fetcher)) = (self.jobs.remove(&job), &mut self.fetcher) {
            let orders = |(message, _): &(ToFetcher, Option<OwnedFd>)| matches!(message, ToFetcher::Fetch(fetch) if fetch.job == job);
            match fetcher.queue.iter().position(orders) {
                Some(place) => drop(fetcher.queue.remove(place)),
                None => fetcher.queue.push_back((ToFetcher::Cancel { job }, None)),
            }
        }
        self.was_given(job)
    }

    /// What the worker has to be told of a job whose fetcher is gone, if there is one.
    pub(super) fn next_lost(&mut self) -> Option<ToWorker> {
        let job = self.lost.pop_front()?;
        Some(ToWorker::Failed {
            job,
            failure: Failure::Internal,
            detail: LOST.into(),
        })
    }

    /// Sends what waits, as far as the channel has room.
    ///
    /// # Errors
    /// The fetcher is gone.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        let Some(fetcher) = &mut self.fetcher else {
            return Ok(());
        };
        let mut buffer = [0; MAX_MESSAGE];
        while let Some((message, file)) = fetcher.queue.front() {
            let bytes = wire::encode(message, &mut buffer).map_err(Fault::Message)?;
            let file = file.as_ref().map(AsFd::as_fd);
            match fetcher.channel.send_with(bytes, file.as_slice()) {
                Err(error) if outbox::passes(&error) => break,
                Err(error) if outbox::is_gone(&error) => return Err(Fault::Gone),
                Err(error) => return Err(Fault::Send(error)),
                Ok(()) => drop(fetcher.queue.pop_front()),
            }
        }
        Ok(())
    }

    /// Reads one message.
    ///
    /// # Errors
    /// The fetcher is gone, or breaks the protocol.
    pub(super) fn receive(&mut self) -> Result<Heard, Fault> {
        let Some(fetcher) = &self.fetcher else {
            return Ok(Heard::Nothing);
        };
        let mut buffer = [0; MAX_MESSAGE + 1];
        let bytes = match fetcher.channel.receive(&mut buffer) {
            Ok(bytes) => bytes,
            Err(ReceiveError::WouldBlock) => return Ok(Heard::Nothing),
            Err(ReceiveError::Closed) => return Err(Fault::Gone),
            Err(error) => return Err(Fault::Receive(error)),
        };
        let message = wire::decode::<_, MAX_MESSAGE>(bytes).map_err(Fault::Message)?;
        self.hear(message)
    }

    /// Vets a message: each job has one head, then extents that never shrink, then one end.
    fn hear(&mut self, message: FromFetcher) -> Result<Heard, Fault> {
        let greeted = self.fetcher.as_mut().map(|fetcher| &mut fetcher.is_greeted);
        match (&message, greeted) {
            (FromFetcher::Hello(hello), Some(greeted)) if !*greeted && hello.is_ours() => {
                *greeted = true;
                return Ok(Heard::Handled);
            }
            (FromFetcher::Hello(_), _) | (_, Some(false) | None) => return Err(Fault::Greeting),
            (_, Some(true)) => (),
        }
        let number = match &message {
            FromFetcher::Hello(_) => return Err(Fault::Greeting),
            FromFetcher::Head(head) => head.job,
            FromFetcher::Extent { job, .. }
            | FromFetcher::End { job, .. }
            | FromFetcher::Failed { job, .. } => *job,
        };
        let max_object = self.max_object;
        let Some(job) = self.jobs.get_mut(&number) else {
            return if self.was_given(number) {
                // It was cancelled while this was under way.
                Ok(Heard::Handled)
            } else {
                Err(Fault::Violation("a job that was never given"))
            };
        };
        Ok(Heard::Relay(match message {
            FromFetcher::Hello(_) => return Err(Fault::Greeting),
            FromFetcher::Head(head) => {
                job.begin(&head)?;
                ToWorker::Head(head)
            }
            FromFetcher::Extent { job: number, len } => {
                job.grow(len, max_object)?;
                ToWorker::Extent { job: number, len }
            }
            FromFetcher::End { job: number, len } => {
                job.grow(len, max_object)?;
                self.jobs.remove(&number);
                ToWorker::End { job: number, len }
            }
            FromFetcher::Failed {
                job,
                failure,
                detail,
            } => {
                let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
                if detail.len() > MAX_DETAIL || !detail.bytes().all(visible) {
                    return Err(Fault::Violation("a text that is too long or not visible"));
                }
                self.jobs.remove(&job);
                ToWorker::Failed {
                    job,
                    failure,
                    detail,
                }
            }
        }))
    }

    fn was_given(&self, job: u64) -> bool {
        (1..=self.last_job).contains(&job)
    }
}

impl Job {
    fn begin(&mut self, head: &Head) -> Result<(), Fault> {
        if self.status.is_some() {
            return Err(Fault::Violation("a second head"));
        }
        if !(200..=599).contains(&head.status) {
            return Err(Fault::Violation("a status that is none"));
        }
        self.status = Some(head.status);
        Ok(())
    }

    fn grow(&mut self, len: u64, max_object: u64) -> Result<(), Fault> {
        match self.status {
            None => return Err(Fault::Violation("a body without a head")),
            Some(200..=299) if len <= max_object => (),
            Some(200..=299) => return Err(Fault::Violation("a body over the limit")),
            Some(_) if len == 0 => (),
            Some(_) => return Err(Fault::Violation("a body of a status without one")),
        }
        if len < self.len {
            return Err(Fault::Violation("a body that shrinks"));
        }
        self.len = len;
        Ok(())
    }
}
