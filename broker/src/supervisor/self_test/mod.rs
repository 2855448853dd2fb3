//! The self-test: what a captured process could do, tried on this machine, as the service would
//! run here: same settings, same user, same programs, same lock-down.
//!
//! For each [`Trial`] a new set of processes is started, one of them with [`ARGUMENT`] and the name
//! of a deed. It locks itself down as always, does that one deed in place of its work, and tells by
//! its exit status what came of it ([`status`]). What a deed is, and what has to come of it, is not
//! known here.
//!
//! The argument is the only way to have a process do a deed. It can not come over a channel, and
//! who can start a program with an argument could as well have started another program.
//!
//! - `stage`: files to try it on. `set`: the processes of one trial. `ask`: what a client does.

mod ask;
mod set;
mod stage;

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use self::set::Set;
use self::stage::Stage;
pub use self::stage::{CONTENTS, DENIED_LINK, DIRECTORY, FILE, LINK, NAMED, SECRET, furnish};
use super::launch::{Launcher, Messages};
use super::process::{End, Role};
use super::{Error, Listen, Prepared, Settings, prepare, watch};
use crate::control::Facts;

/// Begins the one argument of a process that a self-test has taken over; the name of the deed
/// follows.
pub const ARGUMENT: &str = "--self-test=";

/// Sets at once, for each processor: much of the time is spent waiting. And at most, as on a larger
/// machine more would be no faster.
const JOBS_EACH: usize = 2;
/// See [`JOBS_EACH`].
const MAX_JOBS: usize = 8;

/// What is tried once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Which process is captured.
    pub role: Role,
    /// The deed's name.
    pub name: String,
    /// What it takes.
    pub scene: Scene,
}

/// What a deed takes beside the captured process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Nothing: nobody is at the other end of its channel.
    Alone,
    /// Worker: a broker with a request, and someone who takes what it says to a fetcher. Fetcher: a
    /// broker, and a worker with a request that leads to an order for the fetcher.
    Request,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// seccomp killed the process.
    Killed,
    /// The deed failed with this error number.
    Failed(i32),
    /// The deed succeeded.
    Passed,
    /// The broker noticed and ended, or gave the fetcher up; and what was started next served, after
    /// this time.
    Replaced(Duration),
    /// The broker noticed, but what was started next did not serve.
    NotRecovered,
    /// Nothing, and nobody noticed.
    Nothing,
    /// The process ended in another way, or was never ready.
    Other(String),
}

/// What is in force, by what the processes report that serve without a deed.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Release of the kernel.
    pub kernel: String,
    /// Whom the processes run as.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// The bounding set could not be cleared.
    pub bounding_set_kept: bool,
    /// The broker's.
    pub broker: Facts,
    /// The worker's.
    pub worker: Facts,
    /// The fetcher's; none without a proxy.
    pub fetcher: Option<Facts>,
    /// Cache files have a directory.
    pub has_cache: bool,
    /// Ports that a fetcher may connect to; empty = any.
    pub ports: Vec<(u16, u16)>,
}

/// Everything that trials take.
#[derive(Debug)]
pub struct SelfTest {
    launcher: Launcher,
    /// Goes away with the self-test.
    _stage: Stage,
    /// One for each set that runs at once, so that none takes the requests of another.
    listeners: Vec<UdpSocket>,
    signals: SignalFd,
    in_force: InForce,
}

