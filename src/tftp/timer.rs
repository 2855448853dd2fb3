//! When a silent client is reminded, and when it is given up.

use std::time::{Duration, Instant};

use super::transfer::Limits;

/// Timeout, retry budget and silence limit of one transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    /// The server's own timeout.
    own: Duration,
    /// When the next resend is due; `None` = the client owes nothing.
    due: Option<Instant>,
    /// Since when the client owes an answer.
    since: Instant,
    retries: u32,
    max_retries: u32,
    /// Times the client was asked early since it acknowledged something new.
    probes: u8,
    /// Seconds the client asked for, 0 = none.
    asked: u8,
    proven: bool,
}

impl Timer {
    pub(super) fn new(limits: &Limits, asked: Option<u8>, now: Instant) -> Self {
        Self {
            own: limits.timeout.min(TIMEOUT_MAX),
            due: None,
            since: now,
            retries: 0,
            max_retries: limits.max_retries,
            probes: 0,
            asked: asked.unwrap_or(0),
            proven: false,
        }
    }

    /// The client owes an answer from now on, with a full retry budget.
    pub(super) fn start(&mut self, now: Instant) {
        self.since = now;
        self.due = Some(now + self.interval());
    }

    /// The next resend is due one timeout from now, and nothing is asked early any more.
    pub(super) fn restart(&mut self, now: Instant) {
        self.probes = PROBES;
        self.due = Some(now + self.interval());
    }

    /// The client owes nothing.
    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// The client acknowledged something new: its own timeout holds, the retry budget is full.
    pub(super) fn prove(&mut self) {
        self.proven = true;
        self.retries = 0;
        self.probes = 0;
    }

    pub(super) fn is_running(&self) -> bool {
        self.due.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.due?;
        Some(self.silence_ends().map_or(due, |end| due.min(end)))
    }

    /// The client has used up the silence that its own timeout gives it.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silence_ends().is_some_and(|end| now >= end)
    }

    /// Takes one resend out of the budget; `false` = it is empty.
    pub(super) fn spend_retry(&mut self) -> bool {
        let budget = if self.proven {
            self.max_retries
        } else {
            self.max_retries.min(RETRIES_UNPROVEN)
        };
        let left = self.retries < budget;
        self.retries += u32::from(left);
        left
    }

    /// How often the client was asked early so far; `None` = it owes nothing, or its timeout is to
    /// be waited for.
    pub(super) fn probes(&self) -> Option<u8> {
        (self.is_running() && self.probes < PROBES).then_some(self.probes)
    }

    /// The client is asked early; `true` = for the first time.
    pub(super) fn spend_probe(&mut self) -> bool {
        self.probes += 1;
        self.probes == 1
    }

    /// The timeout that holds: the server's own until the client is proven, for a forged request
    /// with a timeout of 255 s would hold its place for long.
    //= rfc2349#timeout-interval-option-specification
    pub(super) fn interval(&self) -> Duration {
        self.asked_interval().unwrap_or(self.own)
    }

    /// The timeout that the client asked for, once that holds.
    fn asked_interval(&self) -> Option<Duration> {
        (self.proven && self.asked > 0).then(|| Duration::from_secs(self.asked.into()))
    }

    /// When a client with a timeout of its own is given up, whatever is left of its retries. For
    /// all others the operator has chosen, by timeout and retries.
    fn silence_ends(&self) -> Option<Instant> {
        let interval = self.asked_interval()?;
        Some(self.since + (interval * SILENCE_TIMEOUTS).min(SILENCE_MAX))
    }
}

/// Longest timeout of the server itself.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Resends before the client is proven: a forged source address must not be hit with more than
/// these and the first packet.
const RETRIES_UNPROVEN: u32 = 3;
/// Times that a client is asked early before its timeout is waited for, each after twice the time
/// of the one before.
const PROBES: u8 = 5;
/// A client is given up after so many timeouts of its own without an answer.
const SILENCE_TIMEOUTS: u32 = 6;
/// No client may hold its place in silence for longer, whatever timeout it asked for.
const SILENCE_MAX: Duration = Duration::from_secs(30);
