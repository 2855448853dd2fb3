//! What a probe is, and how a captured process tells its result.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use r_tftpd_broker::channel::Channel;

use crate::raw::call;

/// One deed of an attacker.
pub(crate) struct Probe<Place> {
    /// Asked for under this name.
    pub name: String,
    /// What must come of it.
    pub expected: Expected,
    /// The deed.
    pub run: Deed<Place>,
}

type Deed<Place> = Box<dyn Fn(&Place) -> Result<i64, Errno>>;

/// What must come of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The kernel kills the process.
    Killed,
    /// The call fails with this error.
    Fails(Errno),
    /// The call may pass: it gives nothing the process does not have.
    Harmless,
    /// Broker or supervisor notice, and replace the generation.
    Replaced,
}

impl<Place> Probe<Place> {
    /// A deed.
    pub(crate) fn new(
        name: &str,
        expected: Expected,
        run: impl Fn(&Place) -> Result<i64, Errno> + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            expected,
            run: Box::new(run),
        }
    }

    /// A system call that kills, whatever its arguments; they are such that it would do harm.
    pub(crate) fn kills(name: &str, number: i64, arguments: &[usize]) -> Self {
        let arguments = arguments.to_vec();
        Self::new(name, Expected::Killed, move |_| call(number, &arguments))
    }
}

/// All that a captured worker has when a request has come.
pub(crate) struct WorkerPlace {
    /// To the supervisor.
    pub control: Rc<Channel>,
    /// To the broker.
    pub broker: Rc<Channel>,
    /// The request's number.
    pub id: u64,
    /// Connected to the client.
    pub reply: OwnedFd,
    /// The file that the broker granted, if the probe begins with one.
    pub file: Option<OwnedFd>,
}

impl WorkerPlace {
    /// The reply socket as an argument of a system call.
    pub(crate) fn socket(&self) -> usize {
        number(&self.reply)
    }

    /// The granted file as an argument of a system call.
    pub(crate) fn granted(&self) -> usize {
        number(
            self.file
                .as_ref()
                .expect("the probe begins with a granted file"),
        )
    }
}

/// A descriptor as an argument of a system call.
pub(crate) fn number(descriptor: &impl AsRawFd) -> usize {
    usize::try_from(descriptor.as_raw_fd()).expect("an open descriptor")
}

/// The error number of a failure.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Tells the driver how a probe ended, as a record in the log.
pub(crate) fn report(probe: &str, result: Result<i64, Errno>) {
    match result {
        Ok(_) => say(probe, "passed"),
        Err(error) => say(probe, &format!("{error:?}")),
    }
}

/// Writes a record to the log.
pub(crate) fn say(probe: &str, result: &str) {
    let record = serde_json::json!({
        "target": "captured", "fields": {"message": probe, "result": result},
    });
    // One call to write(2): a record in pieces could be torn by those of other processes.
    let _ = std::io::stderr().write_all(format!("{record}\n").as_bytes());
}
