//! The loop of the fetcher: messages of broker and supervisor in, jobs and their answers out.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use r_tftpd_broker::channel::{Channel, ReceiveError};
use r_tftpd_broker::control::{self, Counts, Facts, Order, Report};
use r_tftpd_broker::fetch::{Failure, Fetch, FromFetcher, ToFetcher};
use r_tftpd_broker::wire::{self, Hello, MAX_MESSAGE};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};

use super::http::Origins;
use super::job::{self, Shared};
use crate::sys;

/// Jobs that run at once; further ones wait. Each holds a file, a connection or two and their
/// buffers.
const MAX_RUNNING: usize = 256;

/// Jobs that wait or run; further ones fail. Each holds a file.
const MAX_JOBS: usize = 2048;

/// Descriptors beside the files of jobs: for each that runs two connections, as the addresses of
/// a host are tried side by side; name servers, idle connections and what the process stands on.
const OTHER_DESCRIPTORS: usize = 2 * MAX_RUNNING + 64;

/// Answers on their way to the broker. When it is slow, downloads slow down.
const MAX_ANSWERS: usize = 256;

/// Why the fetcher ends. All but the first two are faults.
#[derive(Debug)]
pub(super) enum End {
    /// The supervisor said so.
    Stopped,
    /// The broker is gone and was to go.
    Retired,
    /// The supervisor is gone.
    NoSupervisor,
    /// The broker is gone.
    NoBroker,
    /// A channel failed.
    Channel(ReceiveError),
    /// Sending failed.
    Send(io::Error),
    /// A message that means nothing.
    Malformed(String),
    /// A job panicked.
    Job(tokio::task::JoinError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Retired => f.write_str("retired"),
            Self::NoSupervisor => f.write_str("the supervisor is gone"),
            Self::NoBroker => f.write_str("the broker is gone"),
            Self::Channel(error) => write!(f, "receiving: {error}"),
            Self::Send(error) => write!(f, "sending: {error}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Job(error) => write!(f, "a job: {error}"),
        }
    }
}

/// The state of the loop.
pub(super) struct Service {
    control: AsyncFd<Channel>,
    broker: Arc<AsyncFd<Channel>>,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    max_jobs: usize,
    jobs: HashMap<u64, AbortHandle>,
    tasks: JoinSet<u64>,
    answers: Option<Receiver<FromFetcher>>,
    /// Jobs taken since the start.
    taken: u64,
    greeted: bool,
    retired: bool,
}

impl Service {
    /// Takes over both channels, which are non-blocking from here on. Within a runtime.
    ///
    /// # Errors
    /// As fcntl(2), epoll_ctl(2) and setrlimit(2).
    pub(super) fn new(
        control: Channel,
        broker: Channel,
        origins: Origins,
        about: bool,
        max_object: u64,
    ) -> io::Result<Self> {
        control.set_nonblocking()?;
        broker.set_nonblocking()?;
        let (sender, answers) = mpsc::channel(MAX_ANSWERS);
        Ok(Self {
            control: sys::watch_both(control)?,
            broker: Arc::new(sys::watch_both(broker)?),
            shared: Arc::new(Shared {
                origins,
                about,
                max_object,
                answers: sender,
            }),
            places: Arc::new(Semaphore::new(MAX_RUNNING)),
            max_jobs: MAX_JOBS.min(raise_descriptor_limit()?.saturating_sub(OTHER_DESCRIPTORS)),
            jobs: HashMap::new(),
            tasks: JoinSet::new(),
            answers: Some(answers),
            taken: 0,
            greeted: false,
            retired: false,
        })
    }

    /// Says that all is ready, then serves until there is a reason to end.
    pub(super) async fn run(mut self, facts: Facts) -> End {
        match self.serve(facts).await {
            Err(end) => end,
        }
    }

