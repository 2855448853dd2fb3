//! Processes in the hands of an attacker: they start and lock themselves down as always, and then
//! do one deed in place of their work.
//!
//! The only way here is an argument, [`ARGUMENT`] with the name of a deed, which comes from the
//! exec of a supervisor whose user has typed `self-test`. No message of any channel leads here.

pub mod broker;
pub(super) mod fetcher;
pub mod worker;

use std::io;
use std::process::{ExitCode, exit};

use nix::errno::Errno;
use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::control::{self, Order};
use r_tftpd_broker::lockdown;
use r_tftpd_broker::supervisor::self_test::{ARGUMENT, Scene, status};

use super::probe::{Expected, Group, Outcome, Probe};

/// The deed that this process was started for, if there is one.
pub(super) fn wanted(groups: &[Group]) -> Option<Result<(Scene, Probe), Unknown>> {
    let argument = std::env::args_os().nth(1)?;
    let name = argument.to_str()?.strip_prefix(ARGUMENT)?;
    let mut all = groups
        .iter()
        .flat_map(|group| group.probes.iter().map(|probe| (group.scene, *probe)));
    Some(all.find(|(_, probe)| probe.name == name).ok_or(Unknown))
}

/// Runs a captured process; none if this one is not captured.
pub(super) fn main(
    name: &str,
    groups: &[Group],
    play: fn(Scene, Probe) -> Result<std::convert::Infallible, Box<dyn std::error::Error>>,
) -> Option<ExitCode> {
    let played = match wanted(groups)? {
        Ok((scene, probe)) => play(scene, probe),
        Err(unknown) => Err(unknown.into()),
    };
    match played {
        Ok(never) => match never {},
        Err(reason) => {
            lockdown::last_words(name, reason.as_ref());
            Some(ExitCode::FAILURE)
        }
    }
}

/// No deed has this name.
#[derive(Debug)]
pub(super) struct Unknown;

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("self-test: there is no such deed")
    }
}

impl std::error::Error for Unknown {}

/// Waits until the supervisor says go.
fn wait_for_go(control: &Channel) -> io::Result<()> {
    let mut buffer = [0; control::SIZE + 1];
    match control.receive(&mut buffer).map(Order::from_bytes) {
        Ok(Ok(Order::Go)) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Tells what came of a deed, by the exit status. Never returns.
fn tell(expected: Expected, outcome: Outcome, control: &Channel) -> ! {
    match outcome {
        // Could not be tried.
        Err(Errno::UnknownErrno) => exit(1),
        // It is for others to notice. They must not take our end for the reason of theirs.
        Ok(_) if expected == Expected::Replaced => {
            let mut buffer = [0; control::SIZE + 1];
            let _ = control.receive(&mut buffer);
            exit(0)
        }
        Ok(_) => exit(i32::from(status(Ok(())))),
        Err(errno) => exit(i32::from(status(Err(errno as i32)))),
    }
}
