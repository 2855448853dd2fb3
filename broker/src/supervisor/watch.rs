//! Does what `generations` says and tells it what happened: one loop that waits for signals,
//! reports, ends and deadlines.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{error, info};

use super::Error;
use super::generations::{Action, Finish, Generations, Rules};
use super::launch::Launcher;
use super::manager::Manager;
use super::process::{Mute, Process, Role};
use crate::control::Facts;
use crate::sys;

/// What a user can tell us.
const SIGNALS: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Turns signals into something to read. Before any process is started: it inherits the mask, so
/// that no signal hits it before it ignores them.
///
/// # Errors
/// As sigaction(2), pthread_sigmask(3), signalfd(2).
pub(super) fn signals() -> Result<SignalFd, Error> {
    sys::default_child_signal().map_err(Error::system("sigaction(SIGCHLD)"))?;
    let mask = SigSet::from_iter(SIGNALS);
    mask.thread_block()
        .map_err(Error::system("pthread_sigmask"))?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Error::system("signalfd"))
}

/// What the start line says beside what the processes report.
#[derive(Debug)]
pub(super) struct InForce {
    /// In bytes.
    pub(super) receive_buffer: usize,
    /// The bounding set could not be cleared.
    pub(super) bounding_set_kept: bool,
}

/// The supervisor, started.
#[derive(Debug)]
pub(super) struct Watch {
    launcher: Launcher,
    manager: Manager,
    signals: SignalFd,
    in_force: InForce,
    generations: Generations,
    processes: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    generation: u64,
    role: Role,
    process: Process,
}

/// What became readable.
#[derive(Clone, Copy, Debug)]
enum Event {
    Signal,
    Report(u64, Role),
    End(u64, Role),
}

impl Watch {
    /// Nothing is started before [`Self::run`].
    pub(super) fn new(
        launcher: Launcher,
        manager: Manager,
        signals: SignalFd,
        in_force: InForce,
        rules: Rules,
    ) -> Self {
        let generations = Generations::new(rules, Instant::now());
        Self {
            launcher,
            manager,
            signals,
            in_force,
            generations,
            processes: Vec::new(),
        }
    }

    /// Runs until the user ends it, or it can not go on. No process is left then.
    ///
    /// # Errors
    /// [`Error::NotReady`], [`Error::Unstable`]; as poll(2).
    pub(super) fn run(mut self) -> Result<(), Error> {
        self.act();
        loop {
            match self.generations.finished() {
                None => (),
                Some(Finish::Stopped) => {
                    info!("stopped");
                    return Ok(());
                }
                Some(Finish::NeverReady) => return Err(Error::NotReady),
                Some(Finish::Unstable) => return Err(Error::Unstable),
            }
            for event in self.wait()? {
                self.handle(event);
                self.act();
            }
            self.generations.handle_timeout(Instant::now());
            self.act();
        }
    }

    /// Waits for something to happen.
    fn wait(&self) -> Result<Vec<Event>, Error> {
        let mut watched = vec![(self.signals.as_fd(), Event::Signal)];
        for Watched {
            generation,
            role,
            process,
        } in &self.processes
        {
            // Reports first: what a process said before its end still counts.
            watched.extend(
                process
                    .control()
                    .map(|fd| (fd, Event::Report(*generation, *role))),
            );
            watched.push((process.ending(), Event::End(*generation, *role)));
        }
        let mut polled: Vec<_> = watched
            .iter()
            .map(|(fd, _)| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(errno) => return Err(Error::System("poll", errno.into())),
        }
        let ready = polled
            .iter()
            .zip(&watched)
            .filter(|(polled, _)| polled.any() != Some(false));
        Ok(ready.map(|(_, (_, event))| *event).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let Some(deadline) = self.generations.deadline() else {
            return PollTimeout::NONE;
        };
        // Rounded up: poll counts milliseconds, and to wake too early means to wake in vain.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        left.try_into().unwrap_or(PollTimeout::MAX)
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Signal => self.handle_signals(now),
            Event::Report(generation, role) => {
                let Some(process) = self.find(generation, role) else {
                    return;
                };
                match process.report() {
                    Ok(None) => (),
                    Ok(Some(report)) => {
                        self.generations
                            .handle_report(generation, role, report, now);
                    }
                    Err(Mute::Closed) => self.generations.handle_closed(generation, role, now),
                    Err(Mute::Malformed) => {
                        self.generations.handle_malformed(generation, role, now);
                    }
                }
            }
            Event::End(generation, role) => {
                let Some(process) = self.find(generation, role) else {
                    return;
                };
                if let Some(end) = process.wait() {
                    self.processes
                        .retain(|w| (w.generation, w.role) != (generation, role));
                    self.generations.handle_end(generation, role, end, now);
                }
            }
        }
    }

