//! What becomes of the reports of a process.

use std::time::Instant;

use super::generation::Phase;
use super::{Generations, Note};
use crate::control::{Counts, Facts, Order};
use crate::supervisor::process::Role;

impl Generations {
    pub(super) fn handle_ready(&mut self, number: u64, role: Role, facts: Facts, now: Instant) {
        if role == Role::Fetcher {
            return self.handle_fetcher_ready(number, facts, now);
        }
        let accepted = self.rules.accept(&facts);
        let Some(generation) = self.find(number) else {
            return;
        };
        let starting = matches!(generation.phase, Phase::Starting(_));
        let member = generation.member(role);
        if !starting || member.facts.is_some() {
            return self.breach(number, role, "ready without being asked", now);
        }
        if let Err(reason) = accepted {
            return self.breach(number, role, reason, now);
        }
        member.facts = Some(facts);
        self.proceed(number, now);
    }

    /// Lets a generation serve, once all that it waits for is there and nobody else reads.
    pub(super) fn proceed(&mut self, number: u64, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        if !matches!(generation.phase, Phase::Starting(_)) || generation.facts().is_none() {
            return;
        }
        generation.phase = Phase::Ready;
        match self.serving() {
            Some(old) => self.retire(old, now),
            // The last one has still to confirm that it stopped reading.
            None if self.retiring() => (),
            None => self.go(now),
        }
    }

    pub(super) fn handle_retired(&mut self, number: u64, role: Role, now: Instant) {
        let order = if self.stopping() {
            Order::Drain
        } else {
            Order::Retire
        };
        let ping_every = self.rules.ping_every;
        let Some(generation) = self.find(number) else {
            return;
        };
        if role != Role::Broker || !matches!(generation.phase, Phase::Retiring(_)) {
            return self.breach(number, role, "retired without being asked", now);
        }
        generation.phase = Phase::Finishing(now + ping_every);
        // Only now: all that the broker has read is on its way to the worker.
        self.tell(number, Role::Worker, order);
        self.go(now);
    }

    pub(super) fn handle_counts(&mut self, number: u64, role: Role, counts: Counts, now: Instant) {
        let Some(generation) = self.find(number) else {
            return;
        };
        let member = generation.member(role);
        if !member.pinged {
            return self.breach(number, role, "counts without being asked", now);
        }
        member.pinged = false;
        member.missed = 0;
        self.count(number, role, counts);
        self.note(Note::Counts(number, role, counts));
    }

    /// A process that breaks the protocol may be captured: it and its generation end. A fetcher
    /// ends alone: it holds nothing that the others need.
    pub(super) fn breach(&mut self, number: u64, role: Role, what: &'static str, now: Instant) {
        self.note(Note::Breach(number, role, what));
        match role {
            Role::Broker | Role::Worker => self.fail(number, now),
            Role::Fetcher => self.kill_fetcher(number),
        }
    }
}
