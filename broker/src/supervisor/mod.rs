//! The process that is started by the user or by systemd: it takes the sockets, gives up every
//! right, and from then on only starts, watches and replaces the others.
//!
//! It reads nothing from the network, and of the processes it starts only messages of a fixed
//! length ([`crate::control`]).
//!
//! - `listen`: addresses and sockets bound to them; `activation`: sockets from systemd; `socket`:
//!   what both need.
//! - `root`: the directory to serve; `directory`: others; `trust`: what a fetcher has to read;
//!   `limits`: how many clients the descriptors allow.
//! - `identity`: from whatever we were started as to an ordinary user without a right.
//! - `programs`: the binaries of the others; `launch`: starts a set of them; `process`: one of them.
//! - `generations`: who has to be started, told and ended when; pure. `note`: what to tell the user.
//! - `manager`: tells systemd how we do.
//! - `watch`: does what `generations` says, and tells it what happened.
//! - [`self_test`]: tries what the others must not be able to do, instead of serving.

mod activation;
mod directory;
mod error;
mod generations;
mod identity;
mod launch;
mod limits;
mod listen;
mod manager;
mod note;
mod process;
mod programs;
mod root;
pub mod self_test;
mod socket;
mod trust;
mod watch;

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::geteuid;

use self::directory::Directory;
pub use self::error::Error;
use self::generations::Rules;
use self::identity::{Identity, Rights};
use self::launch::{Launcher, Places};
use self::limits::Limits;
pub use self::listen::{ListenAddress, ParseError};
use self::manager::Manager;
pub use self::process::Role;
use self::programs::Programs;
use self::root::Root;
use self::trust::TrustFiles;
use self::watch::{InForce, Watch};
use crate::channel::MAX_DESCRIPTORS;
use crate::lockdown;
use crate::net::Network;
use crate::settings::{LogSettings, Sandbox};

/// The broker gets the listeners with its channel, the root, and up to two more directories, all in
/// one message.
const MAX_LISTENERS: usize = MAX_DESCRIPTORS - 4;

/// The command line, already checked: every number is in the range its field names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory to serve; relative to the current directory.
    pub root: PathBuf,
    /// Where requests come in.
    pub listen: Listen,
    /// Whom to become when started by root; none = `r-tftpd` where it exists, else `nobody`.
    pub user: Option<String>,
    /// Which lock-down is required.
    pub sandbox: Sandbox,
    /// How all processes write log records.
    pub log: LogSettings,
    /// Peers to answer; empty = all.
    pub allow: Vec<Network>,
    /// Peers not to answer, also when allowed.
    pub deny: Vec<Network>,
    /// Simultaneous requests of one address; 1 or more.
    pub max_per_client: u32,
    /// First and last port for reply sockets; none = any free port.
    pub port_range: Option<(u16, u16)>,
    /// Proven transfers at once; 1 or more.
    pub max_connections: u32,
    /// Time before a resend; 1 ms or more.
    pub timeout: Duration,
    /// Resends without progress before a transfer is given up; 1 or more.
    pub max_retries: u32,
    /// Largest blksize granted, in bytes, 8 to 65464.
    pub max_blksize: u16,
    /// Largest windowsize granted, in blocks, 1 to 65535.
    pub max_windowsize: u16,
    /// Answer options (RFC 2347); off only for testing clients.
    pub options: bool,
    /// Accept writes and discard the data; only for testing clients.
    pub wrq_devnull: bool,
    /// How long transfers may go on after SIGTERM; 0 = not at all.
    pub drain_timeout: Duration,
    /// A second directory, for what is not below the root; relative to the current directory.
    pub fallback_directory: Option<PathBuf>,
    /// How links to other servers are answered; none = they are denied.
    pub proxy: Option<ProxySettings>,
}

/// How links to other servers are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// URL for what is in no directory, valid by [`crate::link::Link::parse`].
    pub fallback: Option<String>,
    /// Where cache files go.
    pub cache_directory: CacheDirectory,
    /// Bytes of all cached bodies together.
    pub cache_size: u64,
    /// Largest body in bytes, cached or not.
    pub max_object: u64,
    /// Entries kept in the cache; 1 or more.
    pub cache_entries: u32,
    /// How long a stale entry can stand in for an origin that fails.
    pub stale_if_error: Duration,
    /// Ranges (first and last) of ports that links and redirects may lead to; empty = any.
    pub ports: Vec<(u16, u16)>,
    /// Files with certificates to trust, beside those of the system.
    pub ca_files: Vec<PathBuf>,
    /// A file in place of those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// Tell origins who asks for what, by `X-TFTP-` headers.
    pub about: bool,
    /// How long an origin may take for a connection, or between two bytes; 1 ms or more.
    pub timeout: Duration,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
}

