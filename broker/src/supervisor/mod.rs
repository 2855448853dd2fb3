//! The process that is started by the user or by systemd: it takes the sockets, gives up every
//! right, and from then on only starts, watches and replaces the others.
//!
//! It reads nothing from the network, and of the processes it starts only messages of a fixed
//! length ([`crate::control`]).
//!
//! - `listen`: addresses and sockets bound to them; `activation`: sockets from systemd; `socket`:
//!   what both need.
//! - `root`: the directory to serve; `limits`: how many clients the descriptors allow.
//! - `identity`: from whatever we were started as to an ordinary user without a right.
//! - `programs`: the binaries of the others; `launch`: starts a set of them; `process`: one of them.
//! - `generations`: who has to be started, told and ended when; pure. `note`: what to tell the user.
//! - `watch`: does what `generations` says, and tells it what happened.

mod activation;
mod error;
mod generations;
mod identity;
mod launch;
mod limits;
mod listen;
mod note;
mod process;
mod programs;
mod root;
mod socket;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::geteuid;

pub use self::error::Error;
use self::generations::Rules;
use self::identity::Identity;
use self::launch::Launcher;
use self::limits::Limits;
pub use self::listen::{ListenAddress, ParseError};
use self::programs::Programs;
use self::root::Root;
use self::watch::{InForce, Watch};
use crate::channel::MAX_DESCRIPTORS;
use crate::lockdown;
use crate::net::Network;
use crate::settings::{LogSettings, Sandbox};

/// The broker gets the listeners with its channel and the root, all in one message.
const MAX_LISTENERS: usize = MAX_DESCRIPTORS - 2;

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
    // 2. Signals wait in a descriptor from now on: none interrupts the steps below.
    let signals = watch::signals()?;
    // 3. Who we shall be, while the user database can be read.
    let identity = Identity::resolve(settings.user.as_deref())?;
    // 4. The root, while the directories above it can be passed.
    let root = Root::open(&settings.root)?;
    // 5. The other programs: opened once, so that an upgrade on disk never mixes versions.
    let programs = Programs::open()?;
    // 6. The listeners: a port below 1024 is what we may have been given rights for.
    let is_activated = activated.is_some();
    let listeners = match (&settings.listen, activated) {
        (Listen::Addresses { addresses, port }, _) => listen::bind(addresses, *port)?,
        (Listen::Systemd, activated) => activated.unwrap_or_default(),
    };
    // 7. Each request must tell where it was sent to; and room for a storm, forced while we may.
    let receive_buffer = socket::prepare(&listeners)?;
    // 8. Two descriptors for each transfer, as far as the system has them.
    let limits = Limits::raise(settings.max_connections)?;
    // 9. Give up every right, for good: ids, capabilities, what an exec could bring, core files.
    let rights = identity.assume(is_activated)?;
    lockdown::no_new_privileges().map_err(Error::Lockdown)?;
    lockdown::not_dumpable().map_err(Error::Lockdown)?;
    lockdown::no_core_files().map_err(Error::Lockdown)?;
    // 10. Do not trust the step before: look.
    lockdown::assert_unprivileged().map_err(Error::Lockdown)?;
    // 11. The root must be of use to who we are now.
    root.assert_searchable(&rights.user)?;
    // 12. Start, watch and replace the others until we are told to end.
    let launcher = Launcher::new(settings, limits, root, programs, listeners)?;
    let in_force = InForce {
        receive_buffer,
        bounding_set_kept: rights.bounding_set_kept,
    };
    let rules = Rules {
        sandbox: settings.sandbox,
        uid: geteuid().as_raw(),
        drain_timeout: settings.drain_timeout,
    };
    Watch::new(launcher, signals, in_force, rules).run()
}
