//! The broker: receives requests unread, connects reply sockets, opens files below the root, and
//! hands both to the worker. It trusts neither the network nor the worker.
//!
//! [`main`] is its whole start-up, `Broker::answer` its whole interface.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use self::cache_file::CacheFiles;
use self::kept::Kept;
use self::limits::Limits;
use self::outbox::Outbox;
use self::overload::Overload;
use self::proxy::Proxy;
use self::receive::Receiver;
use self::reply::PortRange;
use self::requests::{Requests, Violation};
use self::resolve::{Helpers, Resolver, Support};
use self::trouble::Trouble;
use crate::channel::{Channel, ReceiveError};
use crate::control::{Facts, Report};
use crate::inbox::Inbox;
use crate::link::BadLink;
use crate::lockdown;
use crate::settings::{BrokerStart, LogSettings};
use crate::similar::Similar;
use crate::start;
use crate::wire::{self, Denial, Hello, MAX_PATH, ToBroker, ToWorker};

mod budget;
mod cache_file;
mod fetches;
mod fetching;
mod granting;
mod kept;
mod limits;
mod outbox;
mod overload;
mod proxy;
mod receive;
mod reply;
mod requests;
mod resolve;
pub mod sandbox;
mod scratch;
mod serve;
#[cfg(test)]
mod tests;
mod trouble;

/// The process `r-tftpd-broker`: starts as the supervisor says on descriptor 3, serves until told
/// to end. `start_log` starts the log.
pub fn main(start_log: fn(&LogSettings)) -> ExitCode {
    match start(start_log).and_then(|mut broker| broker.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lockdown::last_words("r-tftpd-broker", &error);
            ExitCode::FAILURE
        }
    }
}

/// The whole start-up.
fn start(start_log: fn(&LogSettings)) -> Result<Broker, Error> {
    // 1. The control channel, the only thing that is inherited, and a name.
    let control = start::take_control(c"r-tftpd-broker")?;
    // 2. The settings, checked by the supervisor, and the descriptors it prepared.
    let (mut settings, descriptors) = start::receive::<BrokerStart>(&control)?;
    // 3. The log, so that all that follows can be read.
    start_log(&settings.log);
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(start::Error::Descriptors);
    let worker = Channel::from_descriptor(next()?);
    let root = next()?;
    let fallback = settings.fallback_directory.then(&mut next).transpose()?;
    let proxy = settings.proxy.take().map(|start| {
        let directory = start.cache_directory.then(&mut next).transpose()?;
        Proxy::new(start, CacheFiles::new(directory)).map_err(Error::Fallback)
    });
    let proxy = proxy.transpose()?;
    let listeners = descriptors.collect();
    // 4. Neither channel may stop the broker: it waits in one place only.
    control.set_nonblocking().map_err(system("fcntl"))?;
    worker.set_nonblocking().map_err(system("fcntl"))?;
    // 5. Rights that only a single thread can give up for good, and what is in force then.
    let resolver = Arc::new(Resolver::new(root, fallback));
    let directories = [Some(resolver.root()), resolver.fallback()];
    let cache = proxy.as_ref().and_then(|proxy| proxy.files.directory());
    let facts = sandbox::restrict(directories.into_iter().flatten(), cache, settings.sandbox)?;
    // 6. Threads for opens that have to wait; none can be started later.
    let helpers = Helpers::start(&resolver).map_err(system("clone"))?;
    // 7. Keys for hash tables, which the kernel gives once to each thread.
    RandomState::new().hash_one(());
    // 8. All system calls but those on the list are gone, in all threads.
    let facts = sandbox::filter(facts, settings.sandbox)?;
    // 9. Two processes of different builds must not talk.
    let places = Places {
        control,
        worker,
        listeners,
        resolver,
        helpers,
        proxy,
    };
    let mut broker = Broker::new(settings, places);
    broker.send(ToWorker::Hello(Hello::OURS), None)?;
    broker.flush()?;
    // 10. The supervisor says when to begin.
    let openat2 = broker.resolver.support() != Support::Walk;
    broker.report(Report::Ready(Facts { openat2, ..facts }))?;
    Ok(broker)
}

/// What the broker is made of, beside its settings.
struct Places {
    control: Channel,
    worker: Channel,
    listeners: Vec<OwnedFd>,
    resolver: Arc<Resolver>,
    helpers: Helpers,
    proxy: Option<Proxy>,
}

/// The running broker.
struct Broker {
    control: Channel,
    worker: Channel,
    inbox: Inbox<ToBroker>,
    outbox: Outbox,
    /// Empty once retired.
    listeners: Vec<OwnedFd>,
    receiver: Receiver,
    overload: Overload,
    ports: Option<PortRange>,
    requests: Requests,
    /// Reply sockets for more than one request.
    kept: Kept,
    resolver: Arc<Resolver>,
    helpers: Helpers,
    /// None: links are denied.
    proxy: Option<Proxy>,
    phase: Phase,
    /// The worker has said who it is.
    is_greeted: bool,
    dropped: u64,
    /// Lines that were not written.
    similar: Similar<Trouble>,
}

/// What is done with the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not yet read.
    Ready,
    /// Read.
    Serving,
    /// No longer read; what was received is still being handed on.
    Retiring,
    /// No longer read.
    Retired,
}

