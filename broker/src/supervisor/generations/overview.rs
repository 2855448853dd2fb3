//! All generations at a glance, for the service manager.

use super::generation::{Generation, Phase};
use super::{Generations, Role};
use crate::control::Counts;

/// How the service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) struct Overview {
    pub(in crate::supervisor) state: State,
    /// How often all processes of the generation that serves have answered a ping.
    pub(in crate::supervisor) rounds: u64,
    /// Transfers as they are, of all generations; requests and drops since the start of the
    /// service. As of the last pings.
    pub(in crate::supervisor) counts: Counts,
}

/// What the service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum State {
    /// Nobody has ever served.
    Starting,
    Serving,
    /// A new generation comes on the user's wish.
    Reloading,
    /// Nobody serves: the next generation is on its way.
    Recovering,
    Stopping,
}

impl Generations {
    /// How the service does now.
    pub(in crate::supervisor) fn overview(&self) -> Overview {
        Overview {
            state: self.state(),
            rounds: self.rounds,
            counts: self.totals(),
        }
    }

    fn state(&self) -> State {
        let reloading = |generation: &Generation| {
            generation.reload && matches!(generation.phase, Phase::Starting(_) | Phase::Ready)
        };
        if self.stopping() {
            State::Stopping
        } else if !self.ever_served {
            State::Starting
        } else if self.live.iter().any(reloading) {
            State::Reloading
        } else if self.serving().is_some() {
            State::Serving
        } else {
            State::Recovering
        }
    }

    fn totals(&self) -> Counts {
        let past = Counts {
            requests: self.requests,
            dropped: self.dropped,
            ..Counts::default()
        };
        let workers = self.live.iter().map(|generation| generation.worker.counts);
        workers.fold(past, |sum, worker| Counts {
            transfers: sum.transfers.saturating_add(worker.transfers),
            unproven: sum.unproven.saturating_add(worker.unproven),
            waiting: sum.waiting.saturating_add(worker.waiting),
            ..sum
        })
    }

    /// Takes new figures of a process. A captured one may report any number.
    pub(super) fn count(&mut self, number: u64, role: Role, counts: Counts) {
        let Some(generation) = self.find(number) else {
            return;
        };
        let before = std::mem::replace(&mut generation.member(role).counts, counts);
        if role == Role::Broker {
            let requests = counts.requests.saturating_sub(before.requests);
            let dropped = counts.dropped.saturating_sub(before.dropped);
            self.requests = self.requests.saturating_add(requests);
            self.dropped = self.dropped.saturating_add(dropped);
        }
        let serving = |generation: &&Generation| matches!(generation.phase, Phase::Serving(_));
        let serving = self.live.iter().find(serving);
        let all_answered = serving.is_some_and(|generation| {
            generation.number == number && !generation.members().iter().any(|member| member.pinged)
        });
        self.rounds = self.rounds.wrapping_add(all_answered.into());
    }
}
