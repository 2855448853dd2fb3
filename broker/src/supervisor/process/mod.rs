//! One running broker, worker or fetcher: its control channel, its end, and why it ended.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::channel::{Channel, ReceiveError};
use crate::control::{self, Order, Report};
use crate::sys;

/// How long a process may take from closing its channels to its end, in milliseconds: to give back
/// the memory and the descriptors of many transfers.
const LAST_MOMENT: u8 = 20;

/// Which program a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `r-tftpd-broker`.
    Broker,
    /// `r-tftpd-worker`.
    Worker,
    /// `r-tftpd-fetcher`.
    Fetcher,
}

impl Role {
    /// All, in the order they are started.
    pub(super) const ALL: [Self; 3] = [Self::Broker, Self::Worker, Self::Fetcher];

    fn argument(self) -> &'static CStr {
        match self {
            Self::Broker => c"r-tftpd-broker",
            Self::Worker => c"r-tftpd-worker",
            Self::Fetcher => c"r-tftpd-fetcher",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "broker",
            Self::Worker => "worker",
            Self::Fetcher => "fetcher",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It ended itself.
    Exited(i32),
    /// A signal killed it.
    Killed(Signal),
    /// We killed it.
    Ordered,
    /// It is gone, nobody knows how.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(Signal::SIGSYS) => {
                f.write_str("killed by seccomp: the kernel log (type=1326) names the system call")
            }
            Self::Killed(signal) => write!(f, "killed by {signal}"),
            Self::Ordered => f.write_str("killed by the supervisor"),
            Self::Unknown => f.write_str("gone"),
        }
    }
}

/// A process that has not been waited for. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    /// None once nothing it says is believed any more.
    control: Option<Channel>,
    killed: bool,
    end: Option<End>,
}

impl Process {
    /// Starts `program` and sends it its start message with descriptors. `captured` is what a
    /// self-test has it do in place of its work.
    ///
    /// # Errors
    /// As fork(2), execveat(2), sendmsg(2).
    pub(super) fn start(
        role: Role,
        program: BorrowedFd<'_>,
        null: BorrowedFd<'_>,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        captured: Option<&CStr>,
    ) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        ours.set_nonblocking()?;
        // Sent first: it waits in the channel.
        ours.send_with(message, descriptors)?;
        let birth = sys::Birth {
            program,
            name: role.argument(),
            argument: captured,
            null,
            control: theirs.as_fd(),
        };
        let sys::Born { pid, pidfd } = sys::spawn(&birth)?;
        Ok(Self {
            pid,
            pidfd,
            control: Some(ours),
            killed: false,
            end: None,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Becomes readable when it has ended.
    pub(super) fn ending(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Becomes readable when it has said something.
    pub(super) fn control(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(AsFd::as_fd)
    }

    /// Tells it something. A process that is just ending can not be told; one that does not read
    /// is found out by its missing answers.
    pub(super) fn tell(&self, order: Order) {
        if let Some(control) = &self.control {
            let _ = control.send(&order.to_bytes());
        }
    }

    /// Tells it something that comes with a descriptor.
    ///
    /// # Errors
    /// As sendmsg(2); it does not read or is just ending.
    pub(super) fn hand(&self, order: Order, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        match &self.control {
            Some(control) => control.send_with(&order.to_bytes(), &[descriptor]),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The next report, if there is one.
    ///
    /// # Errors
    /// Why nothing more is to be expected from it.
    pub(super) fn report(&mut self) -> Result<Option<Report>, Mute> {
        let Some(control) = &self.control else {
            return Ok(None);
        };
        // One more byte than a report has: a longer one is not taken for one.
        let mut buffer = [0; control::SIZE + 1];
        let mute = match control.receive(&mut buffer) {
            Ok(bytes) => match Report::from_bytes(bytes) {
                Ok(report) => return Ok(Some(report)),
                Err(_) => Mute::Malformed,
            },
            Err(ReceiveError::WouldBlock) => return Ok(None),
            Err(ReceiveError::Closed | ReceiveError::Io(_)) => Mute::Closed,
            Err(ReceiveError::Truncated) => Mute::Malformed,
        };
        self.control = None;
        Err(mute)
    }

    /// Kills it and hears nothing more of it. It still has to be waited for.
    pub(super) fn kill(&mut self) {
        // It may have ended before, for a reason of its own that must not get lost; or be about to,
        // as a process closes its channels, by which the others notice, before it is gone.
        let mut ending = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ending, LAST_MOMENT);
        if self.wait().is_none() {
            self.killed = true;
            // The id is its own until it has been waited for.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        // Only now: by its end a process sees that we are gone, and would end by itself.
        self.control = None;
    }

    /// Its end, if it has come; never waits.
    pub(super) fn wait(&mut self) -> Option<End> {
        if self.end.is_none() {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
            self.end = match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
                Ok(WaitStatus::StillAlive) => None,
                Ok(WaitStatus::Exited(_, status)) => Some(End::Exited(status)),
                Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if self.killed => {
                    Some(End::Ordered)
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(End::Killed(signal)),
                // A real-time signal, which nix has no name for.
                Ok(_) | Err(_) => Some(End::Unknown),
            };
        }
        self.end
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if self.end.is_none() {
            let _ = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
    }
}

/// Why nothing more is to be expected from a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mute {
    /// It closed the channel: it is ending.
    Closed,
    /// It said what is no report.
    Malformed,
}

#[cfg(test)]
mod tests;