impl SelfTest {
    /// Starts as the service does, but for where it listens: on free ports of loopback, as a
    /// service may be running. Then starts the processes once, without a deed, and has them serve.
    ///
    /// # Errors
    /// [`Error`]: what keeps the service from starting.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let settings = &on_loopback(settings);
        let signals = watch::signals()?;
        let jobs = thread::available_parallelism().map_or(1, NonZero::get) * JOBS_EACH;
        let listeners = listeners(jobs.clamp(1, MAX_JOBS))?;
        let Prepared {
            mut places,
            limits,
            rights,
            ..
        } = prepare(settings, Some(listeners))?;
        let listeners = std::mem::take(&mut places.listeners);
        let proxy = settings.proxy.as_ref();
        let ports = proxy.map_or_else(Vec::new, |proxy| proxy.ports.clone());
        let stage = Stage::build(&ports)?;
        places.fallback = Some(stage.served()?);
        if places.cache.is_some() {
            places.cache = Some(stage.cache()?);
        }
        // What keeps a process from starting is said; what deeds make processes say would alarm, and
        // so would what they say at an end like this.
        let with_log = |filter: &str| {
            let mut settings = settings.clone();
            if settings.log.filter.is_empty() {
                settings.log.filter = filter.into();
            }
            settings
        };
        let quiet = Messages::new(&with_log("off"), limits, &places)?;
        let mut launcher =
            Launcher::new(&with_log("r_tftpd_broker::lockdown=error"), limits, places)?;
        let first = listeners.first().ok_or(Error::NotServed)?;
        let mut set = Set::whole(&launcher, first)
            .map_err(|error| Error::System("starting a process", error))?;
        set.make_ready().map_err(|_| Error::NotReady)?;
        ask::get(first).map_err(|_| Error::NotServed)?;
        launcher.replace_messages(quiet);
        let kernel = uname().map_err(Error::system("uname"))?;
        let in_force = InForce {
            kernel: kernel.release().to_string_lossy().into_owned(),
            user: rights.user,
            uid: geteuid().as_raw(),
            bounding_set_kept: rights.bounding_set_kept,
            broker: set.facts(Role::Broker).unwrap_or_default(),
            worker: set.facts(Role::Worker).unwrap_or_default(),
            fetcher: set.facts(Role::Fetcher),
            has_cache: launcher.has_cache(),
            ports,
        };
        Ok(Self {
            launcher,
            _stage: stage,
            listeners,
            signals,
            in_force,
        })
    }

    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// Makes all trials; what came of each, in their order.
    ///
    /// # Errors
    /// [`Error::Interrupted`] by a signal.
    pub fn run(&self, trials: &[Trial]) -> Result<Vec<Met>, Error> {
        let next = AtomicUsize::new(0);
        let met = Mutex::new(vec![None; trials.len()]);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for listener in &self.listeners {
                let (next, met, stop) = (&next, &met, &stop);
                scope.spawn(move || {
                    while !self.is_interrupted(stop)
                        && let index = next.fetch_add(1, Ordering::Relaxed)
                        && let Some(trial) = trials.get(index)
                    {
                        let outcome = self.attempt(trial, listener);
                        if let Ok(mut met) = met.lock()
                            && let Some(place) = met.get_mut(index)
                        {
                            *place = Some(outcome);
                        }
                    }
                });
            }
        });
        let met = met.into_inner().map_err(|_| Error::Interrupted)?;
        // One that is missing was not made any more.
        met.into_iter()
            .collect::<Option<_>>()
            .ok_or(Error::Interrupted)
    }

    /// A signal is told to one of those who ask.
    fn is_interrupted(&self, stop: &AtomicBool) -> bool {
        if !matches!(self.signals.read_signal(), Ok(None)) {
            stop.store(true, Ordering::Relaxed);
        }
        stop.load(Ordering::Relaxed)
    }

    /// Makes one trial.
    fn attempt(&self, trial: &Trial, listener: &UdpSocket) -> Met {
        let mut set = match Set::captured(&self.launcher, listener, trial) {
            Ok(set) => set,
            Err(error) => return Met::Other(format!("{} can not be started: {error}", trial.role)),
        };
        if let Err(not_ready) = set.make_ready() {
            return Met::Other(not_ready.to_string());
        }
        // Its socket stays until the end: a reply to nobody would be an error.
        let _asked = match (trial.scene, trial.role) {
            (Scene::Alone, _) => None,
            (Scene::Request, Role::Fetcher) => ask::begin(listener, LINK).ok(),
            (Scene::Request, _) => ask::begin(listener, FILE).ok(),
        };
        let begin = Instant::now();
        match set.observe(trial.role) {
            Seen::End(End::Killed(nix::sys::signal::Signal::SIGSYS)) => Met::Killed,
            Seen::End(End::Exited(PASSED)) => Met::Passed,
            Seen::End(End::Exited(status)) if status > PASSED => Met::Failed(status - PASSED),
            Seen::End(end) => Met::Other(format!("{}: {end}", trial.role)),
            Seen::Noticed => {
                drop(set);
                self.recover(listener, begin)
            }
            Seen::Distrust => match set.replace_fetcher(&self.launcher) {
                Ok(()) if ask::get(listener).is_ok() => Met::Replaced(begin.elapsed()),
                _ => Met::NotRecovered,
            },
            Seen::Nothing => Met::Nothing,
        }
    }

    /// Whether a new set serves after one that was ended.
    fn recover(&self, listener: &UdpSocket, begin: Instant) -> Met {
        let serves = || {
            let mut set = Set::whole(&self.launcher, listener).ok()?;
            set.make_ready().ok()?;
            ask::get(listener).ok()
        };
        match serves() {
            Some(()) => Met::Replaced(begin.elapsed()),
            None => Met::NotRecovered,
        }
    }
}

/// What was seen of a set with a captured process.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// The end of the captured process.
    End(End),
    /// The broker ended, and the captured process did not.
    Noticed,
    /// The broker gave the captured fetcher up.
    Distrust,
    /// Neither, for a long time.
    Nothing,
}

/// Exit status of a captured process whose deed succeeded. It is above those that Rust (101) and our
/// programs (0, 1) have; behind it follow error numbers, of which Linux has 133.
const PASSED: i32 = 110;

/// Exit status of a captured process for what came of its deed: an error number, or none.
#[must_use]
pub fn status(result: Result<(), i32>) -> u8 {
    let errno = result.err().unwrap_or(0);
    u8::try_from(PASSED.saturating_add(errno)).unwrap_or(u8::MAX)
}

/// The settings, but for the network: a service may be running, and nobody else is to be answered.
fn on_loopback(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    // The sockets of `listeners`, in place of those of systemd.
    settings.listen = Listen::Systemd;
    settings.allow.clear();
    settings.deny.clear();
    settings.port_range = None;
    settings.fallback_directory = None;
    if let Some(proxy) = &mut settings.proxy {
        proxy.fallback = None;
    }
    settings
}

fn listeners(count: usize) -> Result<Vec<UdpSocket>, Error> {
    let bind = || {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .or_else(|_| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)))
    };
    let listeners = std::iter::repeat_with(bind).take(count);
    listeners
        .collect::<Result<_, _>>()
        .map_err(Error::system("bind"))
}