/// Where cache files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheDirectory {
    /// The user named it.
    Named(PathBuf),
    /// The first one that can be used.
    Candidates(Vec<PathBuf>),
}

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On the sockets that systemd hands over (`LISTEN_FDS`).
    Systemd,
    /// On sockets of our own.
    Addresses {
        /// At least one.
        addresses: Vec<ListenAddress>,
        /// UDP port; 0 = any free one.
        port: u16,
    },
}

/// Serves until SIGTERM or SIGINT. Expects a process with one thread, and the log started.
///
/// # Errors
/// [`Error`]: what kept the service from starting, or from going on.
pub fn run(settings: &Settings) -> Result<(), Error> {
    // 1. Sockets from systemd, before a descriptor of ours could take one of their numbers.
    let activated = match settings.listen {
        Listen::Systemd => Some(activation::take()?),
        Listen::Addresses { .. } => None,
    };
    // 2. Whoever started us may want to know when we serve.
    let manager = Manager::from_environment(settings.drain_timeout)?;
    // 3. Signals wait in a descriptor from now on: none interrupts the steps below.
    let signals = watch::signals()?;
    // 4. to 12. All that is opened, and every right given up.
    let Prepared {
        places,
        limits,
        rights,
        receive_buffer,
    } = prepare(settings, activated)?;
    // 13. Start, watch and replace the others until we are told to end.
    let launcher = Launcher::new(settings, limits, places)?;
    let in_force = InForce {
        receive_buffer,
        bounding_set_kept: rights.bounding_set_kept,
    };
    let rules = Rules {
        sandbox: settings.sandbox,
        uid: geteuid().as_raw(),
        drain_timeout: settings.drain_timeout,
        ping_every: manager.ping_every(),
        proxy: settings.proxy.is_some(),
    };
    Watch::new(launcher, manager, signals, in_force, rules).run()
}

/// What is there when every right has been given up.
struct Prepared {
    places: Places,
    limits: Limits,
    rights: Rights,
    /// In bytes.
    receive_buffer: usize,
}

/// Opens all that the other processes will be given, and gives up every right. `activated` are
/// sockets from systemd.
///
/// # Errors
/// [`Error`]: what keeps the service from starting.
fn prepare(settings: &Settings, activated: Option<Vec<UdpSocket>>) -> Result<Prepared, Error> {
    // 4. Who we shall be, while the user database can be read.
    let identity = Identity::resolve(settings.user.as_deref())?;
    // 5. The root, while the directories above it can be passed.
    let root = Root::open(&settings.root)?;
    let fallback = settings.fallback_directory.as_deref();
    let fallback = fallback.map(Directory::fallback).transpose()?;
    let served: Vec<_> = [Some(root.as_fd()), fallback.as_ref().map(AsFd::as_fd)]
        .into_iter()
        .flatten()
        .collect();
    let cache = match settings.proxy.as_ref().map(|proxy| &proxy.cache_directory) {
        Some(CacheDirectory::Named(path)) => vec![Directory::cache(path, &served)?],
        Some(CacheDirectory::Candidates(paths)) => Directory::cache_candidates(paths, &served),
        None => Vec::new(),
    };
    // 6. The other programs: opened once, so that an upgrade on disk never mixes versions.
    let programs = Programs::open(settings.proxy.is_some())?;
    // 7. The listeners: a port below 1024 is what we may have been given rights for.
    let is_activated = activated.is_some();
    let listeners = match (&settings.listen, activated) {
        (Listen::Addresses { addresses, port }, _) => listen::bind(addresses, *port)?,
        (Listen::Systemd, activated) => activated.unwrap_or_default(),
    };
    // 8. Each request must tell where it was sent to; and room for a storm, forced while we may.
    let receive_buffer = socket::prepare(&listeners)?;
    // 9. Two descriptors for each transfer and one for each cached body, as far as there are.
    let entries = settings.proxy.as_ref().map(|proxy| proxy.cache_entries);
    let limits = Limits::raise(settings.max_connections, entries)?;
    // 10. Give up every right, for good: ids, capabilities, what an exec could bring, core files.
    let rights = identity.assume(is_activated)?;
    lockdown::no_new_privileges().map_err(Error::Lockdown)?;
    lockdown::not_dumpable().map_err(Error::Lockdown)?;
    lockdown::no_core_files().map_err(Error::Lockdown)?;
    // 11. Do not trust the step before: look.
    lockdown::assert_unprivileged().map_err(Error::Lockdown)?;
    // 12. The directories and files must be of use to who we are now.
    root.assert_searchable(&rights.user)?;
    let cache = settings
        .proxy
        .is_some()
        .then(|| Directory::first_usable(cache))
        .flatten();
    let trust = settings.proxy.as_ref().map(|proxy| {
        let files = TrustFiles::new(proxy.ca_bundle.clone(), proxy.ca_files.clone());
        files.assert_readable().map(|()| files)
    });
    let trust = trust.transpose()?;
    Ok(Prepared {
        places: Places {
            listeners,
            root,
            fallback,
            cache,
            trust,
            programs,
        },
        limits,
        rights,
        receive_buffer,
    })
}
