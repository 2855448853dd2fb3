//! The processes of one trial, from their start to what is seen of them.

use std::ffi::CString;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::launch::{self, Launcher};
use super::super::process::{End, Process, Role};
use super::{ARGUMENT, Scene, Seen, Trial};
use crate::channel::Channel;
use crate::control::{Facts, Order, Report};

/// How long a start, and what a deed leads to, may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process closes its channels, by which the broker notices, before it has ended: when the broker
/// has noticed, the captured process gets this time to have ended first.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// The processes. They end with the value.
#[derive(Debug)]
pub(super) struct Set {
    members: Vec<Member>,
    /// Ends of channels that nobody holds otherwise.
    _ends: Vec<Channel>,
}

#[derive(Debug)]
struct Member {
    role: Role,
    process: Process,
    facts: Option<Facts>,
}

impl Set {
    /// Broker, worker, and with a proxy a fetcher.
    ///
    /// # Errors
    /// As fork(2), execveat(2), sendmsg(2).
    pub(super) fn whole(launcher: &Launcher, listener: &UdpSocket) -> io::Result<Self> {
        let mut set = Self::pair(launcher, listener, None)?;
        if launcher.has_proxy() {
            set.add_fetcher(launcher, None)?;
        }
        Ok(set)
    }

    /// What a trial takes, one process of it captured.
    ///
    /// # Errors
    /// As fork(2), execveat(2), sendmsg(2).
    pub(super) fn captured(
        launcher: &Launcher,
        listener: &UdpSocket,
        trial: &Trial,
    ) -> io::Result<Self> {
        let argument = CString::new(format!("{ARGUMENT}{}", trial.name))?;
        let captured = Some(argument.as_c_str());
        match (trial.scene, trial.role) {
            (Scene::Alone, role) => {
                let (theirs, ours) = Channel::pair()?;
                let listeners = std::slice::from_ref(listener);
                let process = match role {
                    Role::Broker => launcher.start_broker(&theirs, listeners, captured),
                    Role::Worker => launcher.start_worker(&theirs, captured),
                    Role::Fetcher => launcher.start_fetcher(&theirs, captured),
                }?;
                let mut set = Self {
                    members: vec![Member::new(role, process)],
                    _ends: vec![ours],
                };
                if role == Role::Broker && launcher.has_proxy() {
                    set.pretend_fetcher()?;
                }
                Ok(set)
            }
            (Scene::Request, Role::Fetcher) => {
                let mut set = Self::pair(launcher, listener, None)?;
                set.add_fetcher(launcher, Some(&argument))?;
                Ok(set)
            }
            (Scene::Request, _) => {
                let mut set = Self::pair(launcher, listener, captured)?;
                if launcher.has_proxy() {
                    set.pretend_fetcher()?;
                }
                Ok(set)
            }
        }
    }

    /// A broker, and a worker that may be captured.
    fn pair(
        launcher: &Launcher,
        listener: &UdpSocket,
        captured: Option<&std::ffi::CStr>,
    ) -> io::Result<Self> {
        let (to_worker, to_broker) = Channel::pair()?;
        let broker = launcher.start_broker(&to_worker, std::slice::from_ref(listener), None)?;
        let worker = launcher.start_worker(&to_broker, captured)?;
        Ok(Self {
            members: vec![
                Member::new(Role::Broker, broker),
                Member::new(Role::Worker, worker),
            ],
            _ends: Vec::new(),
        })
    }

    fn add_fetcher(
        &mut self,
        launcher: &Launcher,
        captured: Option<&std::ffi::CStr>,
    ) -> io::Result<()> {
        let (to_fetcher, to_broker) = Channel::pair()?;
        let fetcher = launcher.start_fetcher(&to_broker, captured)?;
        self.hand(&to_fetcher)?;
        self.members.push(Member::new(Role::Fetcher, fetcher));
        Ok(())
    }

    /// The broker gets a channel at whose other end nobody is.
    fn pretend_fetcher(&mut self) -> io::Result<()> {
        let (to_fetcher, to_broker) = Channel::pair()?;
        self.hand(&to_fetcher)?;
        self._ends.push(to_broker);
        Ok(())
    }

