//! Starts the processes of a generation, each with its start message and its descriptors.

use std::ffi::CStr;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tracing::debug;

use super::directory::Directory;
use super::limits::Limits;
use super::process::{Process, Role};
use super::programs::Programs;
use super::root::Root;
use super::trust::TrustFiles;
use super::{Error, ProxySettings, Settings};
use crate::channel::Channel;
use crate::control::Order;
use crate::settings::{BrokerStart, CacheStart, FetcherStart, MAX_START, ProxyStart, WorkerStart};
use crate::wire::{self, Encode, Hello};

/// Name servers are asked over TCP, at the port that RFC 7766 keeps for it.
const DNS_PORT: u16 = 53;

/// Redirects for one fetch: mirrors and sign-ins take two or three, loops any number.
const MAX_REDIRECTS: u32 = 10;

/// All that new processes are given. Opened and encoded once: every generation gets the same, but
/// for the files that a fetcher reads.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) listeners: Vec<UdpSocket>,
    pub(super) root: Root,
    fallback: Option<Directory>,
    /// None = memory files.
    cache: Option<Directory>,
    /// None = no proxy.
    trust: Option<TrustFiles>,
    programs: Programs,
    null: OwnedFd,
    messages: Messages,
}

/// What the supervisor has opened.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) listeners: Vec<UdpSocket>,
    pub(super) root: Root,
    pub(super) fallback: Option<Directory>,
    pub(super) cache: Option<Directory>,
    pub(super) trust: Option<TrustFiles>,
    pub(super) programs: Programs,
}

impl Launcher {
    /// Encodes the start messages.
    ///
    /// # Errors
    /// [`Error::TooManyNetworks`]; as open(2) of /dev/null.
    pub(super) fn new(settings: &Settings, limits: Limits, places: Places) -> Result<Self, Error> {
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(Error::system("open /dev/null"))?;
        let messages = Messages::new(settings, limits, &places)?;
        Ok(Self {
            listeners: places.listeners,
            root: places.root,
            fallback: places.fallback,
            cache: places.cache,
            trust: places.trust,
            programs: places.programs,
            null,
            messages,
        })
    }

    /// Gives further processes other start messages.
    pub(super) fn replace_messages(&mut self, messages: Messages) {
        self.messages = messages;
    }

    /// Whether cache files have a directory.
    pub(super) fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether generations have a fetcher.
    pub(super) fn has_proxy(&self) -> bool {
        self.trust.is_some()
    }

    /// Where cache files are, for the log.
    pub(super) fn cache_name(&self) -> String {
        match (&self.cache, &self.trust) {
            (Some(cache), _) => cache.name(),
            (None, Some(_)) => "memory".into(),
            (None, None) => "none".into(),
        }
    }

    /// Starts a broker and a worker that can talk to each other.
    ///
    /// # Errors
    /// Which one could not be started, and why. The other one is gone then, too.
    pub(super) fn launch(&self) -> Result<[(Role, Process); 2], (Role, io::Error)> {
        let (to_worker, to_broker) = Channel::pair().map_err(|error| (Role::Broker, error))?;
        let broker = self
            .start_broker(&to_worker, &self.listeners, None)
            .map_err(|error| (Role::Broker, error))?;
        let worker = self
            .start_worker(&to_broker, None)
            .map_err(|error| (Role::Worker, error))?;
        Ok([(Role::Broker, broker), (Role::Worker, worker)])
    }

    /// Starts a fetcher and hands the channel to it to `broker`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn launch_fetcher(&self, broker: &Process) -> io::Result<Process> {
        let (to_fetcher, to_broker) = Channel::pair()?;
        let fetcher = self.start_fetcher(&to_broker, None)?;
        hand_fetcher(broker, &to_fetcher)?;
        Ok(fetcher)
    }

    /// Starts a broker. `captured` is for a self-test alone.
    ///
    /// # Errors
    /// As fork(2), execveat(2), sendmsg(2).
    pub(super) fn start_broker(
        &self,
        to_worker: &Channel,
        listeners: &[UdpSocket],
        captured: Option<&CStr>,
    ) -> io::Result<Process> {
        let directories = [self.fallback.as_ref(), self.cache.as_ref()];
        // In the order that `BrokerStart` says.
        let descriptors: Vec<_> = [to_worker.as_fd(), self.root.as_fd()]
            .into_iter()
            .chain(directories.into_iter().flatten().map(AsFd::as_fd))
            .chain(listeners.iter().map(AsFd::as_fd))
            .collect();
        let (program, message) = (&self.programs.broker, &self.messages.broker);
        self.start(Role::Broker, program, message, &descriptors, captured)
    }

    /// Starts a worker. `captured` is for a self-test alone.
    ///
    /// # Errors
    /// As fork(2), execveat(2), sendmsg(2).
    pub(super) fn start_worker(
        &self,
        to_broker: &Channel,
        captured: Option<&CStr>,
    ) -> io::Result<Process> {
        let (program, message) = (&self.programs.worker, &self.messages.worker);
        let descriptors = [to_broker.as_fd()];
        self.start(Role::Worker, program, message, &descriptors, captured)
    }

    /// Starts a fetcher. `captured` is for a self-test alone.
    ///
    /// # Errors
    /// As fork(2), execveat(2), sendmsg(2); there is no proxy.
    pub(super) fn start_fetcher(
        &self,
        to_broker: &Channel,
        captured: Option<&CStr>,
    ) -> io::Result<Process> {
        let (Some(program), Some(trust)) = (&self.programs.fetcher, &self.trust) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let files = trust.open()?;
        let descriptors: Vec<_> = [to_broker.as_fd()]
            .into_iter()
            .chain(files.iter().map(AsFd::as_fd))
            .collect();
        let message = &self.messages.fetcher;
        self.start(Role::Fetcher, program, message, &descriptors, captured)
    }

    fn start(
        &self,
        role: Role,
        program: &OwnedFd,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        captured: Option<&CStr>,
    ) -> io::Result<Process> {
        let (program, null) = (program.as_fd(), self.null.as_fd());
        let process = Process::start(role, program, null, message, descriptors, captured)?;
        debug!(pid = process.pid(), "{role} started");
        Ok(process)
    }
}

