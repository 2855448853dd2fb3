//! Which broker and worker have to be started, told and ended, and when. Pure: no clock, no
//! process, no log.
//!
//! A generation is one broker and one worker, and with a proxy a fetcher. It starts, becomes ready,
//! serves, and at last finishes its transfers while the next one serves:
//!
//! ```text
//! Starting ──both ready──▶ Ready ──nobody reads──▶ Serving ──reload──▶ Retiring ──▶ Finishing
//!     │                      │                        │                   │             │
//!     └──────────────────────┴─────── failure ────────┴───────────────────┴──▶ Ending ◀─┘
//! ```
//!
//! Only one broker at a time reads the listeners: the next one is let go when the last one has
//! confirmed that it stopped, or is dead.

mod failures;
mod fetcher;
mod generation;
mod look_ups;
mod overview;
mod reports;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::failures::Failures;
pub(super) use self::generation::Rules;
use self::generation::{Generation, PATIENCE, Phase};
pub(super) use self::overview::{Overview, State};
use super::note::Note;
use super::process::{End, Role};
use crate::control::{Facts, Order, Report};

/// Pings without an answer after which a process counts as stuck.
pub(super) const MAX_MISSED: u32 = 6;

/// From [`Order::Stop`], or from the regular end of one of the two, until what is left is killed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Generations that finish their transfers at the same time; the oldest gives way, so that many
/// reloads can not fill the memory.
const MAX_FINISHING: usize = 8;

/// What the supervisor has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start broker and worker of a new generation.
    Start(u64),
    /// Start a fetcher, and hand the channel to it to the broker.
    StartFetcher(u64),
    /// Tell a process something.
    Tell(u64, Role, Order),
    /// Kill a process and listen to it no more.
    Kill(u64, Role),
    /// Say that a generation serves.
    Announce {
        generation: u64,
        /// It followed another one on the user's wish.
        reloaded: bool,
        broker: Facts,
        worker: Facts,
        /// None = there is no fetcher now.
        fetcher: Option<Facts>,
    },
    /// Say something else.
    Note(Note),
}

/// Why everything ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The user wanted it.
    Stopped,
    /// The first generation did not become ready.
    NeverReady,
    /// Too many failures.
    Unstable,
}

/// All generations. Call a `handle_` for whatever happened and `handle_timeout` at `deadline`; after
/// each, do every action of `poll_action`. When `finished` answers, all processes are gone.
#[derive(Debug)]
pub(super) struct Generations {
    rules: Rules,
    /// Oldest first.
    live: Vec<Generation>,
    started: u64,
    ever_served: bool,
    reload_wanted: bool,
    restart: Option<Instant>,
    failures: Failures,
    drain_until: Option<Instant>,
    finish: Option<Finish>,
    /// Of all brokers so far.
    requests: u64,
    dropped: u64,
    /// See [`Overview::rounds`].
    rounds: u64,
    actions: VecDeque<Action>,
}

impl Generations {
    /// The first action is to start the first generation.
    pub(super) fn new(rules: Rules, now: Instant) -> Self {
        let mut generations = Self {
            rules,
            live: Vec::new(),
            started: 0,
            ever_served: false,
            reload_wanted: false,
            restart: None,
            failures: Failures::default(),
            drain_until: None,
            finish: None,
            requests: 0,
            dropped: 0,
            rounds: 0,
            actions: VecDeque::new(),
        };
        generations.start(false, now);
        generations
    }

