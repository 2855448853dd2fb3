//! The first steps of every process that the supervisor starts.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use nix::sys::prctl;

use crate::channel::{Channel, ReceiveError};
use crate::settings::{BrokerStart, FetcherStart, MAX_START, WorkerStart};
use crate::sys;
use crate::wire::{self, Decode, Hello};

/// Number of the descriptor that is inherited: the control channel.
const CONTROL: RawFd = 3;

/// A start message.
pub trait Start: Decode<()> {
    /// What the supervisor was built from.
    fn hello(&self) -> Hello;
}

impl Start for BrokerStart {
    fn hello(&self) -> Hello {
        self.hello
    }
}

impl Start for WorkerStart {
    fn hello(&self) -> Hello {
        self.hello
    }
}

impl Start for FetcherStart {
    fn hello(&self) -> Hello {
        self.hello
    }
}

/// Takes the control channel over, which must be the first thing a process does, and names the
/// process for ps and the kernel's log.
///
/// # Errors
/// [`Error::NotStarted`], [`Error::System`].
pub fn take_control(name: &CStr) -> Result<Channel, Error> {
    // All that was meant to be inherited; the rest is an accident.
    let control = sys::take_inherited(CONTROL).map_err(|_| Error::NotStarted)?;
    sys::close_from(CONTROL.unsigned_abs() + 1)
        .map_err(|error| Error::System("close_range", error))?;
    // The program was executed from a descriptor, which has a number for a name.
    prctl::set_name(name).map_err(|errno| Error::System("prctl", errno.into()))?;
    Ok(Channel::from_descriptor(control))
}

/// Receives the start message and what comes with it. The supervisor has checked what it says.
///
/// # Errors
/// All but [`Error::NotStarted`].
pub fn receive<S: Start>(control: &Channel) -> Result<(S, Vec<OwnedFd>), Error> {
    let mut buffer = vec![0; MAX_START + 1];
    let message = control.receive_with(&mut buffer).map_err(Error::Control)?;
    let start: S = wire::decode::<_, MAX_START>(message.bytes).map_err(Error::Message)?;
    if start.hello().is_ours() {
        Ok((start, message.descriptors))
    } else {
        Err(Error::OtherBuild)
    }
}

/// Why a process can not begin.
#[derive(Debug)]
pub enum Error {
    /// There is no control channel.
    NotStarted,
    /// No start message.
    Control(ReceiveError),
    /// A start message that does not decode.
    Message(wire::Error),
    /// The supervisor was built from other sources.
    OtherBuild,
    /// The number of descriptors is not what the start message says.
    Descriptors,
    /// A system call failed.
    System(&'static str, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("started by hand; start r-tftpd instead"),
            Self::Control(error) => write!(f, "supervisor: {error}"),
            Self::Message(error) => write!(f, "supervisor: start message: {error}"),
            Self::OtherBuild => {
                f.write_str("the supervisor is of another build; reinstall and restart r-tftpd")
            }
            Self::Descriptors => f.write_str("supervisor: start message: wrong descriptors"),
            Self::System(call, error) => write!(f, "{call}: {error}"),
        }
    }
}

impl std::error::Error for Error {}