    fn hand(&mut self, to_fetcher: &Channel) -> io::Result<()> {
        match self.find(Role::Broker) {
            Some(broker) => launch::hand_fetcher(&broker.process, to_fetcher),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Waits until all are locked down, and lets them begin.
    ///
    /// # Errors
    /// Who is not, and why.
    pub(super) fn make_ready(&mut self) -> Result<(), NotReady> {
        let end = Instant::now() + PATIENCE;
        for member in &mut self.members {
            match member.hear(end) {
                Heard::Report(Report::Ready(facts)) => member.facts = Some(facts),
                Heard::End(end) => return Err(NotReady(member.role, Some(end))),
                Heard::Report(_) | Heard::Nothing => return Err(NotReady(member.role, None)),
            }
        }
        for member in &self.members {
            member.process.tell(Order::Go);
        }
        Ok(())
    }

    /// What a process has reported to be in force.
    pub(super) fn facts(&self, role: Role) -> Option<Facts> {
        let member = self.members.iter().find(|member| member.role == role)?;
        member.facts
    }

    /// Waits for what comes of the deed of the process `captured`.
    pub(super) fn observe(&mut self, captured: Role) -> Seen {
        let until = Instant::now() + PATIENCE;
        let broker = self.members.iter().position(|m| m.role == Role::Broker);
        while Instant::now() < until {
            self.wait(until);
            let end = |set: &mut Self, role| set.find(role).and_then(|m| m.process.wait());
            if let Some(end) = end(self, captured) {
                return Seen::End(end);
            }
            if captured == Role::Broker || broker.is_none() {
                continue;
            }
            let said = self.find(Role::Broker).map(|m| m.process.report());
            let noticed = match said {
                Some(Ok(Some(Report::Distrust))) => Seen::Distrust,
                _ if end(self, Role::Broker).is_some() => Seen::Noticed,
                _ => continue,
            };
            let moment = Instant::now() + LAST_MOMENT;
            let last = self.find(captured).map(|member| member.ended(moment));
            return last.flatten().map_or(noticed, Seen::End);
        }
        Seen::Nothing
    }

    /// Starts a fetcher in place of one that is not trusted any more.
    ///
    /// # Errors
    /// It does not become ready.
    pub(super) fn replace_fetcher(&mut self, launcher: &Launcher) -> io::Result<()> {
        self.members.retain(|member| member.role != Role::Fetcher);
        self.add_fetcher(launcher, None)?;
        let until = Instant::now() + PATIENCE;
        match self.find(Role::Fetcher).map(|member| member.hear(until)) {
            Some(Heard::Report(Report::Ready(_))) => Ok(()),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn find(&mut self, role: Role) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.role == role)
    }

    /// Waits until one says something or ends.
    fn wait(&self, until: Instant) {
        let ends = self.members.iter().map(|member| member.process.ending());
        let reports = self.members.iter().filter_map(|m| m.process.control());
        let mut polled: Vec<_> = ends
            .chain(reports)
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut polled, left(until));
    }
}

impl Drop for Set {
    /// The broker first: it alone would say so if the others ended before it.
    fn drop(&mut self) {
        for member in self.members.drain(..) {
            member.process.tell(Order::Stop);
        }
    }
}

impl Member {
    fn new(role: Role, process: Process) -> Self {
        Self {
            role,
            process,
            facts: None,
        }
    }

    /// Its next report, or its end.
    fn hear(&mut self, until: Instant) -> Heard {
        loop {
            match self.process.report() {
                Ok(Some(report)) => return Heard::Report(report),
                Ok(None) if self.process.control().is_some() => (),
                // It is about to end.
                _ => return self.ended(until).map_or(Heard::Nothing, Heard::End),
            }
            let Some(control) = self.process.control() else {
                continue;
            };
            let mut polled = [
                PollFd::new(control, PollFlags::POLLIN),
                PollFd::new(self.process.ending(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, left(until)) {
                Ok(0) => return Heard::Nothing,
                Ok(_) | Err(Errno::EINTR) => (),
                Err(_) => return Heard::Nothing,
            }
        }
    }

    /// Its end, if it comes in time.
    fn ended(&mut self, until: Instant) -> Option<End> {
        let mut polled = [PollFd::new(self.process.ending(), PollFlags::POLLIN)];
        let _ = poll(&mut polled, left(until));
        self.process.wait()
    }
}

/// What a process let hear.
enum Heard {
    Report(Report),
    End(End),
    Nothing,
}

/// A process that was not locked down in time, and how it ended if it did.
#[derive(Debug)]
pub(super) struct NotReady(Role, Option<End>);

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(end) => write!(f, "{} did not become ready: {end}", self.0),
            None => write!(f, "{} did not become ready", self.0),
        }
    }
}

fn left(until: Instant) -> PollTimeout {
    let left = until.saturating_duration_since(Instant::now());
    left.try_into().unwrap_or(PollTimeout::MAX)
}
