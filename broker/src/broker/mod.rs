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

use tracing::warn;

use self::limits::{Limits, Throttle};
use self::outbox::Outbox;
use self::receive::Receiver;
use self::reply::PortRange;
use self::requests::{Requests, Violation};
use self::resolve::{Helpers, Opened, Path, Refused, Resolver, Support};
use crate::channel::{Channel, ReceiveError};
use crate::control::{Facts, Report};
use crate::lockdown;
use crate::settings::{BrokerStart, LogSettings, MAX_START};
use crate::sys;
use crate::wire::{self, Denial, Hello, MAX_PATH, ToBroker, ToWorker};

mod budget;
mod limits;
mod outbox;
mod receive;
mod reply;
mod requests;
mod resolve;
pub mod sandbox;
mod scratch;
mod serve;
#[cfg(test)]
mod tests;

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
    // 1. The control channel is the only thing that is inherited; the rest is an accident.
    let control = Channel::from_descriptor(sys::take_inherited(CONTROL).map_err(system("fcntl"))?);
    lockdown::close_from(CONTROL.unsigned_abs() + 1)?;
    // 2. A name for ps; the program was executed from a descriptor, which has none.
    nix::sys::prctl::set_name(c"r-tftpd-broker").map_err(|e| Error::System("prctl", e.into()))?;
    // 3. The settings, checked by the supervisor, and the descriptors it prepared.
    let mut buffer = vec![0; MAX_START + 1];
    let message = control.receive_with(&mut buffer).map_err(Error::Control)?;
    let settings: BrokerStart =
        wire::decode::<_, MAX_START>(message.bytes).map_err(Error::Start)?;
    if !settings.hello.is_ours() {
        return Err(Error::OtherBuild("supervisor"));
    }
    // 4. The log, so that all that follows can be read.
    start_log(&settings.log);
    let mut descriptors = message.descriptors.into_iter();
    let (Some(worker), Some(root)) = (descriptors.next(), descriptors.next()) else {
        return Err(Error::Start(wire::Error::Malformed));
    };
    let (worker, listeners) = (Channel::from_descriptor(worker), descriptors.collect());
    // 5. Neither channel may stop the broker: it waits in one place only.
    control.set_nonblocking().map_err(system("fcntl"))?;
    worker.set_nonblocking().map_err(system("fcntl"))?;
    // 6. Rights that only a single thread can give up for good, and what is in force then.
    let resolver = Arc::new(Resolver::new(root));
    let facts = sandbox::restrict(resolver.root(), settings.sandbox)?;
    // 7. Threads for opens that have to wait; none can be started later.
    let helpers = Helpers::start(&resolver).map_err(system("clone"))?;
    // 8. Keys for hash tables, which the kernel gives once to each thread.
    RandomState::new().hash_one(());
    // 9. All system calls but those on the list are gone, in all threads.
    let facts = sandbox::filter(facts, settings.sandbox)?;
    // 10. Two processes of different builds must not talk.
    let mut broker = Broker::new(settings, control, worker, listeners, resolver, helpers);
    broker.send(ToWorker::Hello(Hello::OURS), None)?;
    // 11. The supervisor says when to begin.
    let openat2 = broker.resolver.support() != Support::Walk;
    broker.report(Report::Ready(Facts { openat2, ..facts }))?;
    Ok(broker)
}

/// Number of the descriptor that is inherited.
const CONTROL: i32 = 3;

/// The running broker.
struct Broker {
    control: Channel,
    worker: Channel,
    outbox: Outbox,
    /// Empty once retired.
    listeners: Vec<OwnedFd>,
    receiver: Receiver,
    ports: Option<PortRange>,
    requests: Requests,
    resolver: Arc<Resolver>,
    helpers: Helpers,
    phase: Phase,
    /// The worker has said who it is.
    is_greeted: bool,
    dropped: u64,
    /// For lines about files.
    audit: Throttle,
    /// For lines about sockets.
    trouble: Throttle,
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
    fn new(
        settings: BrokerStart,
        control: Channel,
        worker: Channel,
        listeners: Vec<OwnedFd>,
        resolver: Arc<Resolver>,
        helpers: Helpers,
    ) -> Self {
        let BrokerStart {
            allow,
            deny,
            max_per_client,
            max_outstanding,
            ..
        } = settings;
        Self {
            control,
            worker,
            outbox: Outbox::new(),
            listeners,
            receiver: Receiver::new(),
            ports: settings.port_range.map(PortRange::new),
            requests: Requests::new(Limits::new(allow, deny, max_per_client, max_outstanding)),
            resolver,
            helpers,
            phase: Phase::Ready,
            is_greeted: false,
            dropped: 0,
            audit: Throttle::default(),
            trouble: Throttle::default(),
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
            ToBroker::Hello(_) => return Err(Error::OtherBuild("worker")),
            // Once per request: a regular file below the root, for reading. The client that sent
            // the request could have asked for the same.
            ToBroker::Open { path, .. } if path.len() > MAX_PATH => {
                return Err(Error::Violation(Violation::PathTooLong));
            }
            ToBroker::Open { id, path } => {
                self.requests.open(id)?;
                self.open(id, &path, now)?;
            }
            // Once per request and granted file: memory of a fixed size, bounded in all.
            ToBroker::Scratch { id, size } => match self.requests.scratch(id, size)? {
                Some(file) => self.send(ToWorker::Scratch { id }, Some(file))?,
                None => self.deny(id, Denial::Resources)?,
            },
            // Once per request: takes it off the budget for clients that do not answer. A worker
            // that lies can do so for requests that were sent to us only, `max_outstanding` at once.
            ToBroker::Proven { id } => self.requests.prove(id, now)?,
            // Once per request: it is over.
            ToBroker::Done { id, proven } => self.requests.done(id, proven, now)?,
        }
        Ok(())
    }

