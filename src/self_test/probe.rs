//! What a probe is: a deed of an attacker, and what has to come of it.
//!
//! A deed that is not stopped does little harm: it names files that are not there, sends signal 0,
//! or lacks the right anyway, as no process of ours has any.

use std::cell::OnceCell;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::settings::FetcherStart;
use r_tftpd_broker::supervisor::self_test::{FILE as FILE_NAME, Scene};

use super::captured::worker::open;
use crate::sys;

/// One deed.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Unique among those of a process.
    pub name: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// What is done.
    pub deed: Deed,
}

/// What must come of a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The kernel kills the process.
    Killed,
    /// The call fails with this error.
    Fails(Errno),
    /// Landlock refuses it with EACCES, from this ABI on. Before, it is possible.
    Landlock(u32),
    /// The call may pass: it gives nothing the process does not have.
    Harmless,
    /// The call passes: that is what the process is for.
    Possible,
    /// Broker or supervisor notice, and the process is replaced.
    Replaced,
}

pub(super) const KILLED: Expected = Expected::Killed;
pub(super) const DENIED: Expected = Expected::Fails(Errno::EACCES);
pub(super) const BAD_DESCRIPTOR: Expected = Expected::Fails(Errno::EBADF);
pub(super) const INVALID: Expected = Expected::Fails(Errno::EINVAL);
pub(super) const LANDLOCK: Expected = Expected::Landlock(1);
pub(super) const POSSIBLE: Expected = Expected::Possible;
pub(super) const HARMLESS: Expected = Expected::Harmless;
pub(super) const REPLACED: Expected = Expected::Replaced;

/// Probes on one matter.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    /// What they take beside the captured process.
    pub scene: Scene,
    /// Where they mean something.
    pub needs: Needs,
    /// The probes.
    pub probes: &'static [Probe],
}

/// What a service must have for a group to mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A proxy.
    Proxy,
    /// A proxy whose cache files are in a directory.
    CacheDirectory,
    /// A proxy that is bound to some ports.
    Ports,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// One system call.
    Call(i64, &'static [Argument]),
    /// By a worker.
    Worker(fn(&WorkerPlace) -> Outcome),
    /// By a broker.
    Broker(fn(&BrokerPlace) -> Outcome),
    /// By a fetcher.
    Fetcher(fn(&FetcherPlace) -> Outcome),
}

/// What a deed returns. `UnknownErrno` is no error of the kernel's: the deed could not be tried.
pub type Outcome = Result<i64, Errno>;

/// An argument of a system call.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// Itself.
    Number(usize),
    /// Address of a string.
    Text(&'static CStr),
    /// Address of bytes.
    Bytes(&'static [u8]),
    /// Process id of the supervisor.
    Supervisor,
    /// Number of a descriptor.
    Held(Held),
}

/// A descriptor that a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Channel to the supervisor.
    Control,
    /// Worker, fetcher: channel to the broker.
    Channel,
    /// Worker: the socket connected to the client.
    Reply,
    /// Worker, fetcher: the granted file.
    File,
    /// Broker: the root.
    Root,
    /// Broker: the directory with the files of `r_tftpd_broker::supervisor::self_test`.
    Served,
    /// Broker: the directory for cache files.
    Cache,
    /// Broker: where requests come in.
    Listener,
    /// Broker: channel to the fetcher.
    Fetcher,
}

/// All that a captured worker has.
#[derive(Debug)]
pub struct WorkerPlace {
    /// To the supervisor.
    pub control: Arc<Channel>,
    /// To the broker.
    pub broker: Arc<Channel>,
    /// Number of the request; 0 without one.
    pub id: u64,
    /// Connected to the client, if there is a request.
    pub reply: Option<OwnedFd>,
    /// [`self_test::FILE`](r_tftpd_broker::supervisor::self_test::FILE), once a deed needs it.
    pub file: OnceCell<Option<OwnedFd>>,
}

/// All that a captured broker has.
#[derive(Debug)]
pub struct BrokerPlace {
    /// To the supervisor.
    pub control: Channel,
    /// To the worker.
    pub worker: Channel,
    /// The directory that is served.
    pub root: OwnedFd,
    /// A second one; none = the first has the files to try.
    pub served: Option<OwnedFd>,
    /// For cache files.
    pub cache: Option<OwnedFd>,
    /// Where requests come in.
    pub listener: OwnedFd,
    /// To the fetcher.
    pub fetcher: Option<Channel>,
}

/// All that a captured fetcher has.
#[derive(Debug)]
pub struct FetcherPlace {
    /// To the supervisor.
    pub control: Channel,
    /// To the broker.
    pub broker: Channel,
    /// Number of the job; 0 without one.
    pub job: u64,
    /// The file that the broker granted, if there is a job.
    pub file: Option<OwnedFd>,
    /// Its settings.
    pub start: FetcherStart,
}

/// Somebody who can try a probe.
pub trait Place {
    /// Number of a descriptor, if it is held.
    fn held(&self, what: Held) -> Option<usize>;

    /// Does a deed that is more than a system call, if it is one for this process.
    fn act(&self, deed: Deed) -> Outcome;
}

impl Place for WorkerPlace {
    fn held(&self, what: Held) -> Option<usize> {
        match what {
            Held::Control => number(&self.control),
            Held::Channel => number(&self.broker),
            Held::Reply => self.reply.as_ref().and_then(number),
            Held::File => {
                let file = self
                    .file
                    .get_or_init(|| open(&self.broker, self.id, FILE_NAME.into()).1);
                file.as_ref().and_then(number)
            }
            _ => None,
        }
    }

