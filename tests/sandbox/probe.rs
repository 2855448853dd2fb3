//! How a captured process tells the result of a probe.

use std::io::Write;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use r_tftpd::self_test::probe::{Group, Outcome, Probe};

/// All probes of groups, in their order: each is asked for by its number.
pub(crate) fn all(groups: &[&[Group]]) -> Vec<Probe> {
    let groups = groups.iter().flat_map(|groups| groups.iter());
    groups.flat_map(|group| group.probes).copied().collect()
}

/// A descriptor as an argument of a system call.
pub(crate) fn number(descriptor: &impl AsRawFd) -> usize {
    usize::try_from(descriptor.as_raw_fd()).expect("an open descriptor")
}

/// Tells the driver how a probe ended, as a record in the log.
pub(crate) fn report(probe: &str, result: Outcome) {
    match result {
        Ok(_) => say(probe, "passed"),
        Err(Errno::UnknownErrno) => say(probe, "could not be tried"),
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