    /// Opens a file now if that cannot take long, else has a helper thread do it.
    fn open(&mut self, id: u64, name: &[u8], now: Instant) -> Result<(), Error> {
        let path = match Path::parse(name) {
            Ok(path) => path,
            Err(reason) => return self.grant(id, name, Err(Refused::Denied(reason)), now),
        };
        match self.resolver.open_cached(&path) {
            Err(Refused::Waits) if self.helpers.ask(id, path) => Ok(()),
            Err(Refused::Waits) => {
                self.grant(id, name, Err(Refused::Denied(Denial::Resources)), now)
            }
            result => self.grant(id, name, result, now),
        }
    }

    /// Tells the worker what came of an open; the log, if somebody should know.
    fn grant(
        &mut self,
        id: u64,
        name: &[u8],
        result: Result<Opened, Refused>,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(peer) = self.requests.answer_open(id, result.is_ok()) else {
            // The request ended while a helper thread was at it.
            return Ok(());
        };
        let (link, reason) = match result {
            Ok(Opened {
                file,
                size,
                in_memory,
            }) => {
                return self.send(
                    ToWorker::File {
                        id,
                        size,
                        in_memory,
                    },
                    Some(file),
                );
            }
            Err(Refused::Missing) => return self.send(ToWorker::Missing { id }, None),
            Err(Refused::Escape(link)) => (Some(link), Denial::OutsideRoot),
            Err(Refused::Url(link)) => (Some(link), Denial::Proxy),
            Err(Refused::Denied(reason)) => (None, reason),
            Err(Refused::Waits) => (None, Denial::System),
        };
        let is_worth_a_line = link.is_some() || reason == Denial::OutsideRoot;
        if let Some(held) = is_worth_a_line.then(|| self.audit.pass(now)).flatten() {
            let file = name.escape_ascii();
            match link {
                Some(link) => {
                    let (link, target) = (link.name.escape_ascii(), link.target.escape_ascii());
                    warn!(%peer, %file, %link, %target, ?reason, held, "symlink refused");
                }
                None => warn!(%peer, %file, ?reason, held, "path refused"),
            }
        }
        self.deny(id, reason)
    }

    fn deny(&mut self, id: u64, reason: Denial) -> Result<(), Error> {
        self.send(ToWorker::Denied { id, reason }, None)
    }

    fn send(&mut self, message: ToWorker, descriptor: Option<OwnedFd>) -> Result<(), Error> {
        self.outbox.put(message, descriptor);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.outbox
            .flush(&self.worker)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    Error::Worker(ReceiveError::Closed)
                }
                _ => Error::System("sendmsg", error),
            })
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
    /// The start message.
    Start(wire::Error),
    /// An order that is none.
    Order,
    /// A process was built from other sources.
    OtherBuild(&'static str),
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
            Self::Start(error) => write!(f, "supervisor: start message: {error}"),
            Self::Order => write!(f, "supervisor: unknown order"),
            Self::OtherBuild(who) => write!(f, "{who} is of another build; install all of one"),
            Self::Worker(error) => write!(f, "worker: {error}"),
            Self::Greeting => write!(f, "worker broke the protocol: it greets at the wrong time"),
            Self::Message(error) => write!(f, "worker broke the protocol: {error}"),
            Self::Violation(error) => write!(f, "worker broke the protocol: {error}"),
            Self::Lockdown(error) => write!(f, "lock-down: {error}"),
            Self::System(call, error) => write!(f, "{call}: {error}"),
        }
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

/// Names the call that failed.
fn system(call: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::System(call, error)
}