    async fn serve(&mut self, facts: Facts) -> Result<std::convert::Infallible, End> {
        self.report(Report::Ready(facts))?;
        let answers = self.answers.take();
        let broker = Arc::clone(&self.broker);
        let mut sending = std::pin::pin!(async move {
            send(&broker, FromFetcher::Hello(Hello::OURS)).await?;
            let Some(mut answers) = answers else {
                return Ok(());
            };
            while let Some(answer) = answers.recv().await {
                send(&broker, answer).await?;
            }
            Ok(())
        });
        let mut order = [0; control::SIZE];
        let mut message = [0; MAX_MESSAGE];
        loop {
            let places = Arc::clone(&self.places);
            tokio::select! {
                sent = &mut sending => return Err(gone_or(sent, self.retired)),
                received = readable(&self.control, |channel| {
                    channel.receive(&mut order).map(Order::from_bytes)
                }) => self.obey(received)?,
                received = readable(&self.broker, |channel| {
                    let datagram = channel.receive_with(&mut message)?;
                    let decoded = wire::decode::<ToFetcher, MAX_MESSAGE>(datagram.bytes);
                    Ok((decoded, datagram.descriptors))
                }) => self.take(received, places)?,
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(job) => drop(self.jobs.remove(&job)),
                    Err(error) if error.is_cancelled() => (),
                    Err(error) => return Err(End::Job(error)),
                },
            }
        }
    }

    fn obey(
        &mut self,
        received: Result<Result<Order, control::Malformed>, ReceiveError>,
    ) -> Result<(), End> {
        let order = match received {
            Ok(order) => order.map_err(|error| End::Malformed(error.to_string()))?,
            Err(ReceiveError::Closed) => return Err(End::NoSupervisor),
            Err(error) => return Err(End::Channel(error)),
        };
        match order {
            Order::Stop => Err(End::Stopped),
            // The broker knows when the last transfer has ended, and closes its channel then.
            Order::Retire | Order::Drain => {
                self.retired = true;
                Ok(())
            }
            Order::Ping => {
                let running = MAX_RUNNING.saturating_sub(self.places.available_permits());
                let waiting = self.jobs.len().saturating_sub(running);
                let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
                let requests = self.taken;
                let (transfers, waiting) = (count(running), count(waiting));
                let counts = Counts {
                    transfers,
                    waiting,
                    requests,
                    ..Counts::default()
                };
                self.report(Report::Counts(counts))
            }
            // None of them concerns the fetcher.
            Order::Go | Order::User(_) | Order::Fetcher => Ok(()),
        }
    }

    fn report(&self, report: Report) -> Result<(), End> {
        self.control
            .get_ref()
            .send(&report.to_bytes())
            .map_err(End::Send)
    }

    fn take(
        &mut self,
        received: Result<(Result<ToFetcher, wire::Error>, Vec<OwnedFd>), ReceiveError>,
        places: Arc<Semaphore>,
    ) -> Result<(), End> {
        let (message, descriptors) = match received {
            Ok((message, descriptors)) => (
                message.map_err(|error| End::Malformed(error.to_string()))?,
                descriptors,
            ),
            Err(ReceiveError::Closed) if self.retired => return Err(End::Retired),
            Err(ReceiveError::Closed) => return Err(End::NoBroker),
            Err(error) => return Err(End::Channel(error)),
        };
        let mut descriptors = descriptors.into_iter();
        match (message, descriptors.next(), descriptors.next()) {
            (ToFetcher::Hello(hello), None, None) if !self.greeted => {
                self.greeted = hello.is_ours();
                if self.greeted {
                    Ok(())
                } else {
                    Err(End::Malformed("another build".into()))
                }
            }
            (ToFetcher::Fetch(fetch), Some(file), None) if self.greeted => {
                self.start(fetch, file, places)
            }
            (ToFetcher::Cancel { job }, None, None) if self.greeted => {
                if let Some(task) = self.jobs.remove(&job) {
                    task.abort();
                }
                Ok(())
            }
            _ => Err(End::Malformed("an unexpected message or descriptor".into())),
        }
    }

    fn start(&mut self, fetch: Fetch, file: OwnedFd, places: Arc<Semaphore>) -> Result<(), End> {
        let number = fetch.job;
        if self.jobs.contains_key(&number) {
            return Err(End::Malformed(format!("job {number} is there already")));
        }
        self.taken += 1;
        let full = self.jobs.len() >= self.max_jobs;
        let max_jobs = self.max_jobs;
        let shared = Arc::clone(&self.shared);
        let task = self.tasks.spawn(async move {
            if full {
                let detail = format!("more than {max_jobs} fetches");
                let failed = FromFetcher::Failed {
                    job: number,
                    failure: Failure::Internal,
                    detail,
                };
                let _ = shared.answers.send(failed).await;
            } else if let Ok(place) = places.acquire_owned().await {
                let _place: OwnedSemaphorePermit = place;
                job::run(shared, fetch, File::from(file)).await;
            }
            number
        });
        self.jobs.insert(number, task);
        Ok(())
    }
}

/// Raises the soft limit on descriptors as far as needed and allowed; returns the limit.
fn raise_descriptor_limit() -> io::Result<usize> {
    let wanted = u64::try_from(MAX_JOBS + OTHER_DESCRIPTORS).unwrap_or(u64::MAX);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let soft = soft.max(wanted.min(hard));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    Ok(usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Why sending ended: a closed channel is no fault of a retired fetcher.
fn gone_or(sent: Result<(), io::Error>, retired: bool) -> End {
    match sent {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => End::Send(error),
        _ if retired => End::Retired,
        _ => End::NoBroker,
    }
}

/// Receives one datagram once there is one.
async fn readable<T>(
    channel: &AsyncFd<Channel>,
    mut receive: impl FnMut(&Channel) -> Result<T, ReceiveError>,
) -> Result<T, ReceiveError> {
    poll_fn(|context| {
        loop {
            let mut ready = match channel.poll_read_ready(context) {
                Poll::Ready(Ok(ready)) => ready,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ReceiveError::Io(error))),
                Poll::Pending => return Poll::Pending,
            };
            match receive(channel.get_ref()) {
                Err(ReceiveError::WouldBlock) => ready.clear_ready(),
                received => return Poll::Ready(received),
            }
        }
    })
    .await
}

/// Sends one message as soon as the broker has room.
async fn send(broker: &AsyncFd<Channel>, message: FromFetcher) -> io::Result<()> {
    let mut buffer = [0; MAX_MESSAGE];
    let bytes = wire::encode(&message, &mut buffer).map_err(io::Error::other)?;
    loop {
        let mut ready = broker.writable().await?;
        match broker.get_ref().send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            sent => return sent,
        }
    }
}
