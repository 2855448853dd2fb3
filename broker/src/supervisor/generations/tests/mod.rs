//! Generations with a clock of their own.

use nix::sys::signal::Signal;

use super::Role::{Broker, Worker};
use super::*;
use crate::control::Counts;
use crate::settings::Sandbox;

mod fetcher;
mod overview;
mod reload;
mod replace;
mod stop;

const FACTS: Facts = Facts {
    uid: 990,
    landlock_abi: 2,
    system_calls: 34,
    mdwe: false,
    no_new_privs: true,
    no_capabilities: true,
    openat2: true,
};

const SECOND: Duration = Duration::from_secs(1);
const KILLED: End = End::Killed(Signal::SIGKILL);

/// Generations with a clock of their own.
struct Trial {
    generations: Generations,
    now: Instant,
}

impl Trial {
    fn new() -> Self {
        Self::with(Sandbox::Strict, 5 * SECOND)
    }

    fn with(sandbox: Sandbox, drain_timeout: Duration) -> Self {
        let now = Instant::now();
        let rules = Rules {
            sandbox,
            uid: 990,
            drain_timeout,
            ping_every: 5 * SECOND,
            proxy: false,
        };
        let mut trial = Self {
            generations: Generations::new(rules, now),
            now,
        };
        assert_eq!(trial.actions(), [Action::Start(1)]);
        trial
    }

    /// One generation that serves.
    fn serving() -> Self {
        let mut trial = Self::new();
        let actions = trial.ready(1);
        assert_eq!(actions[0], Action::Tell(1, Broker, Order::Go));
        trial
    }

    /// The first finishes its transfers, the second serves.
    fn reloaded() -> Self {
        let mut trial = Self::serving();
        trial.generations.handle_reload(trial.now);
        assert_eq!(trial.actions(), [Action::Start(2)]);
        assert_eq!(trial.ready(2), [Action::Tell(1, Broker, Order::Retire)]);
        let actions = trial.report(1, Broker, Report::Retired);
        assert_eq!(actions[0], Action::Tell(1, Worker, Order::Retire));
        assert_eq!(actions[1], Action::Tell(2, Broker, Order::Go));
        assert!(matches!(
            actions[2],
            Action::Announce {
                generation: 2,
                reloaded: true,
                ..
            }
        ));
        trial
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.generations.poll_action()).collect()
    }

    fn report(&mut self, number: u64, role: Role, report: Report) -> Vec<Action> {
        self.generations
            .handle_report(number, role, report, self.now);
        self.actions()
    }

    fn ready(&mut self, number: u64) -> Vec<Action> {
        assert_eq!(self.report(number, Broker, Report::Ready(FACTS)), []);
        self.report(number, Worker, Report::Ready(FACTS))
    }

    fn end(&mut self, number: u64, role: Role, end: End) -> Vec<Action> {
        self.generations.handle_end(number, role, end, self.now);
        self.actions()
    }

    /// Both processes of a generation are gone.
    fn gone(&mut self, number: u64) {
        self.end(number, Broker, KILLED);
        self.end(number, Worker, KILLED);
    }

    fn stop(&mut self) -> Vec<Action> {
        self.generations.handle_stop(self.now);
        self.actions()
    }

    /// Lets time pass until the next deadline.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.generations.deadline().unwrap();
        self.generations.handle_timeout(self.now);
        self.actions()
    }

    fn finished(&self) -> Option<Finish> {
        self.generations.finished()
    }
}

fn kill(number: u64) -> [Action; 2] {
    [Action::Kill(number, Broker), Action::Kill(number, Worker)]
}

fn notes(actions: &[Action]) -> Vec<&Note> {
    actions.iter().filter_map(note).collect()
}

fn note(action: &Action) -> Option<&Note> {
    if let Action::Note(note) = action {
        Some(note)
    } else {
        None
    }
}