impl Broker {
    fn new(settings: BrokerStart, places: Places) -> Self {
        let BrokerStart {
            allow,
            deny,
            max_per_client,
            max_outstanding,
            max_kept,
            ..
        } = settings;
        Self {
            control: places.control,
            worker: places.worker,
            inbox: Inbox::default(),
            outbox: Outbox::new(),
            listeners: places.listeners,
            receiver: Receiver::new(),
            overload: Overload::default(),
            ports: settings.port_range.map(PortRange::new),
            requests: Requests::new(Limits::new(allow, deny, max_per_client, max_outstanding)),
            kept: Kept::new(max_kept),
            resolver: places.resolver,
            helpers: places.helpers,
            proxy: places.proxy,
            phase: Phase::Ready,
            is_greeted: false,
            dropped: 0,
            similar: Similar::new(trouble::LINES),
        }
    }

    /// The broker's whole interface: all that a worker, also a captured one, can make it do.
    fn answer(&mut self, message: ToBroker, now: Instant) -> Result<(), Error> {
        if self.is_greeted == matches!(message, ToBroker::Hello(_)) {
            return Err(Error::Greeting);
        }
        match message {
            // Once, and first. Another build could mean other things by the same bytes.
            ToBroker::Hello(hello) if hello.is_ours() => self.is_greeted = true,
            ToBroker::Hello(_) => return Err(Error::OtherBuild),
            // Once per request: a regular file below the root, for reading. The client that sent
            // the request could have asked for the same.
            ToBroker::Open { path, .. } if path.len() > MAX_PATH => {
                return Err(Error::Violation(Violation::PathTooLong));
            }
            ToBroker::Open { id, path } => {
                self.requests.open(id)?;
                self.open(id, &path, now)?;
            }
            // Once per request and granted file: memory of a fixed size, bounded in all, and taken
            // back when the request ends.
            ToBroker::Scratch { id, size } => match self.requests.scratch(id, size)? {
                Some(file) => self.send(ToWorker::Scratch { id }, Some(file))?,
                None => self.deny(id, Denial::Resources)?,
            },
            // Once per request: takes it off the budget for clients that do not answer. A worker
            // that lies can do so for requests that were sent to us only, `max_outstanding` at once.
            ToBroker::Proven { id } => self.requests.prove(id, now)?,
            // Once per request, after a link was found: GET what it and the rest of the name say.
            // The broker kept both; a client could have asked for the same.
            ToBroker::Fetch {
                id,
                validators,
                netascii,
            } => self.fetch(id, validators, netascii, now)?,
            // Ends a job, if it still runs: clients that share it would have to ask again.
            ToBroker::Cancel { job } => self.cancel(job)?,
            // Once per request: it is over. A socket that is kept reaches nobody until we connect
            // it to another client that has asked; one that is not, only who it was made for.
            ToBroker::Done { id, proven, kept } => match self.requests.done(id, proven, now)? {
                Some(number) => self.kept.give_back(number, kept, now),
                None if kept => return Err(Error::Violation(Violation::Kept)),
                None => (),
            },
        }
        Ok(())
    }

    /// Says something to the worker, in this turn.
    fn send(&mut self, message: ToWorker, descriptor: Option<OwnedFd>) -> Result<(), Error> {
        self.outbox
            .put(&message, descriptor, &self.worker)
            .map_err(not_sent)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.outbox.flush(&self.worker).map_err(not_sent)
    }

    fn report(&self, report: Report) -> Result<(), Error> {
        self.control
            .send_with(&report.to_bytes(), &[])
            .map_err(system("sendmsg"))
    }
}

/// Why the broker ends early.
#[derive(Debug)]
enum Error {
    /// The supervisor's channel.
    Control(ReceiveError),
    /// The start.
    Start(start::Error),
    /// The fallback of the start message.
    Fallback(BadLink),
    /// An order that is none.
    Order,
    /// The worker was built from other sources.
    OtherBuild,
    /// The worker's channel.
    Worker(ReceiveError),
    /// The first message was no greeting, or a later one was.
    Greeting,
    /// A message that does not decode.
    Message(wire::Error),
    /// A message that an honest worker does not send.
    Violation(Violation),
    Lockdown(lockdown::Error),
    System(&'static str, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(error) => write!(f, "supervisor: {error}"),
            Self::Start(error) => error.fmt(f),
            Self::Fallback(error) => write!(f, "supervisor: start message: fallback: {error}"),
            Self::Order => write!(f, "supervisor: unknown order"),
            Self::OtherBuild => f.write_str("worker is of another build; install all of one"),
            Self::Worker(error) => write!(f, "worker: {error}"),
            Self::Greeting => write!(f, "worker broke the protocol: it greets at the wrong time"),
            Self::Message(error) => write!(f, "worker broke the protocol: {error}"),
            Self::Violation(error) => write!(f, "worker broke the protocol: {error}"),
            Self::Lockdown(error) => write!(f, "lock-down: {error}"),
            Self::System(call, error) => write!(f, "{call}: {error}"),
        }
    }
}

impl From<start::Error> for Error {
    fn from(error: start::Error) -> Self {
        Self::Start(error)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<lockdown::Error> for Error {
    fn from(error: lockdown::Error) -> Self {
        Self::Lockdown(error)
    }
}

/// The worker is gone, or the system failed.
fn not_sent(error: io::Error) -> Error {
    if outbox::is_gone(&error) {
        Error::Worker(ReceiveError::Closed)
    } else {
        Error::System("sendmsg", error)
    }
}

/// Names the call that failed.
fn system(call: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::System(call, error)
}