/// Hands the channel to a fetcher to `broker`.
///
/// # Errors
/// As fcntl(2), sendmsg(2); the broker is just ending.
pub(super) fn hand_fetcher(broker: &Process, to_fetcher: &Channel) -> io::Result<()> {
    // The broker could not: its lock-down has no such call.
    to_fetcher.set_nonblocking()?;
    broker.hand(Order::Fetcher, to_fetcher.as_fd())
}

/// The start messages.
#[derive(Debug)]
pub(super) struct Messages {
    broker: Vec<u8>,
    worker: Vec<u8>,
    /// Empty without a proxy.
    fetcher: Vec<u8>,
}

impl Messages {
    /// Encodes them.
    ///
    /// # Errors
    /// [`Error::TooManyNetworks`].
    pub(super) fn new(settings: &Settings, limits: Limits, places: &Places) -> Result<Self, Error> {
        Ok(Self {
            broker: encode(&broker_start(settings, limits, places))?,
            worker: encode(&worker_start(settings, limits))?,
            fetcher: match &settings.proxy {
                Some(proxy) => encode(&fetcher_start(settings, proxy))?,
                None => Vec::new(),
            },
        })
    }
}

fn encode(message: &impl Encode) -> Result<Vec<u8>, Error> {
    let mut buffer = vec![0; MAX_START];
    let used = wire::encode(message, &mut buffer)
        .map_err(|_| Error::TooManyNetworks)?
        .len();
    buffer.truncate(used);
    Ok(buffer)
}

fn broker_start(settings: &Settings, limits: Limits, places: &Places) -> BrokerStart {
    BrokerStart {
        hello: Hello::OURS,
        log: settings.log.clone(),
        sandbox: settings.sandbox,
        allow: settings.allow.clone(),
        deny: settings.deny.clone(),
        max_per_client: settings.max_per_client,
        port_range: settings.port_range,
        max_outstanding: limits.outstanding(),
        max_kept: if settings.port_range.is_some() {
            0
        } else {
            limits.kept
        },
        root: places.root.name(),
        fallback_directory: places.fallback.is_some(),
        proxy: settings.proxy.as_ref().map(|proxy| ProxyStart {
            fallback: proxy.fallback.clone(),
            cache_directory: places.cache.is_some(),
            ports: proxy.ports.clone(),
            about: proxy.about,
            max_fetches: limits.fetches,
            max_object: proxy.max_object,
        }),
    }
}

fn worker_start(settings: &Settings, limits: Limits) -> WorkerStart {
    WorkerStart {
        hello: Hello::OURS,
        log: settings.log.clone(),
        sandbox: settings.sandbox,
        max_connections: limits.connections,
        max_unproven: limits.unproven,
        timeout_ms: millis(settings.timeout),
        max_retries: settings.max_retries,
        max_blksize: settings.max_blksize,
        max_windowsize: settings.max_windowsize,
        options: settings.options,
        wrq_devnull: settings.wrq_devnull,
        cache: CacheStart {
            bytes: settings.proxy.as_ref().map_or(0, |proxy| proxy.cache_size),
            object: settings.proxy.as_ref().map_or(0, |proxy| proxy.max_object),
            entries: limits.entries,
            fetches: limits.fetches,
            stale_if_error_ms: settings
                .proxy
                .as_ref()
                .map_or(0, |proxy| millis(proxy.stale_if_error)),
            about: settings.proxy.as_ref().is_some_and(|proxy| proxy.about),
        },
    }
}

fn fetcher_start(settings: &Settings, proxy: &ProxySettings) -> FetcherStart {
    FetcherStart {
        hello: Hello::OURS,
        log: settings.log.clone(),
        sandbox: settings.sandbox,
        ports: proxy.ports.clone(),
        dns_port: DNS_PORT,
        user_agent: proxy.user_agent.clone(),
        about: proxy.about,
        connect_timeout_ms: millis(proxy.timeout),
        read_timeout_ms: millis(proxy.timeout),
        max_object: proxy.max_object,
        max_redirects: MAX_REDIRECTS,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
