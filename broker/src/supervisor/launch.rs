//! Starts the processes of a generation, each with its start message and its descriptors.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tracing::debug;

use super::limits::Limits;
use super::process::{Process, Role};
use super::programs::Programs;
use super::root::Root;
use super::{Error, Settings};
use crate::channel::Channel;
use crate::settings::{BrokerStart, MAX_START, WorkerStart};
use crate::wire::{self, Encode, Hello};

/// All that new processes are given. Opened and encoded once: every generation gets the same.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) listeners: Vec<UdpSocket>,
    pub(super) root: Root,
    programs: Programs,
    null: OwnedFd,
    broker: Vec<u8>,
    worker: Vec<u8>,
}

impl Launcher {
    /// Encodes the start messages.
    ///
    /// # Errors
    /// [`Error::TooManyNetworks`]; as open(2) of /dev/null.
    pub(super) fn new(
        settings: &Settings,
        limits: Limits,
        root: Root,
        programs: Programs,
        listeners: Vec<UdpSocket>,
    ) -> Result<Self, Error> {
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(Error::system("open /dev/null"))?;
        let broker = encode(&broker_start(settings, limits, &root))?;
        let worker = encode(&worker_start(settings, limits))?;
        Ok(Self {
            listeners,
            root,
            programs,
            null,
            broker,
            worker,
        })
    }

    /// Starts a broker and a worker that can talk to each other.
    ///
    /// # Errors
    /// Which one could not be started, and why. The other one is gone then, too.
    pub(super) fn launch(&self) -> Result<[(Role, Process); 2], (Role, io::Error)> {
        let (to_worker, to_broker) = Channel::pair().map_err(|error| (Role::Broker, error))?;
        let listeners = self.listeners.iter().map(AsFd::as_fd);
        let broker: Vec<_> = [to_worker.as_fd(), self.root.as_fd()]
            .into_iter()
            .chain(listeners)
            .collect();
        let broker = self.start(Role::Broker, &broker)?;
        let worker = self.start(Role::Worker, &[to_broker.as_fd()])?;
        Ok([(Role::Broker, broker), (Role::Worker, worker)])
    }

    fn start(&self, role: Role, fds: &[BorrowedFd<'_>]) -> Result<Process, (Role, io::Error)> {
        let (program, message) = match role {
            Role::Broker => (&self.programs.broker, &self.broker),
            Role::Worker => (&self.programs.worker, &self.worker),
        };
        let process = Process::start(role, program.as_fd(), self.null.as_fd(), message, fds)
            .map_err(|error| (role, error))?;
        debug!(pid = process.pid(), "{role} started");
        Ok(process)
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

fn broker_start(settings: &Settings, limits: Limits, root: &Root) -> BrokerStart {
    BrokerStart {
        hello: Hello::OURS,
        log: settings.log.clone(),
        sandbox: settings.sandbox,
        allow: settings.allow.clone(),
        deny: settings.deny.clone(),
        max_per_client: settings.max_per_client,
        port_range: settings.port_range,
        max_outstanding: limits.outstanding(),
        root: root.name(),
    }
}

fn worker_start(settings: &Settings, limits: Limits) -> WorkerStart {
    WorkerStart {
        hello: Hello::OURS,
        log: settings.log.clone(),
        sandbox: settings.sandbox,
        max_connections: limits.connections,
        max_unproven: limits.unproven,
        timeout_ms: u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX),
        max_retries: settings.max_retries,
        max_blksize: settings.max_blksize,
        max_windowsize: settings.max_windowsize,
        options: settings.options,
        wrq_devnull: settings.wrq_devnull,
    }
}
