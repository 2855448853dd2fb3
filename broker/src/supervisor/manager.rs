//! What the service manager is told, and how often it wants to hear that we live: sd_notify(3).

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::Error;
use super::generations::{MAX_MISSED, Overview, State};

/// Between two pings of a process, unless the service manager wants to hear from us more often.
const PING_EVERY: Duration = Duration::from_secs(5);

/// However often it wants to.
const PING_AT_MOST: Duration = Duration::from_millis(50);

/// What ending takes beside the time that transfers get.
const FAREWELL: Duration = Duration::from_secs(5);

/// The way to the service manager, and what it was told last.
#[derive(Debug)]
pub(super) struct Manager {
    /// None = nobody wants to be told.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The service is ended as hung when it is silent for so long.
    watchdog: Option<Duration>,
    drain_timeout: Duration,
    /// None = nothing yet.
    told: Option<Overview>,
    /// It was told that we are ready, and nothing else since.
    ready: bool,
    /// A failure was logged.
    failed: bool,
}

impl Manager {
    /// Finds out who wants to be told. `drain_timeout` is how long we may take to end.
    ///
    /// # Errors
    /// [`Error::NotifySocket`]; as socket(2).
    pub(super) fn from_environment(drain_timeout: Duration) -> Result<Self, Error> {
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) => Some(connect(name)?),
            None => None,
        };
        let variable = |name| std::env::var(name).ok();
        Ok(Self {
            socket,
            watchdog: watchdog(
                variable("WATCHDOG_USEC"),
                variable("WATCHDOG_PID"),
                process::id(),
            ),
            drain_timeout,
            told: None,
            ready: false,
            failed: false,
        })
    }

    /// How often to ping the other processes. A process that hangs is replaced after
    /// [`MAX_MISSED`] pings, which must come before the service manager loses its patience.
    pub(super) fn ping_every(&self) -> Duration {
        let wanted = self
            .watchdog
            .map(|watchdog| watchdog / (2 * MAX_MISSED))
            .unwrap_or(PING_EVERY);
        wanted.clamp(PING_AT_MOST, PING_EVERY)
    }

    /// Tells what has changed. To be called after everything that happened; what can not be told
    /// now is told the next time, so that a service manager that hangs stops nothing.
    pub(super) fn update(&mut self, overview: &Overview) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        let Some(message) = self.message(overview) else {
            return;
        };
        match socket.send_to_addr(message.as_bytes(), address) {
            Ok(_) => {
                self.told = Some(*overview);
                self.ready = match overview.state {
                    State::Serving => true,
                    State::Recovering => self.ready,
                    State::Starting | State::Reloading | State::Stopping => false,
                };
            }
            // Its queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    warn!("the service manager can not be told (NOTIFY_SOCKET): {error}");
                }
            }
        }
    }

    /// The news; none = there are none.
    fn message(&self, overview: &Overview) -> Option<String> {
        let last = self.told.as_ref();
        let same_state = last.is_some_and(|last| last.state == overview.state);
        let same_rounds = last.map_or(0, |last| last.rounds) == overview.rounds;
        if same_state && same_rounds {
            return None;
        }
        let mut message = match overview.state {
            State::Serving if !self.ready => "READY=1\n".into(),
            State::Reloading if !same_state => {
                format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic())
            }
            State::Stopping if !same_state => {
                let extend = (self.drain_timeout + FAREWELL).as_micros();
                format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={extend}\n")
            }
            _ => String::new(),
        };
        if !same_rounds && self.watchdog.is_some() {
            message.push_str("WATCHDOG=1\n");
        }
        // Writing to a String can not fail.
        let _ = write!(message, "STATUS={}", Status(overview));
        Some(message)
    }
}

/// What `systemctl status` shows.
struct Status<'a>(&'a Overview);

impl std::fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Overview { state, counts, .. } = self.0;
        let state = match state {
            State::Starting => return f.write_str("starting"),
            State::Stopping => return f.write_str("stopping: running transfers may finish"),
            State::Serving => "serving",
            State::Reloading => "serving, reloading",
            State::Recovering => "not serving, restarting broker and worker",
        };
        write!(
            f,
            "{state}: {} transfers, {} not answered yet, {} waiting; since the start {} requests, {} \
             datagrams dropped",
            counts.transfers, counts.unproven, counts.waiting, counts.requests, counts.dropped
        )
    }
}

fn connect(name: OsString) -> Result<(UnixDatagram, SocketAddr), Error> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(&name),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let address = address.map_err(|error| Error::NotifySocket(name, error))?;
    let socket = UnixDatagram::unbound().map_err(Error::system("socket"))?;
    socket
        .set_nonblocking(true)
        .map_err(Error::system("fcntl"))?;
    Ok((socket, address))
}

/// sd_watchdog_enabled(3): whether it is meant for this process, and the time.
fn watchdog(time: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let microseconds = time?.parse().ok().filter(|number| *number > 0)?;
    Some(Duration::from_micros(microseconds))
}

/// Microseconds of CLOCK_MONOTONIC, by which the service manager tells one reload from another.
fn monotonic() -> u128 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
        .as_micros()
}

#[cfg(test)]
mod tests;
