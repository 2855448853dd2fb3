//! What the service manager could be told.

use super::*;
use crate::control::Counts;

impl Trial {
    fn state(&self) -> State {
        self.generations.overview().state
    }

    /// All processes of a generation are asked, and answer.
    fn round(&mut self, number: u64, broker: Counts, worker: Counts) {
        self.wait();
        self.report(number, Broker, Report::Counts(broker));
        self.report(number, Worker, Report::Counts(worker));
    }
}

fn requests(requests: u64) -> Counts {
    Counts {
        requests,
        ..Counts::default()
    }
}

fn transfers(transfers: u64) -> Counts {
    Counts {
        transfers,
        ..Counts::default()
    }
}

#[test]
fn the_state_follows_the_generations() {
    let mut trial = Trial::new();
    assert_eq!(trial.state(), State::Starting);
    trial.ready(1);
    assert_eq!(trial.state(), State::Serving);
    trial.generations.handle_reload(trial.now);
    trial.actions();
    assert_eq!(trial.state(), State::Reloading);
    trial.ready(2);
    assert_eq!(
        trial.state(),
        State::Reloading,
        "the old one may still read"
    );
    trial.report(1, Broker, Report::Retired);
    assert_eq!(trial.state(), State::Serving);
    trial.end(2, Worker, KILLED);
    assert_eq!(trial.state(), State::Recovering);
    trial.stop();
    assert_eq!(trial.state(), State::Stopping);
}

#[test]
fn a_reload_that_fails_ends_in_serving() {
    let mut trial = Trial::serving();
    trial.generations.handle_reload(trial.now);
    trial.end(2, Worker, KILLED);
    assert_eq!(trial.state(), State::Serving);
}

#[test]
fn a_round_is_complete_when_the_last_one_has_answered() {
    let mut trial = Trial::serving();
    let rounds = |trial: &Trial| trial.generations.overview().rounds;
    trial.wait();
    trial.report(1, Worker, Report::Counts(Counts::default()));
    assert_eq!(rounds(&trial), 0);
    trial.report(1, Broker, Report::Counts(Counts::default()));
    assert_eq!(rounds(&trial), 1);
    // The broker hangs from now on.
    for _ in 0..3 {
        trial.wait();
        trial.report(1, Worker, Report::Counts(Counts::default()));
    }
    assert_eq!(rounds(&trial), 1);
}

#[test]
fn an_old_generation_feeds_no_watchdog() {
    let mut trial = Trial::reloaded();
    trial.wait();
    for role in [Broker, Worker] {
        trial.report(1, role, Report::Counts(Counts::default()));
    }
    assert_eq!(trial.generations.overview().rounds, 0);
}

#[test]
fn requests_add_up_over_generations_and_transfers_are_those_there_are() {
    let mut trial = Trial::serving();
    trial.round(1, requests(10), transfers(4));
    trial.round(1, requests(15), transfers(3));
    let counts = trial.generations.overview().counts;
    assert_eq!((counts.requests, counts.transfers), (15, 3));
    trial.gone(1);
    trial.wait();
    trial.ready(2);
    trial.round(2, requests(5), transfers(1));
    let counts = trial.generations.overview().counts;
    assert_eq!((counts.requests, counts.transfers), (20, 1));
}

#[test]
fn figures_that_can_not_be_true_do_no_harm() {
    let mut trial = Trial::serving();
    trial.round(1, requests(u64::MAX), transfers(u64::MAX));
    trial.round(1, requests(0), transfers(u64::MAX));
    trial.round(1, requests(u64::MAX), transfers(u64::MAX));
    assert_eq!(trial.generations.overview().counts.requests, u64::MAX);
}