    /// What to do next; none = wait.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        let generations = self.live.iter().filter_map(Generation::deadline);
        generations
            .chain(self.restart)
            .chain(self.drain_until)
            .min()
    }

    /// Why everything has ended; none = it has not.
    pub(super) fn finished(&self) -> Option<Finish> {
        self.finish.filter(|_| self.live.is_empty())
    }

    /// The processes of [`Action::Start`] could not be started; none of them runs.
    pub(super) fn handle_start_failure(&mut self, number: u64, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        generation.broker.ended = true;
        generation.worker.ended = true;
        generation.fetcher.member.ended = true;
        self.fail(number, now);
    }

    /// A process reported something.
    pub(super) fn handle_report(&mut self, number: u64, role: Role, report: Report, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        match report {
            // It may have been on its way when the end was ordered.
            _ if matches!(generation.phase, Phase::Ending(_)) => (),
            Report::Ready(facts) => self.handle_ready(number, role, facts, now),
            Report::Retired => self.handle_retired(number, role, now),
            Report::Counts(counts) => self.handle_counts(number, role, counts, now),
            Report::Distrust => self.handle_distrust(number, role, now),
        }
    }

    /// A process said what is no report.
    pub(super) fn handle_malformed(&mut self, number: u64, role: Role, now: Instant) {
        self.breach(number, role, "malformed report", now);
    }

    /// A process closed its channel. Its end should follow, and says why.
    pub(super) fn handle_closed(&mut self, number: u64, role: Role, now: Instant) {
        if let Some(generation) = self.find(number) {
            generation.member(role).kill_at = Some(now + FAREWELL);
        }
    }

    /// A process has ended and was waited for.
    pub(super) fn handle_end(&mut self, number: u64, role: Role, end: End, now: Instant) {
        if role == Role::Fetcher {
            return self.handle_fetcher_end(number, end, now);
        }
        let Some(generation) = self.find(number) else {
            return;
        };
        generation.member(role).ended = true;
        let (phase, expected) = (generation.phase, generation.expects(role, end));
        // In an ending generation, too: both may have died before we looked, and the one seen first
        // because of the other.
        if !expected {
            self.note(Note::Died(number, role, end));
        }
        match phase {
            Phase::Ending(_) => self.bury(),
            Phase::Finishing(_) if expected => self.farewell(number, now),
            _ => self.fail(number, now),
        }
    }

    /// The user wants a new generation (SIGHUP).
    pub(super) fn handle_reload(&mut self, now: Instant) {
        if self.stopping() || self.restart.is_some() {
            // The one that replaces the failed one will be new anyway.
        } else if self.coming() {
            self.reload_wanted = true;
        } else {
            self.start(true, now);
        }
    }

    /// The user sent SIGUSR1 (1) or SIGUSR2 (2).
    pub(super) fn handle_user(&mut self, signal: u8) {
        match self.serving() {
            Some(number) => self.tell(number, Role::Worker, Order::User(signal)),
            None => self.note(Note::NobodyServes),
        }
    }

    /// The user wants an end (SIGTERM, SIGINT): the second time at once.
    pub(super) fn handle_stop(&mut self, now: Instant) {
        if self.stopping() || self.rules.drain_timeout.is_zero() {
            self.stop_all(Finish::Stopped, now);
            return;
        }
        self.finish = Some(Finish::Stopped);
        self.restart = None;
        self.reload_wanted = false;
        self.drain_until = Some(now + self.rules.drain_timeout);
        self.note(Note::Draining(self.rules.drain_timeout));
        for (number, phase) in self.phases() {
            match phase {
                Phase::Starting(_) | Phase::Ready => self.kill(number, now),
                Phase::Serving(_) => self.retire(number, now),
                Phase::Finishing(_) => self.tell(number, Role::Worker, Order::Drain),
                // Drains when the broker has confirmed.
                Phase::Retiring(_) | Phase::Ending(_) => (),
            }
        }
        self.bury();
    }

    /// `deadline` has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.drain_until.is_some_and(|until| until <= now) {
            self.note(Note::DrainTimeout);
            self.stop_all(Finish::Stopped, now);
        }
        if self.restart.is_some_and(|at| at <= now) {
            self.restart = None;
            self.start(false, now);
        }
        for (number, phase) in self.phases() {
            self.kill_silent(number, now);
            self.handle_fetcher_timeout(number, now);
            if phase.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            match phase {
                Phase::Starting(_) => {
                    self.note(Note::NotReady(number));
                    self.fail(number, now);
                }
                Phase::Retiring(_) => {
                    self.note(Note::NotRetired(number));
                    self.fail(number, now);
                }
                Phase::Serving(_) | Phase::Finishing(_) => self.ping(number, now),
                Phase::Ending(_) => self.kill(number, now),
                Phase::Ready => (),
            }
        }
    }
}

/// Steps of a generation.
impl Generations {
    fn start(&mut self, reload: bool, now: Instant) {
        self.started += 1;
        let number = self.started;
        let finishing = |(_, phase): &(u64, Phase)| matches!(phase, Phase::Finishing(_));
        let finishing: Vec<_> = self.phases().into_iter().filter(finishing).collect();
        if let (Some((oldest, _)), true) = (finishing.first(), finishing.len() >= MAX_FINISHING) {
            self.note(Note::Crowded(*oldest));
            self.stop(*oldest, now);
        }
        let proxy = self.rules.proxy;
        self.live.push(Generation::new(number, reload, proxy, now));
        self.actions.push_back(Action::Start(number));
        if proxy {
            self.actions.push_back(Action::StartFetcher(number));
        }
    }

    /// Lets the one that is ready serve, if there is one.
    fn go(&mut self, now: Instant) {
        let ready = self
            .live
            .iter_mut()
            .find(|generation| generation.phase == Phase::Ready);
        let Some(generation) = ready else { return };
        let number = generation.number;
        let reloaded = generation.reload;
        let Some((broker, worker)) = generation.facts() else {
            return;
        };
        let fetcher = generation.fetcher.member.facts;
        generation.phase = Phase::Serving(now + self.rules.ping_every);
        self.ever_served = true;
        self.tell(number, Role::Broker, Order::Go);
        self.actions.push_back(Action::Announce {
            generation: number,
            reloaded,
            broker,
            worker,
            fetcher,
        });
        if std::mem::take(&mut self.reload_wanted) {
            self.start(true, now);
        }
    }

