//! One generation: how far it has come, and what is known of its processes.

use std::time::{Duration, Instant};

use super::failures::Failures;
use crate::control::{Counts, Facts};
use crate::settings::Sandbox;
use crate::supervisor::process::{End, Role};

/// Time for broker and worker to lock themselves down, or for a broker to stop reading: both take
/// milliseconds, and an overloaded machine seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a fetcher: less, so that a generation whose fetcher hangs is ready without it.
pub(super) const FETCHER_PATIENCE: Duration = Duration::from_secs(5);

/// One broker, one worker, and with a proxy one fetcher after the other.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) phase: Phase,
    /// Started on the user's wish.
    pub(super) reload: bool,
    /// Both were told to end.
    pub(super) stopped: bool,
    pub(super) broker: Member,
    pub(super) worker: Member,
    pub(super) fetcher: Fetcher,
}

/// What is known of the fetcher: it comes and goes while the others stay.
#[derive(Debug, Default)]
pub(super) struct Fetcher {
    /// Counts as ended while none runs.
    pub(super) member: Member,
    /// It was ready once, or failed, or there is none: the generation does not wait for it.
    pub(super) settled: bool,
    /// The next one is killed if it is not ready by then.
    pub(super) ready_by: Option<Instant>,
    /// The next one is started then.
    pub(super) restart: Option<Instant>,
    pub(super) failures: Failures,
}

/// How far a generation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Until all have reported what is in force, at the latest then.
    Starting(Instant),
    /// Waits until nobody else reads the listeners.
    Ready,
    /// Its broker reads the listeners; next ping then.
    Serving(Instant),
    /// Its broker was told to stop reading; must confirm by then.
    Retiring(Instant),
    /// No new requests; next ping then.
    Finishing(Instant),
    /// Nothing more is expected of it; what is left is killed then.
    Ending(Instant),
}

/// What is known of one process.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) ended: bool,
    pub(super) facts: Option<Facts>,
    /// A ping is not answered yet.
    pub(super) pinged: bool,
    pub(super) missed: u32,
    /// From its last answer.
    pub(super) counts: Counts,
    /// It closed its channel; killed then if it still runs.
    pub(super) kill_at: Option<Instant>,
}

impl Generation {
    /// Not started yet.
    pub(super) fn new(number: u64, reload: bool, proxy: bool, now: Instant) -> Self {
        let (broker, worker) = (Member::default(), Member::default());
        let mut fetcher = Fetcher {
            settled: !proxy,
            ready_by: proxy.then(|| now + FETCHER_PATIENCE),
            ..Fetcher::default()
        };
        fetcher.member.ended = !proxy;
        Self {
            number,
            phase: Phase::Starting(now + PATIENCE),
            reload,
            stopped: false,
            broker,
            worker,
            fetcher,
        }
    }

    /// Whether all have ended.
    pub(super) fn is_gone(&self) -> bool {
        self.broker.ended && self.worker.ended && self.fetcher.member.ended
    }

    /// What broker and worker are locked down to; none until all that is waited for is ready.
    pub(super) fn facts(&self) -> Option<(Facts, Facts)> {
        let facts = self.broker.facts.zip(self.worker.facts);
        facts.filter(|_| self.fetcher.settled)
    }

    /// Whether nobody has to be told that a process ended this way.
    pub(super) fn expects(&self, role: Role, end: End) -> bool {
        match (self.phase, end) {
            // The fetcher ends with its broker; killed alone, it was told why.
            (Phase::Ending(_), End::Exited(_)) if role == Role::Fetcher => true,
            (_, End::Ordered) if role == Role::Fetcher => true,
            (Phase::Ending(_) | Phase::Finishing(_), End::Exited(0)) => true,
            // It may see the other one end before it reads the order.
            (Phase::Ending(_), End::Exited(_)) => self.stopped,
            (Phase::Ending(_), End::Ordered) => true,
            _ => false,
        }
    }

    /// When something has to be done about it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.phase.deadline(),
            self.broker.kill_at,
            self.worker.kill_at,
            self.fetcher.member.kill_at,
            self.fetcher.deadline(self.phase),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// What is known of all of them.
    pub(super) fn members(&self) -> [&Member; 3] {
        [&self.broker, &self.worker, &self.fetcher.member]
    }

    /// What is known of one of them.
    pub(super) fn member(&mut self, role: Role) -> &mut Member {
        match role {
            Role::Broker => &mut self.broker,
            Role::Worker => &mut self.worker,
            Role::Fetcher => &mut self.fetcher.member,
        }
    }
}

impl Fetcher {
    /// When something has to be done about it alone.
    pub(super) fn deadline(&self, phase: Phase) -> Option<Instant> {
        match phase {
            Phase::Ending(_) => None,
            _ => self.ready_by.into_iter().chain(self.restart).min(),
        }
    }
}

impl Phase {
    /// Until when this phase lasts at most, or when the next ping is due.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Starting(at)
            | Self::Serving(at)
            | Self::Retiring(at)
            | Self::Finishing(at)
            | Self::Ending(at) => Some(at),
            Self::Ready => None,
        }
    }

    /// The same phase after a ping, with the next one then.
    pub(super) fn next_ping(self, next: Instant) -> Self {
        match self {
            Self::Serving(_) => Self::Serving(next),
            Self::Finishing(_) => Self::Finishing(next),
            other => other,
        }
    }
}

/// What does not change while the supervisor runs.
#[derive(Clone, Copy, Debug)]
pub(in crate::supervisor) struct Rules {
    /// Which lock-down every process must report.
    pub(in crate::supervisor) sandbox: Sandbox,
    /// The user every process must report.
    pub(in crate::supervisor) uid: u32,
    /// How long transfers may go on after a stop.
    pub(in crate::supervisor) drain_timeout: Duration,
    /// Between two pings.
    pub(in crate::supervisor) ping_every: Duration,
    /// Every generation has a fetcher.
    pub(in crate::supervisor) proxy: bool,
}

impl Rules {
    /// Whether a process that reports these facts may serve.
    pub(super) fn accept(&self, facts: &Facts) -> Result<(), &'static str> {
        let strict = self.sandbox == Sandbox::Strict;
        match facts {
            Facts { uid, .. } if *uid != self.uid => Err("runs as another user"),
            Facts {
                no_new_privs: false,
                ..
            } => Err("no_new_privs is not set"),
            Facts {
                no_capabilities: false,
                ..
            } => Err("has capabilities"),
            Facts {
                landlock_abi: 0, ..
            } if strict => Err("Landlock is not in force"),
            Facts {
                system_calls: 0, ..
            } if strict => Err("seccomp is not in force"),
            _ => Ok(()),
        }
    }
}