    fn act(&self, deed: Deed) -> Outcome {
        match deed {
            Deed::Worker(act) => act(self),
            _ => Err(Errno::UnknownErrno),
        }
    }
}

impl Place for BrokerPlace {
    fn held(&self, what: Held) -> Option<usize> {
        match what {
            Held::Control => number(&self.control),
            Held::Root => number(&self.root),
            Held::Served => number(self.served.as_ref().unwrap_or(&self.root)),
            Held::Cache => self.cache.as_ref().and_then(number),
            Held::Listener => number(&self.listener),
            Held::Fetcher => self.fetcher.as_ref().and_then(number),
            _ => None,
        }
    }

    fn act(&self, deed: Deed) -> Outcome {
        match deed {
            Deed::Broker(act) => act(self),
            _ => Err(Errno::UnknownErrno),
        }
    }
}

impl Place for FetcherPlace {
    fn held(&self, what: Held) -> Option<usize> {
        match what {
            Held::Control => number(&self.control),
            Held::Channel => number(&self.broker),
            Held::File => self.file.as_ref().and_then(number),
            _ => None,
        }
    }

    fn act(&self, deed: Deed) -> Outcome {
        match deed {
            Deed::Fetcher(act) => act(self),
            _ => Err(Errno::UnknownErrno),
        }
    }
}

impl Probe {
    /// Does the deed.
    ///
    /// # Errors
    /// What the kernel answered; `UnknownErrno` if the deed could not be tried.
    pub fn run(&self, place: &impl Place) -> Outcome {
        match self.deed {
            Deed::Call(number, arguments) => {
                let mut values = [0; 6];
                for (value, argument) in values.iter_mut().zip(arguments) {
                    *value = argument.value(place).ok_or(Errno::UnknownErrno)?;
                }
                call(number, &values)
            }
            deed => place.act(deed),
        }
    }
}

impl Argument {
    fn value(self, place: &impl Place) -> Option<usize> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => Some(text.as_ptr().addr()),
            Self::Bytes(bytes) => Some(bytes.as_ptr().addr()),
            Self::Supervisor => usize::try_from(Pid::parent().as_raw()).ok(),
            Self::Held(what) => place.held(what),
        }
    }
}

/// A descriptor as an argument of a system call.
pub(super) fn number(descriptor: &impl AsRawFd) -> Option<usize> {
    usize::try_from(descriptor.as_raw_fd()).ok()
}

/// A system call, past every library.
pub(super) fn call(number: i64, arguments: &[usize]) -> Outcome {
    let mut values = [0; 6];
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = *argument;
    }
    sys::probe(number, values)
}

/// What sending came to.
pub(super) fn sent(result: std::io::Result<()>) -> Outcome {
    result.map(|()| 0).map_err(|error| {
        let errno = error.raw_os_error().map(Errno::from_raw);
        // Seen as one: the channel is full.
        errno.unwrap_or(Errno::EAGAIN)
    })
}

/// A table of system calls: what must come of each, its name, the call with its arguments. An
/// argument is a number or the name of an [`Argument`].
macro_rules! calls {
    ($($expected:ident $name:literal $call:ident($($argument:tt),*);)*) => {
        &[$(
            $crate::self_test::probe::Probe {
                name: $name,
                expected: $expected,
                deed: $crate::self_test::probe::Deed::Call(
                    libc::$call,
                    &[$($crate::self_test::probe::argument!($argument)),*],
                ),
            },
        )*]
    };
}

/// See [`calls`].
macro_rules! argument {
    ($number:literal) => {
        $crate::self_test::probe::Argument::Number($number)
    };
    ($name:ident) => {
        $name
    };
}

/// A table of functions: what must come of each, its name, what it does as `role`.
macro_rules! deeds {
    ($role:ident: $($expected:ident $name:literal $act:expr;)*) => {
        &[$(
            $crate::self_test::probe::Probe {
                name: $name,
                expected: $expected,
                deed: $crate::self_test::probe::Deed::$role($act),
            },
        )*]
    };
}

pub(super) use {argument, calls, deeds};

/// Arguments of many calls.
pub(super) const HERE: Argument = Argument::Number(libc::AT_FDCWD as usize);
pub(super) const MAX: Argument = Argument::Number(usize::MAX);
pub(super) const PASSWD: Argument = Argument::Text(c"/etc/passwd");
pub(super) const MADE: Argument = Argument::Text(c"/tmp/r-tftpd-self-test.made");
pub(super) const EMPTY: Argument = Argument::Text(c"");
pub(super) const X: Argument = Argument::Text(c"x");
pub(super) const ONES: Argument = Argument::Bytes(&[1; 16]);
pub(super) const ZEROS: Argument = Argument::Bytes(&[0; 64]);
pub(super) const SUPERVISOR: Argument = Argument::Supervisor;
pub(super) const CONTROL: Argument = Argument::Held(Held::Control);
pub(super) const CHANNEL: Argument = Argument::Held(Held::Channel);
pub(super) const REPLY: Argument = Argument::Held(Held::Reply);
pub(super) const FILE: Argument = Argument::Held(Held::File);
/// 127.0.0.9 port 9, as struct sockaddr_in.
pub(super) const ELSEWHERE: Argument =
    Argument::Bytes(&[2, 0, 0, 9, 127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