    fn retire(&mut self, number: u64, now: Instant) {
        if let Some(generation) = self.find(number) {
            generation.phase = Phase::Retiring(now + PATIENCE);
            self.tell(number, Role::Broker, Order::Retire);
            // It ends when the broker does, and takes that for no fault any more.
            if self.rules.proxy {
                self.tell(number, Role::Fetcher, Order::Retire);
            }
        }
    }

    fn ping(&mut self, number: u64, now: Instant) {
        let ping_every = self.rules.ping_every;
        let mut stuck = None;
        for role in Role::ALL {
            let Some(generation) = self.find(number) else {
                return;
            };
            let member = generation.member(role);
            if member.facts.is_none() {
                // A fetcher that is not ready, or none.
            } else if !member.pinged {
                member.pinged = true;
                self.tell(number, role, Order::Ping);
            } else {
                // Counted, not timed: after the whole machine stood still, all get new time.
                member.missed += 1;
                stuck = stuck.or((member.missed >= MAX_MISSED).then_some(role));
            }
        }
        if let Some(generation) = self.find(number) {
            generation.phase = generation.phase.next_ping(now + ping_every);
        }
        match stuck {
            None => (),
            Some(role) => {
                self.note(Note::Stuck(number, role, MAX_MISSED * ping_every));
                match role {
                    Role::Broker | Role::Worker => self.fail(number, now),
                    Role::Fetcher => self.kill_fetcher(number),
                }
            }
        }
    }

    /// A generation is of no use any more: ends it, and sees who serves then.
    fn fail(&mut self, number: u64, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        let phase = generation.phase;
        self.kill(number, now);
        self.bury();
        if self.stopping() {
            return;
        }
        match phase {
            // Nobody reads the listeners now: the next one can.
            Phase::Retiring(_) => self.go(now),
            Phase::Finishing(_) | Phase::Ending(_) => (),
            Phase::Starting(_) | Phase::Ready if self.serving().is_some() => {
                self.note(Note::ReloadFailed);
                if std::mem::take(&mut self.reload_wanted) {
                    self.start(true, now);
                }
            }
            _ if !self.ever_served => self.stop_all(Finish::NeverReady, now),
            _ => match self.failures.record(now) {
                None => self.stop_all(Finish::Unstable, now),
                // A reload was on its way already.
                Some(_) if self.coming() => (),
                Some(delay) => {
                    self.note(Note::Restarting(delay));
                    self.restart = Some(now + delay);
                }
            },
        }
    }

    /// Ends all generations, those that can be told by telling them.
    fn stop_all(&mut self, why: Finish, now: Instant) {
        self.finish = self.finish.or(Some(why));
        self.restart = None;
        self.drain_until = None;
        for (number, phase) in self.phases() {
            if !matches!(phase, Phase::Ending(_)) {
                self.stop(number, now);
            }
        }
    }

    /// Tells all to end. The broker last: the others would take its end for a failure.
    fn stop(&mut self, number: u64, now: Instant) {
        self.tell(number, Role::Worker, Order::Stop);
        if self.rules.proxy {
            self.tell(number, Role::Fetcher, Order::Stop);
        }
        self.tell(number, Role::Broker, Order::Stop);
        if let Some(generation) = self.find(number) {
            generation.stopped = true;
        }
        self.farewell(number, now);
    }

    /// Both should end now by themselves; they are killed if they do not.
    fn farewell(&mut self, number: u64, now: Instant) {
        if let Some(generation) = self.find(number) {
            generation.phase = Phase::Ending(now + FAREWELL);
        }
    }

    /// Kills what is left of a generation. A process that hangs in the kernel is killed again.
    fn kill(&mut self, number: u64, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        generation.phase = Phase::Ending(now + FAREWELL);
        let proxy = self.rules.proxy;
        for role in Role::ALL {
            if proxy || role != Role::Fetcher {
                self.actions.push_back(Action::Kill(number, role));
            }
        }
    }

    /// Kills those of a generation that closed their channel and do not end.
    fn kill_silent(&mut self, number: u64, now: Instant) {
        for role in Role::ALL {
            let Some(generation) = self.find(number) else {
                return;
            };
            if generation
                .member(role)
                .kill_at
                .take_if(|at| *at <= now)
                .is_some()
            {
                self.actions.push_back(Action::Kill(number, role));
            }
        }
    }

    /// Forgets generations without processes.
    fn bury(&mut self) {
        self.live.retain(|generation| !generation.is_gone());
    }
}

#[cfg(test)]
mod tests;
