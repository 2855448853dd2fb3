//! The fetcher of a generation: it is started again alone, and without it files are still served.

use std::time::Instant;

use super::generation::{FETCHER_PATIENCE, Generation, Member, Phase};
use super::{Action, Generations, Note};
use crate::control::Facts;
use crate::supervisor::process::{End, Role};

impl Generations {
    /// The process of [`Action::StartFetcher`] could not be started.
    pub(in crate::supervisor) fn handle_fetcher_start_failure(
        &mut self,
        number: u64,
        now: Instant,
    ) {
        self.fetcher_failed(number, now);
    }

    pub(super) fn handle_fetcher_ready(&mut self, number: u64, facts: Facts, now: Instant) {
        let accepted = self.rules.accept(&facts);
        let Some(Generation { fetcher, .. }) = self.find(number) else {
            return;
        };
        if fetcher.member.facts.is_some() {
            return self.breach(number, Role::Fetcher, "ready without being asked", now);
        }
        if let Err(reason) = accepted {
            return self.breach(number, Role::Fetcher, reason, now);
        }
        fetcher.member.facts = Some(facts);
        fetcher.ready_by = None;
        let is_again = std::mem::replace(&mut fetcher.settled, true);
        if is_again {
            self.note(Note::FetcherBack(number));
        }
        self.proceed(number, now);
    }

    /// The broker does not listen to its fetcher any more, which may have been captured.
    pub(super) fn handle_distrust(&mut self, number: u64, role: Role, now: Instant) {
        if role == Role::Broker && self.rules.proxy {
            self.kill_fetcher(number);
        } else {
            self.breach(number, role, "distrust of a fetcher it has not", now);
        }
    }

    /// The fetcher has ended and was waited for.
    pub(super) fn handle_fetcher_end(&mut self, number: u64, end: End, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        let (phase, expected) = (generation.phase, generation.expects(Role::Fetcher, end));
        if !expected {
            self.note(Note::Died(number, Role::Fetcher, end));
        }
        match (phase, end) {
            // It ends with its broker.
            (Phase::Ending(_), _) | (Phase::Finishing(_), End::Exited(0)) => {
                if let Some(generation) = self.find(number) {
                    generation.fetcher.member.ended = true;
                    generation.fetcher.ready_by = None;
                }
                self.bury();
            }
            _ => self.fetcher_failed(number, now),
        }
    }

    /// Starts fetchers whose time has come, kills those that are not ready in time.
    pub(super) fn handle_fetcher_timeout(&mut self, number: u64, now: Instant) {
        let Some(Generation { fetcher, phase, .. }) = self.find(number) else {
            return;
        };
        if matches!(phase, Phase::Ending(_)) {
            return;
        }
        if fetcher.ready_by.take_if(|by| *by <= now).is_some() {
            self.note(Note::FetcherNotReady(number));
            return self.kill_fetcher(number);
        }
        if fetcher.restart.take_if(|at| *at <= now).is_some() {
            fetcher.member.ended = false;
            fetcher.ready_by = Some(now + FETCHER_PATIENCE);
            self.actions.push_back(Action::StartFetcher(number));
        }
    }

    /// Ends a fetcher alone; the next one follows when it is gone.
    pub(super) fn kill_fetcher(&mut self, number: u64) {
        self.actions.push_back(Action::Kill(number, Role::Fetcher));
    }

    /// No fetcher runs now that should. A reload that brings none is of no use while the old
    /// generation has one; in any other case there are files to serve.
    fn fetcher_failed(&mut self, number: u64, now: Instant) {
        let is_reload = self.serving().is_some_and(|serving| serving != number);
        let Some(Generation { fetcher, phase, .. }) = self.find(number) else {
            return;
        };
        fetcher.member = Member {
            ended: true,
            ..Member::default()
        };
        fetcher.ready_by = None;
        fetcher.settled = true;
        match phase {
            Phase::Starting(_) if is_reload => self.fail(number, now),
            Phase::Ending(_) => self.bury(),
            _ => {
                let delay = fetcher.failures.record_patiently(now);
                fetcher.restart = Some(now + delay);
                self.note(Note::FetcherRestarting(number, delay));
                self.proceed(number, now);
            }
        }
    }
}