    fn handle_signals(&mut self, now: Instant) {
        while let Ok(Some(received)) = self.signals.read_signal() {
            let number = i32::try_from(received.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGHUP) => self.generations.handle_reload(now),
                Ok(Signal::SIGUSR1) => self.generations.handle_user(1),
                Ok(Signal::SIGUSR2) => self.generations.handle_user(2),
                _ => self.generations.handle_stop(now),
            }
        }
    }

    /// Does all that is to be done now.
    fn act(&mut self) {
        while let Some(action) = self.generations.poll_action() {
            match action {
                Action::Start(generation) => self.start(generation),
                Action::StartFetcher(generation) => self.start_fetcher(generation),
                Action::Tell(generation, role, order) => {
                    if let Some(process) = self.find(generation, role) {
                        process.tell(order);
                    }
                }
                Action::Kill(generation, role) => {
                    if let Some(process) = self.find(generation, role) {
                        process.kill();
                    }
                }
                Action::Announce {
                    generation,
                    reloaded,
                    broker,
                    worker,
                    fetcher,
                } => {
                    self.announce(generation, reloaded, &broker, &worker, fetcher.as_ref());
                }
                Action::Note(note) => note.log(),
            }
        }
        self.manager.update(&self.generations.overview());
    }

    fn start(&mut self, generation: u64) {
        match self.launcher.launch() {
            Ok(started) => self
                .processes
                .extend(started.map(|(role, process)| Watched {
                    generation,
                    role,
                    process,
                })),
            Err((role, error)) => {
                error!(generation, "{role} can not be started: {error}");
                self.generations
                    .handle_start_failure(generation, Instant::now());
            }
        }
    }

    /// Starts a fetcher for the broker of a generation, if it still runs.
    fn start_fetcher(&mut self, generation: u64) {
        let is_broker =
            |watched: &&Watched| (watched.generation, watched.role) == (generation, Role::Broker);
        let broker = self.processes.iter().find(is_broker);
        let started = broker.map(|broker| self.launcher.launch_fetcher(&broker.process));
        match started {
            Some(Ok(process)) => self.processes.push(Watched {
                generation,
                role: Role::Fetcher,
                process,
            }),
            failed => {
                if let Some(Err(error)) = failed {
                    error!(generation, "fetcher can not be started: {error}");
                }
                self.generations
                    .handle_fetcher_start_failure(generation, Instant::now());
            }
        }
    }

    fn find(&mut self, generation: u64, role: Role) -> Option<&mut Process> {
        let found =
            |watched: &&mut Watched| watched.generation == generation && watched.role == role;
        self.processes
            .iter_mut()
            .find(found)
            .map(|watched| &mut watched.process)
    }

    /// The one line that says what is served and exactly what is in force.
    fn announce(
        &self,
        generation: u64,
        reloaded: bool,
        broker: &Facts,
        worker: &Facts,
        fetcher: Option<&Facts>,
    ) {
        let addresses = self
            .launcher
            .listeners
            .iter()
            .filter_map(|l| l.local_addr().ok());
        let listen: Vec<_> = addresses.map(|address| address.to_string()).collect();
        let all = || [Some(broker), Some(worker), fetcher].into_iter().flatten();
        let kept = self.in_force.bounding_set_kept;
        let proxy = self.launcher.has_proxy();
        info!(
            generation,
            root = self.launcher.root.name(),
            listen = listen.join(","),
            uid = broker.uid,
            capabilities = if kept {
                "none, bounding set kept"
            } else {
                "none"
            },
            no_new_privs = all().all(|facts| facts.no_new_privs),
            landlock = number(all().map(|facts| facts.landlock_abi).min().unwrap_or(0)),
            seccomp_broker = number(broker.system_calls),
            seccomp_worker = number(worker.system_calls),
            seccomp_fetcher = match fetcher {
                Some(facts) => number(facts.system_calls),
                None if proxy => "not running".into(),
                None => "no fetcher".into(),
            },
            mdwe = all().all(|facts| facts.mdwe),
            paths = if broker.openat2 { "openat2" } else { "walk" },
            receive_buffer = self.in_force.receive_buffer,
            proxy = if proxy { "on" } else { "off" },
            cache = self.launcher.cache_name(),
            "{}",
            if reloaded { "reloaded" } else { "serving" }
        );
    }
}

fn number(value: u32) -> String {
    if value == 0 {
        "none".into()
    } else {
        value.to_string()
    }
}
